"""What weights cost: seconds a step over plain training, and BM25 over a pool beside rank_bm25 asked anchor by anchor.

    python benchmarks/weights.py [--json] [--rounds 9]

Four processes take turns step by step, on the same batches, so that a machine that slows down favours none; a ratio
is the median over steps of a method's seconds over plain training's in the same round, CPU seconds of its one thread,
so that other work on the machine counts for little. Steps are of 128 examples in one micro-batch. The anchors of ADAPT
weights are embedded every few steps, timed apart, and charged at R = 50. LinUpper with several micro-batches takes one
more forward pass, a third of the step, by arithmetic; that is not measured here.

BM25 is worked out for 100,000 examples of Natural Instructions with 400 anchors. rank_bm25 is asked on a sample, a few
anchors one by one, and its seconds are extrapolated linearly in examples and anchors; on the sample both must rank alike.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from overhead import RECIPE
from packing import packing_speedup
from rank_bm25 import BM25Okapi

from apportion.models.flops import ModelFlops
from apportion.plans.anchors import find_anchors
from apportion.plans.build import assemble, load_data, make_model, make_trainer
from apportion.plans.recipe import overridden, parse_recipe, read_yaml
from apportion.training.recorder import Recorder
from apportion.training.trainer import BudgetTrainer
from apportion.weights import Adapt
from apportion.weights.bm25 import K1, B, index, mean_scores

BATCH, ANCHORS, REFRESH, TIMED_REFRESH, WARM = 128, 400, 50, 4, 2
ARMS = {
    "plain": "uniform",
    "adapt": f"{{type: adapt, anchors: {ANCHORS}, refresh: {TIMED_REFRESH}}}",
    "linupper": "linupper",
    "bm25": "bm25",
}
SMALLER = ("model.config.num_hidden_layers=3", "budget=100M")
LARGE = Path(__file__).parents[1] / "recipes" / "natural-instructions" / "tiny-llama" / "uniform.yaml"
POOL, SAMPLE, ASKED = 100_000, 2_000, 8


def trainer_of(weights: str) -> BudgetTrainer:
    sizes = [f"training.per_device_train_batch_size={BATCH}", "training.per_device_eval_batch_size=32", *SMALLER]
    recipe = parse_recipe(overridden(RECIPE, [*sizes, f"weights={weights}"]))
    data = load_data(recipe)
    parts = assemble(recipe, data, ModelFlops.of(make_model(recipe, data, meta=True)), Path(tempfile.mkdtemp()))
    recorder = Recorder(
        data.tasks.names,
        parts.report,
        every=1.0,
        ledger=parts.ledger,
        prices=parts.prices,
        affords=lambda price: True,
        proportions=lambda: parts.mixture.p,
        append=lambda record: None,
        weights=parts.weights.summary,
    )
    return make_trainer(make_model(recipe, data), data, parts, recorder, Path(parts.args.output_dir))


def train_in_turns(name: str, steps: int, parent: Connection) -> None:
    """Train in this process, one step each time the parent says so; send back the step's and the anchors' seconds."""
    torch.set_num_threads(1)
    trainer = trainer_of(ARMS[name])
    trainer.args.max_steps = steps
    draw, prepare = trainer.get_batch_samples, trainer.weights.before_step
    started = anchors = 0.0

    def finish() -> None:
        parent.send((time.thread_time() - started - anchors, anchors))

    def drawn(*args: Any) -> Any:
        nonlocal started, anchors
        if started:
            finish()
        parent.recv()
        started, anchors = time.thread_time(), 0.0
        return draw(*args)

    def prepared(moment: Any) -> None:
        nonlocal anchors
        begun = time.thread_time()
        prepare(moment)
        anchors = time.thread_time() - begun

    trainer.get_batch_samples, trainer.weights.before_step = drawn, prepared
    trainer.train()
    finish()


def step_ratios(rounds: int) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    pipes = {name: context.Pipe() for name in ARMS}
    children = [
        context.Process(target=train_in_turns, args=(name, WARM + rounds, pipes[name][1]), daemon=True) for name in ARMS
    ]
    for child in children:
        child.start()
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ARMS}
    for turn in range(WARM + rounds):
        # The order is reversed every other time: no place in it is an advantage.
        for name in reversed(ARMS) if turn % 2 else ARMS:
            pipes[name][0].send("go")
            seconds[name].append(pipes[name][0].recv())
    steps = {name: np.array([step for step, _ in found[WARM:]]) for name, found in seconds.items()}
    ratios = {name: float(np.median(found / steps["plain"])) for name, found in steps.items()}
    passes = [anchors for _, anchors in seconds["adapt"][TIMED_REFRESH::TIMED_REFRESH]]
    anchors = statistics.median(passes) / float(np.median(steps["plain"]))
    return {
        "adapt_ratio": round(ratios["adapt"] + anchors / REFRESH, 4),
        "adapt_in_step": round(ratios["adapt"], 4),
        "anchor_pass_in_steps": round(anchors, 3),
        "linupper_ratio": round(ratios["linupper"], 4),
        "bm25_ratio": round(ratios["bm25"], 4),
    }


class Lucene(BM25Okapi):
    """rank_bm25 with Lucene's idf, so that both score by one formula (but for the constant k1 + 1)."""

    def _calc_idf(self, nd: dict[int, int]) -> None:
        self.idf = {term: float(np.log(1 + (self.corpus_size - n + 0.5) / (n + 0.5))) for term, n in nd.items()}


