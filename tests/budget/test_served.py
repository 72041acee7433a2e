"""What a request took: identities, off-by-ones, sums, and one charge to the ledger."""

import json
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.budget import Budget, Ledger, Work
from apportion.budget.served import Meter, Served, charge

TOKEN, PAIR = 1000.0, 7.0


class Linear:
    """Prices of a model of closed form."""

    itemised = False

    def forward(self, work: Work) -> float:
        return TOKEN * work.tokens + PAIR * work.pairs


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self):
        return self.now


def serve(prompt, generated, *, reused=0, kinds=("answer",), bytes_each=8, clock=None):
    """One request as generation makes it: a pass over what is new of the prompt, then one a token but for the last."""
    meter = Meter(Linear(), clock or Clock())
    new = prompt - reused
    meter.prefill(new, reused, reused=reused)
    meter.memory(resident=bytes_each * prompt, read=0)
    for i in range(generated):
        meter.token(kinds[i % len(kinds)])
        if i + 1 < generated:
            held = prompt + i + 1
            meter.step(held)
            meter.memory(resident=bytes_each * held, side=held, read=bytes_each * held)
    return meter.close()


@pytest.mark.parametrize("generated", [0, 1, 2, 17])
@pytest.mark.parametrize("reused", [0, 3, 9])
def test_the_last_token_is_never_an_input(generated, reused):
    prompt = 10
    served = serve(prompt, generated, reused=reused)
    passes = max(generated - 1, 0)
    assert (served.prompt, served.reused, served.answer, served.steps) == (prompt - reused, reused, generated, passes)
    assert served.generated == generated
    assert served.tokens == served.prompt + passes
    assert served.prompt + served.reused == prompt
    assert served.padded == served.tokens
    assert served.resident_peak == 8 * (prompt + passes)
    assert served.read == sum(8 * (prompt + i) for i in range(1, passes + 1))
    pairs = (prompt - reused) * prompt + sum(prompt + i for i in range(1, passes + 1))
    assert served.flops == TOKEN * served.tokens + PAIR * pairs
    assert served.attention_flops == PAIR * pairs


requests = st.tuples(
    st.integers(1, 300),
    st.integers(0, 40),
    st.permutations(["thinking", "answer", "inserted"]),
    st.integers(0, 20),
)


@given(requests)
def test_the_identities_hold_of_every_record(request):
    prompt, generated, kinds, wasted = request
    meter_part = serve(prompt, generated, kinds=kinds)
    meter = Meter(Linear(), Clock())
    meter.waste(wasted, 5)
    served = meter_part + meter.close()
    assert served.tokens == served.prompt + max(served.generated - 1, 0) + served.wasted
    assert served.padded >= served.tokens
    assert served.resident_peak >= served.side_peak
    assert served.resident_steps <= served.resident_peak * served.steps
    assert served.flops >= served.attention_flops >= 0


@given(st.lists(st.integers(1, 200), min_size=1, max_size=20))
def test_chunks_of_a_prompt_change_no_tokens_and_save_what_is_not_attended(sizes):
    meter, cached = Meter(Linear(), Clock()), 0
    for size in sizes:
        meter.prefill(size, cached)
        cached += size
    served = meter.close()
    whole = serve(sum(sizes), 0)
    assert served.tokens == whole.tokens == sum(sizes)
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    assert served.attention_flops == pytest.approx(PAIR * sum(q * end for q, end in zip(sizes, ends, strict=True)))
    assert served.flops <= whole.flops and (len(sizes) > 1) == (served.flops < whole.flops)


counts = st.integers(0, 10**9)
records = st.builds(
    Served,
    **{
        field.name: st.floats(0, 1e12) if field.default == 0.0 and isinstance(field.default, float) else counts
        for field in fields(Served)
        if field.name != "padded"
    },
)


@given(records, records)
def test_records_add_up_and_peaks_are_the_larger(a, b):
    both = a + b
    for field in fields(Served):
        mine, theirs, found = (getattr(one, field.name) for one in (a, b, both))
        assert found == (max(mine, theirs) if field.name.endswith("_peak") else mine + theirs)
    assert both.tokens == a.tokens + b.tokens and both.generated == a.generated + b.generated


@given(requests, requests)
def test_one_charge_for_both_is_a_charge_for_each(first, second):
    a, b = (serve(prompt, generated, kinds=kinds) for prompt, generated, kinds, _ in (first, second))
    ledgers = [Ledger(Budget("flops", 1e18)) for _ in range(2)]
    charge(ledgers[0], a + b, "generate")
    for served in (a, b):
        charge(ledgers[1], served, "generate")
    assert json.dumps(ledgers[0].as_dict()) == json.dumps(ledgers[1].as_dict())
    spent = ledgers[0].spent("generate")
    assert spent.processed == a.tokens + b.tokens and spent.supervised == 0
    assert (spent.thinking, spent.answer, spent.inserted) == (
        a.thinking + b.thinking,
        a.answer + b.answer,
        a.inserted + b.inserted,
    )
    assert ledgers[0].spent("train").flops == 0


def test_seconds_are_told_by_phase():
    clock = Clock()
    meter = Meter(Linear(), clock)
    for now, pass_made in (
        (2.0, lambda: meter.prefill(10)),
        (2.5, lambda: meter.step(11)),
        (3.5, lambda: meter.step(12)),
    ):
        clock.now = now
        pass_made()
    served = meter.close()
    assert (served.prefill, served.decode) == (2.0, 1.5)


def test_estimators_products_are_attentions():
    meter = Meter(Linear(), Clock())
    meter.step(64)
    before = meter.close()
    meter.estimated(500.0)
    after = meter.close()
    assert after.flops - before.flops == after.attention_flops - before.attention_flops == 500.0
    assert before.steps == after.steps == 1


def test_a_record_without_a_request_adds_nothing():
    a = serve(10, 5)
    assert a + Served(requests=0) == a
    assert (a + a).requests == 2
