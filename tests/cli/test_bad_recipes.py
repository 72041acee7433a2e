"""Every mistake in a recipe ends in one sentence, exit code 2, and no folder."""

import pytest
import yaml

from apportion.plans.arms import arm_values
from apportion.plans.recipe import overridden, parse_recipe
from tests.cli.command import RECIPE, ask
from tests.test_house import loaded_after

# What is set, and what the sentence must say.
MISTAKES = [
    # Typos, with the nearest right name.
    ("mixtur=adapt", "Unknown key 'mixtur' (did you mean 'mixture'?)"),
    ("foo.bar=1", "Unknown key 'foo' (known: model, lora, kind, tasks"),
    ("model.nam=x", "Unknown key 'model.nam' (did you mean 'name'?)"),
    ("model.config.hiden_size=8", "'model.config.hiden_size' (did you mean 'hidden_size'?)"),
    ("model.config.model_type=llamma", "'llamma' (did you mean 'llama'?)"),
    ("model.tokenizer.kind=bpe", "Unknown key 'model.tokenizer.kind'"),
    ("model.tokenizer.train=bep", "'model.tokenizer.train' is 'bep': must be 'bpe' or 'character'"),
    ("lora.rank=4", "Unknown key 'lora.rank'"),
    ("tasks.sorce=playground", "Unknown key 'tasks.sorce' (did you mean 'source'?)"),
    ("tasks.source=playgroud", "'playgroud' (did you mean 'playground'?)"),
    ("tasks.names=[copyy]", "'copyy'", "(did you mean 'copy'?)"),
    ("mixture=unifrom", "Unknown mixture 'unifrom' (did you mean 'uniform'?)"),
    ("objective={type: worst, taau: 1}", "Unknown key 'objective.taau' (did you mean 'tau'?)"),
    ("mixture={type: adapt, florr: 1}", "Unknown key 'mixture.florr' (did you mean 'floor'?)"),
    ("objective=wrost", "Unknown objective 'wrost' (did you mean 'worst'?)"),
    ("targets={task: {copy: 1}}", "Unknown key 'targets.task' (did you mean 'tasks'?)"),
    ("targets={tasks: {copyy: 1}}", "Unknown task 'copyy' under 'targets.tasks' (did you mean 'copy'?)"),
    ("targets={tasks: []}", "'targets.tasks' is []: name at least one task, or leave 'targets' out"),
    ("targets={tasks: {copy: 0}}", "'targets.tasks.copy' is 0: an importance is a number above 0"),
    (
        "targets={source: playground, suite: skills, importance: {copi: 2}}",
        "Unknown target 'copi' under 'targets.importance'",
    ),
    ("targets={source: playground}", "A task and a target are called 'copy'", "rename one of them"),
    ("targets={path: nowhere.jsonl}", "There is no file or folder 'nowhere.jsonl'"),
    ("targets={source: playground, scael: 0.1}", "Unknown key 'targets.scael' (did you mean 'scale'?)"),
    ("targets={source: playground, suite: skills, train: often}", "'targets.train' is 'often'"),
    ("targets={tasks: [copy], train: 4}", "'targets.train' is for targets with data of their own"),
    ("validation.evry=1%", "Unknown key 'validation.evry' (did you mean 'every'?)"),
    ("training.learning_rat=1", "'training.learning_rat' (did you mean 'learning_rate'?)"),
    ("training.optim=adafacto", "'training.optim'", "(did you mean 'adafactor'?)"),
    ("training.lr_scheduler_type=coss", "'training.lr_scheduler_type'", "(did you mean 'cosine'?)"),
    ("training.report_to=wandbb", "'training.report_to' (did you mean 'wandb'?)"),
    # Keys by the names that others have for them.
    ("lr=1", "Unknown key 'lr' (did you mean 'training.learning_rate'?)"),
    ("training.lr=1", "Unknown key 'training.lr' (did you mean 'learning_rate'?)"),
    ("mixture={type: adapt, lr: 1}", "Unknown key 'mixture.lr' (did you mean 'learning_rate'?)"),
    ("training.batch_size=1", "'training.batch_size' (did you mean 'per_device_train_batch_size'?)"),
    ("batch_size=1", "'batch_size' (did you mean 'training.per_device_train_batch_size'?)"),
    ("learning_rate=1", "'learning_rate' (did you mean 'training.learning_rate'?)"),
    ("training.epochs=3", "'training.epochs' (training ends when 'budget' is spent"),
    ("epochs=3", "'epochs' (training ends when 'budget' is spent"),
    ("mixture={type: adapt, epochs: 1}", "Unknown key 'mixture.epochs' (did you mean 'max_epochs'?)"),
    ("data=x", "'data' (did you mean 'tasks.path'?)"),
    ("dataset.path=x", "'dataset' (did you mean 'tasks.path'?)"),
    ("max_length=3", "'max_length' (did you mean 'tasks.max_length'?)"),
    ("seeds=[1, 2]", "'seeds' (a run has one 'seed'; 'apportion compare' takes --seeds)"),
    ("lora.rank=4", "Unknown key 'lora.rank' (did you mean 'r'?)"),
    ("output_dir=x", "'output_dir' (the folder is given with --out)"),
    # Keys that Apportion decides.
    ("training.max_steps=3", "'training.max_steps' cannot be set here", "'budget' is spent"),
    ("training.output_dir=x", "'training.output_dir' cannot be set here", "--out"),
    ("training.fp16=true", "'training.fp16' cannot be set here: use bf16"),
    ("training.label_smoothing_factor=0.1", "'training.label_smoothing_factor' cannot be set here"),
    ("training.include_num_input_tokens_seen=true", "'training.include_num_input_tokens_seen'", "the ledger counts"),
    ("training.eval_on_start=true", "'training.eval_on_start' cannot be set here: a validation opens every run"),
    ("training.torch_compile=true", "'training.torch_compile' cannot be set here", "hide what methods read"),
    ("training.dataloader_num_workers=2", "'training.dataloader_num_workers' cannot be set here", "without a loader"),
    ("training.save_total_limit=1", "'training.save_total_limit' cannot be set here", "the newest two"),
    ("training.log_level=foo", "'training.log_level' cannot be set here"),
    ("training.accelerator_config={split_batches: true}", "'training.accelerator_config' cannot be set here"),
    ("training.optim=galore_adamw", "'training.optim' is 'galore_adamw'", "needs the package galore_torch"),
    ("training.optim=apollo_adamw", "'training.optim' is 'apollo_adamw'", "needs the package apollo_torch"),
    ("training.optim=lomo", "'training.optim' cannot be 'lomo' here", "layer by layer"),
    ("training.optim=galore_adamw_layerwise", "'training.optim' cannot be 'galore_adamw_layerwise' here"),
    (
        "training={gradient_checkpointing: true, gradient_checkpointing_kwargs: {use_reentrant: true}}",
        "'training' is not",
    ),
    ("training={gradient_checkpointing: true, gradient_checkpointing_kwargs: {foo: 1}}", "'training' is not", "foo"),
    # Values of the wrong kind or size.
    ("seed=-1", "'seed' is -1: must be greater than or equal to 0"),
    ("seed=x", "'seed' is 'x': must be a whole number"),
    ("seed=4294967296", "'seed' is 4294967296"),
    ("seed.x=3", "'--set seed.x=3': 'seed' is no mapping"),
    ("model=3", "'model' is 3: must be a mapping of settings"),
    ("model=nobody/nothing-at-all", "not in the cache and the Hub cannot be reached"),
    ("model={config: {hidden_size: 8}, tokenizer: x}", "'model': 'config.model_type' is missing", "such as llama"),
    ("model.config=", "'model': give either 'name'"),
    ("model.tokenizer=", "'model': a model from 'config' needs a 'tokenizer'"),
    ("model.config.hidden_size=x", "'model.config'", "'hidden_size' expected int"),
    ("model.config.num_attention_heads=3", "'model.config'", "not a multiple"),
    ("model.config.max_position_embeddings=8", "the model takes 8", "'tasks.max_length'"),
    ("model.tokenizer.vocab_size=20", "'vocab_size' of at least"),
    ("model.attention=sdpaa", "'model.attention' is 'sdpaa': must be 'sdpa'"),
    ("lora.target_modules=v_prj", "'v_prj', no layer of the model (did you mean 'v_proj'?)"),
    ("lora.target_modules=[q_proj, v_prj]", "'v_prj', no layer of the model (did you mean 'v_proj'?)"),
    ("tasks.max_length=1", "'tasks.max_length' is 1"),
    ("tasks.validation=1", "'tasks.validation' is 1"),
    ("tasks.names=[]", "There are no tasks here"),
    ("tasks.scale=50", "'tasks.scale' is 50"),
    ("validation.every=0", "'validation.every' is 0"),
    ("validation.every=often", "'validation.every' is 'often': a share is written like 5%"),
    ("training=3", "'training' is 3: must be a mapping of settings"),
    ("training.learning_rate=fast", "'training.learning_rate' is 'fast': must be a number"),
    ("training.learning_rate=0", "'training.learning_rate' is 0: must be greater than 0"),
    ("training.learning_rate=-1", "'training.learning_rate' is -1"),
    ("training.learning_rate=.nan", "'training.learning_rate' is nan: must be a finite number"),
    ("training.bf16=maybe", "'training.bf16' is 'maybe': must be true or false"),
    ("training.per_device_train_batch_size=0", "'training.per_device_train_batch_size' is 0"),
    ("training.gradient_accumulation_steps=0", "'training.gradient_accumulation_steps' is 0"),
    ("training.adam_beta1=2", "'training.adam_beta1' is 2"),
    ("training.warmup_steps=100", "'training.warmup_steps' is 100", "share of the budget below 1"),
    ("training.lr_scheduler_type=reduce_lr_on_plateau", "'reduce_lr_on_plateau'", "known: linear, cosine"),
    ("training.lr_scheduler_type=cosine_with_min_lr", "'training' is not accepted", "lr_scheduler_kwargs"),
    # Budgets.
    ("budget=", "'budget' is None: must be text or a number or a mapping"),
    ("budget=true", "'budget' is True: must be text or a number or a mapping"),
    ("budget={supervised: true}", "'budget'", "must be text or a number"),
    ("budget=0%", "The budget '0%' is not more than zero"),
    ("budget=-2M", "The budget '-2M' is not more than zero"),
    ("budget=lots", "The budget 'lots' is not a budget", "'60k'"),
    ("budget=0", "The budget 0 is not more than zero"),
    ("budget=-5", "The budget -5 is not more than zero"),
    ("budget={total: 5}", "{'total': 5}"),
    ("budget={totl: 5}", "'budget.totl' (did you mean 'total'?)"),
    ("budget=1", "may not reach for one example", "raise 'budget'"),
    ("budget=10 FLOPs", "may not reach for one example", "raise 'budget'"),
    ("mixture.max_epochs=0.1", "more than 'mixture.max_epochs' = 0.1 allows", "lower the budget"),
    # Mixtures that are no distribution.
    ("mixture={tau: 1}", "'mixture' must be a mapping with a 'type'"),
    ("mixture={type: fixed, shares: {copy: 1}}", "'mixture.shares.echo' is missing"),
    ("mixture={type: fixed, shares: {copy: 0.5}}", "sums to 0.5: shares must sum to 1"),
    ("mixture={type: fixed, shares: {copy: .nan}}", "'mixture.shares.copy' is nan"),
    ("mixture={type: fixed, shares: {copy: 0.5, ech: 0.5}}", "'mixture.shares.ech' is no task (did you mean 'echo'?)"),
    ("objective={type: worst, tau: .inf}", "'objective.tau' is inf: must be a finite number"),
    ("objective={type: worst, tau: 0}", "'objective.tau' is 0"),
    # Models that do not load.
    ("model={name: ./nowhere}", "There is no folder 'nowhere'"),
    ("model={name: nobody/nothing-at-all}", "not in the cache and the Hub cannot be reached", "local folder"),
    # --set itself.
    ("noequals", "'--set noequals' needs the form key=value"),
    ("=3", "'--set =3' needs the form key=value"),
    ("budget.x=3", "'--set budget.x=3': 'budget' is no mapping"),
    ("mixture={type: uniform", "the value is not valid YAML"),
    ("budget={total: 1, total: 2}", "the key 'total' stands twice"),
    ("mixture=" + "[" * 3000 + "]" * 3000, "more than 64 levels of nesting"),
    ("seed=" + "9" * 5000, "a number of 5,000 digits"),
]


