"""Thinking is held to its budget, token for token as a literal version holds it, whatever stands in the batch beside."""

import pytest
import torch
from transformers import LogitsProcessorList

from apportion._errors import ApportionError
from apportion.budget import ThinkingBudget
from apportion.thinking.forcer import ThinkingForcer
from apportion.thinking.tags import TagIds
from apportion.thinking.thought import split
from tests.references import forcing
from tests.thinking.leaning import END, ONE, THREE, VOCAB, leaning, padded, prompts

NEW = 24


def written(model, rows, budgets, tags=THREE, *, ends=(), new=NEW, **sampling):
    ids, mask = padded(rows)
    forcer = ThinkingForcer(tags, ids.shape[1], budgets, ends=ends, sampling=bool(sampling.get("do_sample")))
    out = model.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=new,
        logits_processor=LogitsProcessorList([forcer]),
        **{"do_sample": False, **sampling},
    )
    return out[:, ids.shape[1] :].tolist()


def draws(count, high, seed):
    return torch.randint(0, high, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def test_it_is_the_literal_version_in_padded_batches_each_row_with_a_budget_of_its_own():
    model, closed, continued = leaning(), 0, 0
    for seed in range(8):
        rows, budgets = prompts(6, seed), [ThinkingBudget(most=most) for most in draws(6, 20, seed)]
        found = written(model, rows, budgets, ends=(END,))
        for row, budget, one in zip(rows, budgets, found, strict=True):
            assert one == forcing.think(model, row, THREE, budget, NEW, ends=(END,))
            thought = split(one, THREE, budget)
            closed += thought.closed and not thought.forced
            continued += thought.forced and one[budget.most] != THREE.close[0]
    # Rows that neither close by themselves nor stand inside a tag at the budget would prove little.
    assert closed >= 8 and continued >= 5


@pytest.mark.parametrize("most", [0, 1, 5, 12, None])
def test_beams_are_those_of_the_literal_version(most):
    model, rows = leaning(), prompts(3, 5)
    budgets = [ThinkingBudget(most=most)] * 3
    for row, one in zip(rows, written(model, rows, budgets, new=14, num_beams=3), strict=True):
        assert one == forcing.beams(model, row, THREE, budgets[0], 14, 3)


@pytest.mark.parametrize(
    ("tags", "budget"),
    [(THREE, {"most": 7}), (ONE, {"most": 9, "least": 4}), (ONE, {"most": 12, "ignore": 2}), (ONE, {"ignore": 1})],
    ids=str,
)
def test_draws_are_those_of_the_literal_version(tags, budget):
    model, budget, waits = leaning(tags), ThinkingBudget(**budget), 0
    for seed, row in enumerate(prompts(8, 3)):
        torch.manual_seed(seed)
        (found,) = written(model, [row], [budget], tags, ends=(END,), do_sample=True, top_k=0)
        torch.manual_seed(seed)
        draw = lambda scores: int(torch.multinomial(scores.softmax(-1)[None], 1))  # noqa: E731
        assert found == forcing.think(model, row, tags, budget, NEW, ends=(END,), pick=draw)
        waits += found.count(tags.wait[0])
    assert not budget.ignore or waits


def simulated(rows, budgets, tags, steps, *, start=3, bias=3.0, seed=0, prompt=None):
    """Generate with random scores that lean towards the tag, greedily; yields (ids, scores) of each step."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((rows, start), 11) if prompt is None else prompt
    forcer = ThinkingForcer(tags, ids.shape[1], budgets)
    for _ in range(steps):
        scores = torch.randn(rows, 12, generator=generator)
        for before, after in zip((None, *tags.close), tags.close, strict=False):
            scores[:, after] += bias * (0.5 if before is None else (ids[:, -1] == before).float())
        given = scores.clone()
        out = forcer(ids, scores)
        assert torch.equal(scores, given)
        yield ids, given, out
        ids = torch.cat([ids, out.argmax(-1, keepdim=True)], 1)
    yield ids, None, None


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_no_row_of_many_thinks_beyond_its_budget_and_a_begun_tag_is_gone_on_with(size):
    tags = TagIds((3,), (4, 5, 4, 6)[:size], (7,), (8, 9))
    budgets = [ThinkingBudget(most=most) for most in draws(2500, 16, size)]
    steps = list(simulated(2500, budgets, tags, 24))
    continued = 0
    for budget, row in zip(budgets, steps[-1][0][:, 3:].tolist(), strict=True):
        thought = split(row, tags, budget)
        most = budget.most
        assert thought.closed and len(thought.thinking) <= most
        begins = len(thought.thinking)
        assert tuple(row[begins : begins + size]) == tags.close
        if thought.forced:
            assert len(thought.thinking) > most - size
            assert tuple(row[begins + size : begins + size + 2]) == tags.answer
            # The tag is whole where it was begun: its first token does not stand twice.
            assert size == 1 or tuple(row[most - (most - begins) : most]) == tags.close[: most - begins]
            continued += most > begins
    assert size == 1 or continued > 100
    for ids, given, out in steps[:-1]:
        finite = torch.isfinite(out).sum(1)
        assert set(finite.tolist()) <= {1, 12}
        read = ThinkingForcer(tags, 3, budgets).read(ids)
        answers = read.written >= read.end + 2
        assert torch.equal(out[answers], given[answers])


def test_a_prompt_that_ends_in_half_a_tag_changes_nothing():
    budgets = [ThinkingBudget(most=most) for most in draws(500, 10, 1)]
    plain = list(simulated(500, budgets, THREE, 16, prompt=torch.full((500, 3), 11), bias=0.0))[-1][0]
    half = torch.tensor([[11, *THREE.close[:2]]]).repeat(500, 1)
    tricky = list(simulated(500, budgets, THREE, 16, prompt=half, bias=0.0))[-1][0]
    assert torch.equal(plain[:, 3:], tricky[:, 3:])


def test_without_a_limit_it_is_as_if_it_were_not_there():
    model, rows = leaning(), prompts(6, 1)
    ids, mask = padded(rows)
    settings = {"max_new_tokens": NEW, "do_sample": False, "output_scores": True, "return_dict_in_generate": True}
    free = model.generate(ids, attention_mask=mask, **settings)
    forcer = ThinkingForcer(THREE, ids.shape[1], [ThinkingBudget()] * 6)
    held = model.generate(ids, attention_mask=mask, logits_processor=LogitsProcessorList([forcer]), **settings)
    assert torch.equal(free.sequences, held.sequences)
    assert all(torch.equal(a, b) for a, b in zip(free.scores, held.scores, strict=True))


@pytest.mark.parametrize("ignore", [0, 1, 3])
def test_an_end_is_put_off_as_often_as_asked_unless_the_budget_ends_first(ignore):
    model, whole, cut = leaning(ONE), 0, 0
    for most in (2, 40):
        budget = ThinkingBudget(most=most, ignore=ignore)
        for row in prompts(6, 7):
            (found,) = written(model, [row], [budget], ONE, ends=(END,), new=44)
            assert found == forcing.think(model, row, ONE, budget, 44, ends=(END,))
            thought = split(found, ONE, budget)
            waits = thought.thinking.count(ONE.wait[0])
            assert waits == ignore or (waits < ignore and thought.forced)
            whole, cut = whole + (waits == ignore), cut + (waits < ignore)
    assert whole and (cut or ignore < 2)


def test_what_was_put_in_the_place_of_an_end_is_told():
    ids, mask = padded(prompts(4, 7))
    budgets = [ThinkingBudget(most=40, ignore=most) for most in (0, 1, 2, 3)]
    forcer = ThinkingForcer(ONE, ids.shape[1], budgets)
    model = leaning(ONE)
    out = model.generate(ids, attention_mask=mask, max_new_tokens=44, do_sample=False, logits_processor=[forcer])
    for row, (budget, one) in enumerate(zip(budgets, out[:, ids.shape[1] :].tolist(), strict=True)):
        waits = {place for place, token in enumerate(one) if token == ONE.wait[0] and place in forcer.put_off(row)}
        assert len(waits) == budget.ignore
        kinds = split(one, ONE, budget, forcer.put_off(row)).kinds
        assert {place for place, kind in enumerate(kinds) if kind == "inserted"} == waits


def test_each_row_of_a_batch_has_what_its_own_end_is_put_off_for():
    model, rows = leaning(ONE), prompts(6, 11)
    budgets = [ThinkingBudget(most=most, least=least, ignore=ignore) for most, least, ignore in (
        (20, 0, 0), (20, 0, 2), (20, 9, 0), (20, 6, 1), (5, 5, 3), (0, 0, 1),
    )]  # fmt: skip
    for row, budget, one in zip(rows, budgets, written(model, rows, budgets, ONE, ends=(END,)), strict=True):
        assert one == forcing.think(model, row, ONE, budget, NEW, ends=(END,))


def test_no_end_stands_before_the_least():
    model = leaning(ONE)
    for row in prompts(6, 2):
        budget = ThinkingBudget(most=20, least=9)
        (found,) = written(model, [row], [budget], ONE)
        assert len(split(found, ONE, budget).thinking) >= 9


def test_no_text_ends_while_it_thinks():
    model, rows = leaning(), prompts(6, 9)
    free = written(model, rows, [ThinkingBudget(most=8)] * 6)
    often = max(range(10, VOCAB), key=lambda token: sum(row[:8].count(token) for row in free))
    held = written(model, rows, [ThinkingBudget(most=8)] * 6, ends=(often,))
    assert any(often in row[:8] for row in free)
    assert all(often not in split(row, THREE, ThinkingBudget(most=8)).thinking for row in held)


class TestRefused:
    def test_putting_off_takes_tags_of_one_token_and_names_the_driver(self):
        for tags in (THREE, TagIds((3,), (4,), (7, 8), ()), TagIds((3,), (4,), (), ())):
            with pytest.raises(ApportionError, match="think_in_rounds"):
                ThinkingForcer(tags, 3, [ThinkingBudget(most=5, ignore=1)])

    def test_beams_are_not_put_off(self):
        with pytest.raises(ApportionError, match="do not go with beams"):
            written(leaning(ONE), prompts(2, 0), [ThinkingBudget(most=5, least=1)] * 2, ONE, num_beams=2)

    def test_a_tag_that_ends_the_text(self):
        with pytest.raises(ApportionError, match="may not hold the token that ends"):
            ThinkingForcer(THREE, 3, [ThinkingBudget(most=5)], ends=(5,))

    def test_rows_that_come_and_go(self):
        forcer = ThinkingForcer(THREE, 3, [ThinkingBudget(most=5)] * 2)
        assert forcer.supports_continuous_batching is False
        for ids in (torch.full((2, 1), 11), torch.full((3, 9), 11)):
            with pytest.raises(ApportionError, match="whole batches alone"):
                forcer(ids, torch.zeros(len(ids), VOCAB))
