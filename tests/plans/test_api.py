"""The front door from Python: methods as objects, one exception, and what is shown."""

import pickle
import sys

import pytest

import apportion as ap
from apportion import ApportionError
from apportion.mixtures._mixture import Mixture
from apportion.plans.recipe import parse_recipe
from apportion.runs import read_comparison, read_run
from tests.training.runs import TINY

BLOCKS = {key: TINY[key] for key in ("model", "tasks")} | {
    "budget": 60,
    "training": {"learning_rate": 1e-3, "per_device_train_batch_size": 4},
    "validation": {"every": "50%", "examples_per_task": 2},
}
OWN = """
from apportion.mixtures._mixture import Mixture, uniform

class Mine(Mixture):
    sharpness: float = 1.0

    def init(self, tasks):
        return {"p": uniform(len(tasks.names))}
"""


class Local(Mixture):
    """Stands at the top of a module, so it can be imported again."""

    class Inner(Mixture):
        """Does not."""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_methods.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_methods"
    sys.modules.pop("own_methods", None)


def test_methods_of_one_type_are_arms_of_their_own(tmp_path):
    methods = [ap.mixtures.Adapt(floor=0.2), ap.mixtures.Adapt(floor=0.3), "uniform"]
    done = ap.compare(methods, **BLOCKS, out=tmp_path / "out")
    arms = read_comparison(done.path)
    assert sorted(arms) == ["adapt-floor-0.2", "adapt-floor-0.3", "uniform"]
    assert [arms[f"adapt-floor-{floor}"][0].recipe["mixture"]["floor"] for floor in (0.2, 0.3)] == [0.2, 0.3]


def test_arms_may_be_named_and_an_own_class_is_its_import_path(tmp_path, own):
    import own_methods

    named = {"plain": "uniform", "mine": own_methods.Mine(sharpness=2)}
    arms = read_comparison(ap.compare(named, **BLOCKS, out=tmp_path / "out").path)
    assert sorted(arms) == ["mine", "plain"]
    assert arms["mine"][0].recipe["mixture"]["type"] == "own_methods:Mine"
    assert arms["mine"][0].recipe["mixture"]["sharpness"] == 2


def test_weights_are_taken_as_objects(tmp_path):
    run = ap.train(**BLOCKS, weights=ap.weights.LinUpper(), out=tmp_path / "run")
    assert read_run(run.path).recipe["weights"]["type"] == "linupper"


def test_methods_of_any_family_are_arms(tmp_path):
    methods = [ap.selections.Random(limit="30%"), ap.weights.LinUpper(), "uniform"]
    arms = read_comparison(ap.compare(methods, **BLOCKS, out=tmp_path / "out").path)
    assert sorted(arms) == ["linupper", "random", "uniform"]
    recipes = {name: runs[0].recipe for name, runs in arms.items()}
    assert {name: recipe["selection"]["type"] for name, recipe in recipes.items()} == {
        "linupper": "all",
        "random": "random",
        "uniform": "all",
    }
    assert recipes["random"]["selection"]["limit"] == "30%"
    assert recipes["random"]["mixture"]["type"] == "proportional"
    assert recipes["linupper"]["weights"]["type"] == "linupper" and recipes["uniform"]["weights"]["type"] == "uniform"


def test_a_selection_is_an_object_and_its_file_another(tmp_path):
    blocks = {key: BLOCKS[key] for key in ("model", "tasks", "training")}
    done = ap.select(
        ap.selections.Bm25(limit="5%"), **blocks, targets={"tasks": ["copy"]}, out=tmp_path / "kept.parquet"
    )
    assert done.path == tmp_path / "kept.parquet" and done.spent == {} and done.summary["type"] == "bm25"
    assert 0 < done.summary["kept"]["examples"] < done.summary["pool"]["examples"]
    run = ap.train(**BLOCKS, selection=ap.selections.File(path=str(done.path)), out=tmp_path / "run")
    assert run.summary["selection"]["kept"] == done.summary["kept"]
    assert read_run(run.path).recipe["mixture"]["type"] == "proportional"
    with pytest.raises(ApportionError, match="is there already"):
        ap.select("bm25", **blocks, out=done.path)
    with pytest.raises(ApportionError, match="'out' must be a file, not None"):
        ap.select("bm25", **blocks, out=None)
    with pytest.raises(ApportionError, match="The recipe selects nothing"):
        ap.select("all", **blocks, out=tmp_path / "all.parquet")
    with pytest.raises(ApportionError, match="'selection' is an object of Adapt, which is no selection"):
        ap.select(ap.weights.Adapt(), **blocks, out=tmp_path / "none.parquet")


