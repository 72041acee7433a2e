"""DoReMi's weights: the paper's algorithm line by line, whatever cuts a step, against a reference that is there."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load

from apportion import weights as family
from apportion._errors import ApportionError
from apportion.signals import Seen
from apportion.signals.excess_losses import ExcessLosses
from apportion.signals.training_forward import made_by
from apportion.tasks.validation import batched
from apportion.weights.doremi import moved
from tests.references import doremi as reference
from tests.training.runs import history, ledger, run, weights
from tests.training.units import make_bench, random_tasks, small_model

FEW = ("tasks.names=[copy, reverse, sort]", "budget=700")
SGD = ("training.optim=sgd", "training.learning_rate=0.1", "training.max_grad_norm=0.5")
CUT = ("training.per_device_train_batch_size=2", "training.gradient_accumulation_steps=4")
TASKS = random_tasks()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(tmp_path_factory.mktemp("reference") / "run", *FEW).path


positive = st.lists(st.floats(0.01, 1), min_size=2, max_size=6)


@given(positive, st.data(), st.floats(0.1, 5), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_a_step_is_the_papers(raw, data, eta, c):
    a = [each / sum(raw) for each in raw]
    scores = data.draw(st.lists(st.floats(0, 20), min_size=len(a), max_size=len(a)))
    now = moved(torch.tensor(a, dtype=torch.float64), torch.tensor(scores, dtype=torch.float64), eta, c)
    assert now.tolist() == pytest.approx(reference.step(a, scores, eta, c), rel=1e-9)
    assert float(now.sum()) == pytest.approx(1) and float(now.min()) >= c / len(a) * (1 - 1e-9)


def test_weights_are_t_times_the_share_of_an_examples_task():
    shares = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    w = family.Doremi(reference="x").weigh(Seen(tasks=torch.tensor([2, 0, 0, 1]), shares=shares))
    assert w.tolist() == pytest.approx([0.6, 1.5, 1.5, 0.9])
    even = torch.full((3,), 1 / 3, dtype=torch.float64)
    assert family.Doremi(reference="x").weigh(Seen(tasks=torch.arange(3), shares=even)).tolist() == [1.0] * 3


def every_token(model, other, batch):
    """(task, loss, reference's loss) of each supervised token, one at a time."""
    found = []
    logits = [each(**batch.model_inputs).logits.detach().flatten(0, 1).double() for each in (model, other)]
    for at, target, example in zip(batch.positions, batch.targets, batch.examples, strict=True):
        losses = [float(each[at].logsumexp(0) - each[at][target]) for each in logits]
        found.append((int(batch.tasks[example]), *losses))
    return found


@pytest.mark.parametrize("several", [False, True])
def test_shares_follow_a_literal_loop_over_tokens(several):
    method = family.Doremi(reference="nowhere", eta=1.5)
    model, other = small_model(), small_model(seed=1)
    bench = make_bench(TASKS, model)
    signal = ExcessLosses(method.move, reference="nowhere").attach(bench)
    signal._reference = other
    alpha, scores = [1 / 3] * 3, [0.0] * 3
    # The second step has nothing of the last task, which keeps its excess.
    for chosen in ([(0, 1), (1, 3), (2, 2), (1, 5)], [(0, 2), (0, 3), (1, 7)]):
        picked = [(task, TASKS.tasks[task].train, k) for task, k in chosen]
        batches = batched(picked, 2 if several else 8, 0)
        tokens = [token for batch in batches for token in every_token(model, other, batch)]
        scores = reference.excess(tokens, 3, scores)
        alpha = reference.step(alpha, scores, 1.5, 1e-3)
        given_before = signal.known(method.weigh, model, batches, [], 0)
        if several:
            found = given_before
        else:
            assert given_before is None
            with made_by(model) as watched:
                model(**batches[0].model_inputs)
            found = [signal.within(method.weigh, batches[0], torch.zeros(len(batches[0])), watched)]
        wanted = [[3 * alpha[task] for task in batch.tasks.tolist()] for batch in batches]
        for mine, theirs in zip(found, wanted, strict=True):
            assert mine.tolist() == pytest.approx(theirs, rel=1e-5)
    spent, passes = bench.allowance.ledger.spent("meta"), 2 if several else 1
    looked = [
        TASKS.tasks[task].train.processed[k] for task, k in ((0, 1), (1, 3), (2, 2), (1, 5), (0, 2), (0, 3), (1, 7))
    ]
    assert spent.processed == passes * sum(map(int, looked)) and spent.flops > 0


def test_a_model_that_is_its_own_reference_weighs_all_alike():
    method, model = family.Doremi(reference="nowhere"), small_model()
    signal = ExcessLosses(method.move, reference="nowhere").attach(make_bench(TASKS, model))
    signal._reference = model
    (batch,) = batched([(0, TASKS.tasks[0].train, 0), (1, TASKS.tasks[1].train, 0)], 8, 0)
    with made_by(model) as watched:
        model(**batch.model_inputs)
    assert signal.within(method.weigh, batch, torch.zeros(2), watched).tolist() == pytest.approx([1.0, 1.0])


def test_the_state_is_a_and_the_last_excess():
    method, model = family.Doremi(reference="nowhere"), small_model()
    one, other = (ExcessLosses(method.move, reference="nowhere").attach(make_bench(TASKS, model)) for _ in range(2))
    one._reference = other._reference = small_model(seed=1)
    batches = batched([(0, TASKS.tasks[0].train, 0), (1, TASKS.tasks[1].train, 0)], 1, 0)
    one.known(method.weigh, model, batches, [], 0)
    assert set(one.state_dict()) == {"shares", "excess"} and float(one.state_dict()["excess"][2]) == 0
    other.load_state_dict(one.state_dict(), torch.device("cpu"))
    again = [signal.known(method.weigh, model, batches, [], 1) for signal in (one, other)]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(*again, strict=True))


