"""Probes tell what a literal copy of model and optimizer tells, leave no trace, and cost what is said."""

import copy
import json

import pytest
import torch

from apportion._errors import ApportionError
from apportion.objectives import Mean, Worst
from apportion.plans.plan import plan_recipe
from apportion.plans.recipe import overridden, parse_recipe
from apportion.signals import Asking, ProbedGains
from apportion.signals._records import Moment, Outlook
from apportion.signals.losses import example_losses
from apportion.tasks.validation import batched, rotating
from tests.references import probes as reference
from tests.training.hypernets import SCRATCH
from tests.training.runs import TINY, ledger, run, weights
from tests.training.units import make_bench, random_tasks, small_model

TASKS = random_tasks()
ASKED = {"rounds": (0.0, 0.5), "steps": 2, "batch": 3, "examples": 12, "keep": None}


def training(**budget):
    """A model in double precision, an optimizer that has taken a step, and a bench."""
    model = small_model().double()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    bench = make_bench(TASKS, model, **budget)
    example_losses(model, batched(rotating(bench.look_ahead, 3, 5), 9, 0)[0]).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    return model, optimizer, bench


def told(signal, bench, model, optimizer, objective=None, rates=(0.5, 0.3, 0.2)):
    objective = objective or Mean()
    state = objective.init(bench.targets.importance)
    asking = Asking(lambda: objective.at(state), lambda: torch.tensor(rates, dtype=torch.float64))
    return signal.attach(bench).before_step(Moment(model, 1, optimizer, 0.01), asking)


# The last has more examples a step than fit in a micro-batch.
@pytest.mark.parametrize(("objective", "steps", "batch"), [(Mean(), 2, 3), (Worst(tau=0.3), 2, 3), (Mean(), 1, 12)])
def test_a_gain_is_that_of_a_literal_copy(objective, steps, batch):
    model, optimizer, bench = training()
    signal = ProbedGains(**{**ASKED, "steps": steps, "batch": batch})
    found = told(signal, bench, model, optimizer, objective).gains
    examples = rotating(bench.targets.steer, 4, 0)
    at = objective.at(objective.init(bench.targets.importance))
    for task, pool in enumerate(bench.look_ahead):
        # A task of seven examples is gone through again.
        chosen = [pool[k % len(pool)] for k in range(steps * batch)]
        lesson = [chosen[start : start + batch] for start in range(0, steps * batch, batch)]
        wanted = reference.gain(model, optimizer, lesson, examples, 3, at)
        assert float(found[task]) == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def test_model_optimizer_and_random_numbers_are_as_they_were():
    model, optimizer, bench = training()
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict(), torch.get_rng_state()))
    told(ProbedGains(**ASKED), bench, model, optimizer)
    after = (model.state_dict(), optimizer.state_dict(), torch.get_rng_state())
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    assert before[1]["param_groups"] == after[1]["param_groups"]
    for number, state in before[1]["state"].items():
        assert all(torch.equal(value, after[1]["state"][number][key]) for key, value in state.items())
    assert torch.equal(before[2], after[2])
    assert all(p.grad is None for p in model.parameters())


def test_a_later_round_probes_those_that_are_drawn_most():
    model, optimizer, bench = training()
    signal = ProbedGains(**{**ASKED, "rounds": (0.0, 0.0), "keep": 2})
    assert not told(signal, bench, model, optimizer).gains.isnan().any()
    assert told(signal, bench, model, optimizer, rates=(0.3, 0.1, 0.6)).gains.isnan().tolist() == [False, True, False]
    assert told(signal, bench, model, optimizer) is None


def test_what_is_charged_is_the_price_where_all_are_probed():
    model, optimizer, bench = training()
    signal = ProbedGains(**{**ASKED, "rounds": (0.0, 0.0), "steps": 4})
    for _ in range(2):
        told(signal, bench, model, optimizer)
    spent, price = bench.allowance.ledger.spent("meta"), signal.price(Outlook(10, 40, None, 0.0))
    assert (spent.supervised, spent.processed) == (price.supervised, price.processed)
    assert spent.flops == pytest.approx(price.flops) and price.flops > 0


def test_a_round_that_cannot_be_afforded_is_left_out():
    model, optimizer, bench = training(unit="flops", limit=1e4)
    assert told(ProbedGains(**ASKED), bench, model, optimizer) is None
    assert bench.allowance.ledger.spent("meta").flops == 0


def test_a_model_that_has_diverged_ends_in_a_sentence():
    model, optimizer, bench = training()
    optimizer.param_groups[0]["lr"] = 1e200
    with pytest.raises(ApportionError, match="not a finite number"):
        told(ProbedGains(**ASKED), bench, model, optimizer)


@pytest.mark.parametrize(
    "changes",
    [(), ("lora={r: 4}",), ("training.gradient_checkpointing=true", "packing=true"), ("targets.tasks=[copy]",)],
)
def test_a_run_with_probes_that_change_nothing_is_the_run_without(tmp_path, changes):
    # As blunt as this the mixture stays even; whatever else differs is a trace of the probes.
    mixture = "mixture={type: probes, steps: 2, batch: 4, examples: 20, sharpness: 1.0e-300, share: 0, rounds: [%s]}"
    probed, never = (run(tmp_path / f"{at}", mixture % at, *changes) for at in (0.3, 0.999))
    name = "adapter_model.safetensors" if changes == ("lora={r: 4}",) else "model.safetensors"
    assert weights(probed, name) == weights(never, name)
    assert ledger(never)["accounts"]["meta"]["flops"] == 0
    planned = plan_recipe(parse_recipe(overridden(TINY, [mixture % 0.3, *changes])))
    assert ledger(probed)["accounts"]["meta"]["flops"] == pytest.approx(planned.accounts["meta"]["flops"], rel=0.1)


def test_a_hypernetwork_can_be_probed(tmp_path):
    from apportion.plans.run import run_recipe

    recipe = parse_recipe(
        {**SCRATCH, "mixture": {"type": "probes", "steps": 1, "batch": 2, "examples": 8, "rounds": [0.3]}}
    )
    found = run_recipe(recipe, tmp_path / "run")
    assert found.summary["spent"]["meta"]["flops"] > 0
    shares = json.loads((tmp_path / "run/mixture.json").read_text())["final"]
    assert max(shares.values()) > min(shares.values())
