"""Folders of reinforcement runs with numbers from simple formulas: a model that learns to think in fewer tokens."""

import json
import math
import random

from apportion.runs import RunFolder
from apportion.runs.schema import dump_file, dump_line
from apportion.runs.thinking import area

BUDGETS = (8, 16, 32, 48)
PROMPTS = 200
FLOPS = 2.4e6  # a token


def standing(verbose, ops=6, budgets=BUDGETS, prompts=PROMPTS):
    """Return answers of a model that thinks 2 tokens an operation, or 6 with probability ``verbose``."""
    short, long = 2 * ops, 6 * ops
    found = {"budgets": list(budgets), "accuracy": [], "error": [], "used": [], "forced": []}
    for budget in budgets:
        ended = (1 - verbose) * min(1.0, budget / short) ** 3 + verbose * min(1.0, budget / long) ** 3
        right = round((0.1 + 0.88 * ended) * prompts) / prompts
        found["accuracy"].append(right)
        found["error"].append(math.sqrt(right * (1 - right) / (prompts - 1)))
        found["used"].append((1 - verbose) * min(budget, short) + verbose * min(budget, long))
        found["forced"].append((1 - verbose) * (budget < short) + verbose * (budget < long))
    ends = zip(found["used"], found["accuracy"], strict=True)
    return found | {"area": area(ends, max(budgets)), "prompts": prompts}


def natural(verbose, ops=6):
    return {"accuracy": 0.98, "used": (1 - verbose) * 2 * ops + verbose * 6 * ops}


def in_summary(curve, verbose):
    keys = [str(budget) for budget in curve["budgets"]]
    parts = {name: dict(zip(keys, curve[name], strict=True)) for name in ("accuracy", "used", "forced")}
    return parts | {"area": curve["area"], "natural": natural(verbose)}


def cells(name, curve):
    columns = zip(*(curve[key] for key in ("budgets", "accuracy", "error", "used", "forced")), strict=True)
    return [
        {
            "name": name, "cache": {"type": "dense"}, "kv": None, "tokens": None, "score": score, "error": error,
            "read_a_step": 1e5, "resident_peak": 2e5, "side_peak": 0, "host_peak": 0, "moved_a_step": 0.0, "sums": {},
            "thinking": budget, "used": used, "inserted": 8 * forced, "forced": forced,
        }
        for budget, score, error, used, forced in columns
    ]  # fmt: skip


def rollout(step, place, verbose, draw):
    """Return a roll-out of sums of one digit, cut at every budget: characters are tokens."""
    numbers = [draw.randint(0, 9) for _ in range(7)]
    sums = [sum(numbers[: i + 2]) % 10 for i in range(6)]
    long = draw.random() < verbose
    steps = [
        f"{(sums[i - 1] if i else numbers[0])}+{numbers[i + 1]}={sums[i]};" if long else f"{sums[i]};" for i in range(6)
    ]
    thinking, reference = "".join(steps), str(sums[-1])
    cuts, before, means = [], [], []
    for budget in BUDGETS:
        done = budget >= len(thinking)
        answers = [reference if done or draw.random() < 0.1 else str(draw.randint(0, 9)) for _ in range(4)]
        rewards = [float(answer == reference) for answer in answers]
        cuts.append({"budget": budget, "answers": answers, "rewards": rewards, "at": min(budget, len(thinking))})
        means.append(sum(rewards) / 4)
        before.append(budget < len(thinking))
    return {
        "step": step, "task": f"sums<{place}>", "prompt": "+".join(map(str, numbers)) + "?", "reference": reference,
        "thinking": thinking, "answer": reference, "reward": sum(means) / len(means), "forced": False, "closed": True,
        "tokens": {"thinking": len(thinking), "answer": 4, "inserted": 8 * sum(before)}, "cuts": cuts,
        "advantages": [sum(means[s:]) / 4 - 0.5 + 0.1 * s for s in range(len(BUDGETS))],
    }  # fmt: skip


