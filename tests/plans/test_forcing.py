"""Thinking from files to files: answers, curves and plans under budgets of thinking, with tags of any length."""

import copy
import json
from dataclasses import replace

import pytest

import apportion as ap
from apportion._errors import ApportionError
from apportion.budget import InferenceBudget, KvLimit, ThinkingBudget
from apportion.caches import CACHES
from apportion.plans.answering import load_answering
from apportion.plans.curve import curve_file
from apportion.plans.generate import beside, generate_file
from apportion.plans.serving import parse_serving, plan_serving
from apportion.runs.thinking import area
from apportion.thinking.tags import ThinkingTags
from tests.training.runs import run

ROWS = [{"prompt": f"copy {word}", "reference": word} for word in ("abcd", "dcba", "aabb", "hgfe")]
LONG = ThinkingTags(open="abc", close="dcb", wait="hi", answer="be")
SHORT = ThinkingTags(open="g", close="h", wait="i")


@pytest.fixture(scope="module")
def answering(tmp_path_factory):
    loaded = load_answering(run(tmp_path_factory.mktemp("run") / "run").path)
    loaded.model.generation_config.eos_token_id = None  # a model that has learnt nothing may end at once
    return loaded


@pytest.fixture
def prompts(tmp_path):
    return written(tmp_path / "prompts.jsonl", ROWS)


