"""An exported adapter is an ordinary PEFT one: plain peft gives the same logits, merged and not."""

from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from apportion._errors import ApportionError
from apportion.models.tagi.export import adapter, write_adapter
from apportion.models.tagi.teachers import teacher_factors
from tests.models.tagi.models import FAMILIES, HEAD_NAMES, batch_of, example, make_base, make_tagi

EVERY_LINEAR = {
    "t5": ["q", "k", "v", "o", "wi_0", "wi_1", "wo"],
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"],
}
EVERY_LINEAR["qwen3"] = EVERY_LINEAR["llama"][:-1]  # its head, like T5's, is the embedding


def exported(model, task, out):
    factors = adapter(model, model.reader.instructions[task])
    write_adapter(model, factors, "base", out)
    return factors


@pytest.mark.parametrize("modules", ["queries and values", "every linear layer"])
@pytest.mark.parametrize("family", FAMILIES)
def test_plain_peft_gives_the_same_logits(tmp_path, family, modules):
    chosen = None if modules == "queries and values" else EVERY_LINEAR[family]
    model = make_tagi(family, modules=chosen)
    batch = batch_of([(1, example(5, 4, 7)), (1, example(2, 6, 8))])
    exported(model, 1, tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(make_base(family), str(tmp_path / "adapter")).eval()
    plain = make_tagi(family, on=make_base(family))  # only its way of reading a batch is used
    expected = model(batch).logits
    assert not torch.allclose(plain.logits(batch, None), expected, atol=0.05)
    with torch.no_grad():
        assert torch.allclose(plain._logits(loaded, batch, None, None), expected, atol=1e-5)
        assert torch.allclose(plain._logits(loaded.merge_and_unload(), batch, None, None), expected, atol=1e-5)


@pytest.mark.parametrize("head", HEAD_NAMES)
def test_each_head_of_the_generator_exports(tmp_path, head):
    model = make_tagi("llama", head=head)
    factors = exported(model, 0, tmp_path / "adapter")
    assert set(factors) == {slot.name for slot in model.slots}
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(tensors) == 2 * len(factors)
    for name, (a, b) in factors.items():
        assert torch.equal(tensors[f"base_model.model.{name}.lora_A.weight"], a[0].T)
        assert torch.equal(tensors[f"base_model.model.{name}.lora_B.weight"], b[0].T)
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["base_model_name_or_path"]) == (3, 6.0, "base")


def test_what_is_exported_reads_back_as_a_teacher(tmp_path):
    model = make_tagi("t5")
    factors = exported(model, 2, tmp_path / "adapter")
    for name, (a, b) in teacher_factors(tmp_path / "adapter").items():
        assert torch.allclose(a @ b, model.spec.scale * (factors[name][0] @ factors[name][1])[0], atol=1e-6)


def test_the_adapter_of_a_task_is_the_one_it_is_trained_with():
    model = make_tagi("qwen3", base="all")
    own = model.factors(model.reader.of([0, 1, 2]).pooled)
    for name, (a, b) in adapter(model, model.reader.instructions[2]).items():
        assert torch.allclose(a[0], own[name][0][2], atol=1e-6) and torch.allclose(b[0], own[name][1][2], atol=1e-6)


class TestRefusals:
    @pytest.mark.parametrize("ways", [{"fusion": True}, {"memory": True}, {"fusion": True, "memory": True}])
    def test_ways_that_no_adapter_holds(self, tmp_path, ways):
        model = make_tagi("t5", **ways)
        with pytest.raises(ApportionError, match=r"kind\.(fusion|memory): false") as caught:
            exported(model, 0, tmp_path / "adapter")
        assert all(f"kind.{way}: false" in str(caught.value) for way in ways)
        assert not (tmp_path / "adapter").exists()

    def test_a_folder_that_is_taken(self, tmp_path):
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "notes.txt").write_text("mine")
        (tmp_path / "file").write_text("mine")
        (tmp_path / "empty").mkdir()
        model = make_tagi("llama")
        for name in ("full", "file"):
            with pytest.raises(ApportionError, match="is there already"):
                exported(model, 0, tmp_path / name)
        assert [path.name for path in (tmp_path / "full").iterdir()] == ["notes.txt"]
        exported(model, 0, tmp_path / "empty")

    def test_a_teacher_that_is_no_adapter(self, tmp_path):
        with pytest.raises(ApportionError, match="holds no LoRA adapter"):
            teacher_factors(tmp_path)