@pytest.mark.parametrize(("change", "said"), [(m[0], m[1:]) for m in MISTAKES], ids=[m[0][:60] for m in MISTAKES])
def test_a_mistake_is_one_sentence_and_leaves_no_folder(capsys, recipe, tmp_path, change, said):
    ask(capsys, "train", recipe, "--set", change, "--out", tmp_path / "out").refuses(*said)
    assert not (tmp_path / "out").exists()


def test_the_recipe_that_the_mistakes_are_made_in_is_right(capsys, recipe, tmp_path):
    assert ask(capsys, "train", recipe, "--out", tmp_path / "out").code == 0
    assert (tmp_path / "out" / "summary.json").is_file()


@pytest.mark.parametrize("command", ["train", "plan", "compare"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, ["cannot be read", "No such file"]),
        (b"", ["is not a mapping of keys"]),
        (b"- a\n- b\n", ["is not a mapping of keys"]),
        (b"budget: 5%\ntasks: {a: \nmodel: 3", ["is not valid YAML at line 3"]),
        (b"\xff\xfe\x00", ["is not UTF-8 text"]),
        (b"a: \x00", ["is not valid YAML"]),
        (b"budget: &a [*a]\nmodel: {}\ntasks: {source: playground}", ["'model': give either 'name'"]),
    ],
)
def test_a_recipe_that_is_none(capsys, tmp_path, command, content, said):
    file = tmp_path / "recipe.yaml"
    if content is not None:
        file.write_bytes(content)
    arguments = ["--methods", "uniform"] if command == "compare" else []
    ask(capsys, command, file, *arguments).refuses(*said)


