# make run   set up, then evaluate the packaged model and write runs/demo (DATA=folder MODEL=name TASKS=names OUT=folder)
# make test  set up, then the whole test suite
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

.PHONY: run test gpu lint clean

run: $(READY)
	$(BIN)/xtremely eval --model $(MODEL) --tasks $(TASKS) $(if $(DATA),--data-root $(DATA)) --out $(OUT)

test: $(READY)
	$(BIN)/ruff check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

gpu:
	$(PYTHON) -c "import xtremely.bench.gpu" 2>/dev/null || $(PYTHON) -m pip install --quiet --no-deps --no-build-isolation -e .
	$(PYTHON) -m xtremely.bench.gpu

lint: $(READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "torch" "setuptools"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[cpu,demo,bench,dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) build *.egg-info
