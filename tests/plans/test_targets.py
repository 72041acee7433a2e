"""Runs toward targets with data of their own: what is drawn, measured, priced, refused and taken up again."""

import json
import math

import pytest

import apportion as ap
from apportion._errors import ApportionError
from apportion.plans.build import load_data, make_sampler, reported
from apportion.plans.plan import plan_recipe
from apportion.plans.recipe import overridden, parse_recipe
from apportion.plans.run import run_recipe
from apportion.runs import read_comparison
from tests.training.runs import TINY, history

GOALS = "targets={source: playground, suite: skills, names: [reverse, add2], scale: 0.02}"
SMALL = overridden(
    TINY, ["tasks={source: playground, suite: quality, scale: 0.04, max_length: 96}", "budget=600", GOALS]
)


def small(*assignments):
    return parse_recipe(overridden(SMALL, assignments))


@pytest.fixture
def files(tmp_path):
    """Two sources and a goals folder of 20 examples, as JSON Lines."""
    texts = {
        "data/double": [(f"double {n}", 2 * n) for n in range(90)],
        "data/next": [(f"next {n}", n + 1) for n in range(60)],
        "goals/triple": [(f"triple {n}", 3 * n) for n in range(20)],
    }
    for name, pairs in texts.items():
        file = tmp_path / f"{name}.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(json.dumps({"prompt": p, "completion": str(c)}) + "\n" for p, c in pairs))
    return tmp_path


def own(files, *assignments):
    return parse_recipe(
        overridden(
            TINY,
            [
                f"tasks={{path: {files / 'data'}, max_length: 40}}",
                "budget=300",
                f"targets={{path: {files / 'goals'}}}",
                *assignments,
            ],
        )
    )


class TestData:
    def test_targets_that_are_not_trained_on_are_no_tasks(self):
        data = load_data(small())
        assert len(data.tasks) == 20 and data.targets.names == ("reverse", "add2") and data.named
        assert data.held_out.names == (*data.tasks.names, "reverse", "add2") and not data.targets.are_tasks
        assert data.sizes.importance.tolist() == [0.0] * 20
        assert data.importance == {"reverse": 1.0, "add2": 1.0}

    def test_targets_that_are_trained_on_are_the_last_tasks(self):
        data = load_data(small("targets.train=4", "targets.importance={add2: 3}"))
        assert data.tasks.names[20:] == data.targets.names == ("reverse", "add2")
        assert data.sizes.importance.tolist() == [0.0] * 20 + [1.0, 3.0]
        assert data.held_out.names == data.tasks.names

    @pytest.mark.parametrize(
        ("mixture", "train", "seen"),
        [("{}", 4, 4), ("{max_epochs: 2}", 4, 2), ("{max_epochs: 9}", 4, 4), ("{max_epochs: 9}", 0.5, 0.5)],
    )
    def test_a_target_is_seen_as_often_as_the_stricter_cap_says(self, mixture, train, seen):
        mixture = "{type: uniform, " + mixture.strip("{}") + "}"
        recipe = small(f"targets.train={train}", f"mixture={mixture}")
        data = load_data(recipe)
        sampler = make_sampler(recipe, data, recipe.method())
        p = recipe.method().proportions(recipe.method().init(data.sizes)).numpy()
        for _ in range(180):
            sampler.draw(p, 64)
        sizes = [len(task.train) for task in data.tasks.tasks]
        assert sampler.drawn_examples[20:].tolist() == [math.floor(seen * size) for size in sizes[20:]]
        most = 9 if "9" in mixture else 2 if "2" in mixture else math.inf
        assert all(epochs <= most for epochs in sampler.epochs[:20])
        assert most == math.inf or sampler.epochs[:20].tolist() == [float(most)] * 20

    def test_each_target_is_reported_on_at_most_so_many_examples(self):
        for key, others, goals in (("examples_per_task", 1, 15), ("examples_per_target", 2, 1)):
            recipe = small(f"validation.{key}=1")
            data = load_data(recipe)
            counts = [sum(task == i for task, _, _ in reported(recipe, data)) for i in range(22)]
            assert counts == [others] * 20 + [goals] * 2

    def test_arms_and_seeds_share_their_data(self):
        first = load_data(small("mixture=uniform"))
        assert load_data(small("mixture=adapt", "seed=5")).tasks is first.tasks
        assert load_data(small("targets.importance={add2: 2}")).tasks.fingerprint == first.tasks.fingerprint

    def test_an_importance_of_no_target_is_refused_from_a_warm_cache_too(self):
        load_data(small())
        for _ in range(2):
            with pytest.raises(ApportionError, match=r"'ad2' under 'targets\.importance' \(did you mean 'add2'"):
                load_data(small("targets.importance={ad2: 2}"))

    def test_other_bytes_of_a_target_are_other_data(self, files):
        before = load_data(own(files)).tasks.fingerprint
        file = files / "goals" / "triple.jsonl"
        file.write_text(file.read_text().replace("57", "58"))
        after = load_data(own(files))
        assert after.tasks.fingerprint != before
        assert "58" in {
            after.tokenizer.decode(split.example(i)[0]).split("\n")[-1].removesuffix("<eos>")
            for part in (after.targets.steer, after.targets.report)
            for _, split, i in part[0]
        }


