"""Ends of any length are taken back as in the literal loop, and one-token ends as the processor puts them off."""

import pytest
import torch

from apportion._errors import ApportionError
from apportion.budget import ThinkingBudget
from apportion.thinking.rounds import think_in_rounds
from apportion.thinking.tags import TagIds, find
from tests.references import forcing, rounds
from tests.thinking.leaning import END, ONE, THREE, leaning, prompts

ANSWER = 4
BUDGETS = [
    {"most": 24, "ignore": 2},
    {"most": 9, "ignore": 3},
    {"most": 20, "least": 9},
    {"most": 24, "least": 6, "ignore": 1},
]


def writer(model, rows, budgets, tags):
    """Write on by the literal version, and stop where an end was chosen or the answer is long enough."""

    def write(places, texts, stops):
        found = []
        for place, text, stop in zip(places, texts, stops, strict=True):
            written, budget = list(text), ThinkingBudget(most=budgets[place].most)
            while True:
                end = find(written, tags.close)
                if end is not None:
                    end += len(tags.close)
                    forced = budget.most is not None and end > budget.most
                    if (stop and not forced) or len(written) - end >= ANSWER + forced * len(tags.answer):
                        break
                scores = forcing.scores_of(model, rows[place] + written)
                must, thinking = forcing.forced_next(written, tags, budget.most)
                if thinking:
                    scores[END] = -torch.inf
                written.append(int(scores.argmax()) if must is None else must)
            found.append(written)
        return found

    return write


def in_rounds(model, rows, budgets, tags):
    return think_in_rounds(writer(model, rows, budgets, tags), budgets, tags)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("tags", [ONE, THREE, TagIds((3,), (4, 5), (7, 8), (9,))], ids=["one", "three", "two"])
def test_it_is_the_loop_of_a_row_alone(tags, budget):
    model, rows, budget = leaning(tags), prompts(5, 7), ThinkingBudget(**budget)
    for row, done in zip(rows, in_rounds(model, rows, [budget] * 5, tags), strict=True):
        assert done.written == rounds.think(model, row, tags, budget, ANSWER, ends=(END,))
        assert all(tuple(done.written[at : at + len(tags.wait)]) == tags.wait for at in done.put_off)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_of_one_token_tags_it_is_what_the_processor_writes(budget):
    model, rows, budget = leaning(ONE), prompts(5, 3), ThinkingBudget(**budget)
    waited = 0
    for row, done in zip(rows, in_rounds(model, rows, [budget] * 5, ONE), strict=True):
        assert done.written == forcing.think(model, row, ONE, budget, len(done.written), ends=(END,))
        waited += len(done.put_off)
    assert waited


def test_where_waiting_is_not_taken_off_it_is_the_published_loop_that_thinks_longer():
    model, budget = leaning(THREE), ThinkingBudget(most=12, ignore=3)
    longer = 0
    for row in prompts(6, 7):
        ours, theirs = (
            rounds.think(model, row, THREE, budget, ANSWER, ends=(END,), wait_counts=counts) for counts in (True, False)
        )
        thought = [find(written, THREE.close) for written in (ours, theirs)]
        assert thought[0] <= budget.most
        longer += thought[1] > thought[0]
    assert longer


def test_a_wait_that_cannot_be_written_is_refused():
    with pytest.raises(ApportionError, match=r"'thinking\.wait' is a word"):
        in_rounds(leaning(THREE), [[5]], [ThinkingBudget(most=5, ignore=1)], TagIds((3,), (4, 5), (), ()))