def test_a_key_that_stands_twice(capsys, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE + "budget: 300\n")
    ask(capsys, "plan", file).refuses(f"'{file}' is not valid YAML at line 12: the key 'budget' stands twice")


TYPOS = {
    "mixtur: adapt": "'mixtur' (did you mean 'mixture'?)",
    "lr: 1": "'training.learning_rate'",
    "mixture: unifrom": "Unknown mixture 'unifrom'",
    "weights: {type: adpt}": "Unknown weights 'adpt'",
    "model: {nmae: x}": "'model.nmae' (did you mean 'name'?)",
    "tasks: {source: playground, vaildation: 0.1}": "'tasks.vaildation' (did you mean 'validation'?)",
    "validation: {evry: 1%}": "'validation.evry' (did you mean 'every'?)",
    "budget: lots": "'lots' is not a budget",
    "mixture: {type: adapt, entrpy: 1}": "'mixture.entrpy' (did you mean 'entropy'?)",
    "weights: {type: adapt, taau: 1}": "'weights.taau' (did you mean 'tau'?)",
    "training: {learning_rat: 1}": "'training.learning_rat' (did you mean 'learning_rate'?)",
    "training: {batch_size: 8}": "(did you mean 'per_device_train_batch_size'?)",
    "mixture: 'typos_ran:Mine'\nseed: x": "'seed' is 'x'",
}