class TestRuns:
    def test_a_target_of_twenty_examples_is_measured_with_its_error(self, files):
        done = run_recipe(own(files), files / "run")
        final = done.summary["final"]
        assert final["targets"] == {"triple": final["target"]}
        assert final["examples"]["triple"] == 10 and 0 < final["target_se"] == final["se"]["triple"] < 1
        assert set(final["validation"]) == {"double", "next"}
        assert final["others"] == pytest.approx(sum(final["validation"].values()) / 2)
        assert all(
            record["targets"]["triple"] == record["target"] for record in history(done) if "validation" in record
        )
        assert done.summary["best"]["target"] == min(r["target"] for r in history(done) if "target" in r)

    def test_the_python_call_takes_what_a_recipe_says(self, files):
        rows = [json.loads(line) for line in (files / "goals" / "triple.jsonl").read_text().splitlines()]
        blocks = {key: TINY[key] for key in ("model", "training", "validation")} | {"budget": 100, "objective": "worst"}
        blocks["tasks"] = ap.load_tasks(files / "data", max_length=40)
        given = {
            "path": files / "goals",
            "text": str(files / "goals"),
            "list": [files / "goals" / "triple.jsonl"],
            "named": {"triple": files / "goals" / "triple.jsonl"},
            "rows": {"triple": rows},
            "read": ap.load_tasks(files / "goals", validation=0.3, max_length=30),
            "block": {"path": files / "goals", "importance": {"triple": 2}},
            "block of rows": {"path": {"triple": rows}, "train": 0},
        }
        final = {
            name: ap.train(**blocks, targets=targets, out=files / f"run-{name}").summary["final"]
            for name, targets in given.items()
        }
        assert {f["target"] for f in final.values()} == {final["path"]["target"]}
        assert all(set(f["targets"]) == {"triple"} for f in final.values())

    @pytest.mark.parametrize(
        ("targets", "said"),
        [
            (3, "'targets' must be a path, a list of paths"),
            ([{"prompt": "a", "completion": "b"}], "Rows need the name of their task"),
            ({"triple": []}, "Task 'triple' has no rows"),
            ({"path": "goals", "trian": 2}, "did you mean 'train'"),
            ({"importance": {"a": 2}}, "'targets' needs a 'path'"),
            ("nowhere/", "There is no file or folder 'nowhere'"),
        ],
    )
    def test_what_cannot_be_targets_is_refused_in_python_too(self, files, monkeypatch, targets, said):
        monkeypatch.chdir(files)
        with pytest.raises(ApportionError, match=said):
            ap.train(model=TINY["model"], tasks="data", budget=100, targets=targets, out="run")
        assert not (files / "run").exists()

    def test_methods_are_compared_by_the_target(self, files):
        done = ap.compare(
            ["uniform", {"type": "upsample", "share": 0.5}, {"type": "adapt", "refresh": 5}],
            model=TINY["model"],
            tasks={"path": str(files / "data"), "max_length": 40},
            targets={"path": files / "goals", "train": 4},
            budget=300,
            out=files / "out",
            training=TINY["training"],
            validation=TINY["validation"],
            seeds=(0, 1),
        )
        arms = read_comparison(done.path)
        assert sorted(arms) == ["adapt", "uniform", "upsample"]
        shares = {}
        for name, runs in arms.items():
            assert len({one.summary["fingerprint"] for one in runs}) == 1
            mixture = json.loads((runs[0].path / "mixture.json").read_text())
            assert list(mixture["tasks"]) == ["double", "next", "triple"]
            shares[name] = runs[0].history[0]["mixture"]["triple"]
            assert mixture["tasks"]["triple"]["epochs"] <= 4
        assert shares["upsample"] == 0.5 and shares["uniform"] == pytest.approx(1 / 3)

    def test_a_folder_inside_the_targets_data_is_refused(self, files):
        with pytest.raises(ApportionError, match=r"inside the data, .*goals"):
            ap.train(
                model=TINY["model"],
                tasks=files / "data",
                budget=100,
                targets=files / "goals",
                out=files / "goals" / "run",
            )
        assert sorted(path.name for path in (files / "goals").iterdir()) == ["triple.jsonl"]

    def test_changed_targets_do_not_go_on(self, files):
        done = run_recipe(own(files), files / "run")
        (done.path / "summary.json").unlink()
        file = files / "goals" / "triple.jsonl"
        file.write_text(file.read_text().replace("57", "58"))
        with pytest.raises(ApportionError, match="data or the tokenizer changed since this run began"):
            run_recipe(own(files), files / "run")


