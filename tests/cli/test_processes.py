"""What only a process shows: Ctrl-C, two on one folder, a disk that is full; and that the same command then goes on."""

import json
import resource
import signal
import subprocess
import sys

import pytest

from apportion.training.checkpoint import newest_checkpoint
from tests.cli.command import ask, contents, ended, start, wait_for

STOPPED = "apportion: stopped. The same command goes on from the last checkpoint.\n"


@pytest.fixture(autouse=True)
def warm(capsys, recipe):
    """Data is in the cache and this process has torch: what is asked while a child runs is answered at once."""
    assert ask(capsys, "plan", recipe, "--json").code == 0


def interrupt(process):
    process.send_signal(signal.SIGINT)
    asked = ended(process)
    assert asked.code == 130, (asked.code, asked.err)
    assert asked.err.endswith(STOPPED) and "Traceback" not in asked.err
    return asked


def limit(size):
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def history(out):
    return [json.loads(line) for line in (out / "history.jsonl").read_text("utf-8").splitlines()]


def whole(out):
    """The run is finished, and its history has no gap and no step twice."""
    steps = [record["step"] for record in history(out)]
    assert (out / "summary.json").is_file()
    assert steps == sorted(set(steps))
    spent = json.loads((out / "ledger.json").read_text())["accounts"]["train"]["supervised"]
    assert history(out)[-1]["spent"]["train"]["supervised"] == spent
    return True


def test_one_folder_one_run_and_ctrl_c_goes_on(capsys, recipe, tmp_path):
    out = tmp_path / "run"
    command = ("train", recipe, "--set", "budget=12k", "--set", "validation.every=5%", "--out", out)
    first = start(*command, "--json")
    wait_for(first, out, "checkpoints/step-*")
    ask(capsys, *command).refuses("is in use by another live run")
    asked = interrupt(first)
    assert asked.out == ""
    reached = history(out)[-1]["step"]
    assert not (out / "summary.json").exists() and reached > 0
    goes_on = ask(capsys, *command, "--json")
    assert goes_on.code == 0, goes_on.err
    assert whole(out) and history(out)[-1]["step"] > reached


def test_ctrl_c_in_a_comparison_keeps_what_is_finished(capsys, recipe, tmp_path):
    out = tmp_path / "compared"
    changes = ("--set", "budget=6k", "--set", "validation.every=10%")
    command = ("compare", recipe, "--methods", "uniform,proportional", *changes, "--out", out, "--json")
    process = start(*command)
    wait_for(process, out, "proportional/seed-0/checkpoints/step-*")
    interrupt(process)
    first = out / "uniform" / "seed-0"
    before = (first / "summary.json").stat().st_mtime_ns, (first / "ledger.json").read_bytes()
    assert not (out / "proportional" / "seed-0" / "summary.json").exists()
    asked = ask(capsys, *command)
    assert asked.code == 0, asked.err
    assert before == ((first / "summary.json").stat().st_mtime_ns, (first / "ledger.json").read_bytes())
    assert whole(out / "proportional" / "seed-0")
    assert set(json.loads(asked.out)["arms"]) == {"uniform", "proportional"}


@pytest.mark.parametrize(("every", "what"), [("10%", "step-"), ("45%", "history.jsonl")])
def test_a_write_that_fails_leaves_earlier_checkpoints_and_the_run_goes_on(capsys, recipe, tmp_path, every, what):
    # A limit on the size of a file stands in for a full disk: writes fall short in the same way. Trainer's own state grows
    # with the history and is a little larger: it meets the limit first where checkpoints are many.
    out = tmp_path / "run"
    command = ("train", recipe, "--set", "budget=4k", "--set", f"validation.every={every}", "--out", out, "--json")
    ended(start(*command, before=limit(45_000))).refuses(what, "could not be written: File too large")
    kept = contents(out / "checkpoints")
    assert kept and not any("tmp" in name for name in kept) and not (out / "summary.json").exists()
    assert newest_checkpoint(out / "checkpoints")
    assert (out / "history.jsonl").read_bytes().endswith(b"}\n")
    asked = ask(capsys, *command)
    assert asked.code == 0, asked.err
    assert whole(out)


@pytest.mark.parametrize("command", ["train", "tasks"])
def test_the_message_of_ctrl_c_promises_only_what_is_so(capsys, monkeypatch, recipe, command):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("apportion.plans.run.run_recipe", stop)
    monkeypatch.setattr("apportion.tasks.encoding.load_encoded", stop)
    monkeypatch.setattr("apportion.tasks.load_encoded", stop, raising=False)
    asked = ask(capsys, command, recipe if command == "train" else "playground", "--json")
    assert asked.code == 130
    assert asked.err == (STOPPED if command == "train" else "apportion: stopped.\n")


COMPILED = """
import hashlib
from apportion.cli import main
def app(*_, **__):
    while True:
        try:
            print("begun", flush=True)
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # half an hour in C, deaf to signals
        except KeyboardInterrupt:
            pass  # it came before the loop did
main.app = app
main.main()
"""


def test_ctrl_c_ends_a_command_that_is_inside_a_compiled_loop():
    command = [sys.executable, "-c", COMPILED, "train"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        asked = interrupt(process)
    finally:
        process.kill()
    assert asked.err == STOPPED
