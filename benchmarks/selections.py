"""What selections cost, and whether they rank as their formulas say.

    python benchmarks/selections.py [--json] [--only less,ranks,memory,pool,proxies]

``less_speedup``: LESS's scoring of one checkpoint, examples a second of one core's time, over a plain loop of
torch.autograd.grad, Adam's step and a dense projection, on a Llama of 10M parameters with LoRA r=16 of queries and values;
the two take turns. ``less_spearman``: projected scores against brute force without projection, width 8192.
``exact_spearman``: products read from the backward pass against products of autograd's gradients. ``less_memory``: peak
memory of a process that scores over that of one that trains on batches of the same size. ``bm25_seconds`` and
``embedding_seconds``: 100,000 examples and 400 of targets, on one core; ``memory_doubling_ratio``: peak memory with twice
the pool over that with the pool, the larger of the two methods'. ``regmix_spearman`` and ``doremi_largest_difference``:
see benchmarks/proxies.py.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from apportion.budget import Budget, Ledger
from apportion.models.flops import ModelFlops
from apportion.models.loading import parameters
from apportion.selections.bm25 import Bm25
from apportion.selections.embedding import Embedding
from apportion.selections.less import influence
from apportion.signals._pool import Look, Pool, PoolBench, PoolSignal
from apportion.signals.inner_step import AdamStep
from apportion.signals.losses import example_losses
from apportion.signals.pool_gradients import GradientProducts, ProjectedGradients
from apportion.signals.projection import projected
from apportion.tasks import EncodedCollection, EncodedSplit
from apportion.tasks.batches import collate
from apportion.tasks.encoded import EncodedTask, to_batch
from apportion.tasks.targets import Targets

VOCABULARY, WIDTH, BATCH = 4096, 8192, 16
EMPTY = EncodedSplit.from_arrays([], [])


def llama(hidden: int, layers: int, lora: bool) -> nn.Module:
    torch.manual_seed(0)
    shape = {"hidden_size": hidden, "intermediate_size": 3 * hidden, "num_hidden_layers": layers}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 512}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, tie_word_embeddings=True, **shape, **heads))
    if not lora:
        return model
    adapted: Any = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "v_proj"]))
    for name, p in adapted.named_parameters():
        if "lora_B" in name:  # as after a warm-up: at zero, A has no gradient
            nn.init.normal_(p, std=0.02)
    return adapted


def split_of(count: int, length: int, seed: int) -> EncodedSplit:
    """Return examples of about ``length`` tokens, the last third supervised, in a file that is mapped into memory."""
    return opened(written(count, length, seed))


def opened(file: str) -> EncodedSplit:
    return EncodedSplit(pa.ipc.open_file(pa.memory_map(file, "r")).get_batch(0))


def written(count: int, length: int, seed: int) -> str:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(length // 2, 3 * length // 2, count)
    file = Path(tempfile.mkdtemp()) / "split.arrow"
    schema = to_batch([], []).schema
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        signed = []
        for n in lengths.tolist():
            # Words of unequal frequency, as in texts.
            ids = np.minimum((VOCABULARY * rng.random(n) ** 3).astype(np.int32), VOCABULARY - 1)
            signed.append(np.where(np.arange(n) >= 2 * n // 3, ~ids, ids).astype(np.int32))
        writer.write_batch(to_batch([f"{seed}-{i}" for i in range(count)], signed))
    return str(file)


def bench_of(model: nn.Module, pool: EncodedSplit, targets: list[EncodedSplit]) -> PoolBench:
    tasks = EncodedCollection([EncodedTask("pool", pool, EMPTY, EMPTY)], [], "benchmark")
    steer = [[(at, split, i) for i in range(len(split))] for at, split in enumerate(targets)]
    names = tuple(f"target{at}" for at in range(len(targets)))
    goal = Targets(names, torch.ones(len(targets), dtype=torch.float64), steer, steer, are_tasks=False)
    ledger, trained = Ledger(Budget("flops", 1e40)), parameters(model)["trainable"]
    scored = Pool(tasks, [np.arange(len(pool))])
    return PoolBench(scored, goal, ModelFlops.of(model), trained, ledger, BATCH, 0, str)


def adam_of(model: nn.Module) -> AdamStep:
    torch.manual_seed(1)
    moments = {
        name: (1e-3 * torch.randn_like(p), 1e-6 * torch.rand_like(p) + 1e-8)
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    return AdamStep(1e-4, step=100, moments=moments)


def gradient_of(model: nn.Module, split: EncodedSplit, i: int) -> dict[str, Tensor]:
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    loss = example_losses(model, collate([split.example(i)], [0], 0)).sum()
    return dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))


def step_of(inner: AdamStep, gradient: dict[str, Tensor]) -> Tensor:
    """Return LESS's feature by its formula, without corrections of the bias."""
    (b1, b2), parts = inner.betas, []
    for name, g in gradient.items():
        m, v = inner.moments[name]
        parts.append(((b1 * m + (1 - b1) * g) / ((b2 * v + (1 - b2) * g * g).sqrt() + inner.eps)).flatten())
    return torch.cat(parts)


