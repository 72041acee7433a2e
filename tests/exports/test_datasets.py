"""The script for datasets, run as a user would run it."""

import json
import os
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from apportion.exports import EXPORTERS
from apportion.exports.datasets import normalised
from tests.exports.handed import DRAWN, handed


@pytest.fixture
def folder(tmp_path):
    """An exported folder, its rows made up."""
    told = handed()
    (tmp_path / "data").mkdir()
    for task in told.tasks:
        rows = [{"prompt": f"{task.share.name} {i}\n", "completion": str(i)} for i in range(task.rows)]
        (tmp_path / task.file).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    written = EXPORTERS.build({"type": "datasets"}, "trainer").write(told)
    for file, text in written.files.items():
        (tmp_path / file).write_text(text, "utf-8")
    return tmp_path


@pytest.fixture
def script(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    spec = spec_from_file_location("mixture", folder / "mixture.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_says_what_it_draws(folder, tmp_path):
    environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, folder / "mixture.py"], cwd="/", env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    drawn = [int(count.replace(",", "")) for count in re.findall(r": ([\d,]+) rows", done.stdout)]
    assert len(drawn) == 3 and sum(drawn) == sum(count for _, count in DRAWN.values())


def test_shares_of_many_draws_are_those_of_the_run(script):
    total = sum(count for _, count in DRAWN.values())
    drawn = [row["task"] for row in script.mixture(4000)]
    for name, (_, count) in DRAWN.items():
        share = count / total
        # Four standard deviations of a binomial share.
        assert abs(drawn.count(name) / 4000 - share) < 4 * (share * (1 - share) / 4000) ** 0.5


def test_rows_come_in_whole_passes_and_the_same_ones_each_time(script):
    rows = list(script.mixture())
    assert rows == list(script.mixture())
    small = [row["prompt"] for row in rows if row["task"] == "a, b"]
    assert len(set(small[:10])) == 10 and set(small) == set(small[:10])
    assert set(rows[0]) == {"prompt", "completion", "task"}


def test_shares_sum_to_one_whatever_was_drawn():
    for draws in ([1, 1, 1], [7, 3, 10**9], [1] * 19, [5]):
        shares = normalised(draws)
        assert sum(shares) == pytest.approx(1, abs=1e-15) and min(shares) > 0