def test_a_setting_that_is_none_on_purpose_is_kept(tmp_path):
    recipe = parse_recipe({**TINY, "mixture": ap.mixtures.MIXTURES.block(ap.mixtures.Adapt(reads=None), "mixture")})
    assert recipe.method().reads is None
    assert parse_recipe(recipe.resolved()).method().reads is None
    assert "max_epochs" not in recipe.resolved()["mixture"]


@pytest.mark.parametrize(
    ("methods", "names"),
    [
        (["adapt", "uniform"], ["adapt", "uniform"]),
        ([ap.mixtures.Adapt(), "uniform"], ["adapt", "uniform"]),
        (["adapt", ap.mixtures.Adapt(floor=0.3)], ["adapt", "adapt-floor-0.3"]),
        (
            [ap.mixtures.Adapt(prior=0.1, floor=0), ap.mixtures.Adapt()],
            ["adapt-prior-0.1-floor-0", "adapt-prior-0.7-floor-0.1"],
        ),
        ([{"type": "temperature", "t": 3}, {"type": "temperature"}], ["temperature-t-3", "temperature-t-2"]),
        (
            [ap.mixtures.Fixed(shares={"copy": 1}), ap.mixtures.Fixed(shares={"echo": 1})],
            ["fixed-shares-1", "fixed-shares-2"],
        ),
    ],
)
def test_arms_are_named_by_what_sets_them_apart(methods, names):
    from apportion.plans.arms import arms_of

    assert list(arms_of(methods)) == names


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ([ap.mixtures.Adapt(), "adapt"], "Two of the methods are the same: 'adapt'"),
        (["uniform", "uniform"], "Two of the methods are the same: 'uniform'"),
        ({"a": ap.mixtures.Adapt(), "b": {"type": "adapt"}}, "Two of the methods are the same: 'b' and 'a'"),
        ("adapt", "'methods' must be a list of methods, or a mapping of names to them, not 'adapt'"),
        (None, "'methods' must be a list of methods, or a mapping of names to them, not None"),
        (ap.mixtures.Adapt(), "'methods' must be a list of methods"),
        ([], "at least one method"),
        ([3], "'methods' must be a mixture, its name or a mapping with a 'type', not 3"),
        ([ap.mixtures.Adapt], "'methods' is the class Adapt: give an object of it, 'Adapt()'"),
        ([ap.objectives.Mean()], "'methods' is an object of Mean, which is no mixture"),
        (["bm25"], "'bm25' is a method of selection and of weights: say 'selection.bm25' or 'weights.bm25'"),
        ([ap.selections.Random(), "random"], "Two of the methods are the same: 'random'"),
        ({3: "adapt"}, "3 cannot be an arm's name"),
        ({"a/b": "adapt"}, "'a/b' cannot be an arm's name"),
        ([Local.Inner()], "cannot be imported again"),
    ],
)
def test_what_cannot_be_compared(tmp_path, methods, said):
    with pytest.raises(ApportionError) as raised:
        ap.compare(methods, **BLOCKS, out=tmp_path / "out")
    assert said in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_class_that_no_import_finds_again():
    class Here(Mixture):
        pass

    block = ap.mixtures.MIXTURES.block
    assert block(Local(), "mixture") == {"type": f"{__name__}:Local", "unit": "examples", "draws": "systematic"}
    with pytest.raises(ApportionError, match=r"'Here' cannot be imported again.*module of its own"):
        block(Here(), "mixture")
    Here.__module__, Here.__qualname__ = "__main__", "Here"
    with pytest.raises(ApportionError, match="'Here' cannot be imported again"):
        block(Here(), "mixture")


@pytest.mark.parametrize(
    ("block", "said"),
    [
        (
            {"mixture": "apportion.weights.adapt:Adapt"},
            "'apportion.weights.adapt:Adapt' is no mixture: it is not derived",
        ),
        (
            {"weights": "apportion.mixtures.adapt:Adapt"},
            "'apportion.mixtures.adapt:Adapt' is no weights: it is not derived",
        ),
        ({"mixture": "apportion.mixtures._mixture:TaskSizes"}, "is no mixture"),
        ({"mixture": "apportion.mixtures._mixture:Mixture"}, "is no mixture: it is the base of them"),
    ],
)
def test_a_class_of_another_family_is_a_sentence_when_the_recipe_is_read(block, said):
    with pytest.raises(ApportionError) as raised:
        parse_recipe({**TINY, **block})
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ap.mixtures.Adapt(refresh=-1), "'Adapt.refresh' is -1: write a whole number of optimizer steps"),
        (lambda: ap.mixtures.Adapt(florr=1), "Unknown key 'Adapt.florr' (did you mean 'floor'?)"),
        (lambda: ap.mixtures.Adapt(floor="x"), "'Adapt.floor' is 'x': must be a number."),
        (lambda: ap.weights.Adapt(tau=None), "'Adapt.tau' is None: must be a number."),
        (ap.mixtures.Fixed, "'Fixed.shares' is missing."),
        (lambda: ap.mixtures.Fixed(shares={"a": 2}), "'mixture.shares.a' is 2.0"),
    ],
)
def test_an_object_says_what_is_wrong_as_a_recipe_does(make, said):
    with pytest.raises(ApportionError) as raised:
        make()
    assert said in str(raised.value)


