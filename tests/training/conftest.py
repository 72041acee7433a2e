"""Bases of hypernetworks: two runs, made once."""

from __future__ import annotations

import pytest

from tests.training.hypernets import T5, hyper, on
from tests.training.runs import run

BRIEF = ("tasks.names=[copy, reverse, upper]", "model.config.attention_dropout=0.1", "budget=600")


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    """A recipe of a hypernetwork on a small trained Llama."""
    return on(run(tmp_path_factory.mktemp("llama") / "run", *BRIEF).path / "model")


@pytest.fixture(scope="session")
def t5(tmp_path_factory):
    """A recipe of a hypernetwork on a small trained T5."""
    folder = hyper(tmp_path_factory.mktemp("t5") / "run", T5).path / "model"
    return on(folder, folder / "base")
