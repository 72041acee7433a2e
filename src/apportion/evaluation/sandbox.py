"""Runs code that a model wrote, apart: no network, nothing to write to but a small folder in memory, little time.

Linux alone can do it without a second program: a process gives up its view of the network, of other processes and of the
disk for good (``namespaces(7)``), and then runs the code in a process of its own under limits. Where a machine does not
allow that, nothing is run.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
import tempfile
from functools import cache

from apportion._errors import ApportionError

SECONDS = 5.0
MEGABYTES = 1024

# Stays in front of the code, keeps what that prints to itself, and writes the word that tells that the end was reached.
_RUNNER = """
import os, sys
told, word = os.dup(1), sys.stdin.readline().strip()
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
exec(compile(sys.stdin.read(), "answer", "exec"), {})
os.write(told, word.encode())
"""

# Becomes the process that the code runs in. What it may not do any more, nothing that it starts may do either.
_APART = """
import ctypes, os, resource, signal, sys
seconds, megabytes, folder, runner = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode(), sys.argv[4]
libc = ctypes.CDLL(None, use_errno=True)
USER, NET, PROCESSES, MOUNTS, IPC = 0x10000000, 0x40000000, 0x20000000, 0x00020000, 0x08000000
RECURSIVE, PRIVATE, READ_ONLY = 0x4000, 1 << 18, 1

def made(result):
    if result != 0:
        sys.exit(3)

user, group = os.getuid(), os.getgid()
made(libc.unshare(USER | NET | PROCESSES | MOUNTS | IPC))
for name, text in (("setgroups", "deny"), ("uid_map", f"1000 {user} 1"), ("gid_map", f"1000 {group} 1")):
    with open(f"/proc/self/{name}", "w") as file:
        file.write(text)
made(libc.mount(b"none", b"/", None, RECURSIVE | PRIVATE, None))
attributes = (ctypes.c_uint64 * 4)(READ_ONLY, 0, 0, 0)
made(libc.syscall(442, -100, b"/", 0x8000, ctypes.byref(attributes), ctypes.c_size_t(32)))  # mount_setattr
made(libc.mount(b"none", folder, b"tmpfs", 0, b"size=16m"))
made(libc.mount(b"none", b"/proc", b"tmpfs", READ_ONLY, None))
os.chdir(folder)
# The first of its processes, with which all end, and the one that runs the code: the first would not heed signals.
for _ in range(2):
    child = os.fork()
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) and 1)
    libc.prctl(1, signal.SIGKILL)  # with its parent
libc.prctl(38, 1, 0, 0, 0)  # no new privileges
megabyte = 1 << 20
for limit, most in (
    (resource.RLIMIT_CPU, seconds),
    (resource.RLIMIT_AS, megabytes * megabyte),
    (resource.RLIMIT_FSIZE, megabyte),
    (resource.RLIMIT_NOFILE, 64),
    (resource.RLIMIT_NPROC, 64),
    (resource.RLIMIT_CORE, 0),
):
    resource.setrlimit(limit, (most, most))
os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", runner], {"LANG": "C.UTF-8"})
"""


def passes(program: str, seconds: float = SECONDS, megabytes: int = MEGABYTES) -> bool:
    """Return whether a Python program comes to its end without an error, apart from this process and within limits.

    Args:
        program: Its text; the standard library is all that it can import.
        seconds: Of wall-clock time and of the processor's.
        megabytes: Of memory.

    Raises:
        ApportionError: This machine cannot set it apart; nothing was run.
    """
    check()
    word = secrets.token_hex(16)
    done = _run(f"{word}\n{program}", seconds, megabytes)
    return done is not None and done.returncode == 0 and done.stdout == word


@cache
def check() -> None:
    """Find out whether this machine can set a program apart.

    Raises:
        ApportionError: It cannot.
    """
    done = _run("word\npass", 20.0, MEGABYTES) if sys.platform == "linux" else None
    if done is None or done.returncode != 0 or done.stdout != "word":
        raise ApportionError(
            "Generated code is not run here: this machine does not let a process give up the network and the disk "
            "(it takes Linux 5.12 or newer with user namespaces). Leave 'run_code' out, or use another machine."
        )


def _run(text: str, seconds: float, megabytes: int) -> subprocess.CompletedProcess[str] | None:
    with tempfile.TemporaryDirectory() as folder:
        limits = [str(max(1, round(seconds))), str(megabytes)]
        try:
            return subprocess.run(
                [sys.executable, "-I", "-c", _APART, *limits, folder, _RUNNER],
                input=text,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=seconds + 1,
                encoding="utf-8",
                errors="replace",
                check=False,
                env={"LANG": "C.UTF-8"},
            )
        except subprocess.TimeoutExpired:
            return None
