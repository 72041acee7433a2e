"""A price is what is then counted, for answers of full length: the same numbers where nothing depends on the text."""

from dataclasses import asdict

import pytest

from apportion.budget import InferenceBudget
from apportion.caches import CACHES
from apportion.decoding.attach import budgeted_cache
from apportion.decoding.engine import Engine
from apportion.decoding.price import price
from apportion.decoding.requests import requests_of
from apportion.models.flops import ModelFlops
from tests.evaluation.models import model, tokenizer
from tests.tiny import ARCHITECTURES

ROWS = [{"prompt": "x"}, {"prompt": "reverse abc"}, {"prompt": "a much longer prompt with many more tokens in it " * 4}]
SECONDS = ("queued", "prefill", "decode")


def both(cache, architecture="llama", **limits):
    """Return what each request takes, priced and counted."""
    module = model(architecture)
    module.generation_config.eos_token_id = None
    method, budget = CACHES.build(cache), InferenceBudget.parse({"answer": 9, **limits})
    requests = requests_of(ROWS, tokenizer(), budget, 512)
    prices = ModelFlops.of(module)
    engine = Engine(module, tokenizer(), prices, method, budget)
    counted = [asdict(one.served) for batch in engine.answer(requests) for one in batch]
    cached = budgeted_cache(module.config, method, budget.kv)
    priced = [asdict(price(cached, prices, len(request.ids), budget).served) for request in requests]
    for record in (*counted, *priced):
        for key in SECONDS:
            del record[key]
    return priced, counted


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kv", [None, 5, 24, "30%", 4096])
@pytest.mark.parametrize("cache", ["dense", "streaming"])
def test_of_dense_and_streaming_it_is_exact(cache, kv, architecture):
    priced, counted = both(cache, architecture, kv=kv)
    assert priced == counted


@pytest.mark.parametrize("answer", [1, 2, 20])
def test_it_is_exact_for_answers_of_any_length(answer):
    priced, counted = both({"type": "streaming", "dense_layers": 1}, kv=12, answer=answer)
    assert priced == counted


OTHERS = [
    {"type": "quest", "dense_layers": 0, "page": 8},
    {"type": "quest", "dense_layers": 1},
    {"type": "adamas", "dense_layers": 0},
    {"type": "adamas", "dense_layers": 0, "estimator": "asym"},
    {"type": "snapkv", "window": 8},
    {"type": "snapkv", "window": 8, "generated": "keep"},
    {"type": "flexicache", "page": 4, "interval": 2},
    {"type": "flexicache", "page": 4, "unstable": 0.5},
    {"type": "exact"},
    {"type": "random"},
]
ABOVE = ("resident_peak", "resident_steps", "side_peak", "read", "flops", "attention_flops")


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
@pytest.mark.parametrize("kv", [16, 23, 64])
@pytest.mark.parametrize("cache", OTHERS, ids=str)
def test_of_no_method_it_is_less_than_what_is_counted(cache, kv, architecture):
    priced, counted = both(cache, architecture, kv=kv)
    for mine, theirs in zip(priced, counted, strict=True):
        for key, value in theirs.items():
            if key in ABOVE:
                assert value <= mine[key] <= 1.6 * value + 4096, key
            elif key not in ("host_peak", "moved"):
                assert mine[key] == value, key


def binds(prompt=40, **limits):
    module = model()
    budget = InferenceBudget.parse(limits)
    cache = budgeted_cache(module.config, CACHES.build(limits.pop("cache", "streaming")), budget.kv)
    return price(cache, ModelFlops.of(module), prompt, budget)


def test_the_key_that_binds_first_is_the_first_that_a_request_runs_into():
    assert list(binds(answer=9).binds.items()) == [("answer", 9)]
    assert list(binds(answer=9, kv=44).binds.items()) == [("kv", 5), ("answer", 9)]
    assert list(binds(answer=9, kv=49).binds.items()) == [("answer", 9)]
    assert binds(answer=9, thinking=4).binds == {"thinking": 4, "answer": 13}
    assert list(binds(prompt=40, answer=9, **{"total": "46 tokens"}).binds.items()) == [("total", 6), ("answer", 9)]
    token = binds(answer=1).served.resident_peak // 40
    assert binds(answer=9, resident=f"{42 * token} b").binds == {"resident": 3, "answer": 9}
    assert list(binds(answer=9, kv=8, resident=f"{39 * token} b").binds) == ["resident", "kv", "answer"]
    flops = binds(answer=4).served.flops
    assert binds(answer=9, total=f"{flops:.0f} FLOPs").binds["total"] == 4


def test_thinking_is_counted_as_thinking():
    served = binds(answer=9, thinking=4).served
    assert (served.thinking, served.answer, served.steps, served.tokens) == (4, 9, 12, 52)
