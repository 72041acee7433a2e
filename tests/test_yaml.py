"""YAML 1.2 in recipes and run folders: what is text stays text, and what is written reads back."""

import datetime

import pytest
import yaml

from apportion import ApportionError
from apportion._yaml import dump_yaml, load_yaml
from apportion.runs import RunFolder, read_run

WORDS = [
    "yes",
    "no",
    "on",
    "off",
    "y",
    "n",
    "Yes",
    "NO",
    "On",
    "OFF",
    "1:30",
    "2024-01-31",
    "1_000",
    "0b11",
    "nul",
    "=",
]
PLAIN = [
    ("true", True),
    ("False", False),
    ("null", None),
    ("~", None),
    ("", None),
    ("0123", 123),
    ("08", 8),
    ("0o17", 15),
    ("0x1F", 31),
    ("-3", -3),
    ("+3", 3),
    ("2e-4", 2e-4),
    ("1e5", 1e5),
    ("1.5", 1.5),
    (".5", 0.5),
    ("5.", 5.0),
    ("-.inf", float("-inf")),
    ("5%", "5%"),
    ("1e17 FLOPs", "1e17 FLOPs"),
    ("'true'", "true"),
    ('"12"', "12"),
]


@pytest.mark.parametrize("word", WORDS)
def test_what_only_yaml_1_1_takes_for_something_else_is_text(word):
    assert load_yaml(f"a: {word}", "It") == {"a": word}
    assert load_yaml(f"{word}: 1", "It") == {word: 1}
    assert load_yaml(f"[{word}, x]", "It") == [word, "x"]


@pytest.mark.parametrize(("text", "value"), PLAIN)
def test_plain_values_are_those_of_yaml_1_2(text, value):
    read = load_yaml(f"a: {text}", "It")["a"]
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    "value", [*WORDS, *(text for text, _ in PLAIN), "0o17", "1e5", "<<", "-", " a", "a: b", "ä", "\t"]
)
def test_text_is_written_so_that_both_versions_read_text(value):
    text = dump_yaml({value: [value, {"x": value}]})
    assert load_yaml(text, "It") == yaml.safe_load(text) == {value: [value, {"x": value}]}


@pytest.mark.parametrize("value", [1, -1, 1.0, 1e-5, 1e22, 0.1, True, False, None, [], {}, "no"])
def test_values_are_read_back_as_they_were_written(value):
    read = load_yaml(dump_yaml({"a": value}), "It")["a"]
    assert read == value and type(read) is type(value)


def test_a_run_folder_keeps_such_names(tmp_path):
    recipe = {"mixture": {"type": "fixed", "shares": {"no": 0.5, "1e5": 0.25, "0o17": 0.25}}, "tasks": {"path": "1:30"}}
    with RunFolder.create(tmp_path / "run", recipe) as folder:
        assert folder.recipe == recipe
    assert read_run(tmp_path / "run").recipe == recipe
    with RunFolder.create(tmp_path / "run", recipe) as folder:
        assert folder.resumed


def test_anchors_and_merges_are_kept():
    text = "base: &base {a: 1, b: 2}\nother: {<<: *base, a: 3}\nthird: {<<: *base}\n"
    assert load_yaml(text, "It") == {"base": {"a": 1, "b": 2}, "other": {"a": 3, "b": 2}, "third": {"a": 1, "b": 2}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "It is not valid YAML at line 3: the key 'a' stands twice."),
        ("x:\n  a: 1\n  'a': 3\n", "It is not valid YAML at line 3: the key 'a' stands twice."),
        ("x: [{no: 1, no: 2}]", "at line 1: the key 'no' stands twice."),
        ("[" * 5000 + "]" * 5000, "at line 1: more than 64 levels of nesting."),
        ("{a: " * 3000 + "1" + "}" * 3000, "more than 64 levels"),
        ("\n".join(" " * n + "a:" for n in range(2000)), "more than 64 levels"),
        ("- " * 3000 + "a", "more than 64 levels"),
        ("a: " + "9" * 5000, "at line 1: a number of 5,000 digits."),
        ("a: 0x" + "f" * 5000, "a number of 5,002 digits."),
        ("a: !!int '1:30'", "'1:30' is no whole number"),
        ("a: !!float x", "It is not valid YAML: "),
        ("a: !!timestamp 2024-13-41", "It is not valid YAML"),
        ("a: {b", "It is not valid YAML at line 1."),
        ("a: !!python/object:os.system x", "It is not valid YAML at line 1."),
        ("a: \0", "It is not valid YAML."),
    ],
)
def test_what_is_no_recipe_is_one_sentence(text, said):
    with pytest.raises(ApportionError) as raised:
        load_yaml(text, "It")
    assert said in str(raised.value) and "\n" not in str(raised.value) and len(str(raised.value)) < 200


def test_depth_within_reason_is_taken():
    assert load_yaml("[" * 60 + "]" * 60, "It")
    assert load_yaml("a: !!timestamp 2024-01-31", "It")["a"] == datetime.date(2024, 1, 31)
