"""What the library raises where it is called from Python, and what it says of the network and the disk."""

import errno
import socket

import pytest
from transformers import TrainingArguments

import apportion
from apportion import ApportionError
from apportion._config import Config, validate
from apportion.models.loading import build_model, load_tokenizer
from apportion.models.specs import LoraSpec, ModelSpec
from apportion.plans.arguments import OWNED, checked, training_arguments
from apportion.plans.recipe import overridden, parse_recipe
from apportion.runs import RunFolder
from apportion.runs.atomic import write_error
from apportion.tasks.network import reachable
from tests.training.runs import TINY


class Inner(Config):
    size: int
    share: float | None = None


class Outer(Config):
    inner: Inner | str
    several: tuple[Inner, ...] = ()
    amount: str | int | float | dict[str, float] = 0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"inner": {"size": 1, "shar": 2}}, "Unknown key 'top.inner.shar' (did you mean 'share'?)"),
        ({"inner": {"siz": 1}}, "Unknown key 'top.inner.siz' (did you mean 'size'?)"),
        ({"inner": {}}, "'top.inner.size' is missing."),
        ({}, "'top.inner' is missing."),
        ({"inner": 3}, "'top.inner' is 3: must be a mapping of settings or text."),
        ({"inner": {"size": "x"}}, "'top.inner.size' is 'x': must be a whole number."),
        ({"inner": {"size": 1, "share": float("inf")}}, "'top.inner.share' is inf: must be a finite number."),
        (
            {"inner": "a", "several": [{"size": 1}, {"size": None}]},
            "'top.several.1.size' is None: must be a whole number.",
        ),
        ({"inner": "a", "amount": None}, "'top.amount' is None: must be text or a number or a mapping of settings."),
        ({"inner": "a", "amount": {"x": "y"}}, "'top.amount.x' is 'y': must be a number."),
    ],
)
def test_settings_name_the_key_as_it_was_written(values, said):
    with pytest.raises(ApportionError) as raised:
        validate(Outer, values, "top")
    assert str(raised.value).startswith(said)


@pytest.mark.parametrize("values", [None, 3, "text", [1]])
def test_settings_that_are_no_mapping(values):
    with pytest.raises(ApportionError, match="'top' must be a mapping of settings"):
        validate(Outer, values, "top")


@pytest.mark.parametrize("key", OWNED)
def test_what_apportion_decides_is_refused_with_the_reason(key):
    with pytest.raises(ApportionError, match=f"'training.{key}' cannot be set here: {OWNED[key][:20]}"):
        checked({key: 1})


def test_training_values_become_what_hugging_face_wants(tmp_path):
    block = checked({"learning_rate": "2e-3", "weight_decay": 0, "bf16": "false", "warmup_steps": 0.1})
    assert block == {"learning_rate": 2e-3, "weight_decay": 0.0, "bf16": False, "warmup_steps": 0.1}
    args = training_arguments(block, 3, tmp_path, TrainingArguments)
    assert (args.learning_rate, args.seed, args.eval_strategy.value, args.ignore_data_skip) == (2e-3, 3, "no", True)


def test_overrides_reach_into_blocks_and_make_new_ones():
    values = overridden({"mixture": "adapt", "lora": None}, ["mixture.floor=0.3", "lora.r=4", "training.bf16=true"])
    assert values == {"mixture": {"type": "adapt", "floor": 0.3}, "lora": {"r": 4}, "training": {"bf16": True}}
    assert overridden({"mixture": {"type": "adapt", "floor": 1}}, ["mixture.type=uniform"]) == {
        "mixture": {"type": "uniform"}
    }


