"""A run's curve of answers against thinking, on the page: every number as its file has it, used tokens and not budgets."""

import re

import pytest

from apportion.reports import write_report
from apportion.reports.kv import kv_curves
from apportion.reports.thinking import thinking_curves
from apportion.reports.view import load
from apportion.runs.schema import dump_file
from apportion.runs.thinking import area, interval
from tests.reports.reinforced import PROMPTS, cells, standing
from tests.reports.synthetic import write_run
from tests.reports.test_kv import cell, write_curve
from tests.reports.test_report import Page

WIDE = (0, 4, 8, 12, 16, 24, 32, 40, 48)


def write_thinking(path, found, **more):
    settings = {"model": "x", "prompts": PROMPTS, "budget": {}, "batch_size": 1, "metric": "exact"}
    (path / "curve.json").write_text(dump_file({"settings": settings, "device": "cpu", "cells": found} | more))


@pytest.fixture
def run(tmp_path):
    write_run(tmp_path / "run", "adapt", records=10)
    return tmp_path / "run"


def shown(path):
    return re.sub(r"\s+", " ", Page(write_report(path).read_text("utf-8")).sections.get("thinking", ""))


def test_points_stand_at_the_tokens_used_with_their_intervals(run):
    found = cells("dense", standing(0.3, budgets=WIDE))
    free = dict(found[-1], thinking=None, used=23.5, score=1.0, error=0.0, forced=0.0, inserted=0.0)
    write_thinking(run, [free, *found[::-1]])
    (curve,) = thinking_curves(load([run]))
    ((line, said),) = curve.lines
    ordered = [*found, free]
    assert line.mean == [(c["used"], c["score"]) for c in ordered]
    spans = [interval(c["score"], c["error"], PROMPTS) for c in ordered]
    assert line.low == [(c["used"], low) for c, (low, _) in zip(ordered, spans, strict=True)]
    assert line.high == [(c["used"], high) for c, (_, high) in zip(ordered, spans, strict=True)]
    assert said == f"{area(line.mean, 48):.3f}"  # worked out where the file has none
    assert not curve.crossed and [row.budget for row in curve.rows] == [*map(str, WIDE), "no limit"]
    assert [(row.score, row.forced) for row in curve.rows] == [
        (f"{c['score']:.3f}", f"{100 * c['forced']:.0f} %") for c in ordered
    ]
    assert "budget 16, 30 % cut off" in curve.chart and "no limit, 0 % cut off" in curve.chart
    text = shown(run)
    assert "200 prompts" in text and "dense, area" in text and "0.98–1.00" in text
    assert "thinking tokens used" in text and "Thinking budget" in text


def test_the_area_is_the_files(run):
    write_thinking(run, cells("dense", standing(0.3)), area={"dense": 0.4321})
    assert "dense, area 0.432" in shown(run)


def test_a_line_for_each_cache_and_budget_of_it(run):
    crossed = []
    for name, kv in (("dense", None), ("quest", "64 tokens"), ("quest", "32 tokens")):
        crossed += [dict(c, name=name, kv=kv) for c in cells("x", standing(0.3))]
    write_thinking(run, crossed, area={"quest, 32 tokens": 0.25})
    (curve,) = thinking_curves(load([run]))
    assert [line.name for line, _ in curve.lines] == ["dense", "quest, 64 tokens", "quest, 32 tokens"]
    assert [said for _, said in curve.lines][2] == "0.250" and len(curve.rows) == 12 and curve.crossed
    text = shown(run)
    assert "quest 32 tokens, 100 kB a step" in text and "dense all, 100 kB a step" in text


def test_cells_without_thinking_stand_where_they_stood(run):
    write_thinking(run, [cell("dense", None, 0.9, 1e6), cell("quest", "64 tokens", 0.8, 1e5)])
    assert thinking_curves(load([run])) == [] and len(kv_curves(load([run]))[0].rows) == 2
    assert shown(run) == ""
    both = [cell("quest", "64 tokens", 0.8, 1e5), *cells("dense", standing(0.3))]
    write_thinking(run, both)
    assert len(kv_curves(load([run]))[0].rows) == 1 and len(thinking_curves(load([run]))[0].rows) == 4
    write_thinking(run, cells("dense", standing(0.3)))
    assert kv_curves(load([run])) == []


def test_a_curve_that_was_stopped_in_its_first_cell_is_shown(run):
    write_thinking(run, cells("dense", standing(0.3))[:1])
    (curve,) = thinking_curves(load([run]))
    assert len(curve.rows) == 1 and curve.lines[0][1] == "–" and 'class="line' not in curve.chart
    write_thinking(run, [])
    assert thinking_curves(load([run])) == [] == kv_curves(load([run]))


def test_the_ledger_shows_generated_tokens_only_where_there_are_some(run):
    write_curve(run)
    page = Page(write_report(run).read_text("utf-8"))
    assert "Inserted" not in page.sections["ledger"]