def bm25_seconds() -> dict[str, float]:
    recipe = parse_recipe(read_yaml(LARGE))
    data = load_data(recipe)
    splits = [task.train for task in data.tasks.tasks]
    pool = [split.example(i)[0] for split in splits for i in range(len(split))]
    pool = [pool[i] for i in np.random.default_rng(0).permutation(len(pool))[:POOL]]
    assert len(pool) == POOL
    picked = find_anchors(Adapt(anchors=ANCHORS).needs(), data, recipe.tasks.max_length).picked
    anchors = [split.example(i)[0] for _, split, i in picked]
    terms = 1 + max(int(ids.max()) for ids in pool)
    started = time.perf_counter()
    mean_scores(index(pool, terms), anchors, POOL, terms)
    ours = time.perf_counter() - started

    sample = [ids.tolist() for ids in pool[:SAMPLE]]
    started = time.perf_counter()
    peer = Lucene(sample, k1=K1, b=B)
    building = time.perf_counter() - started
    started = time.perf_counter()
    theirs = np.mean([peer.get_scores(query.tolist()) for query in anchors[:ASKED]], axis=0)
    asking = time.perf_counter() - started
    check_ranking(mean_scores(index(pool[:SAMPLE], terms), anchors[:ASKED], SAMPLE, terms), theirs)
    extrapolated = (building + asking * len(anchors) / ASKED) * POOL / SAMPLE
    return {
        "bm25_seconds_per_100k": round(ours, 2),
        "rank_bm25_seconds_per_100k": round(extrapolated, 1),
        "bm25_times_faster": round(extrapolated / ours, 1),
    }


def check_ranking(ours: np.ndarray, theirs: np.ndarray) -> None:
    """The sample in our order must never rise in their scores by more than single precision's rounding."""
    in_order = theirs[np.argsort(-ours, kind="stable")]
    assert (np.diff(in_order) <= 1e-5 * theirs.max()).all(), "the two rank the sample differently"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    result = {**step_ratios(options.rounds), **bm25_seconds(), **packing_speedup()}
    if options.json:
        print(json.dumps(result))
        return
    print(f"ADAPT weights {result['adapt_ratio']:.3f} of plain training's step (at most 1.03): in the step")
    print(f"{result['adapt_in_step']:.3f}, and an anchor pass of {result['anchor_pass_in_steps']:.2f} steps every 50")
    print(f"LinUpper {result['linupper_ratio']:.3f}, BM25 {result['bm25_ratio']:.3f} (at most 1.03 each)")
    print(f"BM25 of 100,000 examples, 400 anchors: {result['bm25_seconds_per_100k']:.1f} s; rank_bm25, extrapolated,")
    print(f"{result['rank_bm25_seconds_per_100k']:,.0f} s: {result['bm25_times_faster']:,.0f} times (at least 100)")
    print(f"packing: {result['packing_speedup']:.2f} times the supervised tokens a second (at least 2)")


if __name__ == "__main__":
    main()
