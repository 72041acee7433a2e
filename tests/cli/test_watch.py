"""`apportion report --watch` as a process: it says where it is, answers, and ends with Ctrl-C."""

import re
import signal
import urllib.request

from tests.cli.command import ask, ended, start


def test_it_says_where_it_is_and_ends_with_ctrl_c(tmp_path):
    process = start("report", tmp_path / "runs", "--watch", "--port", "0")
    address = re.fullmatch(r"Report: (http://127\.0\.0\.1:\d+/)\n", process.stdout.readline())[1]
    with urllib.request.urlopen(address) as answer:
        assert "Waiting for the first run" in answer.read().decode()
    process.send_signal(signal.SIGINT)
    end = ended(process)
    assert end.code == 130 and end.err == "apportion: stopped.\n"
    assert not (tmp_path / "runs").exists()


def test_a_port_goes_with_watching_and_a_file_does_not(tmp_path, capsys):
    ask(capsys, "report", tmp_path, "--port", "80").refuses("'--port' goes with '--watch'")
    ask(capsys, "report", tmp_path, "--watch", "--out", tmp_path / "a.html").refuses("writes no file")
    ask(capsys, "report", tmp_path, "--watch", "--port", "70000").refuses("0 to 65,535")
