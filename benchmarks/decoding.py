"""Decode steps under a budget, as ratios within one run.

    python benchmarks/decoding.py [--json] [--only fp32,bf16,store,meter,flexicache] [--threads 1]

A step is what generation does in one layer: the new key and value go into the cache, and the attention function reads it.
32 query heads, 8 of keys and values, 128 numbers each, batch 1, caches of 8,192 to 32,768 tokens. The arms take turns, and
a figure is the ratio of their medians.

- ``adamas_speedup``, ``quest_speedup``: packed dense attention over our buffers, by the method reading 256 tokens. Beside
  them ``..._over_stock``: transformers' own cache and attention, and ``..._over_best``: the faster of packed attention and
  of plain products, over buffers.
- ``dense_store_vs_dynamic_cache``: our dense step over the same attention behind transformers' cache, 32k tokens.
- ``meter_overhead``: a decode step of a model of 0.2M parameters with a meter over one without.
- ``flexicache_resident_ratio``, ``flexicache_read_ratio``: bytes on the device and bytes read a step over dense, at 20,000
  tokens and 64 pages, from the tensors; beside them what the formulas say.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from apportion.budget.served import Meter
from apportion.caches import Adamas, Dense, Flexicache, Quest
from apportion.caches._cache import CacheMethod, KvShape, grouped
from apportion.decoding.attach import kv_budget
from apportion.decoding.attend import attend, packed
from apportion.decoding.store import Layer
from apportion.decoding.watch import Watch
from apportion.models.flops import ModelFlops

HEADS, KV_HEADS, HEAD, BUDGET = 32, 8, 128, 256
LENGTHS = {"8k": 8192, "16k": 16384, "32k": 32768}
Step = Callable[[], object]


class Module(nn.Module):
    """What the attention functions ask of a layer of a model."""

    is_causal, num_key_value_groups, layer_idx, sliding_window = True, HEADS // KV_HEADS, 0, None


def news(dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield a step's query, key and value, from a few made beforehand."""

    def drawn(heads: int) -> Tensor:
        return torch.randn(1, heads, 1, HEAD).to(dtype)

    made = [(drawn(HEADS), drawn(KV_HEADS), drawn(KV_HEADS)) for _ in range(16)]
    while True:
        yield from made


def ours(method: CacheMethod, prompt: list[Tensor], dtype: torch.dtype) -> Step:
    shape = KvShape(1, HEADS, KV_HEADS, HEAD, dtype.itemsize)
    layer = Layer(method, 0, shape, lambda seen: min(BUDGET, seen), Watch())
    layer.update(*prompt[1:])
    layer.ask(prompt[0])
    module, given = Module(), news(dtype)

    def step() -> object:
        query, key, value = next(given)
        keys, values = layer.update(key, value)
        return attend(module, query, keys, values, None, scaling=HEAD**-0.5)

    step()
    return step


def stock(prompt: list[Tensor], dtype: torch.dtype) -> Step:
    layer, module, given = DynamicLayer(), Module(), news(dtype)
    layer.update(*prompt[1:])

    def step() -> object:
        query, key, value = next(given)
        keys, values = layer.update(key, value)
        return sdpa_attention_forward(module, query, keys, values, None, scaling=HEAD**-0.5)

    return step


def behind_stock_cache(prompt: list[Tensor], dtype: torch.dtype) -> Step:
    layer, given = DynamicLayer(), news(dtype)
    layer.update(*prompt[1:])

    def step() -> object:
        query, key, value = next(given)
        keys, values = layer.update(key, value)
        return packed(query, keys, values, None, HEAD**-0.5)

    return step


def buffered(attention: Callable[[Tensor, Tensor, Tensor], Tensor], prompt: list[Tensor], dtype: torch.dtype) -> Step:
    """A step over buffers with a given attention and nothing else: no store, no counting."""
    n, given = prompt[1].shape[2], news(dtype)
    room = [torch.cat([part, torch.zeros_like(part)], dim=2) for part in prompt[1:]]
    at = [n]

    def step() -> object:
        query, key, value = next(given)
        for buffer, new in zip(room, (key, value), strict=True):
            buffer[:, :, at[0]] = new[:, :, 0]
        at[0] += 1
        keys, values = (buffer[:, :, : at[0]] for buffer in room)
        return attention(grouped(query, KV_HEADS), keys, values)

    return step


