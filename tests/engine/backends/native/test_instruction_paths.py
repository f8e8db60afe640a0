"""The C++ on every path of instructions, against its references in fp64 and in whole numbers.

Small encoders with values that ordinary ones rarely have: a mean far from 0, scores far apart, the
whole range of GELU. Lengths around every width of a vector, tile, panel and block.
"""

import ctypes
import re
from contextlib import ExitStack
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from emulated import emulated
from extreme_encoders import (
    below_zero,
    far_means,
    far_scores,
    low_scores,
    nothing_left,
    wide_gelu,
)
from instruction_paths import (
    PATHS,
    compiler_of,
    executable,
    imitating,
    missing,
    uncompilable,
    unrunnable,
)

from xtremely.engine.backends.native import encoder as native
from xtremely.engine.backends.native import library as native_library
from xtremely.engine.backends.native.encoder import (
    NativeEncoder,
    panels,
    unavailable_reason,
    unsupported_reason,
)
from xtremely.engine.models import bert, modernbert
from xtremely.engine.models.families import family_of
from xtremely.engine.models.ops import TORCH
from xtremely.engine.quantization.int8 import INT8_LENGTH, Int8Encoder, Int8Linear, Rows
from xtremely.engine.quantization.smoothquant import activation_absmax
from xtremely.engine.text.batch import collate
from xtremely.engine.text.tokenizer import Tokens

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())
CPU = torch.device("cpu")
# Tiles have 6, 10, 12 or 32 rows, vectors 4 to 16 lanes, panels 8 to 32 columns, blocks 144 tokens.
LENGTHS = [150, 66, 48, 33, 32, 31, 18, 17, 16, 15, 13, 12, 11, 9, 8, 7, 6, 5, 4, 3, 2, 1]
PLAIN = replace(bert.FAMILY.native.trial, intermediate=800, max_length=300)
MODERN = replace(
    modernbert.FAMILY.native.trial,
    layers=4,
    intermediate=416,
    max_length=300,
    thetas=(1e4, 1e2, 1e5, 10.0),
    windows=(None, 1, 9, 40),
)


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    """A path's library, compiled once."""
    with ExitStack() as emulators:

        @cache
        def compiled(name):
            if executable(name):
                return native_library.library(name)
            to = tmp_path_factory.mktemp("paths")
            if PATHS[name].emulated:
                return emulators.enter_context(emulated(name, to))
            flags, source = [*native_library.FLAGS, *imitating(name)], native_library.SOURCES
            native_library._run("g++", *flags, str(source / "encoder.cpp"), "-o", str(to / "it.so"))
            return native_library.opened(to / "it.so")

        yield compiled


@pytest.fixture(params=PATHS)
def path(request, libraries, monkeypatch):
    """All that is encoded in C++ takes this path."""
    reason = unrunnable(request.param)
    if reason:
        pytest.skip(reason)
    monkeypatch.setattr(native, "library", lambda: libraries(request.param))
    native._try.cache_clear()
    yield libraries(request.param)
    native._try.cache_clear()


# For tests in fp32: later paths of aarch64 differ from the first in int8 only.
in_fp32 = pytest.mark.parametrize(
    "path", [name for name in PATHS if not re.search("dotprod|i8mm", name)], indirect=True
)


def batch_of(lengths):
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.random.default_rng(0).integers(0, 50, offsets[-1])
    return collate(Tokens(ids, ids % 2, offsets, 0), np.arange(len(lengths)))


def encoder(config, change=None):
    """An encoder with random weights, biases and norms, changed layer by layer."""
    rng = torch.Generator().manual_seed(0)
    made = family_of(config).encoder(config)
    for name, parameter in made.requires_grad_(False).named_parameters():
        parameter.normal_(std=0.2, generator=rng)
        if "norm.weight" in name:
            parameter += 1
    if change is not None:
        change(made)
    return made.eval()


CHANGES = [None, far_means, far_scores, low_scores, wide_gelu, nothing_left]


def test_every_path_passes_the_self_check(path):
    assert unavailable_reason(CPU) is None


@pytest.mark.parametrize(
    ("path", "columns"),
    [
        ("haswell", 16),
        ("skylake-avx512", 32),
        ("icelake-server", 32),
        ("sapphirerapids", 32),
        ("alderlake", 16),
        ("armv8-a", 8),
        ("armv8.2-a+dotprod", 8),
        ("armv8.2-a+i8mm", 8),
    ],
    indirect=["path"],
)
def test_a_path_is_what_it_is_called(path, columns):
    assert path.columns() == columns