def test_eight_micro_batches_are_one(tmp_path, finished):
    common = (*FEW, *SGD, f"weights={{type: doremi, reference: '{finished}'}}")
    whole, parts = run(tmp_path / "whole", *common), run(tmp_path / "parts", *common, *CUT)
    for name, theirs in load(weights(whole)).items():
        torch.testing.assert_close(load(weights(parts))[name], theirs, rtol=0, atol=1e-6)
    for a, b in zip(history(parts), history(whole), strict=True):
        assert a.get("weights") == (b.get("weights") and pytest.approx(b["weights"], abs=5e-6))
    meta = [ledger(done)["accounts"]["meta"]["flops"] for done in (whole, parts)]
    assert meta[1] == pytest.approx(2 * meta[0]) and meta[0] > 0


def test_a_finished_adapter_serves_as_reference(tmp_path):
    lora = (*FEW, "lora={r: 2, alpha: 4}")
    done = run(tmp_path / "reference", *lora)
    weighed = run(tmp_path / "run", *lora, f"weights={{type: doremi, reference: '{done.path}'}}")
    assert math.isfinite(weighed.summary["final"]["macro"]) and ledger(weighed)["accounts"]["meta"]["flops"] > 0


@pytest.mark.parametrize("place", ["nowhere", "~/nowhere-at-all", "unfinished"])
def test_a_folder_without_a_finished_run_is_refused_before_anything_is_written(tmp_path, finished, place):
    if place == "unfinished":
        shutil.copytree(finished, tmp_path / place)
        (tmp_path / place / "summary.json").unlink()
    where = place if place.startswith("~") else str(tmp_path / place)
    with pytest.raises(
        ApportionError, match=r"'weights\.reference' is the folder of a finished run, and '/.*' holds none"
    ):
        run(tmp_path / "run", *FEW, f"weights={{type: doremi, reference: '{where}'}}")
    assert not (tmp_path / "run").exists()


def test_the_reference_may_be_named_by_a_variable_and_must_have_read_the_same(tmp_path, finished, monkeypatch):
    monkeypatch.setenv("MY_REFERENCE", str(finished))
    block = "weights={type: doremi, reference: '${MY_REFERENCE}'}"
    done = run(tmp_path / "run", *FEW, block)
    assert "MY_REFERENCE" in (done.path / "recipe.yaml").read_text()
    with pytest.raises(ApportionError, match="read other tasks or another tokenizer"):
        run(tmp_path / "other", "tasks.names=[copy, sort]", "budget=700", block)
    (tmp_path / "empty").mkdir()
    summary = json.loads((finished / "summary.json").read_text())
    Path(tmp_path / "empty" / "summary.json").write_text(json.dumps(summary))
    monkeypatch.setenv("MY_REFERENCE", str(tmp_path / "empty"))
    with pytest.raises(ApportionError, match="reference"):
        run(tmp_path / "gone", *FEW, block)


def test_a_kind_of_model_that_is_no_causal_one_is_refused(tmp_path):
    from apportion.plans.recipe import overridden, parse_recipe
    from tests.training.hypernets import SCRATCH

    with pytest.raises(
        ApportionError, match=r"'weights\.type: doremi', which reads reference, does not go with 'kind: tagi'"
    ):
        parse_recipe(overridden(SCRATCH, ["weights={type: doremi, reference: x}"]))


def test_stopped_and_resumed_is_never_stopped(tmp_path, finished):
    """The mean weights by task too, which a checkpoint must hold."""
    from apportion.plans.recipe import overridden, parse_recipe
    from apportion.plans.run import run_recipe
    from tests.training.runs import TINY

    settings = [*FEW, f"weights={{type: doremi, reference: '{finished}'}}", "validation.every=0.2", "budget=1200"]
    recipe = parse_recipe(overridden(TINY, settings))

    def stop(record, progress):
        if progress > 0.5:
            raise KeyboardInterrupt

    whole = run_recipe(recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, tmp_path / "broken", stop)
    assert list((tmp_path / "broken" / "checkpoints").glob("step-*"))
    broken = run_recipe(recipe, tmp_path / "broken")
    for name in ("ledger.json", "mixture.json", "model/model.safetensors"):
        assert (broken.path / name).read_bytes() == (whole.path / name).read_bytes(), name
    records = [
        [{k: v for k, v in each.items() if k != "seconds"} for each in history(done)] for done in (broken, whole)
    ]
    assert records[0] == records[1]
    tasks = json.loads((whole.path / "mixture.json").read_text())["tasks"].values()
    spread = [task["weight"] for task in tasks]
    mean = sum(task["weight"] * task["examples"] for task in tasks) / sum(task["examples"] for task in tasks)
    recorded = [record["weights"]["mean"] for record in history(whole) if "weights" in record]
    assert max(spread) > min(spread) and min(recorded) <= mean <= max(recorded)
