"""Every mistake in a hypernetwork's recipe ends in one sentence, and nothing is written."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from apportion._errors import ApportionError
from apportion.models.tagi.building import encode_instructions
from apportion.plans.build import load_data
from apportion.plans.hypernet import load_hypernet
from apportion.plans.plan import plan_recipe
from apportion.plans.recipe import overridden, parse_recipe
from apportion.plans.run import run_recipe
from tests.models.tagi.models import base_config
from tests.training.hypernets import SCRATCH, T5, hyper
from tests.training.runs import run

GPT2 = "model.config={model_type: gpt2, n_embd: 16, n_layer: 1, n_head: 2}"
GEMMA = (
    "model.config={model_type: gemma3_text, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, "
    "num_key_value_heads: 2, head_dim: 8}"
)
NAMED = "model={name: somewhere}"

# What is set, and what the sentence must say.
MISTAKES = [
    # Typos and values.
    ("kind.hed=diagonal", "Unknown key 'kind.hed' (did you mean 'head'?)"),
    ("kind.teachers.grups={copy: a}", "Unknown key 'kind.teachers.grups' (did you mean 'groups'?)"),
    ("kind.head=per_leyer", "'kind.head' is 'per_leyer': must be"),
    ("kind.head=none", "'head: none' leaves nothing that reads instructions"),
    ("kind.r=0", "'kind.r' is 0"),
    ("kind.alpha=0", "'kind.alpha' is 0"),
    ("kind.kl=-1", "'kind.kl' is -1"),
    ("kind.kl=.nan", "'kind.kl' is nan"),
    ("kind.ins=-1", "'ins' is a weight of at least 0"),
    ("kind.ins=sigmod", "'kind.ins"),
    ("kind.temperature=0", "'kind.temperature' is 0"),
    ("kind.modules=[]", "'kind.modules'"),
    ("kind.modules=[q_prj]", "'q_prj', no layer of the model (did you mean 'q_proj'?)"),
    ("kind.modules=[lm_head]", "'lm_head', whose weight is the embeddings' too"),
    # Base models.
    (GPT2, "families t5, llama, qwen3, not 'gpt2'"),
    (GEMMA, "families t5, llama, qwen3, not 'gemma3_text'"),
    ("kind.base=frozen", "from scratch has to be trained along", "'kind.base: all'"),
    ("kind.base=norms_and_embeddings", "from scratch has to be trained along"),
    ("kind.kl=1", "cannot be its own teacher", "'kind.kl: 0'"),
    ("kind.memory=true", "'kind.memory' is for encoder-decoder models"),
    # Instructions.
    ("tasks.instruction=prompt", "set 'tasks.instruction: apart'"),
    ("model.config.max_position_embeddings=20", "has", "tokens but the model"),
    # What does not go with it.
    ("lora={}", "'lora' does not go with 'kind: tagi'"),
    ("packing=true", "'packing' does not go with 'kind: tagi'"),
    (
        "targets={source: playground, suite: skills}",
        "'targets' with data of its own does not go with",
        "'targets.tasks'",
    ),
    ("mixture=adapt", "'mixture.type: adapt', which reads backward, does not go", "'mixture.estimator: forward'"),
    ("weights=adapt", "'weights.type: adapt', which reads states, does not go with 'kind: tagi'"),
    ("training.gradient_checkpointing=true", "'training.gradient_checkpointing' does not go with 'kind: tagi'"),
    ("training.neftune_noise_alpha=5", "'training.neftune_noise_alpha' does not go with 'kind: tagi'"),
    # Stages, starts and teachers.
    ("kind.stage=pretrain", "leave out 'tasks.instruction'"),
    ("kind.start=nowhere", "'kind.start' names 'nowhere', which is no finished run"),
    ("kind={type: tagi, base: all, kl: 1, teacher: ./nowhere}", "'kind.teacher' is './nowhere': There is no folder"),
    ("kind.teachers={}", "LoRA teachers need a base model that is trained"),
    # Budgets.
    ("budget=1", "may not reach for one example"),
    ("budget=1000 FLOPs", "may not reach for one example"),
]


@pytest.mark.parametrize(("assignment", "sentences"), [(first, rest) for first, *rest in MISTAKES])
def test_a_mistake_is_one_sentence_and_leaves_nothing(tmp_path, assignment, sentences):
    with pytest.raises(ApportionError) as caught:
        hyper(tmp_path / "run", assignment)
    message = str(caught.value)
    assert all(sentence in message for sentence in sentences), message
    assert message.endswith(".") and "\n" not in message
    assert not (tmp_path / "run").exists()


def test_an_empty_instruction_names_its_row(tmp_path):
    rows = [{"instruction": "", "input": f"in {i}", "output": f"out {i}"} for i in range(20)]
    (tmp_path / "quiet.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ApportionError, match=r"20 bad rows, .*quiet\.jsonl:1 has no 'instruction'"):
        hyper(tmp_path / "run", f"tasks={{source: jsonl, path: {tmp_path / 'quiet.jsonl'}, instruction: apart}}")
    assert not (tmp_path / "run").exists()


def test_instructions_as_long_as_the_encoder_takes_and_no_longer():
    tokenizer = load_data(parse_recipe(SCRATCH)).tokenizer
    config = base_config("llama", max_position_embeddings=10)
    assert len(encode_instructions({"a": "x" * 8}, tokenizer, config)[0]) == 10  # with a start and a newline
    with pytest.raises(ApportionError, match="of a has 11 tokens but the model's encoder takes 10: shorten it"):
        encode_instructions({"a": "x" * 9}, tokenizer, config)
    # T5's positions are relative, whatever its published configs say of n_positions.
    ids = encode_instructions({"a": "x" * 900}, tokenizer, base_config("t5", n_positions=512))[0]
    assert len(ids) == 903 and int(ids[-1]) == 2  # and the end token, as behind every text that it was pretrained on


class TestStarts:
    def folder(self, tmp_path, tensors):
        (tmp_path / "first" / "model").mkdir(parents=True)
        save_file(tensors, str(tmp_path / "first" / "model" / "model.safetensors"))
        return tmp_path / "first"

    def test_another_head_or_shape_is_refused(self, tmp_path):
        first = hyper(tmp_path / "first", "budget=50").path
        for setting in ("kind.head=diagonal", "kind.r=3", "kind.fusion=true", "kind.code=4"):
            with pytest.raises(ApportionError, match=r"'kind\.start': .* must agree with this one's\.$"):
                hyper(tmp_path / "second", f"kind.start={first}", setting)
            assert not (tmp_path / "second").exists()
        hyper(tmp_path / "second", f"kind.start={first}", "budget=50")

    def test_an_ordinary_run_is_refused(self, tmp_path):
        folder = self.folder(tmp_path, {"model.embed_tokens.weight": torch.zeros(2, 2)})
        with pytest.raises(ApportionError, match=r"does not have model\.embed_tokens\.weight"):
            hyper(tmp_path / "second", f"kind.start={folder}")


class TestPlans:
    def test_a_plan_is_of_the_starting_mixture_and_writes_nothing(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for settings in ((), (T5, "kind.memory=true"), ("budget=2e9 FLOPs",)):
            plan = plan_recipe(parse_recipe(overridden(SCRATCH, settings)))
            assert plan.accounts["train"]["flops"] > plan.accounts["validation"]["flops"] > 0
            assert 0 < plan.parameters["trainable"] == plan.parameters["total"]
        assert not list(tmp_path.iterdir())

    def test_what_steering_costs(self):
        adapt = "mixture={type: adapt, estimator: forward, refresh: 8, examples_per_task: 1}"
        for mixture in ("mixture={type: loss, max_cost: 1}", adapt):
            assert plan_recipe(parse_recipe(overridden(SCRATCH, [mixture]))).accounts["meta"]["flops"] > 0


class TestLoading:
    def test_folders_without_a_finished_hypernetwork(self, tmp_path):
        with pytest.raises(ApportionError, match="is no run folder"):
            load_hypernet(tmp_path)
        plain = run(tmp_path / "plain", "budget=100").path
        with pytest.raises(ApportionError, match="trained no hypernetwork"):
            load_hypernet(plain)
        done = hyper(tmp_path / "done", "budget=50").path
        load_hypernet(done)
        (done / "summary.json").unlink()
        with pytest.raises(ApportionError, match="is not finished"):
            load_hypernet(done)

    def test_a_finished_run_is_not_written_over(self, tmp_path):
        parsed = parse_recipe(overridden(SCRATCH, ["budget=50"]))
        run_recipe(parsed, tmp_path / "run")
        with pytest.raises(ApportionError):
            run_recipe(parsed, tmp_path / "run")
