"""Answers go to a file batch by batch, curves cell by cell; what is stopped goes on, and ends as never stopped."""

import json

import pytest

from apportion._errors import ApportionError
from apportion.budget import InferenceBudget, KvLimit
from apportion.caches import CACHES
from apportion.caches.stability import Stability
from apportion.decoding.engine import Engine
from apportion.plans.answering import load_answering
from apportion.plans.curve import curve_file
from apportion.plans.generate import beside, generate_file
from apportion.plans.profile import profile_file
from tests.training.runs import run

ROWS = [{"prompt": f"copy {word}", "reference": word} for word in ("abcd", "dcba", "aabb", "hgfe", "bbca")]


@pytest.fixture(scope="module")
def answering(tmp_path_factory):
    loaded = load_answering(run(tmp_path_factory.mktemp("run") / "run").path)
    loaded.model.generation_config.eos_token_id = None  # a model that has learnt nothing may end at once
    return loaded


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


def engine(answering, cache="streaming", kv=8, answer=6, batch_size=2):
    budget = InferenceBudget.parse({"kv": kv, "answer": answer})
    return answering.engine(CACHES.build(cache), budget, batch_size=batch_size)


def test_each_line_is_a_prompt_with_its_answer_and_its_tokens(answering, prompts, tmp_path):
    done = generate_file(answering, engine(answering), prompts, tmp_path / "a.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [{key: line[key] for key in row} for line, row in zip(lines, ROWS, strict=True)] == ROWS
    for line in lines:
        assert line["schema"] == 1 and isinstance(line["answer"], str)
        assert line["tokens"]["prompt"] > 0 and 1 <= line["tokens"]["answer"] <= 6
    summary = json.loads(beside(tmp_path / "a.jsonl").read_text())
    for key in ("prompt", "answer", "read", "steps"):
        assert summary["sums"][key] == sum(line["served"][key] for line in lines) == done.summary["sums"][key]
    spent = summary["accounts"]["generate"]
    assert spent["answer"] == summary["sums"]["answer"] and spent["processed"] == summary["sums"]["tokens"]
    assert spent["flops"] == pytest.approx(sum(line["served"]["flops"] for line in lines))


@pytest.mark.parametrize("after", [1, 2])
def test_stopped_it_goes_on_and_ends_with_the_same_bytes(answering, prompts, tmp_path, monkeypatch, after):
    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    generate_file(answering, engine(answering), prompts, whole)
    real, made = Engine._batch, []

    def stops(self, requests):
        if len(made) == after:
            raise KeyboardInterrupt
        made.append(1)
        return real(self, requests)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Engine, "_batch", stops)
        generate_file(answering, engine(answering), prompts, part)
    held = part.read_bytes()
    assert whole.read_bytes().startswith(held) and len(held.splitlines()) == 2 * after
    part.write_bytes(held + b'{"schema": 1, "prompt": "cut in the mid')
    asked = []
    monkeypatch.setattr(Engine, "_batch", lambda self, requests: asked.append(len(requests)) or real(self, requests))
    generate_file(answering, engine(answering), prompts, part)
    assert part.read_bytes() == whole.read_bytes() and sum(asked) == 5 - 2 * after
    generate_file(answering, engine(answering), prompts, part)
    assert part.read_bytes() == whole.read_bytes() and sum(asked) == 5 - 2 * after


def test_a_file_of_something_else_is_left_as_it_is(answering, prompts, tmp_path):
    out = tmp_path / "a.jsonl"
    out.write_text("mine\n")
    with pytest.raises(ApportionError, match="is there already"):
        generate_file(answering, engine(answering), prompts, out)
    assert out.read_text() == "mine\n"
    out.unlink()
    generate_file(answering, engine(answering), prompts, out)
    before = out.read_bytes()
    with pytest.raises(ApportionError, match="is there already"):
        generate_file(answering, engine(answering, kv=9), prompts, out)
    assert out.read_bytes() == before


def curve(answering, prompts, out, **changed):
    settings = {
        "methods": {"streaming": CACHES.build("streaming"), "exact": CACHES.build("exact")},
        "limits": [KvLimit.parse(8), KvLimit.parse(64)],
        "budget": InferenceBudget.parse({"answer": 6}),
        "batch_size": 2,
    }
    return curve_file(answering, prompts, out, **settings | changed)


