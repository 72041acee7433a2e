import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion._errors import ApportionError
from apportion.budget import ACCOUNTS, Budget, Ledger, Spent

charges = st.lists(
    st.tuples(
        st.sampled_from(ACCOUNTS),
        st.lists(st.integers(0, 10**6), min_size=3, max_size=3).map(sorted),
        st.floats(0, 1e18, allow_nan=False),
    ),
    max_size=30,
)


def charged(rows, budget):
    ledger = Ledger(budget)
    for account, (supervised, processed, padded), flops in rows:
        ledger.charge(account, supervised=supervised, processed=processed, padded=padded, flops=flops)
    return ledger


def test_adds_up_by_account():
    ledger = Ledger(Budget("supervised", 100))
    ledger.charge("train", supervised=30, processed=50, padded=64, flops=1e6)
    ledger.charge("train", supervised=5, processed=6, padded=6, flops=10)
    ledger.charge("meta", supervised=0, processed=0, padded=0, flops=2e6)
    assert ledger.spent("train") == Spent(35, 56, 70, 1_000_010.0)
    assert ledger.spent("select") == Spent()
    assert ledger.total_flops == 3_000_010.0


@pytest.mark.parametrize(("unit", "used"), [("supervised", 30), ("processed", 50), ("flops", 3e3)])
def test_progress_counts_train_tokens_or_all_flops(unit, used):
    ledger = Ledger(Budget(unit, 100.0 * used if unit == "flops" else 100 * used))
    assert ledger.progress == 0.0
    ledger.charge("train", supervised=30, processed=50, padded=64, flops=1e3)
    ledger.charge("meta", supervised=7, processed=9, padded=9, flops=2e3)
    assert ledger.used == used
    assert ledger.progress == pytest.approx(0.01)
    assert ledger.remaining == 99 * used
    ledger.charge("train", supervised=10**9, processed=10**9, padded=10**9, flops=1e15)
    assert (ledger.progress, ledger.remaining) == (1.0, 0)


@pytest.mark.parametrize(
    ("account", "wrong"),
    [
        ("trian", {}),
        ("train", {"supervised": -1}),
        ("train", {"supervised": 1.0}),
        ("train", {"supervised": True}),
        ("train", {"processed": None}),
        ("train", {"supervised": 9}),
        ("train", {"padded": 2}),
        ("train", {"flops": -1.0}),
        ("train", {"flops": float("nan")}),
        ("train", {"flops": float("inf")}),
        ("train", {"flops": True}),
        ("train", {"flops": "1e6"}),
    ],
)
def test_a_wrong_charge_is_an_error_and_changes_nothing(account, wrong):
    ledger = Ledger(Budget("supervised", 100))
    with pytest.raises(ValueError):
        ledger.charge(account, **({"supervised": 2, "processed": 3, "padded": 4, "flops": 5.0} | wrong))
    assert ledger.as_dict() == Ledger(Budget("supervised", 100)).as_dict()


def test_amounts_cannot_be_left_out():
    with pytest.raises(TypeError):
        Ledger(Budget("supervised", 100)).charge("train", supervised=1, processed=1, padded=1)


def test_unknown_account_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'train'"):
        Ledger(Budget("supervised", 100)).spent("trian")


@given(charges)
def test_state_round_trip_is_exact(rows):
    budget = Budget("flops", 1e19)
    ledger, resumed = charged(rows, budget), Ledger(budget)
    resumed.load_state_dict(json.loads(json.dumps(ledger.state_dict())))
    assert resumed.as_dict() == ledger.as_dict()
    for each in (ledger, resumed):
        each.charge("train", supervised=1, processed=2, padded=3, flops=0.1)
    assert resumed.state_dict() == ledger.state_dict()
    assert resumed.progress == ledger.progress


def test_as_dict_is_the_run_folders_contract():
    ledger = Ledger(Budget("supervised", 60000))
    ledger.charge("proxy", supervised=1, processed=2, padded=3, flops=4)
    assert ledger.as_dict()["budget"] == {"unit": "supervised", "limit": 60000}
    assert list(ledger.as_dict()["accounts"]) == list(ACCOUNTS)
    kinds = {"thinking": 0, "answer": 0, "inserted": 0}
    assert ledger.as_dict()["accounts"]["proxy"] == {"supervised": 1, "processed": 2, "padded": 3, "flops": 4.0} | kinds


def test_a_state_is_a_copy():
    ledger = Ledger(Budget("supervised", 60000))
    before = copy.deepcopy(state := ledger.state_dict())
    ledger.charge("train", supervised=1, processed=2, padded=3, flops=4)
    assert state == before


def test_a_state_of_another_budget_is_refused():
    state = Ledger(Budget("supervised", 60000)).state_dict()
    with pytest.raises(ApportionError, match="60,000 supervised tokens, this one of 50,000 supervised"):
        Ledger(Budget("supervised", 50000)).load_state_dict(state)


@pytest.mark.parametrize("damage", ["missing account", "negative", "missing amount", "no accounts"])
def test_a_damaged_state_is_refused_and_changes_nothing(damage):
    budget = Budget("supervised", 60000)
    state = Ledger(budget).state_dict()
    if damage == "missing account":
        del state["accounts"]["meta"]
    elif damage == "negative":
        state["accounts"]["meta"]["processed"] = -1
    elif damage == "missing amount":
        del state["accounts"]["meta"]["flops"]
    else:
        del state["accounts"]
    ledger = Ledger(budget)
    ledger.charge("train", supervised=1, processed=2, padded=3, flops=4)
    before = ledger.as_dict()
    with pytest.raises(ApportionError, match="saved ledger"):
        ledger.load_state_dict(state)
    assert ledger.as_dict() == before
