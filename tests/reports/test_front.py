"""The front in a report: who is on it, what is said of it, and when it is not drawn."""

import re
from itertools import pairwise

import pytest

from apportion.reports import terminal_table, write_report
from apportion.reports.bargains import no_gains
from apportion.reports.front import front_chart
from apportion.reports.view import load
from apportion.runs import summarise
from tests.reports import synthetic
from tests.reports.synthetic import write_comparison, write_run
from tests.reports.test_report import Page
from tests.reports.test_terminal import printed

ARMS = ("uniform", "proportional", "adapt")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_comparison(tmp_path_factory.mktemp("front"), arms=ARMS, seeds=(0, 1), records=10)


def section(path, out=None):
    return re.sub(r"\s+", " ", Page(write_report(path, out).read_text("utf-8")).sections.get("front", ""))


def shapes(chart, name):
    return re.findall(rf'<path d="([^"]*)" class="{name}', chart)


def test_the_chart_has_a_mark_a_name_and_whiskers_for_each_arm(root):
    chart = front_chart(load([root]))
    assert len(re.findall('class="mark ', chart)) == 3
    for arm in ARMS:
        assert f">{arm}</text>" in chart
    assert len(shapes(chart, "whisker")) == 3  # every seed cost the same: ranges of the loss alone


def test_the_steps_go_down_through_the_arms_on_the_front(root):
    chart = front_chart(load([root]))
    (line,) = shapes(chart, "front")
    corners = [tuple(map(float, corner.split())) for corner in line.removeprefix("M").split("L")]
    assert len(corners) == 5  # from the top to uniform, along and down to adapt, and on to the edge
    assert all(a[0] == b[0] or a[1] == b[1] for a, b in pairwise(corners))
    assert [x for x, _ in corners] == sorted(x for x, _ in corners)
    assert [y for _, y in corners] == sorted(y for _, y in corners)


def test_it_is_said_who_is_on_it_and_what_was_counted(root):
    said = section(root)
    assert "for each cost, the lowest macro loss that any arm reached for no more. On it are uniform and adapt." in said
    assert "The cost is the FLOPs of every account: train, validation and steering (meta)." in said
    assert "where whiskers overlap, that may be luck" in said and "No gain" not in said


def test_an_arm_that_costs_more_for_nothing_is_no_gain(tmp_path, monkeypatch):
    monkeypatch.setitem(synthetic.SPEED, "loss", 0.5)
    monkeypatch.setitem(synthetic.META, "loss", 1.0)
    write_comparison(tmp_path, arms=("uniform", "loss", "adapt"), seeds=(0, 1), records=10)
    view = load([tmp_path])
    costs = [view.arm(name).numbers["total_flops"]["mean"] for name in ("loss", "uniform")]
    percent = f"{100 * costs[0] / costs[1]:.0f} %"
    assert no_gains(view) == [
        f"No gain: loss ({percent}) took more FLOPs than the plain uniform (100 %) and ended no lower."
    ]
    assert "No gain: loss" in section(tmp_path)


def test_a_gap_within_chance_is_no_gain_shown(tmp_path, monkeypatch):
    monkeypatch.setitem(synthetic.SPEED, "loss", synthetic.SPEED["uniform"] * 1.003)
    write_comparison(tmp_path, arms=("uniform", "loss"), records=10)
    (said,) = no_gains(load([tmp_path]))
    assert said.startswith("No gain shown: loss (105 %)") and said.endswith("by no more than chance may explain.")
    write_comparison(tmp_path / "better", arms=("uniform", "adapt"), records=10)
    assert no_gains(load([tmp_path / "better"])) == []


def test_a_dozen_arms_make_the_page_little_larger(tmp_path):
    write_comparison(tmp_path, arms=[f"arm-{i}" for i in range(12)], seeds=(0,), records=5)
    chart = front_chart(load([tmp_path]))
    assert len(re.findall('class="name', chart)) == 12 and len(chart) < 12_000


def test_with_targets_it_is_of_the_target_loss(tmp_path):
    write_comparison(tmp_path, arms=("uniform", "adapt"), seeds=(0,), records=10, targets={"legal": 1.0})
    said = section(tmp_path)
    assert "The final target loss against all FLOPs" in said and "Target loss at the end against" in said
    assert "one seed: how far luck moves it is not known" in said


def test_one_arm_has_no_front_and_runs_that_differ_only_marks(root, tmp_path):
    write_run(tmp_path / "alone", "adapt", records=10)
    assert section(tmp_path / "alone") == "" and front_chart(load([tmp_path / "alone"])) is None
    write_run(tmp_path / "uniform" / "seed-0", "uniform", records=10)
    write_run(tmp_path / "adapt" / "seed-0", "adapt", records=10, limit=30_000)
    paths = [tmp_path / arm / "seed-0" for arm in ("uniform", "adapt")]
    chart = front_chart(load(paths))
    assert len(re.findall('class="mark ', chart)) == 2 and not shapes(chart, "front")
    said = section(paths, tmp_path / "report.html")
    assert "cannot be compared, so no front is drawn" in said and "No gain" not in said


def test_an_arm_that_never_finished_is_left_out(tmp_path):
    write_comparison(tmp_path, arms=("uniform", "adapt"), seeds=(0,), records=10)
    write_run(tmp_path / "loss" / "seed-0", "loss", records=10, stop=0.5)
    chart = front_chart(load([tmp_path]))
    assert ">adapt</text>" in chart and ">loss</text>" not in chart


@pytest.mark.parametrize(("meta", "logarithmic"), [(0.5, False), (12.0, True)])
def test_the_axis_is_logarithmic_where_costs_lie_far_apart(tmp_path, monkeypatch, meta, logarithmic):
    monkeypatch.setitem(synthetic.META, "adapt", meta)
    write_comparison(tmp_path, arms=("uniform", "adapt"), seeds=(0,), records=10)
    chart = front_chart(load([tmp_path]))
    assert ("FLOPs, all accounts, ×10¹²" in chart) is not logarithmic
    assert ("5×10¹²" in chart) is logarithmic


def test_costs_nearly_alike_are_not_drawn_far_apart(tmp_path, monkeypatch):
    monkeypatch.setitem(synthetic.META, "adapt", 0.001)
    write_comparison(tmp_path, arms=("uniform", "adapt"), seeds=(0,), records=10)
    chart = front_chart(load([tmp_path]))
    xs = [float(x) for x, _ in re.findall(r'<text x="([\d.]+)"[^>]*class="name on">(uniform|adapt)', chart)]
    (line,) = shapes(chart, "front")
    corners = [float(corner.split()[0]) for corner in line.removeprefix("M").split("L")]
    assert len(xs) == 2 and corners[-2] - corners[0] < 0.1 * (corners[-1] - corners[0])


def test_the_terminal_names_the_front(root, tmp_path):
    summary = summarise(root)
    assert "on the front of macro loss against FLOPs: uniform and adapt" in printed(summary)
    for arm in summary["arms"].values():
        del arm["on_front"]  # as an older version wrote it
    assert "front" not in printed(summary)
    write_run(tmp_path / "adapt" / "seed-0", "adapt", records=10)
    assert "front" not in str(terminal_table(summarise(tmp_path)).caption)
