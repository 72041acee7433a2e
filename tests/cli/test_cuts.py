"""Thinking on the command line: the scratchpad shown, and tags that do not fit."""

import json

from tests.cli.command import RECIPE, ask

SCRATCHPAD = RECIPE.replace("source: playground, scale: 0.02", "source: scratchpad, examples: 30, steps: [2, 3]")


def test_the_scratchpad_is_shown(capsys):
    asked = ask(capsys, "tasks", "scratchpad", "--set", "examples=30", "--set", "steps=[2, 3]", "--show", 1)
    assert asked.code == 0 and "steps2" in asked.out and "all 2" in asked.out
    assert asked.out.count("[[<think>") == 2 and asked.out.count("</think>") == 2
    asked = ask(capsys, "tasks", "scratchpad", "--set", "examples=30", "--json")
    assert list(json.loads(asked.out)["tasks"]) == [f"steps{n}" for n in range(2, 9)]
    ask(capsys, "tasks", "scratchpad", "--set", "styles=[tersely]").refuses("'tersely'", "did you mean 'terse'")


def test_a_plan_says_what_was_cut_and_bad_tags_write_nothing(capsys, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(SCRATCHPAD + "thinking: {cuts: 1.0}\n")
    asked = ask(capsys, "plan", recipe, "--json")
    assert any("thinking cut at a random place" in finding for finding in json.loads(asked.out)["findings"])
    for tag, said in (("<fin>", "cannot write"), ("", "is empty"), ("?", "No train example has thinking")):
        out = tmp_path / "run"
        ask(capsys, "train", recipe, "--set", f"thinking.close='{tag}'", "--out", out).refuses(said)
        assert not out.exists()
    ask(capsys, "train", recipe, "--set", "thinking.cut=1", "--out", tmp_path / "run").refuses("did you mean 'cuts'")
