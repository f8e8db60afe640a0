"""The C++ encoder compiled for aarch64 and run by qemu, with a loaded library's functions."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import string_at
from pathlib import Path
from threading import Lock

from instruction_paths import EMULATOR, PATHS, compiler_of

from xtremely.engine.backends.native.library import (
    FLAGS,
    SOURCES,
    LinearStruct,
    ModelStruct,
    NormStruct,
)

SOURCE = Path(__file__).with_suffix(".cpp")


@contextmanager
def emulated(name: str, folder: Path) -> Iterator[Emulated]:
    """Compile a path into a folder, and run it."""
    program = folder / name
    flags = [one for one in FLAGS if one not in ("-shared", "-fPIC")]
    command = [compiler_of(name), *flags, "-static", f"-march={name}", f"-I{SOURCES}", SOURCE]
    subprocess.run([*command, "-o", program], check=True)
    command = [EMULATOR, "-cpu", PATHS[name].emulated, program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Emulated(process)


class Emulated:
    """Sends copies of all arguments to ``emulated.cpp``, and copies the results back."""

    def __init__(self, process: subprocess.Popen[bytes]):
        self._process = process
        self._lock = Lock()

    def columns(self) -> int:
        """As in encoder.cpp."""
        return int.from_bytes(self._call(b"c", 8), "little")

    def encode(
        self, model: ModelStruct, x: int, lengths: int, sequences: int, last: int, out: ctypes.Array
    ) -> None:
        """As in encoder.cpp, with addresses for pointers."""
        layers = model.layers[: model.count]
        counts = (ctypes.c_int64 * sequences).from_address(lengths)
        size = 4 * model.hidden  # bytes of a token's state
        parts = [bytes(model), *map(bytes, layers)]
        parts += [bytes((ctypes.c_int64 * 2)(sequences, last)), bytes(counts)]
        for layer in layers:
            for linear in (layer.qkv, layer.attention_out, layer.up, layer.down):
                parts += values_of(linear, model.int8)
            for norm in (layer.attention_norm, layer.norm):
                parts += [string_at(norm.weight, size), string_at(norm.bias, size)]
            if layer.rope:
                parts.append(string_at(layer.rope, max(counts) * size // model.heads))
        size *= sum(counts)
        found = self._call(b"e", size * (last + 2), *parts, string_at(x, size))
        for n, to in enumerate([x, *out]):
            if to:
                ctypes.memmove(to, found[n * size : (n + 1) * size], size)

    def embed(
        self,
        tokens: int,
        width: int,
        word_ids: int,
        position_ids: int,
        type_ids: int,
        words: int,
        positions: int | None,
        types: int | None,
        norm: NormStruct,
        eps: float,
        out: int,
    ) -> None:
        """As in encoder.cpp, with addresses for pointers; of tables, the rows that are needed."""
        ids = [
            (ctypes.c_int64 * tokens).from_address(one)
            for one in (word_ids, position_ids, type_ids)
        ]
        tables = (words, positions, types)
        rows = [max(one) + 1 if table else 0 for one, table in zip(ids, tables, strict=True)]
        size = 4 * width
        found = self._call(
            b"b",
            size * tokens,
            bytes((ctypes.c_int64 * 5)(tokens, width, *rows)),
            *map(bytes, ids),
            *(string_at(table, size * n) for table, n in zip(tables, rows, strict=True) if n),
            string_at(norm.weight, size),
            string_at(norm.bias, size),
            bytes(ctypes.c_float(eps)),
        )
        ctypes.memmove(out, found, len(found))

    def product_int8(self, values: int, scale: int, count: int, linear: object, out: int) -> None:
        """As in encoder.cpp, with addresses for pointers, and a reference to the layer."""
        layer: LinearStruct = linear._obj
        found = self._call(
            b"p",
            4 * count * layer.outputs,
            bytes(layer),
            *values_of(layer, True),
            count.to_bytes(8, "little"),
            string_at(values, count * layer.inputs),
            string_at(scale, 4 * count),
        )
        ctypes.memmove(out, found, len(found))

    def _call(self, function: bytes, size: int, *arguments: bytes) -> bytes:
        """The results, of ``size`` bytes together."""
        with self._lock:
            self._process.stdin.write(b"".join([function, *arguments]))
            self._process.stdin.flush()
            found = self._process.stdout.read(size)
        assert len(found) == size, f"the program ended with {self._process.wait()}"
        return found


def values_of(linear: LinearStruct, int8: bool) -> list[bytes]:
    """What the pointers of a layer that are not null point to."""
    sizes = [
        (linear.weight, linear.inputs * linear.outputs * (1 if int8 else 4)),
        (linear.bias, 4 * linear.outputs),
        (linear.scale, 4 * linear.outputs),
        (linear.zero_point_correction, 4 * linear.outputs),
        (linear.input_scale, 4 * linear.inputs),
    ]
    return [string_at(address, size) for address, size in sizes if address]