@in_fp32
@pytest.mark.parametrize("config", [PLAIN, MODERN], ids=["bert", "modernbert"])
@pytest.mark.parametrize("change", CHANGES)
def test_every_state_is_nearly_as_exact_as_torchs(path, config, change):
    made, plain, exact = reference(config, change)
    assert unsupported_reason(config, "fp32") is None
    found = NativeEncoder(made)(batch_of(LENGTHS), [*exact])
    for layer, state in exact.items():
        near(found[layer], plain[layer], state)


@cache
def reference(config, change, lengths=tuple(LENGTHS)):
    """An encoder, its states in torch's fp32, and in fp64."""
    made, batch, layers = encoder(config, change), batch_of(lengths), range(config.layers + 1)
    plain, exact = (one(batch, layers, TORCH) for one in (made, encoder(config, change).double()))
    return made, plain, exact


def near(found, plain, exact):
    """At most thrice torch's error in fp32, and the precision's own noise."""
    ours, theirs = ((one - exact).abs() for one in (found, plain))
    unit = 2**-23 * exact.abs().max()
    assert ours.max() <= 3 * theirs.max() + 2 * unit
    assert ours.pow(2).mean().sqrt() <= 3 * theirs.pow(2).mean().sqrt() + unit / 4


@in_fp32
@pytest.mark.parametrize(("hidden", "heads"), [(192, 1), (192, 2), (448, 2)])
@pytest.mark.parametrize("eps", [1e-12, 0.5])
def test_other_sizes(path, hidden, heads, eps):
    """Heads of 96 and more, sums before GELU in two and three parts, an epsilon that shows; one
    layer, so that nothing hides an error.
    """
    config = replace(PLAIN, layers=1, hidden=hidden, heads=heads, intermediate=96, eps=eps)
    lengths = (40, 13, 12, 6, 5)
    made, plain, exact = reference(config, None, lengths)
    near(NativeEncoder(made)(batch_of(lengths), [1])[1], plain[1], exact[1])


@in_fp32
@pytest.mark.parametrize("change", [wide_gelu, nothing_left])
@pytest.mark.parametrize("activation", ["gelu_tanh", "quick_gelu", "relu", "silu"])
def test_other_activations(path, activation, change):
    """From far below 0 to far above, plain and gated."""
    lengths = (40, 13, 2)
    for config in (PLAIN, replace(MODERN, thetas=(1e4,), windows=(None,))):
        config = replace(config, layers=1, intermediate=96, activation=activation)
        made, plain, exact = reference(config, change, lengths)
        near(NativeEncoder(made)(batch_of(lengths), [1])[1], plain[1], exact[1])


@in_fp32
@pytest.mark.parametrize("bits", [0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0x7FFF8000, -1])
def test_no_nan_is_lost(path, bits):
    """Some would be 0 after rounding to bf16 in whole numbers."""
    made = encoder(replace(PLAIN, layers=1, intermediate=96))
    made.layers[0].up.weight[0, 0] = torch.tensor([bits], dtype=torch.int32).view(torch.float32)[0]
    assert NativeEncoder(made)(batch_of([40, 3]), [1])[1].isnan().all()


@in_fp32
@pytest.mark.parametrize("window", [0, 1, 7, 16, 33, 299])
def test_windows(path, window):
    """A token sees as many others to either side, and itself; by hand, in fp64."""
    config = replace(MODERN, layers=1, thetas=(100.0,), windows=(window,))
    lengths = (90, 40, 33, 18, 2, 1)
    made, plain, exact = reference(config, None, lengths)
    torch.testing.assert_close(by_hand(config, lengths), exact[1], rtol=0, atol=5e-5)
    near(NativeEncoder(made)(batch_of(lengths), [1])[1], plain[1], exact[1])


