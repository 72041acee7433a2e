"""The budget of a request: how it is written, what is refused, and that it is read as it was written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion._errors import ApportionError
from apportion.budget.inference import Bytes, InferenceBudget, KvLimit, Total
from apportion.budget.thinking import ThinkingBudget

ACCEPTED = [
    ("prompt", 4096, 4096),
    ("prompt", "4k", 4000),
    ("prompt", "4K", 4000),
    ("prompt", "4k tokens", 4000),
    ("thinking", "512", ThinkingBudget(most=512)),
    ("thinking", "512 tokens", ThinkingBudget(most=512)),
    ("thinking", 0, ThinkingBudget(most=0)),
    ("thinking", "all", ThinkingBudget()),
    ("thinking", {"most": 64, "least": 8, "ignore": 1}, ThinkingBudget(most=64, least=8, ignore=1)),
    ("thinking", {"ignore": 2}, ThinkingBudget(ignore=2)),
    ("thinking", {"most": 0, "ignore": 2}, ThinkingBudget(most=0, ignore=2)),
    ("answer", 1, 1),
    ("answer", "1 token", 1),
    ("answer", "1_000", 1000),
    ("answer", "1.5k", 1500),
    ("answer", "1e3", 1000),
    ("answer", 128.0, 128),
    ("answer", None, None),
    ("kv", 256, KvLimit(256, "tokens")),
    ("kv", "256", KvLimit(256, "tokens")),
    ("kv", "256 tokens", KvLimit(256, "tokens")),
    ("kv", "4k", KvLimit(4000, "tokens")),
    ("kv", "4k tokens", KvLimit(4000, "tokens")),
    ("kv", "2 k tokens", KvLimit(2000, "tokens")),
    ("kv", "16 pages", KvLimit(16, "pages")),
    ("kv", "1 page", KvLimit(1, "pages")),
    ("kv", "25%", KvLimit(25.0, "%")),
    ("kv", "25 %", KvLimit(25.0, "%")),
    ("kv", ".5%", KvLimit(0.5, "%")),
    ("kv", "100%", KvLimit(100.0, "%")),
    ("kv", KvLimit(3, "pages"), KvLimit(3, "pages")),
    ("resident", "96 MB", Bytes(96_000_000, "96 MB")),
    ("resident", "96MB", Bytes(96_000_000, "96MB")),
    ("resident", "96 mib", Bytes(96 * 2**20, "96 mib")),
    ("resident", "1.5 GB", Bytes(1_500_000_000, "1.5 GB")),
    ("resident", "64 KiB", Bytes(65536, "64 KiB")),
    ("resident", "800 b", Bytes(800, "800 b")),
    ("total", "1e12 FLOPs", Total(1e12, "flops")),
    ("total", "1 flop", Total(1.0, "flops")),
    ("total", "2.5B flops", Total(2.5e9, "flops")),
    ("total", "4k tokens", Total(4000, "tokens")),
    ("total", {"tokens": "4k"}, Total(4000, "tokens")),
    ("total", {"tokens": 4000}, Total(4000, "tokens")),
    ("tbt", "50 ms", 0.05),
    ("tbt", "50ms", 0.05),
    ("ttft", "0.5 s", 0.5),
    ("ttft", "250 us", 0.00025),
    ("over", "middle", "middle"),
]

REFUSED = [
    ("prompt", "4k words", "has no unit 'words'"),
    ("prompt", "lots", "is written like"),
    ("prompt", 0, "more than zero"),
    ("prompt", -5, "is written like"),
    ("prompt", True, "is written like"),
    ("thinking", "1.5", "not a whole number of tokens"),
    ("thinking", "512 toekns", "did you mean 'tokens'"),
    ("thinking", {"mots": 5}, "did you mean 'most'"),
    ("thinking", {"most": -5}, "must be greater than or equal to 0"),
    ("thinking", {"most": 5, "least": 6}, "more than 'most'"),
    ("thinking", "-1", "is written like"),
    ("answer", "12 pages", "has no unit 'pages'"),
    ("answer", "12%", "has no unit '%'"),
    ("answer", "1e400", "is too large"),
    ("answer", "nan", "is written like"),
    ("answer", "", "is written like"),
    ("kv", "256 tokenz", "did you mean 'token"),
    ("kv", "16 pags", "did you mean 'pages'"),
    ("kv", "101%", "more than all cached tokens"),
    ("kv", "0%", "more than zero"),
    ("kv", "0", "more than zero"),
    ("kv", 0.5, "not a whole number of tokens"),
    ("kv", "2.5 pages", "not a whole number of pages"),
    ("kv", "-3", "is written like"),
    ("kv", [256], "is written like"),
    ("kv", False, "is written like"),
    ("kv", "256 MB", "has no unit 'MB'"),
    ("resident", 96, "has no unit ''"),
    ("resident", "96 MBB", "did you mean 'mb'"),
    ("resident", "96 Mib B", "is written like"),
    ("resident", "0 MB", "more than zero"),
    ("resident", "1.5 b", "not a whole number of bytes"),
    ("resident", "25%", "has no unit '%'"),
    ("total", "1e12", "has no unit ''"),
    ("total", "1e12 FLOPS/s", "is written like"),
    ("total", "1e12 flps", "did you mean 'flops'"),
    ("total", {"tokn": 4}, "one key, 'tokens'"),
    ("total", {"tokens": None}, "is written like"),
    ("total", {"tokens": 2.5}, "not a whole number of tokens"),
    ("tbt", 50, "has no unit ''"),
    ("tbt", 0.05, "has no unit ''"),
    ("tbt", "50 msec", "did you mean 'ms'"),
    ("ttft", "0 s", "more than zero"),
    ("over", "cut", "must be 'refuse' or 'middle'"),
    ("kvs", "256", "did you mean 'kv'"),
    ("anwser", 128, "did you mean 'answer'"),
    ("residents", "96 MB", "did you mean 'resident'"),
]


def test_there_are_forty_of_each():
    assert len(ACCEPTED) >= 40 and len(REFUSED) >= 40


@pytest.mark.parametrize(("key", "text", "wanted"), ACCEPTED, ids=str)
def test_what_a_person_writes_is_read(key, text, wanted):
    budget = InferenceBudget.parse({key: text})
    assert getattr(budget, key) == wanted
    assert InferenceBudget.parse(budget.written()) == budget


@pytest.mark.parametrize(("key", "text", "sentence"), REFUSED, ids=str)
def test_what_is_no_limit_is_refused_in_one_sentence(key, text, sentence):
    with pytest.raises(ApportionError) as refused:
        InferenceBudget.parse({key: text})
    said = str(refused.value)
    assert sentence in said and f"inference.{key}" in said and "\n" not in said and said.endswith(".")


def test_what_is_not_written_is_no_limit():
    assert InferenceBudget.parse({}) == InferenceBudget()
    assert InferenceBudget().written() == {"over": "refuse"}


amounts = st.integers(1, 10**12)
limits = st.fixed_dictionaries(
    {},
    optional={
        "prompt": amounts,
        "over": st.sampled_from(["refuse", "middle"]),
        "thinking": amounts,
        "answer": amounts.map(lambda n: f"{n}k"),
        "kv": st.one_of(
            amounts,
            amounts.map(lambda n: f"{n} pages"),
            st.floats(1e-6, 100).map(lambda share: f"{share}%"),
        ),
        "resident": st.tuples(amounts, st.sampled_from(["B", "kB", "MB", "MiB", "GiB"])).map(
            lambda p: f"{p[0]} {p[1]}"
        ),
        "total": st.one_of(st.floats(1, 1e30).map(lambda n: f"{n} FLOPs"), amounts.map(lambda n: {"tokens": n})),
        "tbt": st.floats(1e-6, 1e6).map(lambda n: f"{n} ms"),
        "ttft": st.floats(1e-6, 1e6).map(lambda n: f"{n} s"),
    },
)


@given(limits)
def test_a_budget_is_read_as_it_was_written(values):
    budget = InferenceBudget.parse(values)
    written = budget.written()
    assert InferenceBudget.parse(written) == budget
    assert InferenceBudget.parse(written).written() == written
    assert all(isinstance(value, str | int) for value in written.values())


@pytest.mark.parametrize(
    ("limit", "cached", "page", "tokens"),
    [
        ("256", 10, None, 256),
        ("16 pages", 10, 16, 256),
        ("25%", 100, None, 25),
        ("25%", 101, None, 26),
        ("0.1%", 5, None, 1),
        ("100%", 7, None, 7),
        ("33.3%", 1000, None, 333),
    ],
)
def test_a_limit_in_tokens(limit, cached, page, tokens):
    assert KvLimit.parse(limit).tokens(cached, page) == tokens


def test_pages_take_a_method_with_pages():
    with pytest.raises(ValueError, match="takes a method with pages"):
        KvLimit.parse("16 pages").tokens(100, None)


@given(st.floats(1e-3, 100), st.integers(1, 10**6))
def test_a_share_is_rounded_up_and_never_more_than_all(share, cached):
    tokens = KvLimit.parse(f"{share}%").tokens(cached, None)
    assert 1 <= tokens <= cached and tokens >= share * cached / 100 * (1 - 1e-12)
    assert tokens - 1 < share * cached / 100 * (1 + 1e-12)
