# make run   set up, then evaluate the packaged model and write runs/demo (DATA=folder MODEL=name TASKS=names OUT=folder)
# make check set up, then everything that CI runs: lint and the whole test suite
# make lint  ruff, clang-format, and mypy (make types)
# make test  the test suite, or a part of it: make test ARGS="tests/retrieval -k margin"
#             (two workers, one thread each: threads that wait for each other on a busy machine spin)
# make gpu   kernels and encoder on this machine's GPU, with what is installed
PYTHON ?= python3
VENV   ?= .venv
MODEL  ?= e5-small-4bit
DATA   ?= $(wildcard ../shared/data)
OUT    ?= runs/$(if $(DATA),xtreme,mini)
TASKS  ?= $(if $(DATA),all,mini)
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed
PARTS  := kernels files engine retrieval eval bench

.PHONY: run check lint types test gpu clean

run: $(READY)
	$(BIN)/xtremely eval --model $(MODEL) --tasks $(TASKS) $(if $(DATA),--data-root $(DATA)) --out $(OUT)

check: lint test

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror engine/backends/native/cpp/* bench/*.c
	@$(MAKE) --no-print-directory types

types: $(READY)
	@mkdir -p build/types/xtremely
	@for part in $(PARTS); do ln -sfn ../../../$$part build/types/xtremely/$$part; done
	$(BIN)/python -m mypy $(PARTS:%=-p xtremely.%)

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

gpu:
	$(PYTHON) -c "import xtremely.bench.gpu" 2>/dev/null || $(PYTHON) -m pip install --quiet --no-deps --no-build-isolation -e .
	$(PYTHON) -m xtremely.bench.gpu

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "torch" "setuptools"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[cpu,demo,bench,dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) build *.egg-info