@cache
def by_hand(config, lengths):
    """ModernBERT's only layer from its formulas: complex numbers turn, a dense mask hides."""
    made, batch = encoder(config).double(), batch_of(lengths)
    (layer,), at = made.layers, batch.position_ids
    whose = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    seen = (whose[:, None] == whose) & ((at[:, None] - at).abs() <= config.windows[0])
    x = made.embeddings.words[batch.input_ids]
    x = torch.nn.functional.layer_norm(
        x, x.shape[1:], made.embeddings.norm.weight, made.embeddings.norm.bias, 1e-5
    )
    dim = x.shape[1] // layer.heads
    q, k, v = layer.qkv(x).view(len(x), 3, layer.heads, dim).permute(1, 2, 0, 3)
    speeds = layer.theta ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    turns = torch.polar(torch.ones(len(x), dim // 2).double(), batch.position_ids[:, None] * speeds)

    def turned(value):
        both = torch.complex(value[..., : dim // 2], value[..., dim // 2 :]) * turns
        return torch.cat([both.real, both.imag], dim=-1)

    scores = turned(q) @ turned(k).transpose(1, 2) / dim**0.5
    shares = scores.masked_fill(~seen, -torch.inf).softmax(dim=-1)
    mixed = layer.attention_out((shares @ v).transpose(0, 1).reshape(len(x), -1))
    x = x + mixed
    wide, gate = layer.up(layer.attention_norm(x)).chunk(2, dim=1)
    x = x + layer.down(torch.special.ndtr(wide) * wide * gate)
    return layer.norm(x)


def test_a_sequence_is_itself_in_any_company(path):
    """To the bit, in fp32 and int8."""
    few = replace(PLAIN, layers=1, intermediate=96)
    windows = replace(MODERN, layers=1, thetas=(10.0,), windows=(9,))
    for made in (encoder(few), encoder(windows), whole(encoder(few), batch_of(LENGTHS))):
        run, last = NativeEncoder(made), [1]
        (together,) = run(batch_of(LENGTHS), last).values()
        start = 0
        for length in LENGTHS:
            stop = start + length
            (alone,) = run(part_of(batch_of(LENGTHS), start, stop), last).values()
            assert torch.equal(alone, together[start:stop]), length
            start = stop


def part_of(batch, start, stop):
    """A batch of one of its sequences."""
    ids, types = (one[start:stop].numpy() for one in (batch.input_ids, batch.type_ids))
    return collate(Tokens(ids, types, np.array([0, stop - start]), 0), np.arange(1))


def whole(made, batch):
    return Int8Encoder(made, activation_absmax(made, batch)[0])


@pytest.mark.parametrize("change", [*CHANGES, below_zero])
@pytest.mark.parametrize("family", [PLAIN, MODERN], ids=["bert", "modernbert"])
def test_int8_takes_its_references_steps(path, family, change):
    """A value in the middle between two steps may fall the other way; the others may not."""
    config = replace(family, layers=1, intermediate=96)
    batch = batch_of([1] * 40 + [2] * 20)
    reference = whole(encoder(config, change), batch)
    found, expected = NativeEncoder(reference)(batch, [1])[1], reference(batch, [1], TORCH)[1]
    size = expected.abs().max()
    apart = (found - expected).abs().amax(dim=1)
    assert (apart <= 1e-5 * size).double().mean() > 0.6
    assert apart.max() <= 0.1 * size


@pytest.mark.parametrize(
    "config", [PLAIN, replace(MODERN, thetas=(10.0,), windows=(9,))], ids=["bert", "modernbert"]
)
def test_attention_in_int8_takes_its_references_steps(path, config):
    """In long sequences, seen whole and through a window; the self-check would miss wrong bytes."""
    config = replace(config, layers=1, intermediate=96)
    batch = batch_of([150, 66, 48, 33, INT8_LENGTH])
    reference = whole(encoder(config), batch)
    found, expected = NativeEncoder(reference)(batch, [1])[1], reference(batch, [1], TORCH)[1]
    size = expected.abs().max()
    apart = (found - expected).abs().amax(dim=1)
    assert (apart <= 1e-5 * size).double().mean() > 0.9
    assert apart.max() <= 0.1 * size


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("inputs", [800, 832])
def test_products_in_int8_are_exact(path, shifted, extreme, inputs):
    """Also where every byte is at its most: nothing overflows on the way. AMX takes multiples of 64
    inputs.
    """
    torch.manual_seed(0)
    module = Int8Linear(torch.nn.Linear(inputs, 64).requires_grad_(False), shifted=shifted)
    if extreme:
        module.weight[:8], module.weight[8:16] = 32, -32
        module.weight[16:24, ::2], module.weight[16:24, 1::2] = 64, -64
        module.weight[24:32] = torch.tensor([126, 0, 0, 126, 0, 0, 0, 0]).repeat(inputs // 8)
    for count in (*range(1, 14), 23, 24, 25, 31, 32, 33, 70):
        bits = torch.randint(0, 2, (count, inputs)) * 255
        values = bits if extreme else torch.randint(0, 256, (count, inputs))
        values[-1] = 255
        rows = Rows(values.to(torch.uint8), torch.rand(count, 1) + 0.5)
        y = (
            rows.values.double() @ module.weight.double().T * module.scale
            - module.zero_point_correction
        )
        exact = y * rows.scale + module.bias
        assert (product(path, module, rows) - exact).abs().max() <= 3e-7 * 255 * inputs, count


@pytest.mark.parametrize(
    "path", [name for name in PATHS if name not in ("haswell", "skylake-avx512")], indirect=True
)
def test_products_need_no_small_weights(path):
    """Every byte times every weight, and sums of the largest: whole numbers, rounded once. Two
    paths take small weights only; see smoothquant.quantize_in_fours.
    """
    every = torch.arange(256, dtype=torch.uint8)[:, None].expand(256, 4)
    levels = torch.arange(-128, 128).clamp(min=-127).to(torch.int8)[:, None].expand(256, 4)
    largest = torch.tensor([0, 255, 127, 128], dtype=torch.uint8)[:, None]
    signs = torch.tensor([[127, 127], [-127, -127], [127, -127], [0, 127]], dtype=torch.int8)
    extremes = [(largest.expand(4, n), signs.repeat(8, n // 2)) for n in (800, 832)]
    for values, weight in ((every, levels), (every.repeat(1, 16), levels.repeat(1, 16)), *extremes):
        module = Int8Linear(torch.nn.Linear(weight.shape[1], len(weight)))
        module.weight = weight
        module.scale.fill_(1)
        module.zero_point_correction.zero_()
        module.bias.zero_()
        found = product(path, module, Rows(values, torch.ones(len(values), 1)))
        exact = values.numpy().astype("i8") @ weight.numpy().astype("i8").T
        np.testing.assert_array_equal(found.numpy(), exact.astype("f4"))


def product(library, linear, rows):
    """A product as the C++ does it, from packed weights."""
    weight = panels(linear.weight, library.columns())
    out = torch.empty(len(rows.values), len(linear.weight))
    tensors = [weight, linear.bias, linear.scale, linear.zero_point_correction, linear.input_scale]
    struct = native_library.LinearStruct(
        *(one.data_ptr() for one in tensors), linear.weight.shape[1], len(linear.weight)
    )
    values, scale = rows.values.contiguous(), rows.scale.contiguous()
    library.product_int8(
        values.data_ptr(), scale.data_ptr(), len(out), ctypes.byref(struct), out.data_ptr()
    )
    return out


PRODUCTS = {  # the instruction that multiplies bytes
    "haswell": r"vpmaddubsw\s+%ymm",
    "skylake-avx512": r"vpmaddubsw\s+%zmm",
    "icelake-server": r"vpdpbusd\s+%zmm",
    "sapphirerapids": r"tdpbusd\s+%tmm",
    "alderlake": r"\{vex\} vpdpbusd\s+%ymm",
    "armv8-a": r"smull2\s+v\d+\.8h",
    "armv8.2-a+dotprod": r"\bsdot\s+v\d+\.4s",
    "armv8.2-a+i8mm": r"\busdot\s+v\d+\.4s",
}


@pytest.mark.parametrize("name", PATHS)
def test_every_path_has_its_own_instructions(name, tmp_path):
    """Compiled to the end, also for a processor that is not this one: 512 bits only where they are,
    VNNI and AMX wherever they are; on aarch64 products of four bytes wherever they are.
    """
    if uncompilable(name):
        pytest.skip(uncompilable(name))
    source, out = str(native_library.SOURCES / "encoder.cpp"), tmp_path / "encoder.s"
    flags = [*native_library.FLAGS, f"-march={name}", "-O0", "-S"]
    native_library._run(compiler_of(name), *flags, source, "-o", str(out))
    found = out.read_text()
    also = {"icelake-server"} if name == "sapphirerapids" else set()  # for other sizes
    assert {one for one, pattern in PRODUCTS.items() if re.search(pattern, found)} == {name} | also
    assert ("%zmm" in found) == ("AVX512BW" in PATHS[name].imitated)
