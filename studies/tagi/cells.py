"""What is run: one cell is a part of the study, an arm and a seed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apportion.plans.recipe import read_yaml
from studies.natural import SHAPE
from studies.tagi import natural, programs

HERE = Path(__file__).parent
ROOT = Path("runs/tagi")
DATA = {"synthetic": ROOT / "data" / "programs", "natural": ROOT / "data" / "natural"}
# Longest example and longest answer, in tokens.
LENGTHS = {"synthetic": (64, 14), "natural": (128, 32)}
SEEDS = {"synthetic": (0, 1, 2), "natural": (0, 1)}
# Where everything that the arms of "natural" start from is prepared, in this order; see `prepared`.
PREPARED = ("base", "pretrained", "pretrained_lora", "pretrained_fusion", "teachers")


@dataclass(frozen=True)
class Arm:
    """``changes`` to the part's recipe, block by block; None leaves the block out.

    ``needs`` are the arms that must be done before. Where ``tagi`` is one, the budget is what it spent in all, in FLOPs.
    """

    changes: Mapping[str, Mapping[str, Any] | None]
    needs: tuple[str, ...] = ()


TUNING_SEED, RATES = 100, (5.0e-4, 1.0e-3)
# The arms of "synthetic" that the question hangs on.
MAIN = ("tagi", "concat", "no_instruction")
OTHER_HEADS = ("shared_index", "module_depth", "diagonal")
IN_PROMPT: dict[str, Any] = {"kind": None, "tasks": {"instruction": "prompt"}}
APART: dict[str, Any] = {"kind": None}
LORA = {"lora": {"r": 8, "alpha": 16}}
BASE = {
    "config": {"model_type": "llama", **SHAPE},
    "tokenizer": {"train": "bpe", "vocab_size": 2048},
}
T5 = {
    "config": {
        "model_type": "t5",
        "d_model": 128,
        "d_ff": 344,
        "d_kv": 32,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "num_heads": 4,
        "feed_forward_proj": "gated-gelu",
        "dropout_rate": 0.0,
        "tie_word_embeddings": True,
    }
}


def _natural(**changes: Any) -> Arm:  # noqa: ANN401
    return Arm({"kind": changes}, needs=("concat",))


ARMS: dict[str, dict[str, Arm]] = {
    "synthetic": {
        "tagi": Arm({}),
        **{f"head_{name}": Arm({"kind": {"type": "tagi", "head": name}}) for name in OTHER_HEADS},
        "t5": Arm({"model": T5}),
        "t5_fusion_memory": Arm({"model": T5, "kind": {"type": "tagi", "fusion": True, "memory": True}}),
        "concat": Arm(IN_PROMPT, needs=("tagi",)),
        "no_instruction": Arm(APART, needs=("tagi",)),
    },
    "natural": {
        "concat": Arm(IN_PROMPT),
        "tagi": _natural(),
        "no_pretraining": _natural(start=None),
        "no_fusion": _natural(fusion=False, start=str(ROOT / "pretrained_lora")),
        "no_kl": _natural(kl=0),
        "no_ins": _natural(teachers=None),
        "no_hypernetwork": _natural(head="none", teachers=None, start=str(ROOT / "pretrained_fusion")),
        "multitask_lora": Arm(IN_PROMPT | LORA, needs=("concat", "tagi")),
        "no_instruction": Arm(APART | LORA, needs=("concat", "tagi")),
        "factors": _natural(alignment="factors"),
        **{f"head_{name}": _natural(head=name, start=None) for name in OTHER_HEADS},
    },
}


@dataclass(frozen=True)
class Cell:
    """One run and the evaluation after it; ``rate`` is a learning rate of the grid, or None for the best."""

    part: str
    arm: str
    seed: int
    rate: float | None = None

    @property
    def folder(self) -> Path:
        """Where it runs."""
        if self.rate is not None:
            return ROOT / "tuning" / f"{self.arm}-{self.rate:g}"
        return ROOT / self.part / self.arm / f"seed-{self.seed}"

    @property
    def scores(self) -> Path:
        """Where its scores are written."""
        return self.folder / "held_out.json"

    @property
    def finished(self) -> bool:
        """Whether they are."""
        return self.scores.exists()

    @property
    def arm_of(self) -> Arm:
        """What the arm is."""
        return ARMS[self.part][self.arm]

    @property
    def needed(self) -> list[Cell]:
        """The cells that must be done before."""
        needed = [Cell(self.part, arm, self.seed) for arm in self.arm_of.needs]
        # Before the best rate is known, what `tagi` spends is what it spends at the first one.
        return needed if self.rate is None else [replace(cell, rate=RATES[0]) for cell in needed]

    @property
    def plain(self) -> bool:
        """Whether an ordinary model answers."""
        return self.arm_of.changes.get("kind", {}) is None

    @property
    def kind(self) -> str:
        """Whose learning rate it takes."""
        return "concat" if self.plain else "tagi"

    @property
    def instructed(self) -> bool:
        """Whether an ordinary model's prompts hold the instruction."""
        return "tasks" in self.arm_of.changes

    def recipe(self) -> dict[str, Any]:
        """Return its recipe as plain values."""
        values = recipe_of(self.part, self.arm_of.changes, self.seed)
        if "tagi" in self.arm_of.needs:
            # With the teacher of its logits, which another run paid for.
            values["budget"] = {"total": f"{sum(spent(cell.folder) for cell in self.needed):.6g} FLOPs"}
        if self.part == "synthetic":
            rate = self.rate or best_rate(self.kind)
            values["training"] = {**values["training"], "learning_rate": rate}
        return values


