"""Requests that think are held to their budget in every cache, end where they should, and are counted by kind."""

from dataclasses import asdict

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from apportion._errors import ApportionError
from apportion.budget import InferenceBudget, ThinkingBudget
from apportion.budget.prices import Work
from apportion.caches import CACHES, Dense
from apportion.decoding.attach import budgeted_cache
from apportion.decoding.engine import Engine
from apportion.decoding.price import price
from apportion.decoding.requests import Request, requests_of
from apportion.models.flops import ModelFlops
from apportion.thinking import TagIds, ThinkingForcer
from apportion.thinking.tags import find
from tests.evaluation.models import tokenizer
from tests.references import forcing, rounds
from tests.thinking.leaning import leaning

ROWS = [{"prompt": "reverse abc"}, {"prompt": "a longer prompt that has more tokens in it"}, {"prompt": "x"}]
LONG = TagIds(open=(60, 61), close=(62, 63, 64), wait=(65,), answer=(66, 67))
SHORT = TagIds(open=(60,), close=(62,), wait=(65,), answer=())


def thinker(tags=LONG):
    model = leaning(tags, begin=10.0, on=12.0, vocab=len(tokenizer()), noise=5.0)
    model.generation_config.pad_token_id = tokenizer().pad_token_id
    return model


def engine(tags=LONG, cache="dense", batch_size=1, sampling=None, **limits):
    budget = InferenceBudget.parse({"thinking": 9, "answer": 5, **limits})
    method = CACHES.build(cache)
    model = thinker(LONG if tags is None else tags)
    settings = {"batch_size": batch_size, "sampling": sampling, "tags": tags}
    return Engine(model, tokenizer(), ModelFlops.of(model), method, budget, **settings)


def asked(engine, tags=LONG, rows=ROWS, seed=0):
    requests = requests_of(rows, tokenizer(), engine.budget, 256, tags)
    return [one for batch in engine.answer(requests, seed=seed) for one in batch]


@pytest.mark.parametrize("most", [0, 1, 4, 9, 17])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_it_is_the_literal_version_and_every_token_has_its_kind(most, batch_size):
    for one in asked(engine(thinking=most, batch_size=batch_size)):
        assert one.request.ids[-2:] == LONG.open
        wanted = forcing.think(thinker(), one.request.ids, LONG, ThinkingBudget(most=most), len(one.written))
        assert list(one.written) == wanted
        assert len(one.thinking_ids) == one.kinds.count("thinking") == one.served.thinking <= most
        assert len(one.kinds) == len(one.written) == one.served.generated
        assert one.closed and one.thinking == tokenizer().decode(one.thinking_ids)
        words = 2 if one.forced else 0
        assert len(one.ids) == 5 and len(one.written) == len(one.thinking_ids) + 3 + words + 5
        tag = one.kinds[len(one.thinking_ids) : len(one.thinking_ids) + 3]
        assert set(tag) == {"answer"} if not one.forced else tag[-1] == "inserted"


@pytest.mark.parametrize("batch_size", [1, 3])
def test_what_it_took_is_the_prompt_and_all_but_the_last_token(batch_size):
    for one in asked(engine(batch_size=batch_size)):
        p, g = len(one.request.ids), len(one.written)
        assert (one.served.prompt, one.served.steps, one.served.tokens) == (p, g - 1, p + g - 1)
        if batch_size == 1:
            work = Work(p + g - 1, p * p + sum(p + i for i in range(1, g)))
            assert one.served.flops == pytest.approx(ModelFlops.of(thinker()).forward(work))


