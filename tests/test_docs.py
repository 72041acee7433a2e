"""The reference of recipes says what the code says: every key, every default; and links lead somewhere."""

import datetime
import re
from pathlib import Path

import pytest

from apportion.caches import CACHES, CacheMethod
from apportion.mixtures import MIXTURES
from apportion.mixtures._mixture import Mixture
from apportion.models.specs import LoraSpec, ModelSpec, TokenizerSpec
from apportion.models.tagi.kind import Tagi, TeachersSpec
from apportion.objectives import OBJECTIVES, Objective
from apportion.plans.recipe import Recipe, TargetsSpec, ValidationSpec
from apportion.selections import SELECTIONS
from apportion.selections._selection import Selection
from apportion.tasks import SOURCES, TasksSpec
from apportion.tasks.sources._rows import RowSource
from apportion.thinking.spec import ThinkingSpec
from apportion.weights import WEIGHTS
from apportion.weights._weighting import Weighting

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*.md"))]
SPECS = {
    "model": ModelSpec,
    "model.tokenizer": TokenizerSpec,
    "lora": LoraSpec,
    "kind": Tagi,
    "kind.teachers": TeachersSpec,
    "tasks": TasksSpec,
    "thinking": ThinkingSpec,
    "targets": TargetsSpec,
    "validation": ValidationSpec,
}


def cells():
    rows = [line for line in (ROOT / "docs" / "recipes.md").read_text("utf-8").splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def said(default):
    text = "none" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
    return f"`{text}`" if "<" in text else text  # which would be a tag of the page


def defaults(cls):
    return {key: "required" if field.is_required() else said(field.default) for key, field in cls.model_fields.items()}


@pytest.mark.parametrize("prefix", SPECS)
def test_every_key_stands_there_with_its_default(prefix):
    shared = defaults(RowSource) if prefix == "tasks" else {}
    wanted = {f"`{prefix}.{key}`": default for key, default in (defaults(SPECS[prefix]) | shared).items()}
    own = re.compile(rf"`{re.escape(prefix)}\.\w+`")
    assert {row[0]: row[1] for row in cells() if own.fullmatch(row[0])} == wanted


def test_every_top_level_key_stands_there():
    start = next(i for i, row in enumerate(cells()) if row[0] == "`model`")
    keys = [row[0].strip("`") for row in cells()[start : start + len(Recipe.model_fields)]]
    assert keys == list(Recipe.model_fields)


def section(title):
    """The rows of the tables under one heading of the second level."""
    text = (ROOT / "docs" / "recipes.md").read_text("utf-8")
    part = text.split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


@pytest.mark.parametrize(
    ("family", "base", "registry", "default"),
    [
        ("objective", Objective, OBJECTIVES, "reducible"),
        ("mixture", Mixture, MIXTURES, "uniform"),
        ("selection", Selection, SELECTIONS, "all"),
        ("weights", Weighting, WEIGHTS, "uniform"),
        ("cache", CacheMethod, CACHES, "dense"),
    ],
)
def test_every_methods_setting_stands_there_with_its_default(family, base, registry, default):
    common = {f"`{family}.{key}`": default for key, default in defaults(base).items()}
    rows = {row[0]: row[1] for row in section(family) if row[0].startswith(f"`{family}.")}
    assert rows == common | {f"`{family}.type`": default}
    wanted = {
        (f"`{name}`", f"`{key}`", default)
        for name in registry
        for key, default in defaults(registry.get(name)).items()
        if key not in base.model_fields
    }
    said = [row for row in section(family) if len(row) == 4 and row[0] != "type" and "-" not in row[0]]
    assert {tuple(row[:3]) for row in said} == wanted and len(said) == len(wanted)


def test_every_source_stands_there_with_its_keys():
    for name in SOURCES:
        (row,) = [row for row in cells() if row[0] == f"`{name}`" and len(row) == 3]
        own = {k: d for k, d in defaults(SOURCES.get(name)).items() if k not in RowSource.model_fields}
        wanted = [f"`{k}`" + ("" if d == "required" else f" {d}") for k, d in own.items()]
        assert row[1] == ", ".join(wanted)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_lead_somewhere(page):
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", text):
        assert (page.parent / target).exists(), target
    for target in re.findall(r"`((?:src|tests|docs|recipes|examples|benchmarks)/[\w./*<>-]+)`", text):
        if "<" not in target:
            assert list(ROOT.glob(target)) or (ROOT / target).exists(), target


PROSE = [page for page in PAGES if page.name != "CHANGELOG.md"]


def long_lines(text):
    """Lines of prose over 100 columns: tables, code blocks, headings, and what one link or code span makes long are not."""
    text = re.sub(r"^(```|~~~).*?^\1\s*$", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in text.splitlines() if not line.startswith(("|", "    ", "!["))]
    whole = re.compile(r"\[[^\]]*\]\([^)]*\)|`[^`]*`|https?://\S+")
    return [line for line in lines if len(line) > 100 and len(whole.sub("", line).strip()) > 1]


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_prose_is_at_most_100_columns_wide(page):
    assert long_lines(page.read_text("utf-8")) == []


def test_wide_lines_are_told_from_what_may_be_wide():
    prose, link = "word " * 21, f"[{'a' * 60}]({'b' * 60}.md)"
    assert long_lines(f"{prose}\n- {prose}\n  {prose}") == [prose, f"- {prose}", f"  {prose}"]
    assert long_lines(f"see {link}") == [f"see {link}"]
    assert long_lines(f"| {prose} |\n\n    {prose}\n\n{link},\n```\n{prose}\n```\n{'word ' * 19}") == []


def entries(text):
    """Number and date of each entry of the decisions, None where there is none."""
    parts = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    found = []
    for part in parts:
        number, date = re.match(r"(\d+)\. \S", part), re.match(r".*\n(\d{4}-\d\d-\d\d)\n\n- What: ", part)
        found.append((number and int(number[1]), date and date[1]))
    return found


def test_decisions_are_numbered_without_gaps_and_dated():
    text = (ROOT / "docs" / "decisions.md").read_text("utf-8")
    found = entries(text)
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    assert all(date and datetime.date.fromisoformat(date) for _, date in found)
    for word in ("What", "Why", "Else"):
        assert text.count(f"\n- {word}: ") == len(found)


def test_an_entry_without_number_or_date_is_seen():
    text = "# D\n\n## 1. One\n2026-11-22\n\n- What: a\n\n## Two\n\n- What: b\n\n## 4. Four\n\n- What: c\n"
    assert entries(text) == [(1, "2026-11-22"), (None, None), (4, None)]
