"""A disk that fills up while a run writes: one sentence, nothing lost, and the same command goes on."""

import gc
import os
import subprocess

import pytest

from apportion.runs.atomic import is_write_error, write_error
from tests.cli.command import ask
from tests.cli.test_processes import history


@pytest.fixture
def disk(tmp_path):
    """Return what mounts a small disk, or gives the mounted one another size; mounting is root's right."""
    if os.geteuid():
        pytest.skip("only root may mount a disk")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = []

    def mount(size):
        options = ("remount," if mounted else "") + f"size={size}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
        mounted.append(size)
        return place

    yield mount
    gc.collect()
    if mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("size", ["4k", "12k", "108k", "168k"])
def test_a_disk_that_fills_up_while_training(capsys, recipe, tmp_path, disk, size):
    # 108 and 168 kB end within the tokenizer of a checkpoint, whose library raises a bare Exception.
    out = disk(size) / "run"
    command = ("train", recipe, "--set", "budget=500", "--json", "--out")
    ask(capsys, *command, out).refuses("The disk is full", "could not be written. Free some space and start again")
    disk("4m")
    for place in (out, tmp_path / "undisturbed"):
        assert ask(capsys, *command, place).code == 0
    assert [{**line, "seconds": 0} for line in history(out)] == [
        {**line, "seconds": 0} for line in history(tmp_path / "undisturbed")
    ]


def test_a_disk_that_fills_up_while_exporting(capsys, recipe, tmp_path, disk):
    assert ask(capsys, "train", recipe, "--json", "--out", tmp_path / "run").code == 0
    out = disk("8k") / "out"
    command = ("export", tmp_path / "run", "--to", "trl", "--out", out)
    ask(capsys, *command).refuses("The disk is full", "could not be written")
    assert list(out.parent.iterdir()) == []
    disk("4m")
    assert ask(capsys, *command).code == 0 and (out / "sft.yaml").is_file()


def test_what_libraries_raise_of_a_full_disk():
    rust = Exception("No space left on device (os error 28)")
    assert is_write_error(rust) and "The disk is full" in str(write_error(os.devnull, rust))
    assert not is_write_error(TypeError("a mistake of ours"))