def test_its_price_is_what_a_flop_counter_counts():
    model, (one,) = thinker(), asked(engine(), rows=ROWS[1:2])
    ids, before = torch.tensor([one.request.ids]), model.config._attn_implementation
    forcer = ThinkingForcer(LONG, ids.shape[1], [ThinkingBudget(most=9)])
    model.set_attn_implementation("eager")
    try:
        with FlopCounterMode(display=False) as counter:
            out = model.generate(ids, max_new_tokens=len(one.written), do_sample=False, logits_processor=[forcer])
    finally:
        model.set_attn_implementation(before)
    assert tuple(out[0, ids.shape[1] :].tolist()) == one.written
    # Generation asks the head for the prompt's last position alone; a price is of whole passes.
    head = 2 * model.lm_head.weight.numel() * (ids.shape[1] - 1)
    assert counter.get_total_flops() + head == pytest.approx(one.served.flops)


CROSSED = [
    {"type": "streaming"},
    {"type": "snapkv", "window": 8},
    {"type": "quest", "page": 4, "dense_layers": 0},
    {"type": "adamas", "dense_layers": 0},
    {"type": "flexicache", "page": 4, "interval": 2},
    {"type": "exact"},
]


@pytest.mark.parametrize("cache", CROSSED, ids=lambda cache: cache["type"])
def test_it_holds_whatever_is_read_of_the_cache(cache):
    for budget in ({"most": 7}, {"most": 12, "least": 4, "ignore": 1}):
        for one in asked(engine(SHORT, cache, batch_size=3, thinking=budget, kv=16), SHORT):
            held = ThinkingBudget(**budget)
            assert held.least <= len(one.thinking_ids) <= held.most and one.closed and len(one.ids) == 5
            assert one.forced == (len(one.thinking_ids) == held.most)


def test_rows_have_budgets_of_their_own():
    budgets = [ThinkingBudget(most=most) for most in (0, 3, 12)]
    together = engine(batch_size=3, thinking=20)
    requests = requests_of(ROWS, tokenizer(), together.budget, 256, LONG)
    own = [Request(one.row, one.ids, budget) for one, budget in zip(requests, budgets, strict=True)]
    ((*answers,),) = together.answer(own)
    for one, budget in zip(answers, budgets, strict=True):
        (alone,) = asked(engine(thinking=budget.most), rows=[one.request.row])
        assert alone.written == one.written


def test_where_nothing_is_to_be_answered_it_stops_at_the_tag_and_a_cut_can_be_answered_later():
    for one in asked(engine(answer=0, batch_size=3, thinking=6)):
        assert one.closed and one.ids == () and find(one.written, LONG.close) == len(one.written) - 3
        cut = Request(one.request.row, (*one.request.ids, *one.written))
        plain = Engine(thinker(), tokenizer(), ModelFlops.of(thinker()), Dense(), InferenceBudget(answer=4), tags=LONG)
        ((answered,),) = plain.answer([cut])
        assert len(answered.ids) == 4 and set(answered.kinds) == {"answer"} and not answered.thinking


def test_a_text_that_ends_in_its_answer_is_counted_to_its_end():
    (free,) = asked(engine(thinking=6), rows=ROWS[:1])
    model = thinker()
    end = next(token for token in free.ids if token not in (*LONG.forced, *free.thinking_ids))
    model.generation_config.eos_token_id = end
    try:
        held = asked(engine(thinking=6, batch_size=3))
        assert end in held[0].written and end not in held[0].ids and len(held[0].ids) < len(free.ids)
        for one in held:
            assert end not in one.thinking_ids and len(one.kinds) == len(one.written)
            if end in one.written:
                assert one.written.index(end) == len(one.written) - 1
    finally:
        model.generation_config.eos_token_id = None


@pytest.mark.parametrize("tags", [LONG, SHORT], ids=["rounds", "token by token"])
@pytest.mark.parametrize(
    "budget", [{"most": 14, "ignore": 1}, {"most": 14, "least": 6}, {"most": 9, "ignore": 3}], ids=str
)
def test_ends_are_put_off_as_in_the_literal_loop_whatever_the_tags(tags, budget):
    waited = 0
    for one in asked(engine(tags, batch_size=3, thinking=budget), tags):
        held = ThinkingBudget(**budget)
        assert list(one.written) == rounds.think(thinker(tags), one.request.ids, tags, held, 5)
        inserted = [token for token, kind in zip(one.written, one.kinds, strict=True) if kind == "inserted"]
        waited += inserted.count(tags.wait[0])
        assert one.served.generated == len(one.kinds) and one.served.prompt == len(one.request.ids)
        assert one.served.requests == 1 and one.served.padded >= one.served.tokens
    assert waited