def tuning(kind: str) -> list[Cell]:
    """The programs' kind of model, ``tagi`` or ``concat``, at each learning rate, on a seed that is not reported."""
    # What an ordinary model may spend is what the hypernetwork spent at the same place of the grid.
    return [Cell("synthetic", arm, TUNING_SEED, rate) for arm in dict.fromkeys(("tagi", kind)) for rate in RATES]


def best_rate(kind: str) -> float:
    """Return the learning rate at which a kind ends lowest on validation examples of its training tasks."""
    found = {
        cell.rate: float(json.loads((cell.folder / "summary.json").read_text("utf-8"))["final"]["macro"])
        for cell in tuning(kind)
        if cell.arm == kind and cell.rate is not None
    }
    return min(found, key=lambda rate: found[rate])


def recipe_of(part: str, changes: Mapping[str, Mapping[str, Any] | None], seed: int) -> dict[str, Any]:
    """Return a part's recipe with changes block by block."""
    values = read_yaml(HERE / f"{part}.yaml")
    for block, change in changes.items():
        values[block] = None if change is None else {**(values.get(block) or {}), **change}
    kind = values.get("kind") or {}
    if kind.get("teachers"):
        kind["teachers"] = {**kind["teachers"], "groups": _categories()}
    if isinstance(kind.get("teacher"), str):
        kind["teacher"] = kind["teacher"].replace("{seed}", str(seed))
    return {key: value for key, value in values.items() if value is not None} | {"seed": seed}


def _categories() -> dict[str, str]:
    """Return the category of each training task."""
    found: dict[str, str] = json.loads((DATA["natural"] / "categories.json").read_text("utf-8"))
    return {name: found[name] for name in instructions("natural")}


def prepared(name: str) -> dict[str, Any]:
    """Return the recipe that prepares something for "natural".

    ``base`` is a small Llama trained on the texts; ``pretrained*`` are TAGI's first stage on it, whole, without fusion, and
    without adapters; ``teachers`` holds one LoRA for each category, and a hypernetwork that nobody uses.
    """
    texts = {"source": "jsonl", "path": str(DATA["natural"] / "text.jsonl"), "validation": 0.01, "max_length": 128}
    if name == "teachers":
        trained = {"run": None, "budget": "30%", "learning_rate": 3.0e-3}
        return recipe_of("natural", {"kind": {"type": "tagi", "start": None, "kl": 0, "teachers": trained}}, 0) | {
            "budget": "1k"
        }
    stage = {"stage": "pretrain", "start": None, "kl": 0, "teachers": None}
    ways = {
        "base": {},
        "pretrained": stage,
        "pretrained_lora": {**stage, "fusion": False},
        "pretrained_fusion": {**stage, "head": "none"},
    }
    values = recipe_of("natural", {"kind": ways[name]}, 0) | {"tasks": texts, "budget": "300k"}
    if name == "base":
        del values["kind"]
        values |= {"model": BASE, "budget": "1.2M"}
        values["training"] = {**values["training"], "learning_rate": 3.0e-3}
    return values


def spent(folder: Path) -> float:
    """Return the FLOPs of all accounts of a run."""
    accounts = json.loads((folder / "ledger.json").read_text("utf-8"))["accounts"]
    return sum(float(account["flops"]) for account in accounts.values())


def cells(part: str) -> list[Cell]:
    """Return a part's cells: a seed's before the next seed's."""
    return [Cell(part, arm, seed) for seed in SEEDS[part] for arm in ARMS[part]]


def write_data(part: str) -> None:
    """Write a part's data unless it is there."""
    if not DATA[part].exists():
        (programs if part == "synthetic" else natural).write(DATA[part])


def instructions(part: str) -> dict[str, str]:
    """Return the training tasks' instructions."""
    found = {}
    for file in sorted((DATA[part] / "train").glob("*.jsonl")):
        with file.open(encoding="utf-8") as stream:
            found[file.stem] = str(json.loads(next(stream))["instruction"])
    return found
