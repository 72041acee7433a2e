"""A comparison is priced arm by arm, with the checks that it makes before it starts."""

import json

import pytest

from apportion import ApportionError
from apportion.plans.comparison_plan import plan_comparison
from apportion.plans.plan import plan_recipe
from apportion.plans.recipe import parse_recipe
from tests.cli.command import RECIPE, ask
from tests.training.runs import TINY

ARMS = {"plain": {}, "steered": {"mixture": {"type": "adapt", "refresh": 5}}}


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE)
    return file


def test_a_comparison_costs_its_arms_times_its_seeds():
    planned = plan_comparison({**TINY, "arms": ARMS}, ["plain", "steered", "loss"], [0, 1, 1, 2])
    assert list(planned.arms) == ["plain", "steered", "loss"] and planned.seeds == 3
    assert planned.arms["plain"].accounts == plan_recipe(parse_recipe(TINY)).accounts
    total = planned.total
    assert total["runs"] == 9
    assert total["flops"] == pytest.approx(
        3 * sum(account["flops"] for plan in planned.arms.values() for account in plan.accounts.values())
    )
    assert total["flops"] == pytest.approx(sum(total["accounts"].values()))
    for side in (0, 1):
        assert total["seconds_range"][side] == pytest.approx(
            3 * sum(plan.seconds_range[side] for plan in planned.arms.values())
        )


@pytest.mark.parametrize(
    ("arms", "methods", "said"),
    [
        (ARMS, ["plain", "steerd"], "Unknown method 'steerd' (did you mean 'steered'?)"),
        ({"a": {"mixture": {"type": "adapt", "taau": 1}}}, ["a"], "Unknown key 'mixture.taau'"),
        ({"a": {}, "b": {"budget": 1}}, ["a", "b"], "may not reach for one example"),
        ({"a": {}, "b": {"model": {"config": {"num_hidden_layers": 0}}}}, ["a", "b"], "num_hidden_layers' is 0"),
        ({"a": {}}, [], "at least one method and one seed"),
    ],
)
def test_arms_are_checked_as_a_comparison_checks_them(arms, methods, said):
    with pytest.raises(ApportionError) as raised:
        plan_comparison({**TINY, "arms": arms}, methods, [0])
    assert said in str(raised.value)


def test_the_command_prices_a_comparison(capsys, recipe):
    asked = ask(capsys, "plan", recipe, "--methods", "uniform,adapt", "--seeds", "0,1")
    assert asked.code == 0 and "2 arms with 2 seeds: 4 runs" in asked.out and "all runs" in asked.out
    asked = ask(capsys, "plan", recipe, "--json", "--methods", "uniform,adapt", "--seeds", "0,1")
    planned = json.loads(asked.out)
    assert list(planned["arms"]) == ["uniform", "adapt"] and planned["seeds"] == 2 and planned["total"]["runs"] == 4
    assert planned["arms"]["adapt"]["timed_steps"] > 0


def test_a_recipe_with_arms_is_a_comparison(capsys, recipe):
    arms = "arms={one: {}, two: {mixture: {type: proportional}}}"
    planned = json.loads(ask(capsys, "plan", recipe, "--set", arms, "--json").out)
    assert list(planned["arms"]) == ["one", "two"] and planned["seeds"] == 1


def test_one_recipe_is_a_plan_with_its_advice(capsys, recipe):
    asked = ask(capsys, "plan", recipe, "--set", "validation={every: 5%, examples_per_task: 64}")
    assert asked.code == 0 and "Time: " in asked.out and "of its steps, made here" in asked.out
    said = " ".join(asked.out.split())
    assert "Advice: " in said and "validations of the report; set validation.every=50%" in said
    planned = json.loads(ask(capsys, "plan", recipe, "--json").out)
    assert {"seconds", "seconds_range", "advice", "validation_every"} <= set(planned)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--methods", ","], "name methods with --methods"),
        (["--seeds", "0,1"], "name methods with --methods"),
        (["--methods", "uniform", "--seeds", "x"], "'--seeds' takes whole numbers"),
        (["--methods", "uniform,adpt"], "Unknown method 'adpt' (did you mean 'adapt'?)"),
    ],
)
def test_mistakes_in_what_to_compare(capsys, recipe, arguments, said):
    ask(capsys, "plan", recipe, *arguments).refuses(said)
