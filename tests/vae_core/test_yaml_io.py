"""YAML 1.2 scalars, duplicate keys, the environment, and places in messages."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vae_core.errors import UserError
from vae_core.yaml_io import dump_yaml, load_yaml, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("-2", -2),
        ("010", 10),
        ("1:30", "1:30"),
        ("off", "off"),
        ("yes", "yes"),
        ("True", True),
        ("~", None),
        ("2020-01-01", "2020-01-01"),
        ("'1e-3'", "1e-3"),
    ],
)
def test_scalars_are_read_as_yaml_1_2_says(text: str, value: object) -> None:
    read = parse_yaml(f"key: {text}", "file")["key"]
    assert read == value
    assert type(read) is type(value)


def test_infinity_and_nan_are_numbers() -> None:
    read = parse_yaml("[.inf, -.inf, .nan]", "file")
    assert read[0] == math.inf
    assert read[1] == -math.inf
    assert math.isnan(read[2])


def test_a_key_written_twice_is_refused_with_its_line() -> None:
    with pytest.raises(UserError, match=r"sweep\.yaml, line 3, column 3: the key 'beta' is written twice"):
        parse_yaml("loss:\n  beta: 1\n  beta: 2\n", "sweep.yaml")


def test_broken_yaml_is_one_message_with_its_line() -> None:
    with pytest.raises(UserError, match=r"sweep\.yaml, line 2, column \d+") as caught:
        parse_yaml("a: [1,\nb: {", "sweep.yaml")
    assert len(caught.value.messages) == 1


def test_the_environment_fills_whole_values_with_their_type_and_parts_as_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WIDTH", "64")
    read = parse_yaml("{a: '${env:WIDTH}', b: 'w${env:WIDTH}px'}", "file")
    assert read == {"a": 64, "b": "w64px"}


def test_a_default_stands_for_a_variable_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    monkeypatch.setenv("BETA", "4")
    read = parse_yaml("{a: '${env:NOT_SET,0.5}', b: '/data${env:NOT_SET,}/x', c: '${env:BETA,0.5}'}", "file")
    assert read == {"a": 0.5, "b": "/data/x", "c": 4}


def test_an_unset_variable_is_refused_with_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(UserError, match=r"file: data\.path: the environment variable 'NOT_SET' is not set"):
        parse_yaml("data: {path: '${env:NOT_SET}/x'}", "file")


def test_a_missing_file_is_a_users_mistake(tmp_path: object) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml: cannot be read"):
        load_yaml(tmp_path / "nowhere.yaml")  # type: ignore[operator]


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="$", exclude_categories=("C",)))
trees = st.recursive(
    scalars | texts, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)


@given(trees)
def test_what_is_dumped_is_read_back_equal(tree: object) -> None:
    read = parse_yaml(dump_yaml(tree), "dump")
    assert read == tree
    assert repr(read) == repr(tree)  # types too: 1 is not 1.0


@pytest.mark.parametrize("text", ["a: !!int abc", "a: &a {x: *a}", "a: " + "9" * 5000, "[" * 3000])
def test_what_no_loader_can_hold_is_a_users_mistake_too(text: str) -> None:
    with pytest.raises(UserError, match=r"^file"):
        parse_yaml(text, "file")


def test_merge_keys_work() -> None:
    assert parse_yaml("base: &b {x: 1}\nmore: {<<: *b, y: 2}", "file")["more"] == {"x": 1, "y": 2}
