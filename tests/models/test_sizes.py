"""Models that cannot exist end in one sentence, before anything is built from their sizes."""

import json

import pytest

from apportion import ApportionError
from apportion.models.loading import build_model
from apportion.models.sizes import MOST_LAYERS
from apportion.models.specs import ModelSpec, TokenizerSpec
from apportion.plans.plan import plan_recipe
from apportion.plans.recipe import overridden, parse_recipe
from apportion.plans.run import prepare
from tests.training.runs import TINY

LLAMA = TINY["model"]["config"]
QWEN = {**LLAMA, "model_type": "qwen3", "head_dim": 16}
GEMMA = {**LLAMA, "model_type": "gemma3_text", "head_dim": 16, "sliding_window": 32}
MIXTRAL = {**LLAMA, "model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 1}
GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_head": 2, "n_layer": 2, "n_positions": 128}
T5 = {"model_type": "t5", "d_model": 32, "d_kv": 16, "d_ff": 64, "num_heads": 2, "num_layers": 1}

# A config, what is changed in it, and what the sentence must say.
IMPOSSIBLE = [
    (LLAMA, {"hidden_size": 0}, "'model.config.hidden_size' is 0: must be at least 1"),
    (LLAMA, {"hidden_size": -32}, "'model.config.hidden_size' is -32: must be at least 1"),
    (LLAMA, {"hidden_size": 10**12}, "'model.config.hidden_size' is 1000000000000: must be at most 16,777,216"),
    (LLAMA, {"num_attention_heads": 3}, "not a multiple"),
    (LLAMA, {"num_attention_heads": 0}, "'model.config.num_attention_heads' is 0"),
    (
        LLAMA,
        {"num_attention_heads": 4, "num_key_value_heads": 3},
        "'model.config.num_key_value_heads' is 3, which does",
    ),
    (LLAMA, {"num_key_value_heads": 0}, "'model.config.num_key_value_heads' is 0"),
    (LLAMA, {"num_hidden_layers": 0}, "'model.config.num_hidden_layers' is 0: must be at least 1"),
    (LLAMA, {"num_hidden_layers": -1}, "'model.config.num_hidden_layers' is -1: must be at least 1"),
    (LLAMA, {"num_hidden_layers": 2000}, "'model.config.num_hidden_layers' is 2000: must be at most 512"),
    (LLAMA, {"num_hidden_layers": 10**9}, "must be at most 512"),
    (LLAMA, {"vocab_size": 10**9}, "'model.config.vocab_size' is 1000000000: must be at most 16,777,216"),
    (LLAMA, {"vocab_size": 0}, "'model.config.vocab_size' is 0"),
    (LLAMA, {"intermediate_size": -3}, "'model.config.intermediate_size' is -3"),
    (LLAMA, {"max_position_embeddings": -1}, "'model.config.max_position_embeddings' is -1"),
    (LLAMA, {"hidden_size": 2**22, "intermediate_size": 2**24, "num_hidden_layers": 100}, "parameters follows from"),
    (LLAMA, {"hidden_size": 32.5}, "'hidden_size' expected int"),
    (QWEN, {"num_key_value_heads": 4}, "'model.config.num_key_value_heads' is 4, which does not divide the 2 of"),
    (QWEN, {"head_dim": 0}, "'model.config.head_dim' is 0"),
    (QWEN, {"head_dim": 5}, "'model.config' is no qwen3 config"),
    (GEMMA, {"num_hidden_layers": 10**9}, "'model.config.num_hidden_layers' is 1000000000: must be at most 512"),
    (MIXTRAL, {"num_experts_per_tok": 3}, "A model of these shapes cannot read a text"),
    (GPT2, {"n_embd": 0}, "'model.config.n_embd' is 0: must be at least 1"),
    (GPT2, {"n_head": 0}, "'model.config.n_head' is 0"),
    (GPT2, {"n_head": 3}, "No model follows from 'model.config'"),
    (GPT2, {"n_layer": -2}, "'model.config.n_layer' is -2"),
    (GPT2, {"n_layer": 2000}, "'model.config.n_layer' is 2000: must be at most 512"),
    (GPT2, {"n_positions": 10**11}, "'model.config.n_positions' is 100000000000: must be at most"),
]


def with_config(config, **settings):
    return parse_recipe({**TINY, "model": {"config": config, "tokenizer": {"train": "character"}}, **settings})


@pytest.mark.parametrize(
    ("config", "changes", "said"), IMPOSSIBLE, ids=[f"{c['model_type']}-{'-'.join(m)}" for c, m, _ in IMPOSSIBLE]
)
def test_a_model_that_cannot_exist_is_refused_by_plan_and_run_alike(tmp_path, config, changes, said):
    recipe = with_config(config | changes)
    for attempt in (lambda: plan_recipe(recipe), lambda: prepare(recipe, tmp_path / "run")):
        with pytest.raises(ApportionError) as raised:
            attempt()
        assert said in str(raised.value)


@pytest.mark.parametrize("config", [LLAMA, QWEN, GEMMA, GPT2], ids=lambda config: config["model_type"])
def test_the_models_that_the_mistakes_are_made_in_are_right(config):
    assert plan_recipe(with_config(config)).parameters["total"] > 0


@pytest.mark.parametrize("changes", [{"num_layers": 0}, {"num_decoder_layers": -1}, {"d_ff": 0}, {"d_kv": 0}])
def test_an_encoder_and_decoder_that_cannot_exist(changes):
    build = {"lora": None, "seed": 0, "meta": True, "encoder_decoder": True}
    tokenizer = TokenizerSpec(train="character")
    build_model(ModelSpec(config=T5, tokenizer=tokenizer), None, **build)
    (key,) = changes
    with pytest.raises(ApportionError, match=f"'model.config.{key}' is"):
        build_model(ModelSpec(config=T5 | changes, tokenizer=tokenizer), None, **build)


def test_a_folder_whose_config_cannot_be(tmp_path):
    config = {**LLAMA, "num_hidden_layers": MOST_LAYERS + 1, "vocab_size": 50}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ApportionError, match=r"config.json: num_hidden_layers' is 513: must be at most 512"):
        build_model(ModelSpec(name=str(tmp_path)), None, lora=None, seed=0, meta=True)


def test_a_vocabulary_that_nobody_can_train():
    with pytest.raises(ApportionError, match=r"'model.tokenizer.vocab_size' is 1000000000"):
        parse_recipe(overridden(TINY, ["model.tokenizer={train: bpe, vocab_size: 1000000000}"]))


def test_weights_beyond_the_machine_are_priced_and_not_built(tmp_path):
    recipe = with_config(LLAMA | {"hidden_size": 2**16, "vocab_size": 2**24})
    assert plan_recipe(recipe).memory > 2**42
    with pytest.raises(ApportionError, match=r"weights alone of the model take [\d,]+ GiB and this machine has"):
        prepare(recipe, tmp_path / "run")
