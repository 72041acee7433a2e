"""Rewards: a right answer always wins, length costs right ones alone, and TRL can call them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion import ApportionError
from apportion.thinking.rewards import LengthReward, Rewards, budget_length, exact_answer, judged, well_formed
from apportion.thinking.tags import ThinkingTags

TAGS = ThinkingTags(open="<think>", close="</think>")
LENGTHS = Rewards(accuracy=1.0, format=0.2, length=LengthReward(weight=0.5, free=0.5))


@pytest.mark.parametrize(
    ("text", "right", "formed"),
    [
        ("1+1</think>2", True, True),
        ("</think>2", True, True),
        ("1+1</think> 2 ", True, True),
        ("1+1</think>3", False, True),
        ("1+1</think>", False, False),
        ("2", False, False),
        ("1</think>2</think>2", False, False),
        ("1</think>2</think>", False, False),
    ],
)
def test_an_answer_stands_behind_one_close_tag(text, right, formed):
    assert judged(text, TAGS, ["2"]) == (right, formed)


def test_words_that_were_put_there_are_no_part_of_the_answer():
    tags = ThinkingTags(answer="Final Answer:")
    assert judged("x</think>Final Answer: 2", tags, ["2"]) == (True, True)
    assert judged("x</think>Final Answer:", tags, ["2"]) == (False, False)


@given(length=st.integers(0, 200), other=st.integers(0, 200), formed=st.booleans(), budget=st.integers(1, 100))
def test_a_right_answer_is_worth_more_than_any_wrong_one(length, other, formed, budget):
    length, other = min(length, budget), min(other, budget)
    right = LENGTHS.worth(right=True, formed=True, thinking=length, budget=budget)
    wrong = LENGTHS.worth(right=False, formed=formed, thinking=other, budget=budget)
    assert right > wrong


@given(lengths=st.lists(st.integers(0, 64), min_size=2, max_size=5))
def test_longer_thinking_is_never_worth_more_and_a_wrong_answer_gains_nothing_by_being_short(lengths):
    for right in (True, False):
        worth = [LENGTHS.worth(right=right, formed=True, thinking=length, budget=64) for length in sorted(lengths)]
        assert worth == sorted(worth, reverse=True)
        assert right or len(set(worth)) == 1


def test_half_the_budget_is_free_and_the_whole_costs_the_weight():
    assert LENGTHS.worth(right=True, formed=True, thinking=32, budget=64) == pytest.approx(1.2)
    assert LENGTHS.worth(right=True, formed=True, thinking=64, budget=64) == pytest.approx(0.7)
    assert LENGTHS.worth(right=True, formed=True, thinking=48, budget=64) == pytest.approx(0.95)


def test_rewards_in_which_a_wrong_answer_could_win_are_refused():
    with pytest.raises(ApportionError, match="no more than a wrong one"):
        Rewards(accuracy=1.0, format=0.5, length=LengthReward(weight=0.5))
    with pytest.raises(ApportionError, match="did you mean 'accuracy'"):
        Rewards(acuracy=1.0)


def test_trl_can_call_them():
    texts = ["a</think>2", [{"role": "assistant", "content": "aaaa</think>2"}], "a</think>3", "b"]
    wanted = [["2", "two"], "2", "2", None]
    assert exact_answer(TAGS)(completions=texts, reference=wanted, prompts=[], trainer_state=None) == [
        1.0,
        1.0,
        0.0,
        None,
    ]
    assert well_formed(TAGS)(completions=texts) == [1.0, 1.0, 1.0, 0.0]
    length = budget_length(TAGS, 4, len)(completions=texts, reference=wanted)
    assert length == [0.0, -0.5, 0.0, None]
    assert exact_answer(TAGS)(completions=["</think>2"]) == [None]
    names = [reward(TAGS).__name__ for reward in (exact_answer, well_formed)]
    assert len(set(names)) == 2
