"""The command line as a user meets it: in this process where only its words matter, as a child where the process does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from apportion.cli.main import main

RECIPE = """
model:
  config: {model_type: llama, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2,
           num_key_value_heads: 2, max_position_embeddings: 128, tie_word_embeddings: true}
  tokenizer: {train: character}
tasks: {source: playground, scale: 0.02, max_length: 96}
budget: 400
mixture: {type: uniform}
validation: {every: 25%, examples_per_task: 2}
training: {learning_rate: 2.0e-3, per_device_train_batch_size: 8, per_device_eval_batch_size: 64}
seed: 0
"""


class Asked:
    """How a command ended: exit code, stdout, stderr."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def refuses(self, *fragments: str) -> None:
        """Hold the command to one sentence on stderr that says all of this, and exit code 2."""
        assert self.code == 2, self.err
        assert "Traceback" not in self.err and self.out == ""
        assert self.err.startswith("apportion: ") and self.err.count("\n") == 1, self.err
        for fragment in fragments:
            assert fragment in self.err, self.err


def ask(capsys: pytest.CaptureFixture[str], *arguments: object) -> Asked:
    """Run the command in this process."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", ["apportion", *map(str, arguments)])
        main()
    return Asked(int(end.value.code or 0), *capsys.readouterr())


def start(*arguments: object, before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    """Start the command as a child of its own; ``before`` runs in the child."""

    def in_child() -> None:
        # A test run started in the background ignores Ctrl-C, and its children would inherit that.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if before is not None:
            before()

    return subprocess.Popen(
        [Path(sys.executable).with_name("apportion"), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=in_child,  # noqa: PLW1509 - a limit can only be set there; no thread is started before exec
    )


def ended(process: subprocess.Popen[str]) -> Asked:
    """Wait for a child."""
    out, err = process.communicate(timeout=120)
    return Asked(process.returncode, out, err)


def wait_for(process: subprocess.Popen[str], folder: Path, pattern: str) -> None:
    """Wait until the child has written something that matches."""
    while not any(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, byte for byte."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
