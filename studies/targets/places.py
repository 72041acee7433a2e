"""Where cells are run: each suite's data, what is known of it, and which of the data's targets are its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from apportion.plans.recipe import read_yaml
from studies.targets.hidden import HIDDEN
from studies.targets.quality import PAIRS, quality
from studies.targets.suites import GENERATED, Suite, write
from studies.targets.tasks import TARGETS, natural

HERE = Path(__file__).parent
ROOT = Path("runs/targets")
DATA = ROOT / "data"
NATURAL = "natural"

MAKE: dict[str, Callable[[], Suite]] = {
    **GENERATED,
    **{name: partial(quality, skills) for name, skills in PAIRS.items()},
    NATURAL: natural,
    **HIDDEN,
}
# Every target of Natural Instructions is a suite of its own, over the same data.
OF_NATURAL = {f"{NATURAL}-{target}": target for target in TARGETS}
REPORTED = (*GENERATED, *PAIRS)


def data_of(suite: str) -> Path:
    """Return the folder of a suite's data."""
    return DATA / (NATURAL if suite in OF_NATURAL else suite)


def prepare(suites: tuple[str, ...]) -> None:
    """Write the data of these suites, where that is not done."""
    for name in dict.fromkeys(data_of(suite).name for suite in suites):
        if not (DATA / name).exists():
            DATA.mkdir(parents=True, exist_ok=True)
            write(MAKE[name](), DATA / name)


def known(suite: str) -> dict[str, Any]:
    """Return what is known of a suite by construction: ``best``, ``bad``, ``known`` and ``budget``."""
    return dict(json.loads((data_of(suite) / "known.json").read_text("utf-8")))


def sources(suite: str) -> list[str]:
    """Return the names of a suite's sources, in the order that the library reads them in."""
    return sorted(file.stem for file in (data_of(suite) / "sources").glob("*.jsonl"))


def targets(suite: str) -> list[str]:
    """Return the names of a suite's targets."""
    if suite in OF_NATURAL:
        return [OF_NATURAL[suite]]
    return sorted(file.stem for file in (data_of(suite) / "targets").glob("*.jsonl"))


def base_recipe(suite: str) -> dict[str, Any]:
    """Return the recipe that all arms of a suite begin with, as plain values."""
    family = "natural" if data_of(suite).name == NATURAL else "generated"
    values: dict[str, Any] = read_yaml(HERE / f"{family}.yaml")
    values["tasks"] = {**values["tasks"], "path": str(data_of(suite) / "sources")}
    values["targets"] = {**values["targets"], "path": str(data_of(suite) / "targets"), "names": targets(suite)}
    values["budget"] = known(suite)["budget"]
    return values