def test_settings_are_still_plain_objects():
    method = ap.mixtures.Adapt(floor=0.3)
    assert pickle.loads(pickle.dumps(method)) == method == method.model_copy()
    assert method.model_copy(update={"tau": 0.1}).tau == 0.1
    assert ap.mixtures.Adapt.model_validate({"floor": 0.3}) == method


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mixture": ap.mixtures.Adapt}, "'mixture' is the class Adapt: give an object of it, 'Adapt()'"),
        ({"mixture": ap.weights.Adapt()}, "'mixture' is an object of Adapt, which is no mixture"),
        ({"weights": ap.mixtures.Adapt()}, "'weights' is an object of Adapt, which is no weights"),
        ({"mixture": 3}, "'mixture' must be a mixture, its name or a mapping with a 'type', not 3"),
        ({"mixture": ["adapt"]}, "'mixture' must be a mixture, its name or a mapping"),
        ({"weights": object}, "'weights' is the class object"),
        ({"model": None}, "'model' must be a name, a folder or a mapping of settings, not None"),
        ({"model": 3}, "'model' must be a name, a folder or a mapping of settings, not 3"),
        ({"model": []}, "'model' must be a name, a folder"),
        ({"tasks": None}, "'tasks' must be what load_tasks returned, a path or a mapping of settings, not None"),
        ({"tasks": 3}, "'tasks' must be what load_tasks returned"),
        ({"tasks": ["a"]}, "'tasks' must be what load_tasks returned"),
        ({"budget": None}, "'budget' is None"),
        ({"budget": []}, "'budget' is []"),
        ({"out": None}, "'out' must be a folder, not None"),
        ({"out": 3}, "'out' must be a folder, not 3"),
        ({"out": "a\0b"}, "'out' must be a folder, not"),
        ({"seed": "x"}, "'seed' is 'x': must be a whole number"),
        ({"seed": None}, "'seed' is None: must be a whole number"),
        ({"training": 3}, "'training' is 3: must be a mapping"),
        ({"lora": 3}, "'lora' is 3: must be a mapping"),
        ({"packing": [1]}, "'packing' is [1]: must be true or false"),
    ],
)
def test_wrong_arguments_of_train_are_one_sentence(tmp_path, change, said):
    with pytest.raises(ApportionError) as raised:
        ap.train(**{**BLOCKS, "out": tmp_path / "out", **change})
    assert said in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seeds", [None, 3, "0,1", [0, "x"], [], [True], [1.5]])
def test_wrong_seeds_are_one_sentence(tmp_path, seeds):
    with pytest.raises(ApportionError, match="seed"):
        ap.compare(["uniform"], **BLOCKS, out=tmp_path / "out", seeds=seeds)


def test_dir_shows_what_can_be_used():
    assert set(ap.__all__) <= set(dir(ap)) and "mixtures" in dir(ap)
    assert {"Adapt", "Fixed", "Uniform"} <= set(dir(ap.mixtures))
    assert {"Adapt", "Bm25", "LinUpper"} <= set(dir(ap.weights))
    assert {"Bm25", "Less", "Random"} <= set(dir(ap.selections))
    assert not [name for name in dir(ap.mixtures) if not name.startswith("_") and not getattr(ap.mixtures, name, None)]


def test_progress_is_shown_when_asked_and_ends_at_the_end(tmp_path, capsys):
    ap.train(**BLOCKS, out=tmp_path / "silent")
    assert capsys.readouterr().err == ""
    ap.train(**BLOCKS, out=tmp_path / "run", progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("uniform, seed 0: 0%") and lines[-1].startswith("uniform, seed 0: 100%")
    ap.compare(["uniform", "proportional"], **BLOCKS, out=tmp_path / "both", progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" ")[0] for line in lines if ": 100%" in line] == ["uniform,", "proportional,"]
    with pytest.raises(ApportionError, match="'progress' must be true or false, not 'yes'"):
        ap.train(**BLOCKS, out=tmp_path / "more", progress="yes")


def test_a_run_says_that_its_shares_were_rescaled(tmp_path):
    tasks = {**TINY["tasks"], "names": ["copy", "echo", "sort"]}
    shares = ap.mixtures.Fixed(shares={"copy": 0.33, "echo": 0.33, "sort": 0.33})
    run = ap.train(**{**BLOCKS, "tasks": tasks}, mixture=shares, out=tmp_path / "run")
    assert "'mixture.shares' sums to 0.99: rescaled to sum to 1." in run.summary["findings"]
