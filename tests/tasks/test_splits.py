import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion._errors import ApportionError
from apportion.tasks.splits import TEST, TRAIN, VALIDATION, normalised, split_sides

words = st.text("abcdefghij", min_size=1, max_size=3)
collections = st.lists(st.lists(words, min_size=2, max_size=40, unique=True), min_size=1, max_size=6)


@given(collections, st.floats(0.01, 0.5), st.sampled_from([0.0, 0.2]))
def test_every_task_is_trained_and_validated_on_or_the_error_names_one(keys, validation, test):
    tasks = [(f"task{i}", part) for i, part in enumerate(keys)]
    try:
        sides, _ = split_sides(tasks, validation, test)
    except ApportionError as error:
        assert "shares its prompts" in str(error)
        assert len(tasks) > 1
        return
    assert set(sides) == {key for part in keys for key in part}
    for part in keys:
        assert {TRAIN, VALIDATION} <= {sides[key] for key in part}
        if test == 0:
            assert TEST not in {sides[key] for key in part}


@given(st.lists(words, min_size=2, max_size=40, unique=True), st.sampled_from([0.0, 0.2]))
def test_one_task_of_two_prompts_or_more_always_splits(keys, test):
    sides, _ = split_sides([("one", keys)], 0.05, test)
    assert {TRAIN, VALIDATION} <= set(sides.values())
    assert (TEST in sides.values()) or test == 0 or len(keys) == 2


def test_small_tasks_get_more_than_one_to_validate_on():
    sides, _ = split_sides([("small", [f"k{i}" for i in range(50)])], 0.001, 0.0)
    assert sum(side == VALIDATION for side in sides.values()) == 5


def test_a_side_follows_from_the_prompt_alone():
    large = [f"prompt {i}" for i in range(5000)]
    together, moved = split_sides([("a", large), ("b", [*large[:100], "x", "y"])], 0.1, 0.05)
    alone, _ = split_sides([("c", list(reversed(large[:3000])))], 0.1, 0.05)
    assert moved == 0
    assert all(together[key] == side for key, side in alone.items())
    shares = [sum(side == s for side in together.values()) / len(together) for s in (TRAIN, VALIDATION, TEST)]
    assert shares == pytest.approx([0.85, 0.1, 0.05], abs=0.02)


def test_one_prompt_cannot_be_split():
    with pytest.raises(ApportionError, match=r"Task 'lonely' has 3 examples of one prompt.*leave it out"):
        split_sides([("fine", ["a", "b"]), ("lonely", ["x", "x", "x"])], 0.5, 0.0)


def test_three_tasks_that_share_three_prompts_in_a_ring_cannot_be_split():
    with pytest.raises(ApportionError, match="shares its prompts"):
        split_sides([("p", ["x", "y"]), ("q", ["y", "z"]), ("r", ["z", "x"])], 0.05, 0.0)


@pytest.mark.parametrize("same", ["What  is\tit?", " what is it? ", "WHAT IS IT?", "what is it\uff1f"])
def test_prompts_that_differ_only_in_form_are_one(same):
    assert normalised(same) == normalised("What is it?")
    assert normalised("What is this?") != normalised("What is it?")