@pytest.mark.parametrize("typo", TYPOS)
@pytest.mark.parametrize("command", ["plan", "train", "compare"])
def test_a_typo_is_answered_before_anything_heavy_is_loaded(tmp_path, command, typo):
    blocks = {"model": "{name: x}", "tasks": "{source: playground}", "budget": "5%"}
    named = {line.partition(":")[0] for line in typo.splitlines()}
    file = tmp_path / "recipe.yaml"
    file.write_text("\n".join([typo, *(f"{key}: {value}" for key, value in blocks.items() if key not in named)]))
    arguments = [command, str(file), *(["--methods", "uniform"] if command == "compare" and "mix" not in typo else [])]
    if command == "compare" and "mix" in typo:
        arguments += ["--set", "arms={a: {}}"]
    code = f"""
import contextlib, io, sys
from apportion.cli.main import main
sys.argv = ["apportion", *{arguments}]
said = io.StringIO()
try:
    with contextlib.redirect_stderr(said):
        main()
except SystemExit as end:
    assert end.code == 2, end.code
assert {TYPOS[typo]!r} in said.getvalue(), said.getvalue()
"""
    assert loaded_after(code) == []


def test_a_module_of_ones_own_runs_when_the_rest_is_right(capsys, recipe, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "it_raises.py").write_text(
        "from pathlib import Path\nPath(__file__ + '.ran').touch()\nraise RuntimeError('oh')\n"
    )
    wrong = ("--set", "mixture=it_raises:Mine")
    for other in (
        "training.learning_rat=1",
        "weights={type: adapt, taau: 1}",
        "seed=x",
        "model.config.model_type=lama",
    ):
        ask(capsys, "plan", recipe, *wrong, "--set", other).refuses("did you mean" if other != "seed=x" else "'seed'")
    arms = "arms={a: {}, b: {mixture: unifrom}}"
    ask(capsys, "compare", recipe, *wrong, "--set", arms, "--out", tmp_path / "out").refuses(
        "Unknown mixture 'unifrom'"
    )
    assert not (tmp_path / "it_raises.py.ran").exists()
    ask(capsys, "plan", recipe, *wrong).refuses(
        "'it_raises:Mine' is no mixture: it cannot be imported (RuntimeError: oh)"
    )
    assert (tmp_path / "it_raises.py.ran").exists()
    ask(capsys, "plan", recipe, "--set", "mixture=not_there:Mine").refuses(
        "(ModuleNotFoundError: No module named 'not_there')"
    )