class TestBudgets:
    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            (["mixture={type: upsample, share: 1}"], r"'targets\.train' = 2 allows"),
            (["mixture={type: uniform, max_epochs: 1}"], r"'mixture\.max_epochs' = 1 allows"),
            (["mixture={type: uniform, max_epochs: 3}"], r"'mixture\.max_epochs' = 3 with 'targets\.train' = 2 allows"),
        ],
    )
    def test_what_the_caps_do_not_allow_is_refused_by_the_key_that_binds(self, files, settings, said):
        with pytest.raises(ApportionError, match=f"{said}.*lower the budget or raise"):
            plan_recipe(own(files, "targets.train=2", "budget=100k", *settings))

    def test_a_budget_in_flops_is_held_to_the_caps_too(self, files):
        settings = ["targets.train=2", "mixture={type: upsample, share: 1}"]
        plan_recipe(own(files, *settings, "budget=3e7 FLOPs"))
        with pytest.raises(ApportionError, match=r"'targets\.train' = 2 allows .* FLOPs"):
            plan_recipe(own(files, *settings, "budget=1e13 FLOPs"))

    def test_a_plan_says_epochs_within_the_caps(self, files):
        recipe = own(files, "targets.train=2", "mixture={type: upsample, share: 0.5}", "budget=600")
        plan = plan_recipe(recipe)
        done = run_recipe(recipe, files / "run")
        drawn = json.loads((done.path / "mixture.json").read_text())["tasks"]
        assert plan.epochs["triple"] == drawn["triple"]["epochs"] == 2.0
        for name in ("double", "next"):
            assert plan.epochs[name] == pytest.approx(drawn[name]["epochs"], rel=0.1)

    def test_a_plan_says_what_the_targets_are(self, files):
        text = (files / "data" / "next.jsonl").read_text()
        (files / "data" / "next.jsonl").write_text(text + '{"prompt": "Triple 4", "completion": "12"}\n')
        plan = plan_recipe(own(files, "targets.importance={triple: 2}"))
        assert plan.targets == {"triple": {"importance": 2.0, "steer": 10, "report": 10, "train": 0}}
        assert "1 example whose prompt stands in a target: taken out of its task." in plan.findings
        trained = plan_recipe(own(files, "targets.train=1")).targets["triple"]
        assert sum(trained[part] for part in ("steer", "report", "train")) == 20 and trained["train"] > 3
        named = plan_recipe(own(files, "targets={tasks: [next]}"))
        assert set(named.targets) == {"next"} and named.targets["next"]["train"] > 40
        assert plan_recipe(parse_recipe(overridden(TINY, ["tasks.scale=0.05"]))).targets == {}