def test_a_curve_has_a_cell_a_method_and_budget_and_the_dense_line(answering, prompts, tmp_path):
    record = curve(answering, prompts, tmp_path / "c.json").record
    assert [(cell["name"], cell["kv"]) for cell in record["cells"]] == [
        ("dense", None),
        ("streaming", "8 tokens"),
        ("streaming", "64 tokens"),
        ("exact", "8 tokens"),
        ("exact", "64 tokens"),
    ]
    dense, *others = record["cells"]
    assert record["settings"]["metric"] == "exact" and 0 <= dense["score"] <= 1
    for cell in others:
        if cell["kv"] == "64 tokens":  # more than any prompt with its answer
            assert cell["score"] == dense["score"] and cell["read_a_step"] == dense["read_a_step"]
        elif cell["name"] == "streaming":  # exact scores take all keys, and more than dense where prompts are short
            assert cell["read_a_step"] < dense["read_a_step"]


def test_without_references_answers_are_held_to_the_dense_ones(answering, tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text("".join(json.dumps({"prompt": row["prompt"]}) + "\n" for row in ROWS))
    record = curve(answering, file, tmp_path / "c.json").record
    assert record["settings"]["metric"] == "agreement" and record["cells"][0]["score"] == 1.0
    assert all(cell["score"] == 1.0 for cell in record["cells"] if cell["kv"] == "64 tokens")


def test_a_curve_that_was_stopped_goes_on_cell_by_cell(answering, prompts, tmp_path):
    whole = curve(answering, prompts, tmp_path / "whole.json").record
    part = json.loads((tmp_path / "whole.json").read_text())
    part["cells"] = part["cells"][:2]
    (tmp_path / "part.json").write_text(json.dumps(part))
    told = []
    again = curve(answering, prompts, tmp_path / "part.json", told=lambda done, of: told.append(done)).record

    def timeless(record):
        drop = ("queued", "prefill", "decode")
        return [{**cell, "sums": {k: v for k, v in cell["sums"].items() if k not in drop}} for cell in record["cells"]]

    assert timeless(again) == timeless(whole)
    with pytest.raises(ApportionError, match="holds another curve"):
        curve(answering, prompts, tmp_path / "part.json", budget=InferenceBudget.parse({"answer": 5}))


def test_a_pair_that_cannot_be_is_refused_before_any_is_answered(answering, prompts, tmp_path):
    with pytest.raises(ApportionError, match="'streaming' keeps 4 first tokens"):
        curve(answering, prompts, tmp_path / "c.json", limits=[KvLimit.parse(64), KvLimit.parse(3)])
    with pytest.raises(ApportionError, match="'streaming' has no pages"):
        curve(answering, prompts, tmp_path / "c.json", limits=[KvLimit.parse("2 pages")])
    assert not (tmp_path / "c.json").exists()


def test_a_profile_has_every_head_once_and_flexicache_reads_it(answering, tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text("".join(json.dumps({"prompt": "copy " + "abcdefgh" * 8}) + "\n" for _ in range(2)))
    method = Stability(page=4, pages=4, interval=4)
    done = profile_file(
        answering, file, tmp_path / "h.json", method=method, budget=InferenceBudget.parse({"answer": 20})
    )
    config = answering.model.config
    heads = {(head["layer"], head["head"]) for head in done.record["heads"]}
    assert heads == {(a, b) for a in range(config.num_hidden_layers) for b in range(config.num_key_value_heads)}
    assert all(head["stability"] <= head["share"] <= 1 and head["steps"] > 0 for head in done.record["heads"])
    again = profile_file(
        answering, file, tmp_path / "h2.json", method=Stability(page=4, pages=4, interval=4),
        budget=InferenceBudget.parse({"answer": 20}),
    )  # fmt: skip
    assert again.record["heads"] == done.record["heads"]
    flexicache = {"type": "flexicache", "page": 4, "profile": str(tmp_path / "h.json")}
    generate_file(answering, engine(answering, flexicache, kv="4 pages"), file, tmp_path / "a.jsonl")
    with pytest.raises(ApportionError, match="has more than 400 pages"):
        profile_file(
            answering,
            file,
            tmp_path / "h3.json",
            method=Stability(page=4, pages=400),
            budget=InferenceBudget.parse({"answer": 8}),
        )
