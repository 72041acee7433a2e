"""Every example runs as a reader would run it, from any folder, and leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def test_examples_are_numbered_and_short():
    assert [file.name[:3] for file in EXAMPLES] == [f"{number:02d}_" for number in range(1, len(EXAMPLES) + 1)]
    assert len(EXAMPLES) >= 4
    assert {file.name for file in EXAMPLES if len(file.read_text("utf-8").splitlines()) >= 120} == set()


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_example_runs(file, tmp_path):
    here, cache = tmp_path / "here", tmp_path / "cache"
    here.mkdir()
    environment = {**os.environ, "APPORTION_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, file], cwd=here, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert list(here.iterdir()) == []
