"""Compiles all kernels for several GPUs, without having one, and records what they use.

Triton compiles for any target on any machine. Every shipped configuration is compiled for the
targets below. Registers, shared memory, spills, asynchronous copies and matrix instructions are
read from the binaries and compared with the record in ``compiled.json``, also in a test.

    python -m xtremely.kernels.inspection          compile everything, show differences
    python -m xtremely.kernels.inspection --write  also write the result as the new record
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

from xtremely.kernels.guard import InputError, require
from xtremely.kernels.spec import Launch, all_kernels

RECORD = Path(__file__).parent / "compiled.json"
TARGETS = {"sm_80": ("cuda", 80, 32), "sm_90": ("cuda", 90, 32), "gfx942": ("hip", "gfx942", 64)}
# Target -> registers, threads and bytes of shared memory of a multiprocessor.
LIMITS = {"sm_80": (65536, 2048, 163 * 1024), "sm_90": (65536, 2048, 227 * 1024)}
ALIGNED = "tt.divisibility"
# Name in the record -> pattern of the instruction.
SASS = {
    "hgmma": r"\b[HQ]GMMA\.",  # QGMMA is for fp8
    "hmma": r"\bHMMA\.",
    "tma": r"\bUTMA",
    "wide_loads": r"\bLDG\S*\.128",
}
ASYNC = r"\bLDGSTS\b"  # asynchronous copies to shared memory; recorded where there are any
GCN = {"mfma": r"\bv_mfma_", "wide_loads": r"\b(global|buffer)_load_dwordx4\b"}

Row = dict[str, Any]


def rows() -> Iterator[tuple[str, str]]:
    """Names of every configuration ("kernel: launch") and target."""
    for name, kernel in all_kernels().items():
        for target, launch in ((t, one) for t in TARGETS for one in kernel.launches(t)):
            yield f"{name}: {launch.name}", target


def compiled(configuration: str, target: str) -> Row:
    """Compile one configuration for one target and read the properties of the binary."""
    require(
        os.environ.get("TRITON_INTERPRET", "0") in ("", "0"),
        "TRITON_INTERPRET is set, so kernels do not compile; unset it",
    )
    import triton
    from triton.backends.compiler import GPUTarget

    kernel, name = configuration.split(": ", 1)
    launch = next(item for item in all_kernels()[kernel].launches(target) if item.name == name)
    config = launch.config
    source = triton.compiler.ASTSource(
        launch.function,
        signature={
            argument: launch.signature.get(argument, "constexpr")
            for argument in launch.function.arg_names
        },
        constexprs={**launch.constants, **config.constants},
        attrs=_attributes(launch),
    )
    options = {"num_warps": config.warps, "num_stages": config.stages}
    binary = triton.compile(source, target=GPUTarget(*TARGETS[target]), options=options)
    if target == "gfx942":
        return _read_gcn(binary.asm["amdgcn"], binary.metadata.shared)
    return _read_cubin(binary.asm["cubin"], target, config.warps, binary.metadata.shared)


def _attributes(launch: Launch) -> dict[tuple[int], list]:
    """Declare pointers, strides and widths as multiples of 16, which allows wide loads."""
    return {
        (place,): [[ALIGNED, 16]]
        for place, argument in enumerate(launch.function.arg_names)
        if launch.signature.get(argument, "").startswith("*")
        or argument.startswith("stride")
        or argument in ("N", "K")
    }


def _read_cubin(cubin: bytes, target: str, warps: int, shared: int) -> Row:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = _cuobjdump("-res-usage", file.name)
        code = _cuobjdump("-sass", file.name)
    registers, stack = _number(r"REG:(\d+)", usage), _number(r"STACK:(\d+)", usage)
    spills = len(re.findall(r"\b(?:STL|LDL)\b", code))
    counts = {name: len(re.findall(pattern, code)) for name, pattern in SASS.items()}
    if copies := len(re.findall(ASYNC, code)):
        counts["async_copies"] = copies
    total, threads, memory = LIMITS[target]
    per_warp = -(-registers * 32 // 256) * 256  # registers are allocated in blocks of 256
    resident = min(total // (per_warp * warps), threads // (32 * warps), 32)
    if shared:
        resident = min(resident, memory // shared)
    return {
        "registers": registers,
        "spills": spills,
        "stack": stack,
        "shared": shared,
        **counts,
        "occupancy": round(100 * resident * warps * 32 / threads),
    }


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise InputError(f"a compiled kernel does not say {pattern!r}; this triton is not known")
    return int(found[1])


def _cuobjdump(option: str, path: str) -> str:
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    require(tool.exists(), f"{tool} is missing; this triton came without its NVIDIA tools")
    done = subprocess.run([tool, option, path], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def _read_gcn(code: str, shared: int) -> Row:
    def meta(name: str) -> int:
        return _number(rf"\.{name}:\s+(\d+)", code)

    return {
        "registers": meta("vgpr_count"),
        "spills": meta("vgpr_spill_count"),
        "stack": meta("private_segment_fixed_size"),
        "shared": shared,
        **{name: len(re.findall(pattern, code)) for name, pattern in GCN.items()},
    }


def compile_all(wanted: Sequence[tuple[str, str]], pool: Executor) -> dict[str, dict[str, Row]]:
    """Compile configurations for targets, named as by ``rows``, in the processes of a pool.

    Returns:
        configuration -> target -> properties of the binary.

    Raises:
        InputError: kernels are interpreted in those processes, not compiled.
    """
    table: dict[str, dict[str, Row]] = {}
    read = pool.map(compiled, *zip(*wanted, strict=True))
    for (configuration, target), row in zip(wanted, read, strict=True):
        table.setdefault(configuration, {})[target] = row
    return table


def read_record() -> dict[str, Any]:
    """The record: {"triton": version, "table": a result of ``compile_all``}."""
    return json.loads(RECORD.read_text(encoding="utf-8"))


def differences(old: dict[str, dict[str, Row]], new: dict[str, dict[str, Row]]) -> list[str]:
    """One line for each configuration and target that differs."""
    lines = []
    for configuration in sorted({*old, *new}):
        for target in TARGETS:
            was = old.get(configuration, {}).get(target)
            now = new.get(configuration, {}).get(target)
            if was == now:
                continue
            if was is None or now is None:
                lines.append(f"{configuration}, {target}: {'new' if was is None else 'gone'}")
                continue
            changes = [
                f"{key} {was.get(key)} -> {now.get(key)}"
                for key in sorted({*was, *now})
                if was.get(key) != now.get(key)
            ]
            lines.append(f"{configuration}, {target}: {', '.join(changes)}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Compile and compare; write the record if asked, else return 1 if something differs."""
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # Triton's default now, about to change
    import triton

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="keep the result as the record")
    given = parser.parse_args(arguments)
    with ProcessPoolExecutor() as pool:
        table = compile_all(list(rows()), pool)
    old = read_record()["table"] if RECORD.exists() else {}
    lines = differences(old, table)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    if given.write:
        document = {"triton": triton.__version__, "table": table}
        RECORD.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        return 0
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