def test_a_model_by_its_name_alone():
    values = {"model": "x/y", "tasks": {"source": "playground"}, "budget": "5%"}
    assert parse_recipe(values).model.name == "x/y"
    assert overridden(values, ["model.dtype=bfloat16"])["model"] == {"name": "x/y", "dtype": "bfloat16"}
    arms = {"a": {"model": {"dtype": "bfloat16"}}}
    assert arm_values({**values, "arms": arms}, "a")["model"] == {"name": "x/y", "dtype": "bfloat16"}


def test_a_hypernet_from_scratch_learns_both_keys_at_once(capsys, recipe):
    change = ("--set", "kind={type: tagi, }", "--set", "tasks.instruction=apart")
    ask(capsys, "plan", recipe, *change).refuses("set 'kind.base: all' and 'kind.kl: 0'")
    both = {"kind": {"type": "tagi", "base": "all", "kl": 0}}
    values = yaml.safe_load(RECIPE)
    values["tasks"]["instruction"] = "apart"
    assert parse_recipe({**values, **both}).kind["base"] == "all"


def test_a_folder_is_no_recipe(capsys, tmp_path):
    ask(capsys, "train", tmp_path).refuses("cannot be read", "Is a directory")


def test_a_missing_block(capsys, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.replace("budget: 400\n", ""))
    ask(capsys, "plan", file).refuses("'budget' is missing")


@pytest.mark.parametrize(
    "change",
    [
        "mixture={type: adapt, refresh: 100000000}",
        "mixture={type: adapt, refresh: 100000000, reads: 100000000}",
        "mixture={type: adapt, refresh: 100000000, reads: null}",
        "training={gradient_checkpointing: true, gradient_checkpointing_kwargs: {use_reentrant: false}}",
    ],
)
def test_what_is_unusual_and_right_is_planned_at_once(capsys, recipe, change):
    assert ask(capsys, "plan", recipe, "--json", "--set", change).code == 0


def test_a_recipe_that_opens_and_cannot_be_read(capsys):
    # Memory at address 0 is nobody's: the file opens, and reading it fails.
    ask(capsys, "plan", "/proc/self/mem").refuses("The recipe '/proc/self/mem' cannot be read: Input/output error.")


def test_numbers_as_people_write_them(capsys, recipe):
    assert ask(capsys, "plan", recipe, "--json", "--set", "training.learning_rate=2e-3").code == 0
    assert ask(capsys, "plan", recipe, "--json", "--set", "training.learning_rate='2e-3'").code == 0


@pytest.mark.parametrize("mixture", ["uniform", "loss", "adapt"])
def test_a_learning_rate_that_blows_up(capsys, recipe, tmp_path, mixture):
    changes = [f"mixture={mixture}", "training.learning_rate=1e30", "training.per_device_train_batch_size=2"]
    out = tmp_path / "out"
    asked = ask(capsys, "train", recipe, "--out", out, "--json", *[p for c in changes for p in ("--set", c)])
    asked.refuses("lower 'training.learning_rate'")
    assert not (out / "summary.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], ["name methods with --methods"]),
        (["--methods", ","], ["name methods with --methods"]),
        (["--methods", "uniform,adpt"], ["Unknown method 'adpt' (did you mean 'adapt'?)"]),
        (["--methods", "uniform", "--seeds", "a,b"], ["'--seeds' takes whole numbers", "'a' is none"]),
        (["--methods", "uniform", "--seeds", "-1"], ["'-1' is none"]),
        (["--methods", "uniform", "--seeds", "²"], ["'²' is none"]),
        (["--methods", "uniform", "--seeds", ""], ["at least one method and one seed"]),
        (["--methods", "uniform", "--set", "arms=3"], ["'arms' must map each arm's name to its overrides"]),
        (["--methods", "a/b", "--set", "arms={a/b: {}}"], ["'a/b' cannot be an arm's name"]),
        (["--methods", "a", "--set", "arms={a: {sed: 1}}"], ["Unknown key 'sed' (did you mean 'seed'?)"]),
    ],
)
def test_mistakes_in_a_comparison(capsys, recipe, tmp_path, arguments, said):
    ask(capsys, "compare", recipe, *arguments, "--out", tmp_path / "out").refuses(*said)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], ["No such command 'trian'", "'train'?", "See 'apportion --help'"]),
        (["train"], ["Missing argument 'RECIPE'", "See 'apportion train --help'"]),
        (["train", "x", "--sett", "a=b"], ["No such option: --sett", "--set"]),
        (["report"], ["Missing argument 'RUN'"]),
        (["tasks", "playground", "--max-length", "x"], ["'--max-length'", "valid integer"]),
    ],
)
def test_mistakes_in_the_command_itself(capsys, arguments, said):
    ask(capsys, *arguments).refuses(*said)