def cpu(work: Callable[[], object]) -> float:
    started = time.thread_time()
    work()
    return time.thread_time() - started


def less_speedup(rounds: int) -> dict[str, float]:
    model = llama(320, 8, lora=True).eval()
    pool, target = split_of(256 * (rounds + 1), 96, 0), split_of(16, 96, 1)
    inner, bench = adam_of(model), bench_of(model, pool, [target])
    signal = ProjectedGradients(looks=1, width=WIDTH, seed=0).attach(bench)
    look = Look(model, inner)
    signal.resume(look, signal.begin(look))
    trained = bench.trained
    dense = torch.empty(trained, WIDTH).bernoulli_().mul_(2).sub_(1)
    ours, plain = [], []
    items = [(0, pool, i) for i in range(len(pool))]
    for turn in range(rounds + 1):
        part = items[256 * turn : 256 * (turn + 1)]
        ours.append(cpu(lambda part=part: signal.show(part)) / len(part))
        few = part[:4]
        plain.append(
            cpu(lambda few=few: [step_of(inner, gradient_of(model, split, i)) @ dense for _, split, i in few])
            / len(few)
        )
    ratio = float(np.median(np.array(plain[1:]) / np.array(ours[1:])))
    return {
        "less_speedup": round(ratio, 2),
        "less_examples_a_second": round(1 / float(np.median(ours[1:])), 1),
        "less_parameters": parameters(model)["total"],
        "less_trained": trained,
    }


def ranks() -> dict[str, float]:
    """Compare rankings on a pool in which some examples are like the targets."""
    model = llama(64, 3, lora=True).eval()
    pool, target = split_of(400, 48, 2), split_of(24, 48, 3)
    inner, bench = adam_of(model), bench_of(model, pool, [target])
    look, items = Look(model, inner), [(0, pool, i) for i in range(len(pool))]
    unit = nn.functional.normalize
    steps = unit(torch.stack([step_of(inner, gradient_of(model, pool, i)) for i in range(len(pool))]))
    plain = [gradient_of(model, target, i) for i in range(len(target))]
    anchors = unit(torch.stack([torch.cat([g.flatten() for g in one.values()]) for one in plain]))
    brute = (steps @ anchors.mean(0)[:, None])[:, 0]
    signal = ProjectedGradients(looks=1, width=WIDTH, seed=0).attach(bench)
    signal.resume(look, signal.begin(look))
    shown = signal.show(items)
    scores = influence(shown.embeddings, shown.anchors)[:, 0]
    exact = GradientProducts(looks=1).attach(bench)
    exact.resume(look, exact.begin(look))
    products = exact.show(items).products[:, 0]
    mean = {name: torch.stack([one[name] for one in plain]).mean(0) for name in plain[0]}
    way = torch.cat([inner.precondition(name, g).flatten() for name, g in mean.items()])
    found = []
    for i in range(len(pool)):
        found.append(torch.cat([g.flatten() for g in gradient_of(model, pool, i).values()]) @ way)
    return {
        "less_spearman": round(spearman(scores, brute), 4),
        "exact_spearman": round(spearman(products, torch.stack(found)), 6),
        "exact_against_less_spearman": round(spearman(products, brute), 4),
        "projection_spearman_of_one_step": round(
            spearman((projected(steps, WIDTH, 0) @ projected(anchors, WIDTH, 0).mean(0)), brute), 4
        ),
    }


