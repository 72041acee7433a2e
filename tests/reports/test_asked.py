"""A report says what was asked for: here, which model and what of it."""

import pytest

from apportion.reports.asked import model_text, toward


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ({}, "base, 1.47M parameters, all trained"),
        ({"lora": {"r": 8}}, "base, 1.47M parameters, LoRA, 617k trained (r 8)"),
        (
            {
                "kind": {
                    "type": "tagi",
                    "stage": "finetune",
                    "head": "per_layer",
                    "r": 8,
                    "base": "frozen",
                    "kl": 5.0,
                }
            },
            "base, 1.47M parameters, tagi, 617k trained (stage finetune, head per_layer, r 8, base frozen, kl 5.0)",
        ),
    ],
)
def test_what_is_trained_is_said(blocks, said):
    summary = {"parameters": {"total": 1_473_216, "trainable": 617_280}}
    assert model_text({"model": {"name": "base"}} | blocks, summary) == said


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({}, ""),
        ({"objective": {"type": "mean"}}, "mean of all tasks alike"),
        (
            {"objective": {"type": "worst", "tau": 0.3}, "targets": {"tasks": {"a": 4.0, "b": 1.0}}},
            "worst (tau 0.3) of the targets a (4), b (1)",
        ),
    ],
)
def test_what_was_steered_toward_is_said(recipe, said):
    assert toward(recipe) == said
