"""Comparison folders with numbers from simple formulas: realistic to look at, known to the tests."""

import math
import random

from apportion.runs import RunFolder
from apportion.runs.evaluation import write_answers, write_evaluation
from apportion.runs.uncertainty import of_validation

UGLY = [
    'question "answering" <b>',
    "R&D / 'quotes'",
    "naïve_Bayes_日本語",
    "a_very_long_task_name_that_goes_on_and_on_and_on",
]
PLAIN = [
    "addition", "copying", "counting", "dates", "entailment", "grammar", "lookup", "negation", "parity", "paraphrase",
    "question_generation", "reversal", "sentiment", "sorting", "spelling", "summarisation",
]  # fmt: skip
TASKS = PLAIN[:5] + UGLY[:2] + PLAIN[5:] + UGLY[2:]
SPEED = {"uniform": 0.9, "proportional": 1.0, "temperature": 0.97, "adapt": 1.45, "loss": 1.3, "random-20": 0.8}
META = {"adapt": 0.33, "loss": 0.05}


def sizes(tasks):
    return [int(400_000 * (i + 1) ** -1.5) for i in range(len(tasks))]


def mixture(arm, tasks, progress):
    """Return the shares of an arm after ``progress`` of its budget, in [0, 1]."""
    total = sum(sizes(tasks))
    if arm == "proportional":
        return {task: size / total for task, size in zip(tasks, sizes(tasks), strict=True)}
    pull = {"uniform": 0.0, "temperature": 0.0, "adapt": 1.6, "loss": 0.7}.get(arm, 0.0)
    logits = [pull * min(1.0, 2 * progress) * math.sin(1.7 * i + 1.5 * progress) for i in range(len(tasks))]
    raw = [math.exp(logit) for logit in logits]
    return {task: value / sum(raw) for task, value in zip(tasks, raw, strict=True)}


