"""What make and CI go by names only what exists: the slow tests, and the oldest versions."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import SLOW

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.mark.parametrize("name", SLOW)
def test_a_slow_test_exists(name):
    file, _, test = name.partition("::")
    source = (TESTS / file).read_text("utf-8")
    assert not test or re.search(rf"^(def|class) {test}\b", source, re.MULTILINE)


def test_every_folder_has_fast_tests():
    files = [file.relative_to(TESTS) for file in TESTS.rglob("test_*.py")]
    fast = [file for file in files if file.as_posix() not in SLOW]
    # An outsider's package has one file, of whole comparisons.
    assert {file.parent for file in fast} == {file.parent for file in files} - {Path("outsider")}


def test_the_marker_goes_to_what_is_named_and_to_nothing_else():
    here = ("tests/test_examples.py", "tests/test_yaml.py", "tests/recipes")
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "slow", *here]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    collected = {line.partition("[")[0].removeprefix("tests/") for line in found.splitlines() if "::" in line}
    named = {name for name in SLOW if name.startswith("recipes/")}
    assert {name for name in collected if not name.startswith("test_examples.py::")} == named
    assert collected > named


def bounds(lines):
    """Return the lower bound that each requirement states."""
    return {line.partition(">=")[0]: re.split("[,;]", line.partition(">=")[2])[0] for line in lines}


def pins(file):
    lines = (ROOT / file).read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_the_oldest_versions_are_the_lower_bounds():
    extras = PROJECT["optional-dependencies"]
    stated = bounds(
        [*PROJECT["dependencies"], *extras["bm25"], *extras["embedding"], *extras["minhash"], *extras["regmix"]]
    )
    oldest = pins("constraints-oldest.txt")
    # One build of torch serves all: an older one is not tried.
    assert oldest.pop("torch") == pins("constraints.txt")["torch"]
    stated.pop("torch")
    assert oldest == stated


def test_a_bound_is_read_from_every_form():
    assert bounds(["a>=5.23,<6", "b-c>=4", "d>=1.2; python_version>'3'"]) == {"a": "5.23", "b-c": "4", "d": "1.2"}
