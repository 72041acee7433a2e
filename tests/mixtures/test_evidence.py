"""Steering by evidence: what is read of each task, pooled over directions, against a literal loop and by its properties."""

import numpy as np
import pytest
import torch

from apportion._errors import ApportionError
from apportion.mixtures import Adapt, Feedback, TaskSizes
from apportion.plans.recipe import overridden, parse_recipe
from tests.references.evidence import t_values
from tests.training.runs import TINY

SIZES = TaskSizes(("a", "b", "c", "d"), *(torch.full((4,), x, dtype=torch.float64) for x in (50.0, 400.0, 1.0)))
STEER = Adapt().settled(targets=True)


def reads_of(rng, gains, directions=5, count=60, tasks=4):
    """Reads of random tasks along each direction: mean gains and noise of size 1, times a size of the direction's own."""
    found = []
    for size in 10.0 ** rng.uniform(-3, 3, directions):
        chosen = rng.integers(0, tasks, count)
        found.append([(int(i), float(size * (gains[i] + rng.normal()))) for i in chosen])
    return found


def told(mixture, directions, sizes=SIZES, steps=6):
    """The state after these reads, told in several steps a direction."""
    state = mixture.init(sizes)
    tasks = len(sizes.names)
    for reads in directions:
        state = mixture.update(state, Feedback(0.5, target_losses=torch.ones(1)))
        for part in np.array_split(np.arange(len(reads)), steps):
            found = torch.zeros(3, tasks, dtype=torch.float64)
            for k in part:
                task, gain = reads[k]
                found[:, task] += torch.tensor([gain, 1.0, gain**2], dtype=torch.float64)
            state = mixture.update(state, Feedback(0.5, alignment=found[0], drawn=found[1], squares=found[2]))
    return state


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.95, 1.0])
def test_the_logits_are_the_literal_t_values(memory):
    rng = np.random.default_rng(0)
    for _ in range(5):
        directions = reads_of(rng, rng.normal(size=4))
        mixture = Adapt(step="evidence", memory=memory, learning_rate=0.7).settled(targets=False)
        expected = t_values(directions, 4, memory)
        torch.testing.assert_close(
            told(mixture, directions)["logits"], 0.7 * torch.tensor(expected, dtype=torch.float64)
        )


def test_what_helps_is_drawn_and_what_harms_comes_to_the_floor():
    state = told(STEER, reads_of(np.random.default_rng(1), [0.0, 0.8, 0.0, -0.8]))
    p = STEER.proportions(state)
    assert p[1] > 0.8
    assert p[3] == pytest.approx(STEER.floor / 4, abs=0.005)
    assert float(p.sum()) == pytest.approx(1)


def test_the_turned_sign_turns_the_logits():
    directions = reads_of(np.random.default_rng(2), [0.3, 0.0, 0.0, -0.2])
    turned = [[(task, -gain) for task, gain in reads] for reads in directions]
    torch.testing.assert_close(told(STEER, turned)["logits"], -told(STEER, directions)["logits"])


def test_how_large_a_direction_is_makes_no_difference():
    directions = reads_of(np.random.default_rng(3), [0.3, 0.0, 0.0, -0.2])
    scaled = [[(task, 10.0**k * gain) for task, gain in reads] for k, reads in enumerate(directions)]
    torch.testing.assert_close(told(STEER, scaled)["logits"], told(STEER, directions)["logits"])


def test_permuted_tasks_permute_the_mixture():
    order = [2, 0, 3, 1]
    directions = reads_of(np.random.default_rng(4), [0.3, 0.1, 0.0, -0.2])
    moved = [[(order.index(task), gain) for task, gain in reads] for reads in directions]
    torch.testing.assert_close(told(STEER, moved)["logits"], told(STEER, directions)["logits"][order])


def test_noise_alone_leaves_most_tasks_in_play():
    rng = np.random.default_rng(5)
    sizes = TaskSizes(tuple("abcdefghijklmnopqrst"), *(torch.ones(20, dtype=torch.float64) for _ in range(3)))
    effective = []
    for _ in range(40):
        p = STEER.proportions(told(STEER, reads_of(rng, np.zeros(20), 3, 200, 20), sizes, steps=1))
        effective.append(float(torch.exp(-(p * p.log()).sum())))
    assert 10 < np.mean(effective) < 20


def test_a_task_that_is_never_read_keeps_the_logit_of_an_average_one():
    directions = [
        [read for read in reads if read[0] != 2] for reads in reads_of(np.random.default_rng(6), [1, 0, 0, 0])
    ]
    assert float(told(STEER, directions)["logits"][2]) == 0.0


def test_nothing_is_learnt_from_single_reads_of_each_task_or_from_gains_that_are_all_one():
    state = told(STEER, [[(0, 1.0), (1, 2.0), (2, 3.0)], [(i, 5.0) for i in (0, 0, 1, 1, 2, 3)]], steps=1)
    assert state["logits"].tolist() == [0.0] * 4


def test_old_directions_are_forgotten_and_the_state_is_never_changed_in_place():
    rng = np.random.default_rng(7)
    early, late = reads_of(rng, [1.5, 0, 0, 0], 2), reads_of(rng, [0, 1.5, 0, 0], 6)
    quick = Adapt(step="evidence", memory=0.3).settled(targets=True)
    before = told(quick, early)
    kept = {key: value.clone() for key, value in before.items()}
    assert int(quick.proportions(before).argmax()) == 0
    assert int(quick.proportions(told(quick, [*early, *late])).argmax()) == 1
    quick.update(before, Feedback(0.6, target_losses=torch.ones(1)))
    assert all(torch.equal(before[key], value) for key, value in kept.items())


def test_a_gain_that_is_no_number_ends_in_a_sentence():
    state = STEER.init(SIZES)
    bad = torch.tensor([0.0, float("nan"), 0.0, 0.0])
    with pytest.raises(ApportionError, match="not a finite number: training has diverged"):
        STEER.update(state, Feedback(0.1, alignment=bad, drawn=torch.ones(4), squares=torch.ones(4)))


def test_targets_bring_their_own_defaults_which_the_resolved_recipe_writes_out():
    targets = overridden(TINY, ["targets={tasks: [copy, reverse]}", "mixture=adapt"])
    recipe = parse_recipe(targets)
    assert recipe.method().step == "evidence" and recipe.objective == {"type": "mean"}
    assert parse_recipe(recipe.resolved()).method() == recipe.method()
    alike = parse_recipe(overridden(TINY, ["mixture=adapt"]))
    assert alike.method() == Adapt() and alike.objective == {"type": "reducible"}
    chosen = parse_recipe(overridden(targets, ["mixture.step=scaled", "objective=worst"]))
    assert chosen.method() == Adapt(step="scaled") and chosen.objective == {"type": "worst"}
    part = parse_recipe(overridden(targets, ["mixture.floor=0.3", "mixture.max_cost=0.2"])).method()
    assert part.floor == 0.3 and part.max_cost == 0.2 and part.step == "evidence"
    often = parse_recipe(overridden(targets, ["mixture.refresh=20"])).method()
    assert often.refresh == 20 and often.max_cost is None
    exact = parse_recipe(overridden(targets, ["mixture.estimator=forward"])).method()
    assert exact == Adapt(estimator="forward")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"step": "evidence", "estimator": "forward"}, "'step: evidence' is read from training's own backward pass"),
        ({"max_cost": 0.1}, "max_cost' needs 'examples', 'reads: paid' and a 'refresh' such as 5%"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, said):
    with pytest.raises(ApportionError, match=said):
        parse_recipe(overridden(TINY, [f"mixture={ {'type': 'adapt', **settings} }"]))
