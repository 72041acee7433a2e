"""Answers: each prompt adapted to its task, with beams and several to a prompt, as if it were alone."""

from __future__ import annotations

import pytest
import torch

from apportion._errors import ApportionError
from apportion.models.tagi.slots import given_now
from apportion.tasks.batches import collate
from apportion.tasks.encoded import IGNORED
from tests.models.tagi.models import FAMILIES, VOCAB, WAYS, make_tagi

TASKS = [0, 2, 1, 0]


def prompts(lengths=(4, 7, 2, 7)):
    """Prompts padded on the left, as a causal model goes on from them."""
    generator = torch.Generator().manual_seed(3)
    rows = [torch.randint(3, VOCAB, (n,), generator=generator) for n in lengths]
    ids = torch.stack([torch.cat([row.new_zeros(max(lengths) - len(row)), row]) for row in rows])
    mask = torch.stack([(torch.arange(max(lengths)) >= max(lengths) - len(row)).long() for row in rows])
    return rows, ids, mask


def continued(model, made, length):
    """Return the new tokens, without what stands for the end."""
    start = 1 if model.config.is_encoder_decoder else length
    return [[int(token) for token in row[start:] if token not in (0, 2)] for row in made]


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}])
@pytest.mark.parametrize(("family", "ways"), WAYS)
def test_a_batch_of_tasks_is_answered_as_each_alone(family, ways, settings):
    model = make_tagi(family, dtype=torch.float64, **ways)
    settings = {**settings, "do_sample": False, "max_new_tokens": 6}
    rows, ids, mask = prompts()
    together = continued(model, model.generate(ids, mask, torch.tensor(TASKS), **settings), ids.shape[1])
    single = []
    for row, task in zip(rows, TASKS, strict=True):
        made = model.generate(row[None], torch.ones(1, len(row)).long(), torch.tensor([task]), **settings)
        single += continued(model, made, len(row))
    assert together == single and sum(map(len, single)) > 6
    assert given_now() is None


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_are_the_most_likely_next_tokens(family):
    model = make_tagi(family, dtype=torch.float64, fusion=True)
    row = prompts()[0][1]
    mask = torch.ones(1, len(row)).long()
    made = [model.generate(row[None], mask, torch.tensor([task]), max_new_tokens=5)[0] for task in (0, 1)]
    assert not torch.equal(*made)
    answer = made[1][1 if family == "t5" else len(row) :]
    tokens = torch.cat([row, answer])
    labels = torch.where(torch.arange(len(tokens)) < len(row), IGNORED, tokens)
    logits = model(collate([(tokens.numpy(), labels.numpy())], [1], 0)).logits
    assert torch.equal(logits.argmax(-1), answer)


def test_the_same_prompt_under_other_instructions():
    model = make_tagi("t5", memory=True, fusion=True)
    row = prompts()[0][1].expand(3, -1)
    made = model.generate(row, torch.ones_like(row), torch.arange(3), max_new_tokens=8).tolist()
    assert len({tuple(answer) for answer in made}) > 1


def test_an_error_leaves_nothing_behind():
    model = make_tagi("llama", fusion=True)
    _, ids, mask = prompts()
    with pytest.raises((ValueError, ApportionError)):
        model.generate(ids, mask, torch.tensor(TASKS), num_beams=1, num_return_sequences=2, do_sample=False)
    assert given_now() is None


def test_what_is_given_replaces_the_tasks_own():
    model = make_tagi("llama", fusion=True)
    _, ids, mask = prompts()
    swapped = torch.tensor([1, 1, 1, 1])
    given = model.given(model.reader.of([1]), torch.zeros(4, dtype=torch.long))
    made = model.generate(ids, mask, torch.tensor(TASKS), given, max_new_tokens=5)
    assert torch.equal(made, model.generate(ids, mask, swapped, max_new_tokens=5))
