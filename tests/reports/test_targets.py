"""Comparisons with targets: ranked by the target loss, said so everywhere; those without read as they always did."""

import io
import re

import pytest
from rich.console import Console

from apportion.reports import picture, terminal_table, write_report
from apportion.reports.advice import advise
from apportion.reports.asked import asked, targets_text
from apportion.reports.estimates import Part, estimate
from apportion.reports.gap import gap_between, judged
from apportion.reports.goals import measured, toward
from apportion.reports.tables import columns, heat
from apportion.reports.traced import plain
from apportion.reports.verdict import verdict
from apportion.reports.view import load
from apportion.runs import summarise
from tests.reports.synthetic import TASKS, write_comparison, write_run
from tests.reports.test_report import Page

ARMS = ("uniform", "proportional", "upsample", "adapt")
GOALS = {"legal": 1.0, "medical": 1.0}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("goals")
    return write_comparison(root, arms=ARMS, records=40, targets=GOALS, counts={"legal": 131, "medical": 10})


@pytest.fixture(scope="module")
def page(root):
    return Page(write_report(root).read_text("utf-8"))


def test_the_headline_speaks_of_the_targets(root):
    view = load([root])
    ours, theirs = (view.arm(name).numbers["final"]["target"]["mean"] for name in ("adapt", "upsample"))
    said = verdict(view)
    assert view.baseline.name == "upsample" and view.candidate.name == "adapt"
    assert said.kind == "gain"
    assert said.headline == (
        f"Toward legal and medical, adapt ended at {ours:.3f}, {100 * ours / theirs:.0f} % of the {theirs:.3f} of "
        "upsample, the best baseline."
    )
    details = " ".join(said.details)
    tokens = view.candidate.numbers["tokens_to_best_of"]["upsample"]["target"]["mean"]
    assert f"adapt reached upsample’s best target loss with {100 * tokens:.0f} % of its tokens (3 seeds" in details
    assert "of its FLOPs" in details and "in target loss; ± is its standard error over 3 seeds and 141" in details
    assert re.search(r"Other tasks at the end: adapt 2\.\d+ .*, upsample 2\.\d+", details)
    assert "macro" not in said.headline + details


def test_few_examples_are_called_few(root):
    (said,) = map(plain, measured(load([root])))
    errors = [run.final["se"]["medical"] for run in load([root]).runs]
    assert f"medical is measured on 10 examples, give or take {sum(errors) / len(errors):.3f}" in said
    assert said.endswith("So few examples of medical tell only large differences apart: more would help.")
    assert "legal is measured on 131 examples" in said


def test_one_example_has_no_error_and_says_so(tmp_path):
    write_run(tmp_path, "adapt", records=10, targets={"legal": 1.0}, counts={"legal": 1})
    (said,) = map(plain, measured(load([tmp_path])))
    assert "legal is measured on 1 example, how far that is off nobody knows" in said


def test_many_targets_are_counted_and_the_few_ones_named(tmp_path):
    targets = {f"t{i}": 1.0 for i in range(9)}
    write_run(tmp_path, "adapt", records=10, targets=targets, counts=dict.fromkeys(targets, 200) | {"t4": 12})
    (said,) = map(plain, measured(load([tmp_path])))
    assert said.startswith("Each target is measured on 12 to 200 examples; t4 on 12 examples, give or take 0.")
    assert toward(targets) == "t0, t1, t2, t3 and 5 more"


def test_importance_is_named_where_it_differs():
    assert toward({"a": 1.0, "b": 1.0}) == "a and b"
    assert toward({"a": 4.0, "b": 1.0}) == "a (4) and b (1)"


def test_a_learnt_arm_behind_upsample_is_no_gain(tmp_path):
    write_comparison(tmp_path, arms=("uniform", "upsample", "loss"), records=20, targets=GOALS)
    said = verdict(load([tmp_path]))
    assert said.kind == "none"
    assert said.headline == (
        "No gain toward legal and medical: upsample, a plain baseline, ended below every other method."
    )
    assert "loss never reached upsample’s best target loss." in said.details


