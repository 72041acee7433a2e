"""A run's curve of answers against bytes read, on the page: what the file says, and whose it is."""

import json
import re

import pytest

from apportion.reports import write_report
from apportion.reports.kv import kv_curves
from apportion.reports.view import load
from apportion.runs import read_run
from apportion.runs.schema import dump_file
from tests.reports.synthetic import write_comparison, write_run
from tests.reports.test_report import Page


def cell(name, kv, score, read, host=0, **settings):
    return {
        "name": name, "cache": {"type": name, **settings}, "kv": kv, "tokens": None, "score": score, "error": 0.0125,
        "read_a_step": read, "resident_peak": int(2 * read), "side_peak": 0, "host_peak": host, "moved_a_step": 0.0,
        "sums": {},
    }  # fmt: skip


CELLS = [
    cell("dense", None, 0.875, 2.5e6),
    cell("quest", "64 tokens", 0.625, 4.5e5, dense_layers=2),
    cell("quest", "128 tokens", 0.75, 8.5e5, dense_layers=2),
    cell("flexicache", "64 tokens", 0.5, 3e5, host=7_000_000),
    cell("<my> cache", "25%", 0.25, 1e5),
]


def write_curve(path, cells=CELLS, metric="exact"):
    settings = {"model": "x", "prompts": 40, "budget": {"answer": 8}, "batch_size": 1, "metric": metric}
    (path / "curve.json").write_text(dump_file({"settings": settings, "device": "cpu", "cells": cells}))
    return path


@pytest.fixture
def run(tmp_path):
    write_run(tmp_path / "run", "adapt", records=10)
    return write_curve(tmp_path / "run")


def section(path):
    return re.sub(r"\s+", " ", Page(write_report(path).read_text("utf-8")).sections["kv"])


def test_the_record_has_what_the_file_says(run):
    told = json.loads((run / "curve.json").read_text())
    assert told.pop("schema") == 1 and read_run(run).curve == told
    (run / "curve.json").unlink()
    assert read_run(run).curve is None


def test_every_cell_stands_in_the_table_and_every_method_in_the_chart(run):
    (curve,) = kv_curves(load([run]))
    assert [(row.cache, row.budget, row.score, row.error) for row in curve.rows] == [
        ("dense", "all", "0.875", "0.013"),
        ("quest", "64 tokens", "0.625", "0.013"),
        ("quest", "128 tokens", "0.750", "0.013"),
        ("flexicache", "64 tokens", "0.500", "0.013"),
        ("<my> cache", "25%", "0.250", "0.013"),
    ]
    assert [row.read for row in curve.rows] == ["2.5 MB", "450 kB", "850 kB", "300 kB", "100 kB"]
    assert [row.host for row in curve.rows] == ["", "", "", "7 MB", ""]
    assert {line.name: line.mean for line in curve.series} == {
        "quest": [(4.5e5, 0.625), (8.5e5, 0.75)],
        "flexicache": [(3e5, 0.5)],
        "<my> cache": [(1e5, 0.25)],
    }
    assert "dense, 2.5 MB a step" in curve.chart and 'class="goal"' in curve.chart
    said = section(run)
    assert "adapt, seed 0" in said and "40 prompts" in said and "<my> cache" in said
    assert "quest reads the first 2 layers whole." in said and "and 7 MB on the host" in said


def test_bytes_lie_evenly_by_their_logarithm(run):
    write_curve(run, [cell("dense", None, 1.0, 1e6), *(cell("exact", f"{i}%", 0.1 * i, 10.0**i) for i in (4, 5, 6))])
    (curve,) = kv_curves(load([run]))
    hover = json.loads(re.search(r'data-hover="([^"]*)"', curve.chart)[1].replace("&#34;", '"'))
    (a, b, c) = (point[0] for point in hover["series"][0]["points"])
    assert b - a == pytest.approx(c - b, abs=0.2) and b > a


def test_of_several_runs_of_an_arm_the_first_is_shown_and_named(tmp_path):
    write_comparison(tmp_path, arms=("uniform", "adapt"), seeds=(0, 1, 2), records=10)
    for seed in (1, 2):
        write_curve(tmp_path / "adapt" / f"seed-{seed}")
    (curve,) = kv_curves(load([tmp_path]))
    assert curve.whose == "adapt, seed 1"
    assert "Of 2 runs of this arm that have a curve the first is shown, seed 1." in section(tmp_path)
    write_curve(tmp_path / "uniform" / "seed-0", metric="agreement")
    assert [c.whose for c in kv_curves(load([tmp_path]))] == ["uniform, seed 0", "adapt, seed 1"]
    assert "Agreement with the dense answer" in section(tmp_path)


def test_without_one_or_before_its_first_cell_there_is_no_such_section(run):
    write_curve(run, [])
    assert "kv" not in Page(write_report(run).read_text("utf-8")).sections
    (run / "curve.json").unlink()
    assert "kv" not in Page(write_report(run).read_text("utf-8")).sections


@pytest.mark.parametrize("cells", [CELLS[:1], [cell("dense", None, 0.5, 0.0), cell("quest", "4 tokens", 0.5, 0.0)]])
def test_one_that_has_just_begun_or_read_nothing_is_drawn(run, cells):
    write_curve(run, cells)
    assert "dense" in section(run)