def test_python_callers_get_the_same_sentence(tmp_path):
    blocks = {key: TINY[key] for key in ("model", "tasks", "budget")}
    with pytest.raises(ApportionError, match="Unknown mixture 'adpt' \\(did you mean 'adapt'\\?\\)"):
        apportion.train(**blocks, mixture="adpt", out=tmp_path / "run")
    with pytest.raises(ApportionError, match="Unknown key 'trainin' \\(did you mean 'training'\\?\\)"):
        apportion.train(**blocks, trainin={}, out=tmp_path / "run")
    with pytest.raises(ApportionError, match="Unknown method 'adpt' \\(did you mean 'adapt'\\?\\)"):
        apportion.compare(["uniform", "adpt"], **blocks, out=tmp_path / "run")
    with pytest.raises(ApportionError, match="There is no file or folder"):
        apportion.load_tasks(tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()


def test_a_port_nobody_listens_on_is_out_of_reach_at_once(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert reachable(endpoint)
    assert not reachable(endpoint)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert reachable(endpoint), "behind a proxy only the client can tell"


def test_the_hub_out_of_reach_is_one_sentence(monkeypatch):
    monkeypatch.setattr("apportion.tasks.network.reachable", lambda endpoint: False)
    spec = ModelSpec(name="nobody/nothing-at-all")
    recipe = parse_recipe(TINY)
    for load in (
        lambda: load_tokenizer(spec, recipe.tasks),
        lambda: build_model(spec, None, lora=None, seed=0, meta=True),
    ):
        with pytest.raises(ApportionError, match="is not in the cache and the Hub cannot be reached: check the name"):
            load()
    with pytest.raises(ApportionError, match="Cannot load the data set 'nobody/nothing-at-all': check the name"):
        apportion.load_tasks("nobody/nothing-at-all", source="hub")


def test_lora_takes_names_that_are_there_and_no_other():
    spec = parse_recipe(TINY).model
    tokenizer = load_tokenizer(spec, parse_recipe(TINY).tasks)
    build_model(
        spec, tokenizer, lora=LoraSpec(target_modules=["q_proj", "layers.0.self_attn.v_proj"]), seed=0, meta=True
    )
    with pytest.raises(ApportionError, match="'v_prj', no layer of the model"):
        build_model(spec, tokenizer, lora=LoraSpec(target_modules=["q_proj", "v_prj"]), seed=0, meta=True)
    assert LoraSpec(target_modules="q_proj").target_modules == ["q_proj"]
    assert LoraSpec(target_modules="all-linear").target_modules == "all-linear"
    for name, near in (("q_prj", "q_proj"), ("all-liner", "all-linear")):
        with pytest.raises(ApportionError, match=f"'{name}', no layer of the model .did you mean '{near}'"):
            build_model(spec, tokenizer, lora=LoraSpec(target_modules=name), seed=0, meta=True)


def test_a_folder_is_checked_without_touching_it(tmp_path):
    new = tmp_path / "a" / "b"
    RunFolder.check(new, {"budget": 1})
    assert not (tmp_path / "a").exists()
    with RunFolder.create(new, {"budget": 1}), pytest.raises(ApportionError, match="is in use by another live run"):
        RunFolder.check(new, {"budget": 1})
    RunFolder.check(new, {"budget": 1})
    with pytest.raises(ApportionError, match="'budget' is 1 there and 2 here"):
        RunFolder.check(new, {"budget": 2})
    (new / "recipe.yaml").write_bytes(b"\xff")
    with pytest.raises(ApportionError, match="cannot be read as a recipe"):
        RunFolder.check(new, {"budget": 1})


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "x"), "The disk is full: "),
        (OSError(errno.EDQUOT, "x"), "The disk is full: "),
        (OSError(errno.EACCES, "x"), "could not be written: Permission denied."),
        (
            RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
            "The disk is full: ",
        ),
        (RuntimeError("unexpected pos 576 vs 534\nmore"), "in full: check the disk's space and limits (unexpected pos"),
    ],
)
def test_a_failed_write_says_why_and_where(tmp_path, error, said):
    text = str(write_error(tmp_path / "file", error))
    assert said in text and str(tmp_path / "file") in text and "\n" not in text