def selection(tasks, keeps=0.2):
    """Return what a summary says of a selection that kept about this share of each task's examples."""
    pools = {task: size // 50 for task, size in zip(tasks, sizes(tasks), strict=True)}
    parts = {task: {"pool": n, "kept": int(keeps * n)} for task, n in pools.items()}
    pool, kept = (sum(part[key] for part in parts.values()) for key in ("pool", "kept"))
    return {
        "type": "bm25",
        "pool": {"examples": pool, "supervised": 50 * pool, "processed": 300 * pool},
        "kept": {"examples": kept, "supervised": 50 * kept, "processed": 300 * kept},
        "tasks": parts,
        "reasons": {"near a target": kept - 3, "as filler": 3},
    }


def n_eff(shares):
    return math.exp(-sum(p * math.log(p) for p in shares.values() if p > 0))


def losses(arm, tasks, tokens, seed):
    """Return validation losses by task: power laws in tokens, with a little noise that only the seed decides."""
    noise = random.Random(f"{arm}{seed}")
    found = {}
    for i, task in enumerate(tasks):
        skew = {"proportional": 0.03 * i, "adapt": 0.012 * math.sin(i)}.get(arm, 0.02 * math.cos(i))
        floor, scale = 0.4 + 0.09 * i, 4.0 + 0.1 * i
        found[task] = floor + scale * (1 + SPEED.get(arm, 1.0) * tokens / 2500) ** -0.5 + skew + noise.gauss(0, 0.012)
    return found


def examples(arm, seed, validation, counts, spread):
    """Return each task's examples: hard and easy ones alike for all arms, and what ``spread`` adds for this arm and seed."""
    found = {}
    for task, loss in validation.items():
        shared, own = random.Random(task), random.Random(f"{task}{arm}{seed}")
        n = counts.get(task, 32)
        tokens = [shared.randint(2, 12) for _ in range(n)]
        raw = [shared.gauss(0, 0.3) + own.gauss(0, spread) for _ in range(n)]
        middle = sum(t * r for t, r in zip(tokens, raw, strict=True)) / sum(tokens)
        nll = [t * (loss + r - middle) for t, r in zip(tokens, raw, strict=True)]
        found[task] = {"ids": [f"{task}-{i}" for i in range(n)], "nll": nll, "supervised": tokens}
    return found


def measures(validation, tau=0.3):
    values = list(validation.values())
    top = max(values)
    objective = top + tau * math.log(sum(math.exp((v - top) / tau) for v in values) / len(values))
    return {"validation": validation, "macro": sum(values) / len(values), "worst": top, "objective": objective}


def aimed(record, arm, tokens, seed, targets):
    """Add the losses of the targets, of the tasks of that name or of data of their own: adapt gets there soonest."""
    noise, fast = random.Random(f"{arm}{seed}targets"), {"adapt": 4.0, "upsample": 2.0}.get(arm, SPEED.get(arm, 1.0))
    own = {name: 0.1 + 3.9 * (1 + fast * tokens / 2500) ** -0.5 + noise.gauss(0, 0.004) for name in targets}
    found = {name: record["validation"].get(name, loss) for name, loss in own.items()}
    others = [loss for name, loss in record["validation"].items() if name not in targets]
    return record | {
        "targets": found,
        "target": sum(found[name] * weight for name, weight in targets.items()) / sum(targets.values()),
        "others": sum(others) / len(others) if others else None,
    }


def spent(arm, tokens, padding):
    def account(part, flops):
        return {
            "supervised": int(tokens * part),
            "processed": int(6 * tokens * part),
            "padded": int(6 * tokens * part / (1 - padding)),
            "flops": flops * tokens * part,
        }

    accounts = {"train": account(1.0, 2.4e7), "validation": account(0.3, 0.8e7)}
    if arm in META:
        accounts["meta"] = account(META[arm], 2.4e7)
    return accounts


def recipe(arm, seed, limit, source="playground"):
    kind = {"random-20": "uniform"}.get(arm, arm)
    settings = {"tau": 0.3, "entropy": 0.001} if arm == "adapt" else {}
    return {
        "model": {"config": {"model_type": "llama", "hidden_size": 96, "num_hidden_layers": 4}, "tokenizer": "char"},
        "tasks": {"source": source, "max_length": 128},
        "budget": limit,
        "selection": {"type": "random", "limit": 0.2} if arm == "random-20" else {"type": "all"},
        "mixture": {"type": kind, **settings},
        "weights": {"type": "uniform"},
        "validation": {"every": "5%", "examples_per_task": 32},
        "training": {"learning_rate": 1e-3, "per_device_train_batch_size": 16},
        "seed": seed,
    }


def write_run(path, arm, seed=0, tasks=TASKS, records=100, limit=60_000, **changes):
    """Write a run; ``changes``: stop (a share: unfinished), validated, padding, rise (overfitting), shares (a function),
    weights (a function of the progress: mean, std and ess), counts (validation examples by task, else 32), spread (of the
    losses of single examples), shift (what is added to the final loss, by task), old (nothing is kept of the examples),
    plain and advice (of the mixture), fingerprint and recipe (blocks of the recipe), targets (importance by name),
    selection (the summary's)."""
    stop, padding = changes.get("stop"), changes.get("padding", 0.11)
    shares = changes.get("shares") or (lambda progress: mixture(arm, tasks, progress))
    targets = changes.get("targets", {})
    named = {"targets": {"tasks": None, "path": "goals/", "train": 0.0, "importance": targets}} if targets else {}
    with RunFolder.create(path, recipe(arm, seed, limit) | named | changes.get("recipe", {})) as folder:
        best = final = None
        for step in range(records + 1):
            progress = step / records
            if stop is not None and progress > stop:
                break
            tokens = int(limit * progress)
            record = {"step": 10 * step, "spent": spent(arm, tokens, padding), "seconds": 200 * progress, "lr": 1e-3}
            record |= {"loss": 0.8 + 4 * (1 + tokens / 2500) ** -0.5, "mixture": shares(progress)}
            record["n_eff"] = n_eff(record["mixture"])
            if "weights" in changes and step:
                record["weights"] = changes["weights"](progress)
            if changes.get("validated", True) and step % 5 == 0:
                validation = losses(arm, tasks, tokens, seed * 1000 + step)
                lift = changes.get("rise", 0.0) * max(0.0, progress - 0.6)
                shift = changes.get("shift", {}) if progress == 1 else {}
                final = measures({task: loss + lift + shift.get(task, 0.0) for task, loss in validation.items()})
                if targets:
                    final = aimed(final, arm, tokens, seed * 1000 + step, targets)
                record |= final
                judged = "target" if targets else "macro"
                if best is None or final[judged] < best[judged]:
                    kept = ("macro", "worst", "objective", *(("target", "others") if targets else ()))
                    best = {key: final[key] for key in kept} | {"step": 10 * step}
            folder.append_history(record)
        budget = {"unit": "supervised", "limit": limit}
        folder.write_ledger({"budget": budget, "accounts": record["spent"]})
        if stop is None:
            folder.write_mixture(mixture_file(record["mixture"], tasks, limit))
            summary = summary_file(arm, seed, record, final, best, budget, changes)
            if final and not changes.get("old"):
                counts = {"addition": 20} | changes.get("counts", {})
                measured = final["validation"] | final.get("targets", {})
                tasks = examples(arm, seed, measured, counts, changes.get("spread", 0.05))
                folder.write_validation({"step": 10 * records, "tasks": tasks})
                summary["final"] = final | of_validation(tasks, final["validation"], targets)
            folder.write_summary(summary)


def mixture_file(shares, tasks, limit):
    drawn = {
        task: {
            "supervised": int(share * limit),
            "examples": int(share * limit / 6),
            "epochs": share * limit / size,
            "size": size,
        }
        for (task, share), size in zip(shares.items(), sizes(tasks), strict=True)
    }
    return {"final": shares, "token_averaged": shares, "tasks": drawn}


PLAIN = {"uniform", "proportional", "temperature", "random-20", "upsample"}


def methods(arm, changes):
    plain = changes.get("plain", arm in PLAIN)
    mixture = {"type": arm, "plain": plain, "advice": changes.get("advice", {})}
    return {"mixture": mixture, "weights": {"type": "uniform", "plain": True, "advice": {}}}


def summary_file(arm, seed, record, final, best, budget, changes):
    chosen = {"selection": changes["selection"]} if "selection" in changes else {}
    return ({} if changes.get("old") else {"methods": methods(arm, changes)} | chosen) | {
        "method": arm,
        "seed": seed,
        "budget": budget,
        "spent": record["spent"],
        "final": final,
        "best": best,
        "n_eff": record["n_eff"],
        "seconds": 200.0 + 40 * (arm in META) + seed,
        "device": "cpu (2 threads)",
        "versions": {"apportion": "0.1.0", "torch": "2.13.0"},
        "fingerprint": changes.get("fingerprint", "6f1c2a"),
        "findings": ["1,204 duplicate examples dropped within tasks", "3 % of the examples of <lookup> were truncated"],
        "parameters": {"total": 812_032, "trainable": 812_032},
    }


def write_comparison(root, arms=("uniform", "proportional", "adapt"), seeds=(0, 1, 2), **changes):
    for arm in arms:
        for seed in seeds:
            write_run(root / arm / f"seed-{seed}", arm, seed, **changes)
    return root


SKILL = {"adapt": 0.72, "uniform": 0.55, "proportional": 0.6}
BENCHMARKS = {  # by task: set, metric, examples, whether higher is better, whether answers are written
    "bbh_dates": ("bbh", "exact_match", 60, True, True),
    "bbh_words": ("bbh", "exact_match", 40, True, True),
    "gsm8k": ("gsm8k", "exact_match", 50, True, True),
    "arc": ("arc", "acc", 80, True, False),
    "wikitext": ("wikitext", "word_perplexity", 20, False, False),
}
GROUPS = {"reasoning": ["bbh", "gsm8k"]}


def evaluate(path, arm, seed=0, tasks=BENCHMARKS, groups=GROUPS, answers=True):
    """Give a run downstream scores, by how skilled its arm is; the easier examples are so for all arms."""
    found = {}
    for task, (name, metric, n, rises, generates) in tasks.items():
        shared, own = random.Random(task), random.Random(f"{task}{arm}{seed}")
        hard = [shared.random() for _ in range(n)]
        skill = [SKILL.get(arm, 0.5) + own.gauss(0, 0.1) for _ in range(n)]
        scores = [float(s > h) if rises else 30 - 10 * s + 4 * h for s, h in zip(skill, hard, strict=True)]
        mean = sum(scores) / n
        error = math.sqrt(sum((score - mean) ** 2 for score in scores) / (n - 1) / n)
        lines = [
            {
                "id": i,
                "prompt": f"Question <{i}> of {task}. " + "Here is <b>what</b> to know & do. " * 40 + "\nAnswer:",
                "reference": f"<i>{i}</i>",
                "answer": f"{arm} says {i if score else i + 1} </details>",
                "score": score,
            }
            for i, score in enumerate(scores)
        ]
        if answers:
            write_answers(path, task, lines)
        found[task] = {
            "set": name, "metric": metric, "higher_is_better": rises, "examples": n, "generates": generates,
            "metrics": {metric: {"value": mean, "error": error}}, "settings": {}, "seconds": 1.0,
            "spent": {"supervised": 0, "processed": 10, "padded": 10, "flops": 1e9},
        }  # fmt: skip
    write_evaluation(path, {"tasks": found, "groups": groups})


def evaluate_all(root, **changes):
    for path in sorted(root.glob("*/seed-*")):
        evaluate(path, path.parent.name, int(path.name.removeprefix("seed-")), **changes)
    return root
