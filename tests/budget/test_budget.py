import json
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion._errors import ApportionError
from apportion.budget import Budget

TOTAL = 123_457


@pytest.mark.parametrize(
    ("spec", "unit", "limit"),
    [
        ("5%", "supervised", 6172),
        ("5 %", "supervised", 6172),
        ("250%", "supervised", 308_642),
        ("0.5% supervised", "supervised", 617),
        (60000, "supervised", 60_000),
        (60000.0, "supervised", 60_000),
        ("60000", "supervised", 60_000),
        ("60_000", "supervised", 60_000),
        ("60k", "supervised", 60_000),
        ("2M", "supervised", 2_000_000),
        ("2m tokens", "supervised", 2_000_000),
        ("1.5B", "supervised", 1_500_000_000),
        ("2e6", "supervised", 2_000_000),
        ("2M supervised", "supervised", 2_000_000),
        ("2M supervised tokens", "supervised", 2_000_000),
        ("2M processed", "processed", 2_000_000),
        ("1e17 FLOPs", "flops", 1e17),
        ("1e17flops", "flops", 1e17),
        ({"total": "1e17 FLOPs"}, "flops", 1e17),
        ({"supervised": "2M"}, "supervised", 2_000_000),
        ({"supervised": "5%"}, "supervised", 6172),
        ({"processed": 70}, "processed", 70),
    ],
)
def test_reads_what_a_person_writes(spec, unit, limit):
    budget = Budget.parse(spec, TOTAL)
    assert (budget.unit, budget.limit) == (unit, limit)
    assert isinstance(budget.limit, float if unit == "flops" else int)


@pytest.mark.parametrize(
    "spec",
    [
        *("0", 0, "0%", "-5%", -3, "nan", float("nan"), float("inf"), "1e99", "", "many", "5 apples", "1.5", 0.05),
        *(True, None, ["2M"], "5% processed", "5% FLOPs", "2M FLOPs tokens"),
        *({}, {"total": 1e17}, {"total": "2M"}, {"processed": "5%"}, {"supervised": "2M", "processed": "3M"}),
        *({"supervised": "2M processed"}, {"supervised": None}),
    ],
)
def test_refuses_nonsense_and_says_what_is_accepted(spec):
    with pytest.raises(ApportionError, match=r"'2M processed', '1e17 FLOPs'"):
        Budget.parse(spec, TOTAL)


def test_unknown_key_names_the_nearest():
    with pytest.raises(ApportionError, match=r"Unknown key 'budget.supervise' \(did you mean 'supervised'\?\)"):
        Budget.parse({"supervise": "2M"}, TOTAL)


def test_a_share_of_less_than_one_token_is_refused():
    with pytest.raises(ApportionError, match="less than one token"):
        Budget.parse("5%", 10)
    assert Budget.parse("10%", 10).limit == 1


@given(st.integers(1, 10**9), st.integers(1, 10**12))
def test_shares_are_exact_and_rounded_down(hundredths, total):
    if hundredths * total < 10_000:
        return
    limit = Budget.parse(f"{hundredths // 100}.{hundredths % 100:02d}%", total).limit
    assert limit == hundredths * total // 10_000


@pytest.mark.parametrize(
    ("unit", "limit"), [("token", 5), ("supervised", 5.0), ("supervised", 0), ("flops", float("inf")), ("flops", True)]
)
def test_a_budget_cannot_be_built_wrong(unit, limit):
    with pytest.raises(ApportionError):
        Budget(unit, limit)


def test_is_immutable_and_prints():
    budget = Budget("supervised", 60_000)
    with pytest.raises(FrozenInstanceError):
        budget.limit = 3
    assert str(budget) == "60,000 supervised tokens"
    assert str(Budget("flops", 1e17)) == "1e+17 FLOPs"
    assert json.dumps(budget.limit) == "60000"
