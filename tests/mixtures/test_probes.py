"""Gains of probes become a mixture: by their standing among others, whatever their size."""

import pytest
import torch

from apportion._errors import ApportionError
from apportion.mixtures import MIXTURES, Feedback, Probes, TaskSizes


def sizes(*importance):
    one = torch.ones(len(importance), dtype=torch.float64)
    return TaskSizes(tuple("abcdef"[: len(importance)]), 9 * one, 50 * one, torch.tensor(importance).double())


def after(mixture, tasks, *rounds):
    state = mixture.init(tasks)
    for number, gains in enumerate(rounds):
        state = mixture.update(state, Feedback(0.1 * (number + 1), gains=torch.tensor(gains, dtype=torch.float64)))
    return mixture.proportions(state)


ALIKE, NAN = sizes(1, 1, 1), float("nan")


def test_by_hand():
    # Gains of 3, 1, -1 are 1.2247, 0 and -1.2247 of their spread: exp(2 z) is 11.58, 1 and 0.0863.
    p = after(Probes(sharpness=2, floor=0), ALIKE, [3.0, 1.0, -1.0])
    torch.testing.assert_close(p, torch.tensor([0.91424, 0.07894, 0.00682]).double(), atol=1e-4, rtol=0)


def test_the_size_of_gains_and_what_all_have_in_common_do_not_matter():
    mixture = Probes()
    wanted = after(mixture, ALIKE, [0.3, 0.1, -0.1], [0.2, 0.3, 0.1])
    torch.testing.assert_close(after(mixture, ALIKE, [30.0, 10.0, -10.0], [2e-6, 3e-6, 1e-6]), wanted)


def test_opposite_rounds_of_one_weight_cancel_and_equal_gains_say_nothing():
    third = torch.full((3,), 1 / 3).double()
    torch.testing.assert_close(after(Probes(memory=0.5), ALIKE, [0.3, 0.1, -0.1], [-0.2, 0.0, 0.2]), third)
    torch.testing.assert_close(after(Probes(), ALIKE, [0.3, 0.3, 0.3]), third)


def test_a_task_that_is_not_probed_again_keeps_its_part_of_the_best_gain():
    mixture = Probes(memory=0)
    p = after(mixture, ALIKE, [4.0, 2.0, 1.0], [0.2, NAN, 0.1])
    torch.testing.assert_close(p, after(mixture, ALIKE, [0.2, 0.1, 0.1]))


def test_targets_that_are_trained_on_have_their_share_and_do_not_count_among_the_rest():
    mixture, tasks = Probes(share=0.4, floor=0), sizes(0, 0, 3, 1)
    p = after(mixture, tasks, [0.3, 0.1, 9.0, 70.0])
    torch.testing.assert_close(p[2:], torch.tensor([0.3, 0.1]).double())
    torch.testing.assert_close(p[:2], 0.6 * after(mixture, sizes(1, 1), [0.3, 0.1]))


def test_the_floor_holds():
    assert after(Probes(sharpness=1000, floor=0.3), ALIKE, [0.3, 0.1, -0.1]).min() == pytest.approx(0.1)


@pytest.mark.parametrize("rounds", [[0.4, 0.1], [0.1, 0.1], [0.0], [1.0], []])
def test_rounds_rise_between_nothing_and_all(rounds):
    with pytest.raises(ApportionError, match=r"'mixture\.rounds"):
        MIXTURES.build({"type": "probes", "rounds": rounds})
