"""Shares as a table and as a block to paste."""

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apportion._yaml import load_yaml
from apportion.exports.shares import TaskShare, cell, fixed_block, shares_of, table
from apportion.mixtures import MIXTURES
from apportion.mixtures._mixture import TaskSizes
from tests.exports.handed import DRAWN, shares


def built(block):
    return MIXTURES.build(load_yaml(block, "The block")["mixture"])


# Without line breaks, which no name of a file or a category has.
NAMES = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=12)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(NAMES, st.integers(0, 10**6), min_size=1, max_size=24).filter(lambda drawn: any(drawn.values())))
def test_the_pasted_block_is_a_mixture_that_gives_these_shares(drawn):
    names, total = list(drawn), sum(drawn.values())
    found = tuple(TaskShare(name, 1, count / total, 0.0, 0, 0.0) for name, count in drawn.items())
    mixture = built(fixed_block(found))
    assert mixture.findings() == ()
    ones = torch.ones(len(names), dtype=torch.float64)
    p = mixture.proportions(mixture.init(TaskSizes(tuple(names), ones, ones, ones)))
    assert p.tolist() == pytest.approx([share.tokens for share in found], abs=1e-4)
    assert mixture.unit == "tokens"


def test_the_block_keeps_a_cap_and_is_read_by_older_yaml_too():
    block = fixed_block(shares(), 4.0)
    assert built(block).max_epochs == 4.0 and built(fixed_block(shares())).max_epochs is None
    assert yaml.safe_load(block)["mixture"]["shares"].keys() == DRAWN.keys()


def test_shares_are_those_of_the_record():
    record = {
        "final": {"a": 0.5, "b": 0.5},
        "token_averaged": {"a": 0.75, "b": 0.25},
        "tasks": {
            "a": {"supervised": 75, "examples": 10, "epochs": 0.5, "size": 150, "weight": 0.4},
            "b": {"supervised": 25, "examples": 30, "epochs": 3.0, "size": 9, "weight": None},
        },
    }
    a, b = shares_of(record)
    assert (a.tokens, a.rows, a.examples, a.size, a.weight) == (0.75, 0.25, 10, 150, 0.4)
    assert (b.tokens, b.rows, b.epochs, b.weight) == (0.25, 0.75, 3.0, None)
    text = table((a, b))
    assert "| a | 150 | 75.00% | 25.00% | 10 | 0.50 | 0.400 |" in text
    assert "| b | 9 | 25.00% | 75.00% | 30 | 3.00 |  |" in text


def test_a_cell_shows_any_name_as_it_is():
    assert cell("a|b\n`c` <i> & [x]_*") == r"a\|b \`c\` &lt;i> &amp; \[x\]\_\*"
