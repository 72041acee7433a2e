"""What may be called a gap: the formula by hand, how often luck passes for one, and what decides it alone."""

import math
import random
from dataclasses import replace

import pytest

from apportion.reports.estimates import Example, Part, Sums, estimate, threshold
from apportion.reports.gap import gap_between, judged
from apportion.reports.verdict import verdict
from apportion.reports.view import load
from tests.reports import synthetic
from tests.reports.synthetic import write_comparison, write_run


def arms(root, seeds=(0, 1, 2), **changes):
    """Two arms that learn alike but for what ``changes`` says of adapt's last losses."""
    for seed in seeds:
        write_run(root / "uniform" / f"seed-{seed}", "uniform", seed, records=20, **changes | {"shift": {}})
        write_run(root / "adapt" / f"seed-{seed}", "adapt", seed, records=20, **changes)
    view = load([root])
    return view, gap_between(view.arm("adapt"), view.arm("uniform"), view.targets)


@pytest.fixture
def alike(monkeypatch):
    monkeypatch.setitem(synthetic.SPEED, "adapt", synthetic.SPEED["uniform"])
    monkeypatch.setattr(synthetic, "losses", lambda arm, tasks, tokens, seed: drawn(arm, tasks, seed))


def drawn(arm, tasks, seed):
    noise = random.Random(f"{arm}{seed}")
    return {task: 2.0 + 0.05 * i + noise.gauss(0, 0.01) for i, task in enumerate(tasks)}


def test_the_formula_by_hand():
    a = Part("a", (0.5, 0.7), (Example((1.0, 1.4), 2), Example((1.0, 1.4), 2)))
    b = Part("b", (0.1, 0.1), (Example((0.0, 0.0), 1), Example((0.2, 0.2), 1)))
    found = estimate([a, b])
    seeds, examples = 0.005 / 2, (0.0 + 2 / 1 * (0.1**2 + 0.1**2) / 4) / 4
    assert found.mean == pytest.approx(0.35)
    assert found.error == pytest.approx(math.sqrt(seeds + examples))
    assert found.freedom == pytest.approx((seeds + examples) ** 2 / (seeds**2 + examples**2))


def test_a_single_example_counts_with_its_whole_gap():
    rest = Part("a", (0.0, 0.0), (Example((0.0, 0.0), 1), Example((0.0, 0.0), 1)))
    alone = Part("b", (0.6, 0.6), (Example((1.2, 1.2), 2),))
    assert estimate([rest, alone]).error == pytest.approx(0.6 / 2)


@pytest.mark.parametrize("seeds", [1, 3])
def test_leaving_a_part_out_is_estimating_the_others(seeds):
    generator = random.Random(1)
    parts = simulated(generator, 0.1, seeds=seeds, tasks=6)
    parts += [
        replace(part, task=f"{part.task}, weighed", weight=3.0) for part in simulated(generator, 0.3, seeds, tasks=2)
    ]
    parts += [Part("one example", (0.4,) * seeds, (Example((0.8,) * seeds, 2),)), Part("none", (0.2,) * seeds)]
    for part in parts:
        left, others = (
            Sums.of(parts).without(part).estimate(),
            estimate([other for other in parts if other is not part]),
        )
        assert (left.mean, left.error) == pytest.approx((others.mean, others.error), rel=1e-9)
        assert left.freedom == pytest.approx(others.freedom, rel=1e-6)


def test_the_points_of_student():
    assert [threshold(n) for n in (1, 2.9, 5, 10, 30, math.inf)] == pytest.approx(
        [12.706, 4.303, 2.571, 2.228, 2.042, 1.960], abs=0.01
    )


def simulated(generator, gain, seeds=3, tasks=8, examples=20):
    """Parts as they come of random seeds and random examples; every example's true gap is ``gain`` on average."""
    parts = []
    for task in range(tasks):
        own = [generator.gauss(gain, 0.3) for _ in range(examples)]
        lucky = [generator.gauss(0, 0.05) for _ in range(seeds)]
        held = tuple(Example(tuple(o + luck for luck in lucky), 1) for o in own)
        by_seed = tuple(sum(e.by_seed[s] for e in held) / examples for s in range(seeds))
        parts.append(Part(str(task), by_seed, held))
    return parts


