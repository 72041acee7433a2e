"""What a run promises: never a token over budget, every pass charged, the same whatever the batch is cut into."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load
from torch.utils._python_dispatch import TorchDispatchMode

from apportion._errors import ApportionError
from apportion.budget.prices import Work
from apportion.mixtures import MIXTURES
from apportion.models.flops import ModelFlops
from apportion.plans.build import load_data, make_model, make_sampler
from apportion.plans.plan import plan_recipe
from apportion.plans.recipe import overridden, parse_recipe
from apportion.plans.run import run_recipe
from apportion.runs import read_run
from apportion.signals.losses import example_losses
from apportion.tasks.batches import collate
from tests.training.runs import TINY, history, ledger, run, weights

LEARNT = ["loss", "progress", "adapt"]


def longest(unit: str) -> int:
    """The longest train example of the tiny recipe, in ``unit`` tokens."""
    data = load_data(parse_recipe(TINY))
    return max(int(getattr(task.train, unit).max()) for task in data.tasks)


@pytest.mark.parametrize("unit", ["supervised", "processed"])
@pytest.mark.parametrize("limit", [37, 700])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_tokens_never_overshoot_and_end_within_one_example(tmp_path, unit, limit, accumulation):
    done = run(tmp_path / "run", f"budget={limit} {unit}", f"training.gradient_accumulation_steps={accumulation}")
    spent = ledger(done)["accounts"]["train"][unit]
    assert limit - longest(unit) < spent <= limit


@pytest.mark.parametrize("mixture", ["uniform", *LEARNT])
def test_a_flops_budget_covers_every_account_and_the_closing_validation(tmp_path, mixture):
    done = run(tmp_path / "run", "budget=6e9 FLOPs", f"mixture={mixture}")
    accounts = ledger(done)["accounts"]
    total = sum(account["flops"] for account in accounts.values())
    assert 0.9 * 6e9 < total <= 6e9
    assert (accounts["meta"]["flops"] > 0) == (mixture != "uniform")
    assert history(done)[-1]["validation"]


def test_the_ledger_prices_what_the_sampler_drew(tmp_path):
    done = run(tmp_path / "run", "training.gradient_accumulation_steps=2")
    recipe = parse_recipe(overridden(TINY, ["training.gradient_accumulation_steps=2"]))
    data = load_data(recipe)
    flops = ModelFlops.of(make_model(recipe, data, meta=True))
    sampler = make_sampler(recipe, data, recipe.method())
    limit, drawn = 1500, []
    while True:
        step = sampler.draw(np.full(len(data.tasks), 1 / len(data.tasks)), 16)
        for task, index in step:
            limit -= int(data.tasks.tasks[task].train.supervised[index])
            if limit < 0:
                break
            drawn.append((task, index))
        if limit < 0:
            break
    train = ledger(done)["accounts"]["train"]
    lengths = [int(data.tasks.tasks[task].train.processed[index]) for task, index in drawn]
    assert train["processed"] == sum(lengths)
    assert train["flops"] == pytest.approx(flops.train(Work(sum(lengths), sum(n * n for n in lengths))), rel=1e-12)
    mixture = json.loads((done.path / "mixture.json").read_text())
    assert sum(task["examples"] for task in mixture["tasks"].values()) == len(drawn)
    assert sum(task["supervised"] for task in mixture["tasks"].values()) == train["supervised"]


@pytest.mark.parametrize("mixture", ["uniform", "adapt"])
def test_accumulation_changes_nothing_but_rounding(tmp_path, mixture):
    common = ("mixture=" + mixture, "training.max_grad_norm=0", "training.adam_epsilon=1e-3")
    whole = run(tmp_path / "whole", *common, "training.per_device_train_batch_size=12")
    parts = run(
        tmp_path / "parts",
        *common,
        "training.per_device_train_batch_size=3",
        "training.gradient_accumulation_steps=4",
    )
    ours, theirs = load(weights(parts)), load(weights(whole))
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-4)
    assert whole.summary["final"]["macro"] == pytest.approx(parts.summary["final"]["macro"], abs=1e-4)
    assert ledger(whole)["accounts"]["train"]["processed"] == ledger(parts)["accounts"]["train"]["processed"]


def test_one_task_is_plain_fine_tuning_bit_for_bit(tmp_path):
    """AdamW in a bare loop over the same draws ends at the same bytes; and no mixture of one task changes that."""
    one = ("tasks.names=[sort]", "training.lr_scheduler_type=constant", "training.max_grad_norm=0")
    done = {mixture: run(tmp_path / mixture, *one, f"mixture={mixture}") for mixture in ("uniform", *LEARNT)}
    assert len({weights(result) for result in done.values()}) == 1

    recipe = parse_recipe(overridden(TINY, one))
    data = load_data(recipe)
    model = make_model(recipe, data)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0, fused=True)
    sampler = make_sampler(recipe, data, recipe.method())
    left, split = 1500, data.tasks.tasks[0].train
    while left > 0:
        draws = sampler.draw(np.ones(1), 8)
        cumulative = np.cumsum([split.supervised[index] for _, index in draws])
        draws = draws[: int((cumulative <= left).sum())]
        if not draws:
            break
        left -= int(cumulative[len(draws) - 1])
        draws.sort(key=lambda draw: int(split.processed[draw[1]]))
        batch = collate([split.example(index) for _, index in draws], [0] * len(draws), data.pad_id)
        (example_losses(model, batch).sum() / len(draws)).backward()
        optimizer.step()
        optimizer.zero_grad()
        if len(draws) < 8:
            break
    trained = load(weights(done["uniform"]))
    for name, tensor in model.state_dict().items():
        if name in trained:
            assert torch.equal(tensor, trained[name]), name


@pytest.mark.parametrize("estimator", ["in_run", "forward", "unrolled"])
@pytest.mark.parametrize("lora", [False, True])
def test_adapt_moves_the_mixture_and_charges_its_steering(tmp_path, estimator, lora):
    extra = ("lora={r: 4, alpha: 8}",) if lora else ()
    done = run(tmp_path / "run", f"mixture={{type: adapt, estimator: {estimator}, refresh: 5}}", *extra)
    accounts = ledger(done)["accounts"]
    assert accounts["meta"]["flops"] > 0
    assert accounts["meta"]["supervised"] > 0
    assert done.summary["n_eff"] < 20 - 1e-3
    assert accounts["train"]["flops"] > 0


def test_the_read_is_charged_in_the_steps_that_read_and_only_there(tmp_path):
    """Between one direction and the next, `reads` steps pay for it: two reads a direction cost twice what one costs."""
    reads = {n: run(tmp_path / str(n), f"mixture={{type: adapt, refresh: 5, reads: {n}}}") for n in (1, 2, 5)}
    reads[0] = run(tmp_path / "all", "mixture={type: adapt, refresh: 5, reads: null}")
    ages = {0: range(5), 1: (2,), 2: (1, 3), 5: range(5)}
    for n, done in reads.items():
        records = history(done)[:-1]  # the last one adds the closing validation to the last step's
        charged = np.diff([record["spent"].get("meta", {"flops": 0.0})["flops"] for record in records])
        assert (np.diff([record["step"] for record in records]) == 1).all()
        # Step 1 trains without a direction; then in every five one that takes a direction, and n that read.
        paid = [charge > 0 for charge in charged[1:]]
        assert paid == [i % 5 == 0 or i % 5 in ages[n] for i in range(len(paid))], n
    assert weights(reads[5]) == weights(reads[0])


def _measured(done):
    """Steps before which the losses were measured, and what measuring and training had cost by the end of each step."""
    records = [record for record in history(done) if "loss" in record]
    spent = [[r["spent"].get(a, {"flops": 0.0})["flops"] for r in records] for a in ("meta", "train")]
    assert [record["step"] for record in records][:3] == [1, 2, 3]
    return [k for k in range(1, len(records)) if spent[0][k] > spent[0][k - 1]], np.array(spent)


@pytest.mark.parametrize("mixture", ["loss", "progress"])
def test_losses_are_measured_every_so_many_steps_where_training_has_paid_for_them(tmp_path, mixture):
    block = "mixture={{type: {}, refresh: {}, max_cost: {}, examples_per_task: 1}}".format
    often, spent = _measured(run(tmp_path / "often", block(mixture, 4, 100)))
    # The first as soon as there is training to pay for it, the others four steps apart.
    assert often[0] == 1 and set(np.diff(often)) == {4}
    seldom, spent = _measured(run(tmp_path / "seldom", block(mixture, 4, 0.1)))
    assert 2 <= len(seldom) < len(often)
    before = spent[1][np.array(seldom) - 1]  # what training had cost when the measurement was made
    assert (spent[0][seldom] <= 0.1 * before).all()
    price = spent[0][seldom[0]]
    for k in range(seldom[0]):  # and it was made as soon as that paid for it
        assert price > 0.1 * (spent[1][k - 1] if k else 0)


def test_a_plan_says_how_often_losses_are_measured(tmp_path):
    for settings in ("refresh: 4, max_cost: 100", "refresh: 4, max_cost: 0.1"):
        mixture = f"mixture={{type: loss, {settings}, examples_per_task: 1}}"
        planned = plan_recipe(parse_recipe(overridden(TINY, [mixture]))).accounts["meta"]["flops"]
        assert planned == pytest.approx(
            ledger(run(tmp_path / settings, mixture))["accounts"]["meta"]["flops"], rel=0.25
        )


@pytest.mark.parametrize("mixture", sorted(MIXTURES))
def test_every_mixture_trains_and_its_history_adds_up(tmp_path, mixture):
    shares = dict.fromkeys(load_data(parse_recipe(TINY)).tasks.names, 1 / 20)
    settings = {"fixed": {"shares": shares}, "regmix": {"trials": 8}}
    block = {"type": mixture} | settings.get(mixture, {})
    targets = ["targets={tasks: [copy, reverse]}"] if mixture == "upsample" else []
    done = run(tmp_path / "run", f"mixture={json.dumps(block)}", *targets)
    records = history(done)
    spent = [record["spent"]["train"]["supervised"] for record in records[1:]]
    assert spent == sorted(spent)
    assert records[0]["spent"].get("train") is None
    for record in records:
        assert sum(record["mixture"].values()) == pytest.approx(1)
        assert 1 <= record["n_eff"] <= 20 + 1e-9
    validated = [record for record in records if "validation" in record]
    assert validated[0]["step"] == 0
    assert validated[-1] is records[-1]
    for record in validated:
        losses = np.array(list(record["validation"].values()))
        assert record["macro"] == pytest.approx(losses.mean())
        assert record["worst"] == pytest.approx(losses.max())
        assert losses.mean() <= record["objective"] <= losses.max()
    assert records[-1]["spent"] == {k: v for k, v in ledger(done)["accounts"].items() if v["flops"]}


def test_the_reported_losses_are_measured_on_what_no_method_sees():
    data = load_data(parse_recipe(TINY))
    for report, steer in zip(data.held_out.report, data.held_out.steer, strict=True):
        assert not {(id(split), i) for _, split, i in report} & {(id(split), i) for _, split, i in steer}
        assert report
        assert steer


@pytest.mark.parametrize(
    "settings",
    [
        ("training.bf16=true",),
        ("training.gradient_checkpointing=true",),
        ("training.gradient_checkpointing=true", "lora={r: 4, alpha: 8}", "training.bf16=true"),
        ("training.optim=sgd", "training.learning_rate=0.1"),
        ("model.config.model_type=qwen3",),
        ("model.config.model_type=gemma3_text", "model.config.head_dim=16"),
    ],
)
def test_the_ecosystems_settings_work_with_adapt(tmp_path, settings):
    done = run(tmp_path / "run", "mixture={type: adapt, refresh: 3}", *settings)
    records = history(done)
    assert records[-1]["macro"] < records[0]["macro"]
    assert done.summary["n_eff"] < 20 - 1e-6


def test_a_run_is_not_resumed_on_other_data(tmp_path):
    """Stopped after a checkpoint, its file grown by a line: refused; put back: goes on to the end."""
    data = tmp_path / "reverse.jsonl"
    rows = [json.dumps({"prompt": f"reverse {n}", "completion": str(n)[::-1]}) + "\n" for n in range(200, 500)]
    data.write_text("".join(rows))
    recipe = parse_recipe(overridden(TINY, [f"tasks={{path: '{data}'}}", "budget=600", "validation.every=0.2"]))

    def stop(record, progress):
        if progress > 0.7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, tmp_path / "run", stop)
    data.write_text("".join(rows) + json.dumps({"prompt": "new", "completion": "wen"}) + "\n")
    with pytest.raises(ApportionError, match="changed since this run began"):
        run_recipe(recipe, tmp_path / "run")
    data.write_text("".join(rows))
    assert run_recipe(recipe, tmp_path / "run").summary["spent"]["train"]["supervised"] > 590


def test_a_zero_share_is_never_trained_on_and_max_epochs_caps(tmp_path):
    names = load_data(parse_recipe(TINY)).tasks.names
    shares = {name: (0.5 if name in ("sort", "echo") else 0.0) for name in names}
    block = {"type": "fixed", "shares": shares, "max_epochs": 1.0}
    done = run(tmp_path / "run", f"mixture={json.dumps(block)}", "budget=3000")
    tasks = json.loads((done.path / "mixture.json").read_text())["tasks"]
    assert {name for name, task in tasks.items() if task["examples"]} == {"sort", "echo"}
    assert tasks["echo"]["epochs"] == 1.0
    # What is recorded is what is drawn: nothing of a task that is used up.
    records = [(line["mixture"]["echo"], line["mixture"]["sort"]) for line in history(done)]
    assert records[0] == (0.5, 0.5) and records[-1] == (0.0, 1.0)
    with pytest.raises(ApportionError, match="max_epochs"):
        run(tmp_path / "more", "mixture={type: uniform, max_epochs: 1}", "budget=150%")
    assert not (tmp_path / "more").exists()


def test_warm_up_follows_the_budget(tmp_path):
    done = run(tmp_path / "run", "training.warmup_steps=0.5", "budget=4000")
    rates = [(record["spent"]["train"]["supervised"] / 4000, record["lr"]) for record in history(done)[1:]]
    peak = max(rate for _, rate in rates)
    assert peak == pytest.approx(2e-3, rel=0.1)
    assert all(rate < peak for share, rate in rates if share < 0.4 or share > 0.6)
    with pytest.raises(ApportionError, match="warmup_steps"):
        run(tmp_path / "steps", "training.warmup_steps=100")


def test_the_last_validation_is_kept_by_example_without_a_second_pass(tmp_path):
    done = run(tmp_path / "run", "validation.examples_per_task=3", "training.per_device_eval_batch_size=5")
    kept, last = read_run(done.path).validation, history(done)[-1]
    recipe = parse_recipe(overridden(TINY, ["validation.examples_per_task=3"]))
    data = load_data(recipe)
    model = make_model(recipe, data)
    model.load_state_dict(load(weights(done)), strict=False)
    assert kept["step"] == last["step"] and list(kept["tasks"]) == list(data.tasks.names)
    for task, picked in zip(data.tasks.names, data.held_out.report, strict=True):
        examples = kept["tasks"][task]
        where = {split.ids[index]: (split, index) for _, split, index in picked[:3]}
        assert examples["ids"] == sorted(where)
        for name, nll, supervised in zip(*examples.values(), strict=True):
            batch = collate([where[name][0].example(where[name][1])], [0], data.pad_id)
            with torch.no_grad():
                assert nll == pytest.approx(float(example_losses(model.eval(), batch)) * supervised, rel=1e-4)
            assert supervised == batch.supervised
        assert sum(examples["nll"]) / sum(examples["supervised"]) == pytest.approx(last["validation"][task], rel=1e-12)
    validations = sum("validation" in record for record in history(done))
    tokens = sum(sum(examples["supervised"]) for examples in kept["tasks"].values())
    assert ledger(done)["accounts"]["validation"]["supervised"] == validations * tokens


def test_the_summary_says_examples_errors_and_what_its_methods_are(tmp_path):
    done = run(tmp_path / "run", "mixture=progress", "weights=linupper")
    final = done.summary["final"]
    assert final["examples"] == dict.fromkeys(final["validation"], 2)
    assert final["macro_se"] == pytest.approx(sum(se**2 for se in final["se"].values()) ** 0.5 / len(final["se"]))
    methods = done.summary["methods"]
    assert [(m["type"], m["plain"]) for m in methods.values()] == [("progress", False), ("linupper", False)]
    assert "mixture.gamma" in methods["mixture"]["advice"]["narrowed"]


class _Watch(TorchDispatchMode):
    """Notes the dtype of every tensor that has logits for all positions of a batch."""

    def __init__(self, vocabulary):
        super().__init__()
        self.vocabulary, self.seen = vocabulary, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.dim() == 3 and made.shape[-1] == self.vocabulary:
            self.seen |= {made.dtype} - ({made.dtype} if made.is_meta else set())  # prices are of shapes alone
        return made


@pytest.mark.parametrize("lora", [(), ("lora={r: 4, alpha: 8}",)])
def test_bf16_raises_the_logits_of_supervised_positions_alone_and_the_losses_stay(tmp_path, monkeypatch, lora):
    settings = ("training.bf16=true", "mixture={type: adapt, refresh: 3}", "budget=400", *lora)
    watch = _Watch(len(load_data(parse_recipe(TINY)).tokenizer))
    with watch:
        done = run(tmp_path / "run", *settings)
    assert watch.seen == {torch.bfloat16}
    monkeypatch.setattr("apportion.training.trainer.as_computed", lambda model: None)
    raised = run(tmp_path / "raised", *settings)
    moved = [[{k: v for k, v in r.items() if k != "seconds"} for r in history(one)] for one in (done, raised)]
    assert moved[0] == moved[1]
