"""The card of a trained model: what the Hub reads of it, and what a reader does."""

import json

import pytest
from huggingface_hub import ModelCard

from apportion.exports.card import card, without_places
from tests.training.hypernets import hyper
from tests.training.runs import run

LORA = "lora={r: 2, alpha: 4}"


def read(folder):
    text = (folder / "model" / "README.md").read_text("utf-8")
    return ModelCard(text), text


def lines(text, title):
    """The code under a heading."""
    part = text.split(f"\n## {title}\n\n")[1].split("\n## ")[0]
    return "\n".join(line.removeprefix("    ") for line in part.splitlines())


def check(made, text):
    """Hold a card to the files that it was made of, and to no place on this machine."""
    mixture, ledger, summary = (
        json.loads((made.path / f"{name}.json").read_text()) for name in ("mixture", "ledger", "summary")
    )
    for name, share in mixture["token_averaged"].items():
        assert f"| {name} | {mixture['tasks'][name]['size']:,} | {share:.2%} |" in text
    for account, spent in ledger["accounts"].items():
        row = f"| {spent['supervised']:,} | {spent['processed']:,} | {spent['flops']:.3g} |"
        assert (f"| {account} |" in text) == (spent["flops"] > 0)
        assert row in text or not spent["flops"]
    assert f"{summary['final']['macro']:.3f}" in text
    assert str(made.path) not in text and str(made.path.parent) not in text


def test_a_model_from_scratch(tmp_path, monkeypatch):
    made = run(tmp_path / "run", "mixture=temperature", "weights=linupper")
    found, text = read(made.path)
    assert found.data.library_name == "transformers" and found.data.base_model is None
    assert found.data.tags == ["apportion", "temperature", "linupper"]
    assert "Trained from scratch" in text and "with weights `linupper`" in text and "mean weight" in text
    assert "1,500 supervised tokens, never overshot" in text and "type: temperature" in text
    check(made, text)
    monkeypatch.chdir(made.path / "model")
    names = {}
    exec(lines(text, "Load it"), names)
    assert names["model"].num_parameters() > 0 and len(names["tokenizer"]) > 10


@pytest.mark.parametrize("scratch", [True, False])
def test_an_adapters_card_is_ours_and_not_pefts(tmp_path, monkeypatch, scratch):
    base = run(tmp_path / "base", "budget=300").path / "model"
    start = [] if scratch else [f"model={{name: '{base}'}}"]
    made = run(tmp_path / "run", LORA, "budget=300", *start)
    found, text = read(made.path)
    assert found.data.library_name == "peft" and found.data.base_model is None
    assert "as LoRA adapters" in text and "More Information Needed" not in text
    assert ("from a model in a folder" in text) != scratch
    check(made, text)
    monkeypatch.chdir(made.path / "model")
    names = {}
    exec(lines(text, "Load it"), names)
    assert any("lora" in name for name, _ in names["model"].named_parameters())


def test_a_hypernetwork(tmp_path):
    made = hyper(tmp_path / "run")
    found, text = read(made.path)
    assert found.data.library_name == "apportion" and "apportion hypernet adapter RUN" in text
    check(made, text)


def test_targets_and_a_selection_stand_in_it(tmp_path):
    made = run(tmp_path / "run", "targets={tasks: [copy]}", "selection={type: random, limit: 50%}", "budget=600")
    found, text = read(made.path)
    assert "on what the selection `random` kept" in text and "Target loss: " in text
    assert found.data.tags == ["apportion", "proportional", "random"]
    check(made, text)


def test_a_hub_name_is_the_base_model(tmp_path):
    made = run(tmp_path / "run", "budget=300")
    summary, mixture, ledger = (
        json.loads((made.path / f"{name}.json").read_text()) for name in ("summary", "mixture", "ledger")
    )
    recipe = {
        "model": {"name": "owner/model"},
        "mixture": {"type": "adapt"},
        "weights": {"type": "uniform"},
        "selection": {"type": "all"},
        "seed": 4,
    }
    text = card(recipe, summary, mixture, ledger, "owner/model", ("transformers", ""))
    assert ModelCard(text).data.base_model == "owner/model" and ModelCard(text).data.tags == ["apportion", "adapt"]
    assert "Trained from `owner/model` with Apportion" in text and "## Load it" not in text


def test_places_on_this_machine_are_cut_to_their_names():
    values = {"tasks": {"path": ["/home/me/data/a", "~/b", "c/d"]}, "model": {"name": "owner/model"}, "seed": 0}
    assert without_places(values) == {
        "tasks": {"path": ["a", "b", "c/d"]},
        "model": {"name": "owner/model"},
        "seed": 0,
    }