def spearman(a: Tensor, b: Tensor) -> float:
    ranked = [np.argsort(np.argsort(x.detach().numpy())) for x in (a, b)]
    return float(np.corrcoef(*ranked)[0, 1])


def peak(work: Callable[..., None], *args: Any) -> float:
    """Return the peak memory, MiB, of a process of its own that does the work."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_peak, args=(work, args, theirs))
    child.start()
    found = ours.recv()
    child.join()
    return float(found)


def _peak(work: Callable[..., None], args: tuple[Any, ...], pipe: Any) -> None:
    torch.set_num_threads(1)
    work(*args)
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def train() -> None:
    model = llama(320, 8, lora=True)
    pool = split_of(256, 96, 0)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    for start in range(0, len(pool), BATCH):
        batch = collate([pool.example(i) for i in range(start, start + BATCH)], [0] * BATCH, 0)
        example_losses(model, batch).mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def score_less() -> None:
    model = llama(320, 8, lora=True)
    pool, target = split_of(256, 96, 0), split_of(16, 96, 1)
    signal = ProjectedGradients(looks=1, width=WIDTH, seed=0).attach(bench_of(model, pool, [target]))
    look = Look(model, adam_of(model))
    signal.resume(look, signal.begin(look))
    signal.show([(0, pool, i) for i in range(len(pool))])


def score_pool(method: str, file: str, seconds: Any = None) -> None:
    """Score a pool that lies in a file chunk by chunk, as the stage does."""
    model = llama(64, 2, lora=False)
    pool, targets = opened(file), [split_of(100, 40, seed) for seed in range(1, 5)]
    chosen = {"bm25": Bm25(), "embedding": Embedding()}[method]
    signal: PoolSignal = chosen.needs()[0].attach(bench_of(model, pool, targets))
    started = time.thread_time()
    signal.survey()
    look = Look(model)
    signal.resume(look, signal.begin(look))
    scores = torch.cat([chosen.score(signal.show(chunk)) for chunk in signal.bench.pool.chunks])
    chosen.gathered(scores, torch.ones(len(targets), dtype=torch.float64))
    if seconds is not None:
        seconds.value = time.thread_time() - started


def pool_figures(count: int) -> dict[str, float]:
    found: dict[str, float] = {}
    ratios = []
    # Written here, so that what writing takes is not counted.
    pool, double = (written(n, 40, 0) for n in (count, 2 * count))
    for method in ("bm25", "embedding"):
        seconds = multiprocessing.get_context("spawn").Value("d", 0.0)
        once = peak(score_pool, method, pool, seconds)
        twice = peak(score_pool, method, double)
        found[f"{method}_seconds"] = round(seconds.value, 1)
        ratios.append(twice / once)
    return found | {"memory_doubling_ratio": round(max(ratios), 3)}


def less_memory() -> dict[str, float]:
    return {"less_memory": round(peak(score_less) / peak(train), 3)}


def proxies() -> dict[str, float]:
    from proxies import measure

    return measure()


PARTS: dict[str, Callable[[], dict[str, float]]] = {
    "less": lambda: less_speedup(5),
    "ranks": ranks,
    "memory": less_memory,
    "pool": lambda: pool_figures(100_000),
    "proxies": proxies,
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", action="store_true", help="print one line of JSON")
    options.add_argument("--only", default=",".join(PARTS), help="parts, commas between")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    found: dict[str, float] = {}
    for part in chosen.only.split(","):
        found |= PARTS[part]()
    if chosen.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:34} {value:,}")


if __name__ == "__main__":
    main()
