"""A tree row gives every trained token the log-probability, and the gradient, that a sequence of its own gives it."""

import pytest
import torch

from apportion.training.rl.tree import additive, collate, tree
from tests.references.untree import untree
from tests.training.rl.made import model, rows_of, seeded

BUDGETS = (3, 6, 10)


def trees(drawn):
    return collate([tree(trace, BUDGETS, think, summary) for trace, think, summary in drawn], 0)


def of_tree(net, batch):
    """(log-probability, advantage) of each trained token, and their weighted sum."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = additive(batch["seen"], torch.float32)
    logits = net(input_ids=ids, attention_mask=mask, position_ids=batch["position_ids"], use_cache=False).logits
    logps = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    logps = logps[:, batch["prompt_ids"].shape[1] - 1 :]
    trained = batch["tool_mask"].bool()
    return logps[trained], batch["advantages"][trained]


def of_sequences(net, drawn):
    logps, advantages = [], []
    for trace, think, summary in drawn:
        for ids, trained, worth in untree(trace, BUDGETS, think, summary):
            tokens = torch.tensor([ids])
            out = net(input_ids=tokens, use_cache=False).logits[0, :-1].log_softmax(-1)
            each = out.gather(-1, tokens[0, 1:, None])[:, 0]
            flags = torch.tensor(trained[1:])
            logps.append(each[flags])
            advantages.append(torch.tensor(worth[1:])[flags])
    return torch.cat(logps), torch.cat(advantages).float()


def in_order(logps, advantages):
    order = torch.argsort(advantages.detach() * 1000 + logps.detach())
    return logps[order], advantages[order]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_each_token_has_what_it_has_in_a_sequence_of_its_own(attention):
    drawn, net = rows_of(seeded(), 10), model(attention)
    batch = trees(drawn)
    mine, theirs = in_order(*of_tree(net, batch)), in_order(*of_sequences(net, drawn))
    torch.testing.assert_close(mine[1], theirs[1])
    torch.testing.assert_close(mine[0], theirs[0], atol=1e-5, rtol=0)
    grads = []
    for logps, advantages in (mine, theirs):
        net.zero_grad()
        (logps * advantages).sum().backward()
        grads.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
    torch.testing.assert_close(grads[0], grads[1], atol=1e-4, rtol=1e-4)


def test_a_row_holds_its_thinking_once():
    trace, think, summary = rows_of(seeded(), 3)[2]
    row = tree(trace, BUDGETS, think, summary)
    long = untree(trace, BUDGETS, think, summary)
    assert len(row) < sum(len(ids) for ids, _, _ in long) * 0.6
    assert row.trained.sum() == sum(sum(trained) for _, trained, _ in long)


def test_what_was_inserted_moves_nothing():
    drawn, net = rows_of(seeded(), 6), model()
    batch = trees(drawn)
    inserted = (batch["tool_mask"] == 0) & (batch["completion_mask"] == 1)
    assert inserted.any() and (batch["advantages"][inserted] == 0).all()
    # Nor what stands in a piece reaches another one: other answers are as they were when one is changed.
    before, _ = of_tree(net, batch)
    last = int(torch.nonzero(batch["tool_mask"][0]).max())
    batch["completion_ids"][0, last] = (batch["completion_ids"][0, last] + 1) % 20 + 2
    after, _ = of_tree(net, batch)
    assert (before != after).sum() == 1
