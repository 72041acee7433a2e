"""A recipe of inference: told apart by its keys, checked before anything is loaded, and priced as it is then counted."""

import json
import subprocess
import sys

import pytest

from apportion._errors import ApportionError
from apportion.budget import InferenceBudget
from apportion.caches import CACHES
from apportion.plans.answering import load_answering
from apportion.plans.generate import generate_file
from apportion.plans.recipe import SERVING, Recipe, is_serving, parse_recipe
from apportion.plans.serving import ServingRecipe, parse_serving, plan_serving
from tests.training.hypernets import hyper
from tests.training.runs import TINY, run

ROWS = [{"prompt": f"copy {'abcdefgh' * n}"} for n in (1, 3, 3, 8)]
SECONDS = ("queued", "prefill", "decode")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(tmp_path_factory.mktemp("run") / "run").path


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


def recipe(prompts, place, **changed):
    values = {"model": str(place), "prompts": str(prompts), "inference": {"answer": 12, "kv": 16}, "cache": "streaming"}
    return parse_serving(values | changed)


@pytest.mark.parametrize("cache", ["dense", "streaming", {"type": "quest", "page": 4, "dense_layers": 0}])
def test_what_is_planned_is_what_generate_then_counts(finished, prompts, tmp_path, cache):
    plan = plan_serving(recipe(prompts, finished, cache=cache))
    answering = load_answering(finished)
    answering.model.generation_config.eos_token_id = None
    engine = answering.engine(CACHES.build(cache), InferenceBudget.parse({"answer": 12, "kv": 16}))
    counted = generate_file(answering, engine, prompts, tmp_path / "a.jsonl").summary
    for key, value in counted["means"].items():
        if key in SECONDS:
            continue
        if "quest" in str(cache) and key in ("read", "flops", "attention_flops"):
            assert value <= plan.mean[key] < 1.3 * value, key
        else:
            assert plan.mean[key] == pytest.approx(value, rel=1e-12), key
    longest = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[-1])["served"]
    if "quest" not in str(cache):
        assert {key: plan.longest[key] for key in longest} == longest
        assert plan.mean["a_step"] == counted["a_step"]


def test_a_model_that_is_no_folder_is_priced_by_its_shapes_alone(finished, prompts):
    shapes = plan_serving(recipe(prompts, finished, model=TINY["model"]))
    loaded = plan_serving(recipe(prompts, finished))
    assert shapes.mean == loaded.mean and shapes.longest == loaded.longest


def test_the_two_kinds_are_told_apart_by_their_keys():
    assert (
        ServingRecipe.model_fields.keys() - {"model", "thinking"} == SERVING
        and not SERVING & Recipe.model_fields.keys()
    )
    ours = {"model": "x", "prompts": "p.jsonl", "inference": {}, "cache": "quest"}
    assert is_serving(ours) and is_serving({**ours, "budget": 3})
    assert is_serving({"model": "x", "promts": "p", "cache": "quest"})
    assert not is_serving(TINY) and not is_serving({**TINY, "cache": "quest"}) and not is_serving({"model": "x"})
    with pytest.raises(ApportionError, match="one of inference, which 'apportion plan' prices"):
        parse_recipe(ours)


@pytest.mark.parametrize(
    ("changed", "fragment"),
    [
        ({"prompt": "x"}, r"Unknown key 'prompt' \(did you mean 'prompts'\?\)"),
        ({"inference": {"answers": 3}}, r"Unknown key 'inference.answers' \(did you mean 'answer'\?\)"),
        ({"inference": {"kv": 0}}, "'inference.kv' is 0: must be more than zero"),
        ({"inference": {"resident": "3 MBs"}}, "has no unit 'MBs'"),
        ({"cache": "qest"}, r"Unknown cache 'qest' \(did you mean 'quest'\?\)"),
        ({"cache": {"type": "quest", "pages": 3}}, r"Unknown key 'cache.pages' \(did you mean 'page'\?\)"),
        ({"model": {"name": "x", "dtype": "bfloat16"}}, "'model': has no 'dtype' here"),
        ({"budget": "60k"}, "Unknown key 'budget'"),
    ],
)
def test_a_mistake_is_said_by_its_key(prompts, changed, fragment):
    with pytest.raises(ApportionError, match=fragment):
        recipe(prompts, "x", **changed)


def test_a_typo_is_answered_before_anything_heavy_is_loaded():
    code = (
        "import sys\nfrom apportion._errors import ApportionError\nfrom apportion.plans.serving import parse_serving\n"
        "try:\n    parse_serving({'model': 'x', 'prompts': 'p', 'cache': {'type': 'quest', 'pages': 3}})\n"
        "except ApportionError:\n    print('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_what_only_the_model_can_say_is_refused_too(finished, prompts, tmp_path):
    for changed, fragment in (
        ({"inference": {"answer": 100}}, "Prompt 2 has"),
        ({"inference": {"kv": "2 pages", "answer": 6}}, "'streaming' has no pages"),
        ({"inference": {"kv": 3, "answer": 6}}, "'streaming' keeps 4 first tokens"),
        ({"inference": {"kv": "25%", "answer": 6}, "cache": "flexicache"}, "give the budget in tokens or pages"),
    ):
        with pytest.raises(ApportionError, match=fragment):
            plan_serving(recipe(prompts, finished, **changed))
    with pytest.raises(ApportionError, match=r"none\.jsonl' cannot be read"):
        plan_serving(recipe(tmp_path / "none.jsonl", finished))


def test_a_model_that_answers_nothing_is_refused(prompts, tmp_path):
    done = hyper(tmp_path / "tagi")
    with pytest.raises(ApportionError, match="Answering prompts does not go with 'kind: tagi'"):
        plan_serving(recipe(prompts, done.path))
