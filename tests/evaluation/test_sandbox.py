"""What a model wrote runs apart: it can compute and fail, and reach nothing."""

import contextlib
import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from apportion._errors import ApportionError
from apportion.evaluation import sandbox
from apportion.evaluation.local import code
from apportion.evaluation.sandbox import passes

# Enough to show that a limit holds; two processor cores may have other work.
SHORT = 1


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("assert sum(range(5)) == 10", True),
        ("import math, json, re\nassert math.gcd(4, 6) == 2", True),
        ("assert 'é' == '\\u00e9'", True),
        ("open('note.txt', 'w').write('x')\nassert open('note.txt').read() == 'x'", True),
        ("assert sum(range(5)) == 11", False),
        ("def f(:", False),
        ("print('x' * 10_000_000)", True),
    ],
)
def test_a_program_passes_if_it_comes_to_its_end(program, expected):
    assert passes(program) is expected


@pytest.mark.parametrize(
    "program",
    ["import os\nos._exit(0)", "import sys\nsys.exit(0)", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"],
)
def test_leaving_early_is_not_passing(program):
    assert not passes(program)


def test_it_reaches_no_network():
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(3)

        def listen():
            with contextlib.suppress(TimeoutError):
                heard.append(server.accept())

        listener = threading.Thread(target=listen)
        listener.start()
        port = server.getsockname()[1]
        program = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=1)"
        assert not passes(program)
        exec(program, {})  # which is no wonder only because it works outside
        listener.join()
    assert len(heard) == 1


@pytest.mark.parametrize("how", ["open({!r}, 'w')", "import os\nos.remove({!r})", "import os\nos.rename({!r}, 'x')"])
def test_it_writes_and_deletes_nothing_of_the_users(tmp_path, how):
    file = tmp_path / "mine.txt"
    file.write_text("mine")
    assert not passes(how.format(str(file)))
    assert file.read_text() == "mine" and list(tmp_path.iterdir()) == [file]


def test_it_sees_neither_the_environment_nor_other_processes(monkeypatch):
    monkeypatch.setenv("TOKEN", "secret")
    assert passes("import os\nassert 'TOKEN' not in os.environ and not os.listdir('/proc')")
    assert not passes(f"import os\nos.kill({os.getpid()}, 0)")


@pytest.mark.parametrize(
    "program",
    [
        "while True: pass",
        "import time\ntime.sleep(60)",
        "x = 'a' * (1 << 31)",
        "open('big', 'w').write('a' * (1 << 22))",
        "files = [open('f', 'w') for _ in range(100)]",
        "for i in range(40): open(str(i), 'w').write('a' * (1 << 20))",
    ],
)
def test_time_memory_and_files_are_bounded(program):
    assert not passes(program, seconds=SHORT)


def test_what_it_starts_ends_with_it():
    assert not passes("import os, time\nfor _ in range(4): os.fork()\ntime.sleep(3333)", seconds=SHORT)
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "3333" not in running


def test_its_rights_cannot_be_had_back():
    """Neither by mounting again, nor from within namespaces of its own."""
    again = "import ctypes\nlibc = ctypes.CDLL(None)\n{}assert libc.mount(b'none', b'/', None, 32 | 4096, None) == 0"
    assert not passes(again.format(""))
    assert not passes(again.format("assert libc.unshare(0x10000000 | 0x20000) == 0\n"))


def test_where_it_cannot_be_set_apart_nothing_is_run(monkeypatch, tmp_path):
    monkeypatch.setattr(sandbox, "_APART", "import sys\nsys.exit(3)")
    sandbox.check.cache_clear()
    try:
        with pytest.raises(ApportionError, match="Generated code is not run here"):
            passes(f"open({str(tmp_path / 'x')!r}, 'w')")
    finally:
        sandbox.check.cache_clear()
    assert not list(tmp_path.iterdir())


DOC = {
    "prompt": "def twice(x):\n",
    "test": "def check(f):\n    assert f(2) == 4\n",
    "entry_point": "twice",
}


@pytest.mark.parametrize(("body", "score"), [("    return 2 * x\n", 1.0), ("    return x\n", 0.0), ("    retur", 0.0)])
def test_humaneval_runs_the_body_with_its_tests(body, score):
    assert code.humaneval(DOC, [body]) == {"pass_at_1": score}


@pytest.mark.parametrize(("answer", "score"), [("def f(x): return x + 1", 1.0), ("def f(x): return x", 0.0), ("", 0.0)])
def test_mbpp_runs_the_answer_with_its_tests(answer, score):
    doc = {"test_setup_code": "one = 1", "test_list": ["assert f(1) == 2", "assert f(one) == 2"]}
    assert code.mbpp(doc, [answer]) == {"pass_at_1": score}


def test_no_folder_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert passes("open('x', 'w').write('x')") and not passes("while True: pass", seconds=SHORT)
    assert not list(Path(tmp_path).iterdir())