def spent(tokens):
    def account(processed, **kinds):
        return {
            "supervised": processed // 2,
            "processed": processed,
            "padded": processed,
            "flops": FLOPS * processed,
        } | kinds

    share = {"thinking": int(0.6 * tokens), "answer": int(0.3 * tokens)}
    share["inserted"] = tokens - sum(share.values())
    return {
        "generate": account(2 * tokens, **share),
        "train": account(3 * tokens, thinking=0, answer=0, inserted=0),
        "validation": account(tokens // 3, thinking=tokens // 9, answer=tokens // 18, inserted=0),
    }


def recipe(kind, seed, limit, prior, budgets):
    block = {"type": kind, "budgets": list(budgets), "rollouts": 8, "prompts": 8, "temperature": 1.0, "prior": prior}
    block |= {
        "summaries": 4 if kind == "brpo" else 1,
        "rewards": {"accuracy": 1, "format": 0.2},
    }
    return {
        "rl": block,
        "start": "runs/sft",
        "tasks": {"source": "scratchpad", "max_length": 128},
        "budget": {"generated": limit},
        "training": {"learning_rate": 1e-4},
        "seed": seed,
    }


def write_reinforced(path, kind="brpo", seed=0, steps=40, limit=90_000, **changes):
    """Write a run; ``changes``: verbose (at the end), stop (a share: unfinished), measured (every so many steps), prior,
    budgets (trained toward), without (files that are left out), old (roll-outs without the cuts' places), ops."""
    end, stop, ops = changes.get("verbose", 0.1), changes.get("stop", 1.0), changes.get("ops", 6)
    budgets = changes.get("budgets", BUDGETS if kind == "brpo" else BUDGETS[-1:])
    prior = changes.get("prior", "uniform" if kind == "brpo" else None)
    noise, draw = random.Random(f"{kind}{seed}"), random.Random(f"{kind}{seed}rollouts")
    end = min(max(end + noise.gauss(0, 0.01) * bool(seed), 0.0), 1.0)
    lines, measured, done = [], [], [step for step in range(steps + 1) if step <= stop * steps]
    with RunFolder.create(path, recipe(kind, seed, limit, prior, budgets)) as folder:
        for step in done:
            verbose = 0.5 + (end - 0.5) * (1 - math.exp(-4 * step / steps)) / (1 - math.exp(-4))
            tokens = int(0.98 * limit * step / steps)
            record = {
                "step": step,
                "spent": spent(tokens),
                "seconds": 1.1 * step,
                "lr": 1e-4,
                "mixture": {"sums": 1.0},
                "n_eff": 1.0,
            }
            here = standing(verbose, ops)
            if step:
                right = sum(here["accuracy"]) / len(here["accuracy"]) + noise.gauss(0, 0.02)
                record |= {
                    "reward": right + 0.2,
                    "correct": right,
                    "thinking": natural(verbose, ops)["used"] + noise.gauss(0, 0.4),
                }
                record["forced"] = here["forced"][-1]
                lines += [rollout(step, place, verbose, draw) for place in range(3)]
            if step % changes.get("measured", 10) == 0:
                record["curve"] = here
                measured.append((here, verbose))
            folder.append_history(record)
        budget = {"unit": "generated", "limit": limit}
        folder.write_ledger({"budget": budget, "accounts": record["spent"]})
        for line in lines if changes.get("old") else ():
            for cut in line["cuts"]:
                del cut["at"]
        (path / "rollouts.jsonl").write_text("".join(dump_line(line) + "\n" for line in lines))
        if stop == 1.0:
            settings = {"model": str(path), "prompts": PROMPTS, "budget": {}, "batch_size": 8, "metric": "exact"}
            both = [*cells("before", measured[0][0]), *cells("after", measured[-1][0])]
            (path / "curve.json").write_text(dump_file({"settings": settings, "device": "cpu", "cells": both}))
            name = ", ".join(part for part in (kind, prior) if part)
            folder.write_summary(
                {
                    "kind": "reinforce", "method": kind, "name": name, "seed": seed, "budget": budget, "steps": steps,
                    "spent": record["spent"], "generated": tokens, "seconds": 44.0, "device": "cpu (2 threads)",
                    "versions": {"apportion": "0.1.0"}, "first": in_summary(*measured[0]),
                    "final": in_summary(*measured[-1]),
                }
            )  # fmt: skip
    for name in changes.get("without", ()):
        (path / name).unlink()
    return path


ARMS = {"brpo": ("brpo", 0.1), "grpo": ("grpo", 0.48)}


def write_arms(root, seeds=(0, 1, 2), arms=ARMS, **changes):
    for name, (kind, verbose) in arms.items():
        for seed in seeds:
            write_reinforced(root / name / f"seed-{seed}", kind, seed, verbose=verbose, **changes)
    return root


def said(path, name):
    """Return what a file of the folder says."""
    text = (path / name).read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()] if name.endswith("l") else json.loads(text)