def written(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def engine(answering, words=LONG, batch_size=2, **limits):
    budget = InferenceBudget.parse({"thinking": 8, "answer": 6, **limits})
    tags = answering.tags(words, budget)
    return answering.engine(CACHES.build("dense"), budget, batch_size=batch_size, tags=tags)


@pytest.mark.parametrize("words", [LONG, SHORT], ids=["long", "short"])
def test_each_line_says_what_was_thought_and_inserted(answering, prompts, tmp_path, words):
    out = tmp_path / "a.jsonl"
    summary = generate_file(
        answering, engine(answering, words, thinking={"most": 8, "ignore": 1}), prompts, out
    ).summary
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    for line in lines:
        assert list(line)[-6:] == ["thinking", "answer", "tokens", "served", "closed", "forced"]
        assert line["tokens"]["thinking"] <= 8 and line["closed"] and len(line["thinking"]) <= 8
        assert line["tokens"]["inserted"] >= len(words.close) * line["forced"] * (words is SHORT)
    for kind in ("thinking", "answer", "inserted"):
        whole = sum(line["tokens"][kind] for line in lines)
        assert summary["sums"][kind] == summary["accounts"]["generate"][kind] == whole
    again = generate_file(answering, engine(answering, words, thinking={"most": 8, "ignore": 1}), prompts, out)
    assert json.loads(beside(out).read_text())["sums"] == again.summary["sums"] == summary["sums"]
    with pytest.raises(ApportionError, match="is there already"):
        generate_file(answering, engine(answering, words, thinking=7), prompts, out)


def test_nothing_is_written_where_a_prompt_is_over_its_total(answering, prompts, tmp_path):
    with pytest.raises(ApportionError, match=r"Prompt 1 has \d+ tokens, and is over 'inference\.total'"):
        generate_file(answering, engine(answering, total="5 tokens"), prompts, tmp_path / "a.jsonl")
    assert {file.name for file in tmp_path.iterdir()} == {"prompts.jsonl"}


def curve(answering, prompts, out, budgets, words=LONG, **changed):
    settings = {"methods": {}, "limits": [], "budget": InferenceBudget.parse({"answer": 6}), "batch_size": 2}
    thinking = [ThinkingBudget(most=most) for most in budgets]
    tags = answering.tags(words, InferenceBudget(thinking=thinking[0]))
    return curve_file(answering, prompts, out, **settings | {"thinking": thinking, "tags": tags} | changed).record


def test_a_curve_has_what_was_used_and_not_the_budget_alone(answering, prompts, tmp_path):
    record = curve(answering, prompts, tmp_path / "c.json", [0, 4, 12])
    assert [(cell["name"], cell["kv"], cell["thinking"]) for cell in record["cells"]] == [
        ("dense", None, most) for most in (0, 4, 12)
    ]
    for cell in record["cells"]:
        sums = cell["sums"]
        assert cell["used"] == sums["thinking"] / 4 <= cell["thinking"]
        assert cell["inserted"] == sums["inserted"] / 4
        assert cell["forced"] * 4 == round(cell["forced"] * 4)
    assert record["cells"][0]["used"] == 0 and record["cells"][0]["forced"] == 1
    points = [(cell["used"], cell["score"]) for cell in record["cells"]]
    assert record["area"] == {"dense": area(points, 12)}


def test_crossed_with_caches_each_answers_under_each(answering, prompts, tmp_path):
    crossed = {"methods": {"streaming": CACHES.build("streaming")}, "limits": [KvLimit.parse(8), KvLimit.parse(16)]}
    record = curve(answering, prompts, tmp_path / "c.json", [0, 6], **crossed)
    places = [(cell["name"], cell["kv"], cell["thinking"]) for cell in record["cells"]]
    lines = [("dense", None), ("streaming", "8 tokens"), ("streaming", "16 tokens")]
    assert places == [(*line, most) for most in (0, 6) for line in lines]
    assert set(record["area"]) == {"dense", "streaming, 8 tokens", "streaming, 16 tokens"}


def test_without_references_answers_are_held_to_those_after_thinking_without_a_limit(answering, tmp_path):
    file = written(tmp_path / "p.jsonl", [{"prompt": row["prompt"]} for row in ROWS])
    record = curve(answering, file, tmp_path / "c.json", [0, 3])
    first = record["cells"][0]
    assert record["settings"]["metric"] == "agreement"
    assert (first["name"], first["thinking"], first["forced"]) == ("dense", None, 0) and first["score"] == 1
    assert [cell["thinking"] for cell in record["cells"]] == [None, 0, 3]


def test_a_curve_goes_on_cell_by_cell_on_the_first_prompts_alone(answering, prompts, tmp_path):
    whole = curve(answering, prompts, tmp_path / "whole.json", [0, 5], examples=2)
    assert whole["settings"]["prompts"] == 2
    part = json.loads((tmp_path / "whole.json").read_text())
    part["cells"] = part["cells"][:1]
    (tmp_path / "part.json").write_text(json.dumps(part))
    again = curve(answering, prompts, tmp_path / "part.json", [0, 5], examples=2)
    assert [(cell["thinking"], cell["score"], cell["used"]) for cell in again["cells"]] == [
        (cell["thinking"], cell["score"], cell["used"]) for cell in whole["cells"]
    ]
    assert again["area"] == whole["area"]
    with pytest.raises(ApportionError, match="holds another curve"):
        curve(answering, prompts, tmp_path / "part.json", [0, 5], words=SHORT, examples=2)


def test_a_plan_prices_thinking_at_full_length_with_what_is_inserted(answering, prompts, tmp_path):
    values = {
        "model": answering.name,
        "prompts": str(prompts),
        "inference": {"thinking": 0, "answer": 6},
        "thinking": LONG.model_dump(),
    }
    plan = plan_serving(parse_serving(values))
    counted = generate_file(answering, engine(answering, thinking=0, batch_size=1), prompts, tmp_path / "a.jsonl")
    for key in ("prompt", "thinking", "inserted", "answer", "steps", "flops", "read", "tokens"):
        assert plan.mean[key] == pytest.approx(counted.summary["means"][key]), key
    longer = plan_serving(parse_serving({**values, "inference": {"thinking": 20, "answer": 6}}))
    assert longer.mean["thinking"] == 20 and longer.mean["inserted"] == 5
    assert dict(longer.binds) == {"thinking": 20, "answer": 31}
    for inference, said in (
        ({"thinking": "all", "answer": 6}, "has no 'most'"),
        ({"thinking": {"most": 9, "ignore": 1}, "answer": 6}, "nobody knows how often"),
    ):
        with pytest.raises(ApportionError, match=said):
            plan_serving(parse_serving({**values, "inference": inference}))


def test_tags_are_those_given_the_run_s_own_or_tokens_of_that_name(answering):
    thinks = InferenceBudget.parse({"thinking": 4})
    assert answering.tags(SHORT, thinks) == SHORT.ids(answering.tokenizer)
    with pytest.raises(
        ApportionError, match="has no tokens '<think>' and '</think>': say what thinking stands between"
    ):
        answering.tags(None, thinks)
    with pytest.raises(ApportionError, match="Tags of thinking go with a budget of it"):
        answering.tags(SHORT, InferenceBudget())
    assert answering.tags(None, InferenceBudget()) is None
    tokenizer = copy.deepcopy(answering.tokenizer)
    first = len(tokenizer)
    tokenizer.add_tokens(["<think>", "</think>"])
    found = replace(answering, tokenizer=tokenizer).tags(None, thinks)
    assert (found.open, found.close) == ((first,), (first + 1,))
    own = replace(answering, tokenizer=tokenizer, thinking=LONG).tags(None, thinks)
    assert own == LONG.ids(answering.tokenizer)


def test_a_run_that_was_trained_to_think_says_its_tags(answering, tmp_path):
    done = run(tmp_path / "run")
    recipe = done.path / "recipe.yaml"
    recipe.write_text(recipe.read_text() + "thinking: {open: g, close: h, wait: i, cuts: 0.5}\n")
    (one,) = ap.generate(done.path, ["copy abcd"], thinking=3, answer=4)
    ids = SHORT.ids(answering.tokenizer)
    assert one.request.ids[-1:] == ids.open and one.closed and len(one.thinking_ids) <= 3
    (other,) = ap.generate(
        done, ["copy abcd"], thinking={"most": 3, "least": 1}, tags="f,h,i", answer=4, total="99 tokens"
    )
    assert other.request.ids[-1] == answering.tokenizer.convert_tokens_to_ids("f")


@pytest.mark.parametrize("text", ["<think>", "a,b,c,d,e", ""])
def test_tags_that_are_no_pair_are_refused(text):
    with pytest.raises(ApportionError, match="Tags of thinking are an open and a close tag"):
        ThinkingTags.parse(text)
    assert ThinkingTags.parse("a,b,c,Final answer:").answer == "Final answer:"