def test_rounds_are_counted_with_all_that_is_read_again():
    budget = {"most": 30, "ignore": 1}
    (one,) = asked(engine(thinking=budget), rows=ROWS[:1])
    (free,) = asked(engine(thinking=30), rows=ROWS[:1])
    assert not free.forced
    p, first = len(one.request.ids), len(free.thinking_ids)
    # Round one ends with the tag; round two reads the prompt, the thinking and the wait again.
    again = p + first + 1
    last = len(one.written) - first - 1
    assert one.served.wasted == again
    assert one.served.steps == (first + 3 - 1) + (last - 1)
    assert one.served.tokens == p + one.served.steps + again


def test_draws_leave_the_process_generator_as_it_is_and_put_off_ends_under_any_temperature():
    drawn = engine(
        SHORT, thinking={"most": 12, "least": 8}, sampling={"do_sample": True, "temperature": 0.7, "top_k": 3}
    )
    torch.manual_seed(5)
    before = torch.get_rng_state()
    found, again = asked(drawn, SHORT, seed=3), asked(drawn, SHORT, seed=3)
    assert torch.equal(before, torch.get_rng_state())
    assert [one.written for one in found] == [one.written for one in again]
    assert [one.written for one in found] != [one.written for one in asked(drawn, SHORT, seed=4)]
    assert all(len(one.thinking_ids) >= 8 for one in found)


def test_where_only_the_end_of_text_is_among_the_best_few_something_else_is_drawn():
    model = thinker(SHORT)
    (free,) = asked(engine(SHORT), SHORT, ROWS[:1])
    model.generation_config.eos_token_id = free.written[0]
    try:
        (one,) = asked(engine(SHORT, sampling={"do_sample": True, "top_k": 1}), SHORT, ROWS[:1])
        assert one.closed and free.written[0] not in one.thinking_ids
    finally:
        model.generation_config.eos_token_id = None


