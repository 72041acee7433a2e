"""Plain peft loads a run's adapters from any working directory: they name their base so that it is found."""

import json

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from apportion.models.tagi.building import encode_instructions
from apportion.models.tagi.export import adapter, write_adapter
from apportion.plans.hypernet import load_hypernet
from apportion.training.trainer import BudgetTrainer
from tests.training.hypernets import hyper, on
from tests.training.runs import run

LORA = "lora={r: 2, alpha: 4}"
IDS = torch.tensor([[5, 6, 7, 8]])


def base_of(folder):
    return json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]


def logits(folder):
    with torch.no_grad():
        return AutoPeftModelForCausalLM.from_pretrained(str(folder)).eval()(IDS).logits


@pytest.fixture
def model(tmp_path):
    return run(tmp_path / "base", "budget=300").path / "model"


def test_an_adapter_on_a_folder_is_loaded_from_elsewhere(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    made = run(tmp_path / "run", "model={name: base/model}", LORA, "budget=300", "training.learning_rate=0.05")
    checkpoints = [path.parent for path in made.path.glob("checkpoints/*/adapter_config.json")]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    plain = AutoModelForCausalLM.from_pretrained(str(model)).eval()(IDS).logits
    assert checkpoints
    for folder in (made.path / "model", *checkpoints):
        assert base_of(folder) == str(model)
        assert not torch.allclose(logits(folder), plain)


def test_an_adapter_on_a_model_from_scratch_has_its_base_beside_it(tmp_path, monkeypatch):
    trained = []
    save = BudgetTrainer.save_model

    def spy(trainer, *given, **named):
        save(trainer, *given, **named)
        with torch.no_grad():
            trained.append(trainer.model.eval()(input_ids=IDS).logits)

    monkeypatch.setattr(BudgetTrainer, "save_model", spy)
    monkeypatch.chdir(tmp_path)
    made = run(tmp_path / "run", LORA, "budget=300", "training.learning_rate=0.05")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    folder = made.path / "model"
    assert base_of(folder) == str(folder / "base")
    assert len(AutoTokenizer.from_pretrained(str(folder / "base"))) > 10
    base = AutoModelForCausalLM.from_pretrained(str(folder / "base"))
    assert torch.allclose(logits(folder), trained[-1], atol=1e-5)
    assert not torch.allclose(logits(folder), base.eval()(IDS).logits)


def test_a_hypernetworks_adapter_is_loaded_from_elsewhere(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    made = hyper(tmp_path / "run", start=on(model.relative_to(tmp_path)))
    scratch = hyper(tmp_path / "scratch")
    for name, base in (("run", model), ("scratch", scratch.path / "model" / "base")):
        monkeypatch.chdir(tmp_path)
        loaded, tokenizer, place = load_hypernet(tmp_path / name)
        (ids,) = encode_instructions({"--instruction": "say it"}, tokenizer, loaded.config)
        write_adapter(loaded, adapter(loaded, ids), place, tmp_path / f"adapter-{name}")
        monkeypatch.chdir("/")
        assert base_of(tmp_path / f"adapter-{name}") == str(base)
        assert logits(tmp_path / f"adapter-{name}").isfinite().all()
        assert len(AutoTokenizer.from_pretrained(str(base))) == len(tokenizer)
    assert made.path.is_dir()