def plain(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    scores = (query @ keys.transpose(2, 3)).float() * HEAD**-0.5
    return scores.softmax(-1).to(values.dtype) @ values


def fused(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(query, keys, values, scale=HEAD**-0.5)


def in_turns(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    """Return the seconds of each step, the median over rounds; the first three are not counted."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for done in range(rounds + 3):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if done >= 3:
                found[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def ratio(above: float, below: float) -> float:
    return round(above / below, 3)


def speedups(dtype: torch.dtype, suffix: str, rounds: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for label, n in LENGTHS.items():
        torch.manual_seed(n)
        prompt = [torch.randn(1, heads, n, HEAD).to(dtype) for heads in (HEADS, KV_HEADS, KV_HEADS)]
        prompt[0] = prompt[0][:, :, -32:]
        times = in_turns(
            {
                "packed": buffered(fused, prompt, dtype),
                "adamas": ours(Adamas(dense_layers=0), prompt, dtype),
                "quest": ours(Quest(dense_layers=0), prompt, dtype),
                "plain": buffered(plain, prompt, dtype),
                "dense": ours(Dense(), prompt, dtype),
                "stock": stock(prompt, dtype),
            },
            rounds,
        )
        fastest = min(("packed", "plain"), key=times.__getitem__)
        for method in ("adamas", "quest"):
            for kind, other in (("", "packed"), ("_over_stock", "stock"), ("_over_best", fastest)):
                found.setdefault(f"{method}_speedup{kind}{suffix}", {})[label] = ratio(times[other], times[method])
        found.setdefault(f"dense_over_packed{suffix}", {})[label] = ratio(times["dense"], times["packed"])
        milliseconds = {name: round(1000 * seconds, 3) for name, seconds in times.items()}
        found.setdefault(f"milliseconds{suffix}", {})[label] = milliseconds
    return found


def store(rounds: int) -> dict[str, Any]:
    n, dtype = LENGTHS["32k"], torch.float32
    prompt = [torch.randn(1, heads, n, HEAD) for heads in (HEADS, KV_HEADS, KV_HEADS)]
    prompt[0] = prompt[0][:, :, -32:]
    times = in_turns({"ours": ours(Dense(), prompt, dtype), "theirs": behind_stock_cache(prompt, dtype)}, rounds)
    return {"dense_store_vs_dynamic_cache": ratio(times["ours"], times["theirs"])}


def meter(rounds: int) -> dict[str, Any]:
    """Time decode steps of a small model under a budget, with and without what is counted of each."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
    )
    model = LlamaForCausalLM(config).eval()
    prices = ModelFlops.of(model)
    tokens = torch.randint(0, 512, (1, 512))
    new = tokens[:, :1]
    caches = []
    with torch.inference_mode(), kv_budget(model, Quest(dense_layers=0), 128) as first:
        with kv_budget(model, Quest(dense_layers=0), 128) as second:
            caches = [first, second]
        model.set_attn_implementation("apportion")
        for cache in caches:
            model(tokens, past_key_values=cache)
        counted, cache = Meter(prices, time.perf_counter), caches[1]

        def without() -> object:
            return model(new, past_key_values=caches[0])

        def with_meter() -> object:
            model(new, past_key_values=cache)
            watch = cache.watch.taken()
            counted.step(watch.attended / max(watch.layers, 1))
            counted.memory(resident=cache.resident, side=cache.side, read=watch.read)
            counted.estimated(watch.estimated)
            return counted.token("answer")

        times = in_turns({"without": without, "with": with_meter}, rounds)
    return {"meter_overhead": ratio(times["with"], times["without"])}


def flexicache(rounds: int) -> dict[str, Any]:
    """Count bytes over two intervals of decode steps; nothing is timed."""
    n, pages, method = 20_000, 64, Flexicache(unstable=0.25, dense_layers=0)
    shape, watch = KvShape(1, HEADS, KV_HEADS, HEAD, 4), Watch()
    layer = Layer(method, 0, shape, lambda seen: min(pages * method.page, seen), watch)
    torch.manual_seed(0)
    layer.update(*(torch.randn(1, KV_HEADS, n, HEAD) for _ in range(2)))
    layer.ask(torch.randn(1, HEADS, 32, HEAD))
    module, drawn, dense, steps = Module(), news(torch.float32), 0, 2 * method.interval
    for _ in range(steps):
        query, key, value = next(drawn)
        keys, values = layer.update(key, value)
        attend(module, query, keys, values, None, scaling=HEAD**-0.5)
        dense += layer.seen * shape.token_bytes
    held, whole = -(-layer.seen // method.page), layer.seen * shape.token_bytes
    bounds = 1 / method.page
    often = method.unstable + (1 - method.unstable) / method.interval
    kept = method.unstable + (1 - method.unstable) * pages / held
    return {
        "flexicache_resident_ratio": ratio(layer.nbytes + layer.side_bytes, whole),
        "flexicache_resident_formula": round(kept + bounds, 3),
        "flexicache_resident_without_bounds": ratio(layer.nbytes, whole),
        "flexicache_read_ratio": ratio(watch.read, dense),
        "flexicache_read_formula": round(pages * method.page / layer.seen + often * bounds, 3),
    }


PARTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "fp32": lambda rounds: speedups(torch.float32, "", rounds),
    "bf16": lambda rounds: speedups(torch.bfloat16, "_bf16", rounds),
    "store": store,
    "meter": lambda rounds: meter(10 * rounds),
    "flexicache": flexicache,
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", action="store_true", help="print one line of JSON")
    options.add_argument("--only", default=",".join(PARTS), help="parts, commas between")
    options.add_argument("--threads", type=int, default=1, help="more than are idle measure the scheduler")
    options.add_argument("--rounds", type=int, default=31)
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    found: dict[str, Any] = {}
    with torch.inference_mode():
        for part in chosen.only.split(","):
            new = PARTS[part](chosen.rounds)
            found |= new
            if not chosen.json:
                print(*(f"{name:34} {value}" for name, value in new.items()), sep="\n", flush=True)
    if chosen.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