class TestTotals:
    @pytest.mark.parametrize("cache", ["dense", "streaming"])
    @pytest.mark.parametrize("batch_size", [1, 3])
    def test_no_request_takes_more_and_none_could_have_had_a_token_more(self, cache, batch_size):
        free = asked(engine(cache=cache, batch_size=batch_size, kv=24))
        for key, unit, of in (
            ("total", "FLOPs", lambda served: served.flops),
            ("total", "tokens", lambda served: served.prompt + served.generated),
            ("resident", "b", lambda served: served.resident_peak),
        ):
            limit = max(of(one.served) for one in free) * 0.9
            if (cache, key) == ("streaming", "resident"):
                continue  # its most is the prompt's
            held = asked(engine(cache=cache, batch_size=batch_size, kv=24, **{key: f"{limit:.0f} {unit}"}))
            assert any(len(one.written) < len(other.written) for one, other in zip(held, free, strict=True))
            for one, other in zip(held, free, strict=True):
                assert of(one.served) <= limit
                assert one.written == other.written[: len(one.written)]
                if len(one.written) < len(other.written) and key == "total" and unit == "tokens":
                    assert of(one.served) == int(limit)

    @pytest.mark.parametrize(
        "cache", [{"type": "quest", "page": 4, "dense_layers": 0}, {"type": "flexicache", "page": 4}], ids=str
    )
    def test_of_other_methods_it_is_never_more(self, cache):
        free = asked(engine(cache=cache, kv=16))
        for key, unit, name in (("total", "FLOPs", "flops"), ("resident", "b", "resident_peak")):
            if (cache["type"], key) == ("flexicache", "resident"):
                continue  # its most is the prompt's, before pages are placed
            limit = max(getattr(one.served, name) for one in free) * 0.97
            held = asked(engine(cache=cache, kv=16, **{key: f"{limit:.0f} {unit}"}))
            assert all(getattr(one.served, name) <= limit for one in held)
            assert any(len(one.written) < len(other.written) for one, other in zip(held, free, strict=True))

    def test_without_thinking_they_hold_too(self):
        (one,) = asked(engine(thinking=None, total="5 tokens"), rows=[{"prompt": "x"}])
        assert one.served.prompt + len(one.written) == 5

    def test_a_prompt_that_is_over_already_is_refused_by_name_before_any_is_answered(self):
        requests = requests_of(ROWS, tokenizer(), InferenceBudget(), 256)
        with pytest.raises(ApportionError, match=r"Prompt 2 has \d+ tokens, and is over 'inference\.total' already"):
            engine(total=f"{len(requests[0].ids) + 3} tokens").answer(requests)
        with pytest.raises(ApportionError, match=r"'inference\.resident' already, which is 9 b"):
            engine(resident="9 b").answer(requests)

    @pytest.mark.parametrize("architecture_cache", ["dense", "streaming"])
    def test_a_price_is_what_is_then_counted(self, architecture_cache):
        model = thinker()
        forced = engine(cache=architecture_cache, thinking=0, kv=24)
        (one,) = asked(forced, rows=ROWS[:1])
        cached = budgeted_cache(model.config, CACHES.build(architecture_cache), forced.budget.kv)
        priced = price(cached, ModelFlops.of(model), len(one.request.ids), forced.budget, inserted=len(LONG.forced))
        seconds = ("queued", "prefill", "decode")
        counted, said = asdict(one.served), asdict(priced.served)
        assert {k: v for k, v in said.items() if k not in seconds} == {
            k: v for k, v in counted.items() if k not in seconds
        }


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"tags": None}, "takes tags of thinking"),
        ({"sampling": {"num_beams": 2}, "thinking": {"most": 5, "least": 2}}, "do not go with beams"),
        ({"sampling": {"num_beams": 2}, "total": "400 tokens"}, "do not go with beams"),
        ({"tags": TagIds((60,), (62,), (), ()), "thinking": {"most": 5, "least": 2}}, r"'thinking\.wait' is a word"),
        ({"thinking": {"most": 9, "ignore": 1}, "total": "1e9 FLOPs"}, "several tokens read the text again"),
    ],
)
def test_what_cannot_be_held_is_refused(changed, said):
    with pytest.raises(ApportionError, match=said):
        engine(**{"tags": LONG, **changed})


def test_a_request_cannot_think_where_none_does():
    with pytest.raises(ApportionError, match="has 'thinking' of its own"):
        engine(thinking=None).answer([Request({}, (60, 61), ThinkingBudget(most=3))])


def test_thinking_without_a_limit_ends_where_the_model_has_no_more_room():
    (one,) = asked(engine(thinking="all", answer=200), rows=ROWS[:1])
    assert not one.forced and len(one.request.ids) + len(one.written) <= 256
    with pytest.raises(ApportionError, match="A prompt of 300 tokens leaves nothing to think in"):
        engine(thinking="all").answer([Request({}, (70,) * 298)])


def test_rounds_keep_a_total_in_tokens():
    for total in (30, 34, 60):
        for one in asked(
            engine(thinking={"most": 20, "least": 9, "ignore": 2}, total=f"{total} tokens"), rows=ROWS[::2]
        ):
            assert len(one.request.ids) + len(one.written) <= total


def test_continuous_batching_is_refused_in_a_sentence():
    with pytest.raises(ApportionError, match="Generation refuses cache_implementation"):
        asked(engine(sampling={"cache_implementation": "paged"}))


def test_beams_are_held_to_their_budget():
    for one in asked(engine(batch_size=3, sampling={"num_beams": 3})):
        assert len(one.thinking_ids) <= 9 and one.closed and len(one.ids) == 5