def test_luck_passes_for_a_gap_as_often_as_said_and_a_gain_is_found():
    generator = random.Random(0)
    by_luck = sum(estimate(simulated(generator, 0.0)).beyond for _ in range(1000)) / 1000
    found = sum(estimate(simulated(generator, 0.15)).beyond for _ in range(200)) / 200
    assert 0.02 < by_luck < 0.07
    assert found > 0.95


def test_a_gain_in_every_task_is_called_one(tmp_path):
    write_comparison(tmp_path, records=20)
    said = verdict(load([tmp_path]))
    assert said.kind == "gain"
    assert any("3 seeds and 628 validation examples" in sentence for sentence in said.details)
    assert any("(32 validation examples)" in sentence for sentence in said.details)


def test_a_gain_at_the_end_alone_is_called_one(tmp_path, alike):
    view, gap = arms(tmp_path, shift=dict.fromkeys(synthetic.TASKS, -0.2))
    assert gap.shown and gap.estimate.mean == pytest.approx(0.2, abs=0.02)
    assert "adapt" in verdict(view).headline and verdict(view).kind == "gain"


def test_alike_is_no_gain(tmp_path, alike):
    view, gap = arms(tmp_path)
    assert not gap.shown and verdict(view).headline.startswith(("No gain shown", "No gain:"))


def test_one_task_with_one_example_decides_nothing(tmp_path, alike):
    """The case that was reported: a task of three rows, whose one validation example made 92 % of the gap."""
    shift = dict.fromkeys(synthetic.TASKS, -0.005) | {"parity": -1.1}
    view, gap = arms(tmp_path, shift=shift, counts={"parity": 1})
    parity = next(part for part in gap.parts if part.task == "parity")
    assert gap.share(parity) == pytest.approx(0.92, abs=0.03)
    said = verdict(view)
    assert said.kind == "none" and not gap.shown
    assert said.headline.startswith("Not shown: adapt ended 0.0") and "below uniform" in said.headline
    rest = estimate([part for part in gap.parts if part is not parity])
    assert any(f"Without task parity the gap is {rest.mean:.3f} ± {rest.error:.3f}" in text for text in said.details)
    assert "task parity makes 9" in said.headline and "(1 validation example)" in said.headline


def test_one_task_with_many_examples_decides_nothing_either(tmp_path, alike):
    view, gap = arms(tmp_path, shift={"parity": -1.1})
    assert gap.alone == "parity" and not gap.shown
    assert "task parity makes" in verdict(view).headline


def outlying(tasks_with_outliers, gain=0.0):
    """Ten tasks of twenty examples over three seeds; some of the tasks have one example with a gap of 4 nats."""
    parts = []
    for task in range(10):
        gaps = [gain + 4.0 * (task < tasks_with_outliers and i == 0) + 0.01 * (-1) ** i for i in range(20)]
        parts.append(Part(str(task), (sum(gaps) / 20,) * 3, tuple(Example((g,) * 3, 1) for g in gaps)))
    return judged(parts)


def test_a_handful_of_examples_decides_nothing():
    gap = outlying(6)
    assert gap.estimate.beyond and not gap.alone
    assert len(gap.handful) == 5 and set(gap.handful) <= set("012345")
    assert not gap.shown
    assert outlying(6, gain=0.3).shown and not outlying(6, gain=0.3).handful


def test_one_seed_is_never_a_gain(tmp_path, alike):
    view, gap = arms(tmp_path, seeds=(0,), shift=dict.fromkeys(synthetic.TASKS, -0.5))
    said = verdict(view)
    assert gap.estimate.beyond and not gap.shown
    assert said.kind == "none" and said.headline.startswith("Not shown: adapt ended 0.")
    assert "(one seed)" in said.headline


def test_arms_without_a_seed_in_common_get_no_verdict(tmp_path, alike):
    write_run(tmp_path / "uniform" / "seed-0", "uniform", 0, records=20)
    write_run(tmp_path / "adapt" / "seed-1", "adapt", 1, records=20)
    assert "no seed in common" in verdict(load([tmp_path])).headline