def test_one_seed_is_no_gain_toward_targets_either(tmp_path):
    write_comparison(tmp_path, arms=("uniform", "adapt"), seeds=(0,), records=20, targets=GOALS)
    assert verdict(load([tmp_path])).headline.startswith("Not shown toward legal and medical: adapt ended 0.")


def test_a_single_run_and_plain_arms_alone(tmp_path):
    write_run(tmp_path / "one", "adapt", records=20, targets=GOALS)
    assert re.match(
        r"adapt ended at target loss 0\.\d+ toward legal and medical after 60k",
        verdict(load([tmp_path / "one"])).headline,
    )
    write_comparison(tmp_path / "plain", arms=("uniform", "upsample"), records=20, targets=GOALS)
    assert verdict(load([tmp_path / "plain"])).headline.startswith("upsample ended lowest toward legal and medical, 0.")
    write_run(tmp_path / "part", "adapt", records=20, targets=GOALS, stop=0.5)
    assert "trained on so far, at target loss 0." in verdict(load([tmp_path / "part"])).headline


def test_one_target_may_make_the_whole_gap():
    parts = [Part("a", (0.5, 0.51, 0.52)), Part("b", (0.0, 0.001, -0.001))]
    assert judged(parts).alone == "a" and judged(parts, targets=True).alone == "" and judged(parts, targets=True).shown


def test_a_gap_is_weighed_by_importance(tmp_path):
    parts = [Part("a", (0.4, 0.6), weight=3.0), Part("b", (0.0, 0.4), weight=1.0)]
    assert estimate(parts).mean == pytest.approx((3 * 0.5 + 0.2) / 4)
    assert judged(parts, targets=True).share(parts[0]) == pytest.approx(1.5 / 1.7)
    write_comparison(tmp_path, arms=("uniform", "adapt"), records=20, targets={"legal": 3.0, "medical": 1.0})
    view = load([tmp_path])
    ours, theirs = (view.arm(name).numbers["final"]["target"]["mean"] for name in ("adapt", "uniform"))
    gap = gap_between(view.arm("adapt"), view.arm("uniform"), view.targets)
    assert gap.estimate.mean == pytest.approx(theirs - ours)
    assert gap_between(view.arm("adapt"), view.arm("uniform"), {}).estimate.mean != pytest.approx(theirs - ours)


def test_the_terminal_table_shows_target_others_tokens_and_flops(root):
    summary = summarise(root)
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(terminal_table(summary))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    assert "standard error over 141 target examples" in text and "upsample's best target loss" in text
    assert text.index("adapt  ") < text.index("upsample  ") < text.index("proportional")
    adapt = summary["arms"]["adapt"]
    row = next(line for line in text.splitlines() if "adapt  " in line)
    assert f"{adapt['final']['target']['mean']:.3f} ±{adapt['se']['target']:.3f}" in row
    assert f"{adapt['final']['others']['mean']:.3f}" in row
    for account in ("tokens_to_best_of", "flops_to_best_of"):
        assert f"{100 * adapt[account]['upsample']['target']['mean']:.0f} %" in row
    assert "macro" not in text


def test_the_report_shows_targets_first_and_apart(root, page):
    view = load([root])
    assert columns(view)[:2] == ["Target loss", "Other tasks"]
    _, targets, tasks = heat(view)
    assert [(name, size, examples) for name, size, examples, _ in targets] == [("legal", 0, 131), ("medical", 0, 10)]
    assert [name for name, *_ in tasks] == list(view.sizes)
    error = synthetic_error(view, "legal")
    assert re.search(rf"legal\s+–\s+131\s.*± {error:.3f}", page.sections["targets"])
    assert page.sections["curves"].index("Target loss") < page.sections["curves"].index("Macro loss")
    assert "Target loss against supervised tokens trained on" in page.sections["curves"]
    assert "best target loss" in page.sections["methods"] and "macro" not in page.sections["verdict"].lower()


