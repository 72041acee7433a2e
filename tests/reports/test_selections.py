"""What a selection kept, in the report of runs that made one and of runs that did not."""

import re

import pytest

from apportion.reports import write_report
from apportion.reports.selections import OF_THE_POOL, kept, selecting, summed_up
from apportion.reports.view import load
from tests.reports.synthetic import TASKS, UGLY, selection, write_comparison, write_run
from tests.reports.test_report import Page


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("selections")
    write_run(root / "uniform" / "seed-0", "uniform", records=10)
    write_run(root / "bm25" / "seed-0", "uniform", records=10, selection=selection(TASKS))
    write_run(root / "few" / "seed-0", "uniform", records=10, selection=selection(TASKS[:3], 0.5))
    return root


def test_a_row_a_task_and_a_column_for_each_arm_that_selects(root):
    view = load([root])
    assert [arm.name for arm in selecting(view)] == ["bm25", "few"]
    rows = dict(kept(view))
    assert list(rows) == list(view.sizes)
    assert [(cell.text, cell.note) for cell in rows["addition"]] == [
        ("1,600 of 8,000", "20 %"),
        ("4,000 of 8,000", "50 %"),
    ]
    assert rows[TASKS[5]][1].text == "–"


def test_the_page_says_how_much_was_kept_and_what_the_budget_is_of(root):
    said = re.sub(r"\s+", " ", Page(write_report(root).read_text("utf-8")).sections["selection"])
    assert OF_THE_POOL in said and all(name in said for name in UGLY)
    assert re.search(
        r"bm25 : bm25 kept 3\.46k of 17\.4k examples \(20 %\), 173k of 868k supervised tokens \(20 %\)", said
    )
    assert "Examples by reason: near a target 3,460, as filler 3." in said


def test_runs_that_keep_all_have_no_such_section(tmp_path):
    write_comparison(tmp_path, arms=("uniform",), seeds=(0,), records=10)
    assert "selection" not in Page(write_report(tmp_path).read_text("utf-8")).sections
    assert kept(load([tmp_path])) == summed_up(load([tmp_path])) == []


def test_what_a_selection_does_not_say_is_left_out(tmp_path):
    bare = {
        "type": "mine:Own",
        "pool": {"examples": 0},
        "kept": {"examples": 0},
        "tasks": {"empty": {"pool": 0, "kept": 0}},
    }
    write_run(tmp_path, "uniform", records=10, selection=bare)
    view = load([tmp_path])
    ((_, said),) = summed_up(view)
    assert said == "mine:Own"
    ((task, (cell,)),) = kept(view)
    assert (task, cell.text, cell.note) == ("empty", "0 of 0", "–")
    assert "mine:Own" in Page(write_report(tmp_path).read_text("utf-8")).sections["selection"]
