"""`generate --thinking`, `curve --thinking` and a plan with thinking as a user meets them."""

import json
import subprocess
import sys

import pytest

from tests.cli.command import ask, contents
from tests.training.runs import run

ROWS = [{"prompt": f"copy {word}", "reference": word} for word in ("abcd", "dcba", "aabb")]
TAGS = "g,h,i"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(tmp_path_factory.mktemp("run") / "run").path


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


def test_generate_says_what_was_thought(capsys, finished, prompts, tmp_path):
    out = tmp_path / "a.jsonl"
    options = ["--prompts", prompts, "--out", out, "--thinking", "6", "--least", "2", "--ignore", "1", "--answer", "4"]
    done = ask(capsys, "generate", finished, *options, "--tags", TAGS, "--batch-size", "3")
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    thinking, inserted = (sum(line["tokens"][kind] for line in lines) for kind in ("thinking", "inserted"))
    assert f"{thinking} of thinking, {inserted} inserted, " in done.out
    assert all(2 <= len(line["thinking"]) <= 6 and line["closed"] for line in lines)


def test_curve_shows_used_tokens_beside_each_budget_and_the_area(capsys, finished, prompts, tmp_path):
    out = tmp_path / "c.json"
    options = ["--prompts", prompts, "--thinking", "0,4,all", "--answer", "4", "--tags", "abc,dcb", "--examples", "2"]
    done = ask(capsys, "curve", finished, *options, "--out", out)
    assert done.code == 0, done.err
    record = json.loads(out.read_text())
    assert [cell["thinking"] for cell in record["cells"]] == [0, 4, None] and record["settings"]["prompts"] == 2
    assert "inserted" in done.out and "forced" in done.out and "100%" in done.out
    if "dense" in record["area"]:
        assert f"thinking tokens used, dense: {record['area']['dense']:.3f}" in done.out
    crossed = ask(
        capsys, "curve", finished, *options[:2], "--thinking", "4", "--kv", "16", "--caches", "streaming", "--tags", TAGS,
        "--answer", "4", "--out", tmp_path / "d.json", "--json",
    )  # fmt: skip
    assert [cell["name"] for cell in json.loads(crossed.out)["cells"]] == ["dense", "streaming"]


def test_plan_shows_thinking_and_what_is_inserted(capsys, finished, prompts, tmp_path):
    recipe = tmp_path / "serve.yaml"
    recipe.write_text(
        f"model: {finished}\nprompts: {prompts}\ninference: {{thinking: 9, answer: 4}}\n"
        "thinking: {open: abc, close: dcb}\n"
    )
    done = ask(capsys, "plan", recipe)
    assert done.code == 0, done.err
    rows = {line.split("│")[1].strip(): line.split("│")[2].strip() for line in done.out.splitlines() if "│" in line}
    assert (rows["thinking tokens"], rows["inserted tokens"], rows["answer tokens"]) == ("9", "3", "4")


@pytest.mark.parametrize(
    ("command", "options", "said"),
    [
        ("generate", ["--least", "3"], "give '--thinking' too"),
        ("generate", ["--thinking", "4", "--least", "9"], "'least' is 9, more than 'most', which is 4"),
        ("generate", ["--thinking", "4 toekns"], "did you mean 'tokens'"),
        ("generate", ["--thinking", "-4"], "'inference.thinking' is '-4'"),
        ("generate", ["--thinking", "4"], "say what thinking stands between, by --tags"),
        ("generate", ["--tags", TAGS], "Tags of thinking go with a budget of it"),
        ("generate", ["--thinking", "4", "--tags", "g"], "'g' is none"),
        (
            "generate",
            ["--thinking", "4", "--tags", "g,Q"],
            "'thinking.close' is 'Q', which the model's tokenizer cannot",
        ),
        ("generate", ["--thinking", "4", "--tags", "g, "], "'thinking.close' is empty"),
        ("generate", ["--thinking", "4", "--ignore", "1", "--tags", "g,h"], "'thinking.wait' is a word"),
        (
            "generate",
            ["--thinking", "4", "--tags", TAGS, "--answer", "4", "--total", "9 tokens"],
            "over 'inference.total' already",
        ),
        ("generate", ["--thinking", "400", "--tags", TAGS], "'thinking' 400: the model has 128 positions"),
        ("generate", ["--answer", "0"], "must be more than zero where there is no thinking"),
        ("curve", [], "one budget with --thinking"),
        ("curve", ["--thinking", "4,x", "--tags", TAGS], "is written like"),
        ("curve", ["--thinking", "4"], "say what thinking stands between, by --tags"),
    ],
    ids=str,
)
def test_a_mistake_is_a_sentence_and_nothing_is_written(capsys, finished, prompts, tmp_path, command, options, said):
    before = contents(tmp_path)
    ask(capsys, command, finished, "--prompts", prompts, "--out", tmp_path / "a.jsonl", *options).refuses(said)
    assert contents(tmp_path) == before


def test_a_typo_is_answered_before_anything_heavy_is_loaded():
    code = (
        "import sys\nsys.argv = ['apportion', 'curve', 'x', '--prompts', 'p', '--thinking', '3', '--tags', 'a']\n"
        "from apportion.cli.main import main\ntry:\n    main()\n"
        "except SystemExit:\n    print('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