def synthetic_error(view, target):
    errors = [run.final["se"][target] for run in view.arm("adapt").finished]
    return sum(errors) / len(errors)


def test_targets_that_are_tasks_leave_the_table_of_tasks(tmp_path):
    block = {"targets": {"tasks": [TASKS[1], TASKS[3]], "importance": {TASKS[1]: 2.0}, "train": 0.0}}
    targets = {TASKS[1]: 2.0, TASKS[3]: 1.0}
    write_comparison(tmp_path, arms=("uniform", "adapt"), records=20, targets=targets, recipe=block)
    view = load([tmp_path])
    assert view.targets == targets
    _, shown, tasks = heat(view)
    assert [name for name, *_ in shown] == list(targets) and not {name for name, *_ in tasks} & set(targets)
    said = dict(asked(view))
    assert said["Targets"] == f"{TASKS[1]} (2) and {TASKS[3]} (1), of the tasks" and said["Tasks"].startswith(
        "20 tasks"
    )


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"path": "goals/", "train": 0.0}, "a and b, data of their own from goals/, never trained on"),
        (
            {"source": "x", "train": 4.0},
            "a and b, data of their own from x, a part may be trained on, 4 epochs at most",
        ),
        ({"tasks": ["a", "b"]}, "a and b, of the tasks"),
    ],
)
def test_what_the_targets_are_is_said(block, said):
    assert targets_text({"targets": block}, {"a": 1.0, "b": 1.0}) == said


def test_arms_with_other_targets_are_judged_by_macro_and_it_is_said(tmp_path):
    write_comparison(tmp_path, arms=("uniform",), records=20, targets=GOALS)
    write_comparison(tmp_path, arms=("adapt",), records=20, targets=GOALS | {"legal": 4.0})
    view = load([tmp_path])
    assert view.metric == "macro" and view.targets == {}
    assert "Not all arms have the same targets, so they are compared by macro loss." in verdict(view).details
    assert "macro loss" in verdict(view).headline
    page = Page(write_report(tmp_path).read_text("utf-8"))
    assert "Target loss" not in page.text and "targets" not in page.sections


def test_other_tasks_that_got_worse_are_no_warning_where_targets_are_wanted(tmp_path):
    write_comparison(tmp_path, arms=("uniform",), records=20, targets=GOALS)
    shift = dict.fromkeys(TASKS, 1.0)
    write_comparison(tmp_path, arms=("adapt",), records=20, targets=GOALS, shift=shift)
    assert not [item for item in advise(load([tmp_path])) if "ended worse" in item.seen]
    write_comparison(tmp_path / "tasks", arms=("uniform",), records=20)
    write_comparison(tmp_path / "tasks", arms=("adapt",), records=20, shift=shift)
    assert [item for item in advise(load([tmp_path / "tasks"])) if "20 tasks ended worse" in item.seen]


def test_without_targets_nothing_speaks_of_any(tmp_path):
    write_comparison(tmp_path, records=20)
    summary = summarise(tmp_path)
    for arm in summary["arms"].values():
        assert list(arm["final"]) == list(arm["best"]) == list(arm["se"]) == ["macro", "worst", "objective"]
        assert "target_examples" not in arm
        assert all(list(to) == ["macro", "objective"] for to in arm["tokens_to_best_of"].values())
    said = verdict(load([tmp_path]))
    page = Page(write_report(tmp_path).read_text("utf-8"))
    assert "target" not in (page.text + " ".join([said.headline, *said.details])).lower()
    assert not any(sentence.startswith(("Worth it", "Not worth it")) for sentence in said.details)


def test_the_picture_draws_the_target_loss(root, tmp_path):
    text = picture(root, tmp_path / "p.svg").read_text("utf-8")
    assert "Target loss" in text and "Toward legal and medical" in text and "Macro loss" not in text
