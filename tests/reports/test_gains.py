"""Who gains and who loses: what is drawn of few and of many tasks, and what may be called beyond chance."""

import pytest

from apportion.reports import write_report
from apportion.reports.gains import Change, bars, changes, compared, ends, said
from apportion.reports.view import load
from tests.reports.synthetic import TASKS, write_comparison, write_run
from tests.reports.test_claims import Tree


def changed(n, targets=0):
    return [Change(f"task-{i}", i < targets, (i - n / 2) / n, 0.1, True) for i in range(n)]


def test_bars_start_in_the_middle_and_stay_inside():
    drawn = bars(
        [Change("a", False, -0.4, 0.1, True), Change("b", False, 0.2, None, False), Change("c", False, 0.0, 0.1, False)]
    )
    assert [bar.bar for bar in drawn] == [pytest.approx((10, 40)), pytest.approx((50, 20)), pytest.approx((50, 0))]
    assert [bar.whisker for bar in drawn] == [pytest.approx((0, 20)), pytest.approx((70, 0)), pytest.approx((40, 20))]
    assert [(bar.text, bar.error) for bar in drawn] == [("−0.400", "± 0.100"), ("+0.200", ""), ("+0.000", "± 0.100")]
    assert bars([]) == [] and bars([Change("a", False, 0.0, 0.0, False)])[0].bar == (50, 0)


@pytest.mark.parametrize("n", [5, 20, 40])
def test_as_many_tasks_as_read_well_are_all_shown(n):
    assert [bar.change.task for bar in ends(bars(changed(n)))] == [f"task-{i}" for i in range(n)]


def test_of_very_many_the_targets_and_both_ends_are_shown():
    shown = [bar.change.task for bar in ends(bars(changed(100, targets=3)))]
    assert shown == [f"task-{i}" for i in (*range(18), *range(85, 100))]
    assert len({bar.change.task for bar in ends(bars(changed(41, targets=15)))}) == 41


def test_the_rest_of_very_many_is_a_fold_away(tmp_path):
    write_comparison(
        tmp_path, arms=("uniform", "adapt"), seeds=(0, 1), records=10, tasks=[f"task-{i}" for i in range(60)]
    )
    page = Tree(write_report(tmp_path).read_text("utf-8"))
    assert "Of 60 tasks, those at both ends." in page.text("gains") and "The table of all 60 tasks" in page.text(
        "gains"
    )
    assert len(page.rows["gains"]) == (1 + 30) + (1 + 60)


def test_one_seed_is_beyond_nothing(tmp_path):
    write_comparison(tmp_path, arms=("uniform", "adapt"), seeds=(0,), records=10, shift=dict.fromkeys(TASKS, -1.0))
    view = load([tmp_path])
    found = changes(view, view.arm("adapt"))
    assert len(found) == 20 and not any(change.beyond for change in found) and all(change.error for change in found)
    assert "beyond chance" not in said(view)[0][1]


def test_runs_of_older_versions_have_no_errors_over_examples(tmp_path):
    write_comparison(tmp_path / "one", arms=("uniform", "adapt"), seeds=(0,), records=10, old=True)
    write_comparison(tmp_path / "two", arms=("uniform", "adapt"), seeds=(0, 1), records=10, old=True)
    for name, known in (("one", False), ("two", True)):
        view = load([tmp_path / name])
        assert {change.error is not None for change in changes(view, view.arm("adapt"))} == {known}


def test_plain_arms_alone_are_compared_with_the_best_of_them(tmp_path):
    write_comparison(tmp_path / "plain", arms=("uniform", "proportional", "upsample"), seeds=(0, 1), records=10)
    view = load([tmp_path / "plain"])
    assert compared(view).name in {"uniform", "proportional", "upsample"} - {view.baseline.name}
    write_run(tmp_path / "alone", "adapt", records=10)
    assert compared(load([tmp_path / "alone"])) is None and said(load([tmp_path / "alone"])) == []
    for arm, limit in (("uniform", 60_000), ("adapt", 30_000)):
        write_comparison(tmp_path / "unlike", arms=(arm,), seeds=(0,), records=10, limit=limit)
    assert compared(load([tmp_path / "unlike"])) is None
    assert "gains" not in Tree(write_report(tmp_path / "unlike").read_text("utf-8")).ids
