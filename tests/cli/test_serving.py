"""`apportion generate`, `curve`, `profile` and the plan of inference as a user meets them."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.cli.command import ask, contents, ended, start, wait_for
from tests.plans.test_evaluating import COMMAND, killed_when
from tests.training.hypernets import hyper
from tests.training.runs import run

ROWS = [{"prompt": f"copy {word}", "reference": word} for word in ("abcd", "dcba", "aabb", "hgfe")]
SECONDS = ("queued", "prefill", "decode")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(tmp_path_factory.mktemp("run") / "run").path


@pytest.fixture
def prompts(tmp_path):
    return written(tmp_path / "prompts.jsonl", ROWS)


def written(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_generate_says_what_answers_took_and_where_they_are(capsys, finished, prompts, tmp_path):
    out = tmp_path / "a.jsonl"
    options = ["--prompts", prompts, "--out", out, "--cache", "streaming", "--kv", "8", "--answer", "6"]
    done = ask(capsys, "generate", finished, *options)
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    sums = json.loads((tmp_path / "a.jsonl.inference.json").read_text())["sums"]
    assert [line["prompt"] for line in lines] == [row["prompt"] for row in ROWS]
    assert f"Answered 4 prompts: {sums['prompt']:,} tokens of prompts, {sums['answer']:,} of answers" in done.out
    assert f"Answers: {out}" in done.out and "A decode step read" in done.out
    before = contents(tmp_path)
    again = ask(capsys, "generate", finished, *options, "--json")
    (said,) = again.out.splitlines()
    assert json.loads(said)["path"] == str(out) and json.loads(said)["sums"] == sums
    assert contents(tmp_path) == before


def test_settings_of_the_cache_and_of_drawing_are_taken(capsys, finished, prompts, tmp_path):
    options = ["--prompts", prompts, "--answer", "6", "--json", "--cache", "quest", "--kv", "2 pages"]
    options += ["--set", "page=4", "--set", "dense_layers=0", "--sample", "temperature=2.0", "--seed", "3"]
    texts = []
    for name in ("a", "b"):
        done = ask(capsys, "generate", finished, *options, "--out", tmp_path / name)
        assert done.code == 0, done.err
        texts.append((tmp_path / name).read_text())
    settings = json.loads(done.out)["settings"]
    assert (
        settings["cache"] == {"type": "quest", "page": 4, "dense_layers": 0} and settings["budget"]["kv"] == "2 pages"
    )
    assert settings["sampling"] == {"do_sample": True, "temperature": 2.0} and texts[0] == texts[1]


def test_a_curve_is_a_table_a_file_of_the_run_and_a_part_of_its_report(capsys, finished, prompts):
    options = ["--prompts", prompts, "--kv", "8,64", "--caches", "streaming,exact", "--answer", "6"]
    done = ask(capsys, "curve", finished, *options)
    assert done.code == 0, done.err
    record = json.loads((finished / "curve.json").read_text())
    rows = [line.split("│")[1:6] for line in done.out.splitlines() if line.startswith("│")]
    assert [(row[0].strip(), row[1].strip()) for row in rows] == [
        (cell["name"], cell["kv"] or "all") for cell in record["cells"]
    ]
    assert len(rows) == 5 and f"Curve: {finished / 'curve.json'}" in done.out
    held = (finished / "curve.json").read_bytes()
    (said,) = ask(capsys, "curve", finished, *options, "--json").out.splitlines()
    assert json.loads(said)["cells"] == record["cells"] and (finished / "curve.json").read_bytes() == held
    assert ask(capsys, "report", finished).code == 0
    assert "Answers against what is read of the cache" in (finished / "report.html").read_text("utf-8")


def test_a_profile_is_a_table_and_a_file_that_flexicache_reads(capsys, finished, prompts, tmp_path):
    out = tmp_path / "heads.json"
    long = written(tmp_path / "long.jsonl", [{"prompt": "copy " + "abcdefgh" * 7}])
    options = ["--prompts", long, "--out", out, "--pages", "4", "--page", "4", "--interval", "4", "--answer", "20"]
    done = ask(capsys, "profile", finished, *options)
    assert done.code == 0, done.err
    heads = json.loads(out.read_text())["heads"]
    assert f"{len(heads)} heads. Profile: {out}" in done.out and "The least stable heads" in done.out
    (said,) = ask(capsys, "profile", finished, *options, "--json").out.splitlines()
    assert json.loads(said)["heads"] == heads
    answers = ["--prompts", prompts, "--out", tmp_path / "a.jsonl", "--cache", "flexicache", "--kv", "2 pages"]
    answers += ["--answer", "20"]
    assert ask(capsys, "generate", finished, *answers, "--set", "page=4", "--set", f"profile={out}").code == 0


def recipe(file, model, prompts, **changed):
    values = {"model": str(model), "prompts": str(prompts), "inference": {"kv": 8, "answer": 6}, "cache": "streaming"}
    file.write_text(json.dumps(values | changed))
    return file


def test_a_plan_of_inference_says_what_answers_take_and_what_binds_first(capsys, finished, prompts, tmp_path):
    file = recipe(tmp_path / "serve.yaml", finished, prompts)
    done = ask(capsys, "plan", file)
    assert done.code == 0, done.err
    assert "4 prompts, each answered at full length" in done.out and "'inference.kv' binds first." in done.out
    (said,) = ask(capsys, "plan", file, "--json", "--set", "inference.answer=9").out.splitlines()
    planned = json.loads(said)
    assert planned["mean"]["answer"] == 9 and planned["binds"] == {"kv": 1, "answer": 9}
    ask(capsys, "plan", file, "--methods", "uniform").refuses("of comparisons")
    ask(capsys, "plan", file, "--set", "inferense.kv=3").refuses("'inferense'", "did you mean 'inference'")
    ask(capsys, "plan", file, "--set", "cache.page=3").refuses("'cache.page'", "sinks")
    ask(capsys, "train", file).refuses("one of inference", "apportion plan")


OUT = ["--out", "OUT"]
MISTAKES = [
    ("generate", [*OUT, "--kv", "0"], ["'inference.kv'", "more than zero"]),
    ("generate", [*OUT, "--kv", "12 byts"], ["'inference.kv'", "no unit 'byts'"]),
    ("generate", [*OUT, "--kv", "120%"], ["more than all cached tokens"]),
    ("generate", [*OUT, "--answer", "0"], ["'inference.answer'", "more than zero"]),
    ("generate", [*OUT, "--cache", "streaming", "--kv", "2 pages"], ["'streaming' has no pages"]),
    ("generate", [*OUT, "--cache", "streaming", "--kv", "3"], ["'streaming' keeps 4 first tokens"]),
    ("generate", [*OUT, "--cache", "flexicache", "--kv", "25%"], ["'flexicache'", "in tokens or pages"]),
    (
        "generate",
        [*OUT, "--cache", "quest", "--kv", "8", "--set", "dense_layers=9"],
        ["'quest' reads the first 9 layers whole", "'dense_layers'"],
    ),
    ("curve", [*OUT, "--kv", "8", "--caches", "quest", "--set", "dense_layer=0"], ["did you mean 'dense_layers'"]),
    ("generate", [*OUT, "--cache", "qest"], ["Unknown cache 'qest'", "did you mean 'quest'"]),
    ("generate", [*OUT, "--cache", "quest", "--set", "pages=3"], ["'cache.pages'", "did you mean 'page'"]),
    ("generate", [*OUT, "--cache", "quest", "--set", "page=0"], ["'cache.page'"]),
    ("generate", [*OUT, "--answer", "500"], ["'inference.answer' is 500", "128 positions"]),
    ("generate", [*OUT, "--answer", "120"], ["Prompt 1 has", "have room"]),
    ("generate", [*OUT, "--prompt", "3"], ["Prompt 1 has", "3 have room", "--over middle"]),
    ("generate", [*OUT, "--over", "midle"], ["'inference.over'", "midle"]),
    ("generate", [*OUT, "--sample", "temperatur=0.7"], ["no setting 'temperatur'", "did you mean 'temperature'"]),
    ("generate", [*OUT, "--sample", "max_new_tokens=7"], ["no setting 'max_new_tokens'"]),
    ("generate", [], ["--out"]),
    ("curve", [*OUT, "--kv", "8,0"], ["--kv 8,0", "more than zero"]),
    ("curve", [*OUT, "--kv", ","], ["at least one budget"]),
    ("curve", [*OUT, "--kv", "8", "--caches", "streaming,qest"], ["Unknown cache 'qest'"]),
    ("curve", [*OUT, "--kv", "1 pages", "--caches", "streaming"], ["'streaming' has no pages"]),
    ("profile", [*OUT, "--pages", "0"], ["--pages"]),
    ("profile", [*OUT], ["No prompt with its answer has more than 16 pages", "give longer prompts"]),
]


@pytest.mark.parametrize(("command", "options", "fragments"), MISTAKES, ids=lambda part: str(part)[:40])
def test_a_mistake_ends_in_a_sentence_and_writes_nothing(
    capsys, finished, prompts, tmp_path, command, options, fragments
):
    before, run_before = contents(tmp_path), contents(finished)
    given = [tmp_path / "out" if option == "OUT" else option for option in options]
    ask(capsys, command, finished, "--prompts", prompts, "--answer", "6", *given).refuses(*fragments)
    assert contents(tmp_path) == before and contents(finished) == run_before


def test_the_middle_of_a_long_prompt_is_cut_where_that_is_asked_for(capsys, finished, prompts, tmp_path):
    out = tmp_path / "out"
    options = ["--prompts", prompts, "--out", out, "--answer", "6", "--prompt", "3", "--over", "middle"]
    ask(capsys, "generate", finished, *options)
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert lines and all(line["tokens"]["prompt"] == 3 for line in lines)


def test_a_value_that_generation_refuses_ends_in_a_sentence(capsys, finished, prompts, tmp_path):
    options = ["--prompts", prompts, "--out", tmp_path / "out", "--answer", "6", "--sample", "temperature=-1"]
    ask(capsys, "generate", finished, *options).refuses("Generation refuses", "`temperature` (=-1)")
    assert not (tmp_path / "out").exists()


COMMANDS = {"generate": ["--answer", "6"], "curve": ["--kv", "8", "--answer", "6"], "profile": ["--answer", "6"]}
every = pytest.mark.parametrize("command", COMMANDS)


def asked(capsys, command, model, prompts, out):
    return ask(capsys, command, model, "--prompts", prompts, "--out", out, *COMMANDS[command])


@every
def test_a_run_that_cannot_answer_is_refused(capsys, finished, prompts, tmp_path, command):
    unfinished = run(tmp_path / "unfinished").path
    (unfinished / "summary.json").unlink()
    asked(capsys, command, unfinished, prompts, tmp_path / "out").refuses("is not finished", str(unfinished))
    asked(capsys, command, hyper(tmp_path / "tagi").path, prompts, tmp_path / "out").refuses("kind: tagi")
    (tmp_path / "empty").mkdir()
    asked(capsys, command, tmp_path / "empty", prompts, tmp_path / "out").refuses(str(tmp_path / "empty"))
    assert not (tmp_path / "out").exists()


@every
def test_prompts_that_are_none_are_refused(capsys, finished, tmp_path, command):
    file = tmp_path / "prompts.jsonl"
    asked(capsys, command, finished, file, tmp_path / "out").refuses("prompts.jsonl' cannot be read")
    file.write_text('{"promt": "a"}\n')
    asked(capsys, command, finished, file, tmp_path / "out").refuses("Line 1 of", "did you mean 'prompt'")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("held", ["mine\n", "[1]\n", '{"schema": 1}\n', ""])
@pytest.mark.parametrize("command", ["generate", "curve"])
def test_a_file_of_something_else_is_left_as_it_is(capsys, finished, prompts, tmp_path, command, held):
    out = tmp_path / "out"
    out.write_text(held)
    asked(capsys, command, finished, prompts, out).refuses(f"'{out}' is there already")
    assert out.read_text() == held


def timeless(file):
    """A curve's file without what a clock said; anything else as it is."""
    if file.suffix != ".json":
        return file.read_bytes()
    record = json.loads(file.read_text())
    for sums in [cell["sums"] for cell in record["cells"]]:
        for key in SECONDS:
            del sums[key]
    return record


