"""Arms by name: a method of any family, and what goes with it."""

import pytest

from apportion import selections
from apportion._errors import ApportionError
from apportion.plans.arms import FAMILIES, arm_recipe, arm_values, arms_of, method_of
from tests.training.runs import TINY


@pytest.mark.parametrize(
    ("arm", "method"),
    [
        ("less", ("selection", "less")),
        ("selection.bm25", ("selection", "bm25")),
        ("weights.bm25", ("weights", "bm25")),
        ("linupper", ("weights", "linupper")),
        ("adapt", ("mixture", "adapt")),
        ("weights.adapt", ("weights", "adapt")),
        ("uniform", ("mixture", "uniform")),
        ("all", ("selection", "all")),
    ],
)
def test_a_name_is_a_method_of_one_family(arm, method):
    assert method_of(arm, ()) == method


def test_every_method_can_be_named():
    for family, registry in FAMILIES.items():
        for name in registry:
            assert method_of(f"{family}.{name}", ()) == (family, name)


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ("bm25", "'bm25' is a method of selection and of weights: say 'selection.bm25' or 'weights.bm25'"),
        ("les", "Unknown method 'les' (did you mean 'less'?)"),
        ("selection.bm52", "Unknown method 'selection.bm52' (did you mean 'selection.bm25'?)"),
        ("mixture.less", "Unknown method 'mixture.less'"),
        ("adpt", "Unknown method 'adpt' (did you mean 'adapt'?)"),
        ("cheep", "Unknown method 'cheep' (did you mean 'cheap'?)"),
    ],
)
def test_a_name_that_is_none_or_of_two(arm, said):
    with pytest.raises(ApportionError) as raised:
        arm_values({**TINY, "arms": {"cheap": {"budget": 10}}}, arm)
    assert said in str(raised.value)


def test_what_is_selected_is_trained_on_as_it_is():
    """Whatever the recipe's own mixture; weights and mixtures leave the rest of the recipe alone."""
    base = {**TINY, "mixture": {"type": "adapt"}}
    recipe = arm_recipe(base, "less", 3)
    assert (recipe.selection["type"], recipe.mixture["type"], recipe.seed) == ("less", "proportional", 3)
    assert arm_recipe(base, "all", 0).mixture["type"] == "adapt"
    assert arm_recipe(base, "linupper", 0).mixture["type"] == "adapt"
    assert arm_recipe(base, "uniform", 0).selection["type"] == "all"


def test_the_recipes_own_settings_of_the_named_method_hold():
    base = {**TINY, "selection": {"type": "bm25", "limit": "7%"}}
    assert arm_values(base, "selection.bm25")["selection"] == {"type": "bm25", "limit": "7%"}
    assert arm_values(base, "random")["selection"] == {"type": "random"}
    assert arm_values(base, "all")["selection"] == {"type": "all"}


def test_objects_of_any_family_are_arms():
    found = arms_of([selections.Random(limit="5%"), selections.Random(limit="9%"), "adapt", "weights.bm25"])
    assert list(found) == ["random-limit-5%", "random-limit-9%", "adapt", "bm25"]
    assert found["random-limit-5%"]["selection"]["limit"] == "5%"
    assert found["random-limit-5%"]["mixture"] == {"type": "proportional"}
    assert found["adapt"] == {"mixture": {"type": "adapt"}} and found["bm25"] == {"weights": {"type": "bm25"}}


def test_names_of_two_families_do_not_meet():
    found = arms_of(["selection.bm25", "weights.bm25"])
    assert len(found) == 2
    assert [next(iter(set(arm) - {"mixture"})) for arm in found.values()] == ["selection", "weights"]
