"""JSON and TOML from outside: every fault is one line with the file and the field."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xtremely.files.documents import NO_OTHER_KEYS, fit, line_of, parse_json, read_json, read_toml
from xtremely.kernels.guard import InputError


@dataclass(frozen=True)
class Phase:
    __pydantic_config__ = NO_OTHER_KEYS
    name: str
    rates: tuple[float, ...] = ()


@dataclass(frozen=True)
class Recipe:
    phase: tuple[Phase, ...]
    seed: int = 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("[" * 66 + "]" * 66, "nested too deeply"),
        ("[1" + "0" * 5000 + "]", "a number is too long; legal: at most 4,300 digits"),
        ('{"seed": 1, "seed": 2}', "'seed' occurs twice"),
        ('{"seed": NaN}', "NaN is not finite"),
        ('{"seed": -Infinity}', "-Infinity is not finite"),
        ('{"seed": 1e999}', "1e999 is not finite"),
        ('{"phase": [{"name": "\\ud83d"}]}', "lone surrogate"),
        ('{"\\udc00": 1}', "lone surrogate"),
        ("{", "f.json:1: broken JSON"),
        ('{\n"seed": x}', "f.json:2: broken JSON"),
        ("", "broken JSON"),
        ("null", "the file's value is None"),
        ("[]", "the file's value is []"),
        ("{}", "'phase' is missing"),
        ('{"phase": [], "seed": "1"}', "'seed' is '1'; legal: a valid integer"),
        ('{"phase": [], "seed": true}', "'seed' is True; legal: a valid integer"),
        ('{"phase": [{"name": null}]}', "'phase[0].name' is None; legal: a valid string"),
        ('{"phase": [{"name": "a", "rates": ["x"]}]}', "'phase[0].rates[0]' is 'x'"),
        ('{"phase": [{"name": "a", "nmae": 1}]}', "unknown key 'phase[0].nmae'"),
    ],
)
def test_a_fault_in_json_is_named(text, complaint):
    with pytest.raises(InputError) as caught:
        parse_json(text, Recipe, "f.json")
    assert complaint in str(caught.value)
    assert str(caught.value).startswith("f.json") and "\n" not in str(caught.value)


def test_a_number_of_any_json_shape_reaches_its_float_field():
    assert parse_json('{"phase": [{"name": "a", "rates": [1, 2.5]}]}', Recipe, "f").phase == (
        Phase("a", (1.0, 2.5)),
    )


def test_a_whole_surrogate_pair_is_one_character():
    assert parse_json('"\\ud83d\\ude00"', str, "f") == "😀"


def test_a_value_in_a_complaint_is_short_and_printable():
    with pytest.raises(InputError) as caught:
        parse_json(json.dumps({"phase": [], "seed": "\x1b[31m" + "y" * 10_000}), Recipe, "f.json")
    assert len(str(caught.value)) < 200 and "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[[phase]]\nname = "a"\n\n[[phase]]\nname = "b"\nrates = [1, "x"]\n', ":6: 'phase[1].rat"),
        ('[[phase]]\nname = "a"\nnmae = 1\n', ":3: unknown key 'phase[0].nmae'"),
        ('[[phase]]\nname = "a"\n[[phase]]\nrates = []\n', ":3: 'phase[1].name' is missing"),
        ("phase = 3\n", ":1: 'phase' is 3"),
        ("seed = 1\n", "'phase' is missing"),
        ("x = " + "[" * 100_000, "nested too deeply"),
        ("x = 1" + "0" * 5000, "a number is too long; legal: at most 4,300 digits"),
        ("x = 0x" + "f" * 5000, "x: a number is too long"),
        ("x = \n", "not TOML"),
    ],
)
def test_a_fault_in_toml_is_named_with_its_line(tmp_path, text, complaint):
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(InputError, match="r.toml") as caught:
        read_toml(path, Recipe)
    assert complaint in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "utf16").write_bytes('{"seed": 1}'.encode("utf-16"))
    (tmp_path / "big").write_bytes(b" " * 10_000)
    for name, complaint in [
        ("utf16", "not UTF-8"),
        ("big", "10,000 bytes"),
        ("none", "No such file"),
        (".", "directory"),
    ]:
        with pytest.raises(InputError, match=complaint):
            read_json(tmp_path / name, dict, max_bytes=9_999)


def test_what_has_no_end_is_not_read_to_it():
    with pytest.raises(InputError, match="/dev/zero: 10,000 bytes; a file of this kind has at"):
        read_json(Path("/dev/zero"), dict, max_bytes=9_999)


def test_a_byte_order_mark_is_no_part_of_the_json(tmp_path):
    (tmp_path / "f").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "f", dict[str, int]) == {"a": 1}


def test_parsed_values_are_checked_like_files():
    with pytest.raises(InputError, match=r"x: 'seed' is 1.5"):
        fit({"phase": [], "seed": 1.5}, Recipe, "x")


def test_lines_of_nested_tables():
    text = "[a]\nx = 1\n[[a.b]]\ny = 1\n[[a.b]]\nz = 2\n[c]\nx = 3\n"
    assert line_of(text, ("a", "x")) == 2
    assert line_of(text, ("a", "b", 0, "y")) == 4
    assert line_of(text, ("a", "b", 1, "z")) == 6
    assert line_of(text, ("a", "b", 1, "missing")) == 5
    assert line_of(text, ("c", "x")) == 8


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_any_json_value_fits_or_is_refused(value):
    try:
        found = parse_json(json.dumps(value), Recipe, "f.json")
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(found, Recipe)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    path: Path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(data)
    for read in (read_json, read_toml):
        try:
            read(path, object)
        except InputError as error:
            assert str(path) in str(error)