@pytest.mark.parametrize(
    ("command", "name", "there"),
    [
        ("generate", "a.jsonl", lambda out: out.exists() and out.read_bytes().count(b"\n") >= 2),
        ("curve", "c.json", lambda out: out.exists() and out.read_text().count('"kv"') >= 2),
    ],
)
def test_killed_the_same_command_ends_as_never_killed(finished, tmp_path, command, name, there):
    many = written(tmp_path / "many.jsonl", [{"prompt": f"copy {'abcd' * (i % 5 + 1)}"} for i in range(24)])
    options = {"generate": ["--kv", "8", "--cache", "streaming"], "curve": ["--kv", "8,12,16"]}[command]
    options += ["--caches", "streaming,exact"] if command == "curve" else []
    whole, part = tmp_path / "whole" / name, tmp_path / "part" / name
    for out in (whole, part):
        out.parent.mkdir()
    started = [*COMMAND, command, str(finished), "--prompts", str(many), *options, "--answer", "24", "--json", "--out"]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*started, str(whole)], check=True, capture_output=True, env=one_thread)
    killed_when([*started, str(part)], lambda: there(part))
    assert timeless(part) != timeless(whole), "it ended before it was killed"
    subprocess.run([*started, str(part)], check=True, capture_output=True, env=one_thread)
    assert timeless(part) == timeless(whole)


def test_ctrl_c_ends_in_a_sentence_and_the_same_command_goes_on(finished, tmp_path):
    many = written(tmp_path / "many.jsonl", [{"prompt": f"copy {'abcd' * (i % 5 + 1)}"} for i in range(24)])
    (tmp_path / "answers").mkdir()
    out = tmp_path / "answers" / "a.jsonl"
    options = ["generate", finished, "--prompts", many, "--answer", "24", "--out", out]
    process = start(*options)
    wait_for(process, tmp_path / "answers", "a.jsonl")
    process.send_signal(signal.SIGINT)
    stopped = ended(process)
    assert stopped.code == 130 and "Traceback" not in stopped.err
    held = out.read_bytes()
    assert 0 < held.count(b"\n") < 24
    assert ended(start(*options)).code == 0
    assert out.read_bytes().startswith(held) and out.read_bytes().count(b"\n") == 24


def test_the_commands_load_nothing_heavy_for_a_mistake():
    code = (
        "import sys\nsys.argv = ['apportion', 'generate', 'x', '--prompts', 'p', '--out', 'o', '--kv', '0']\n"
        "from apportion.cli.main import main\ntry:\n    main()\n"
        "except SystemExit:\n    print('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
