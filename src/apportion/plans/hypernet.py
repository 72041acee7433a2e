"""A finished run's hypernetwork, loaded again."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from transformers import PreTrainedTokenizerBase

from apportion._errors import ApportionError
from apportion.models.loading import load_tokenizer
from apportion.models.specs import ModelSpec
from apportion.models.tagi.adapting import TagiModel
from apportion.models.tagi.building import load_trained
from apportion.models.tagi.kind import Tagi
from apportion.plans.recipe import parse_recipe, read_yaml


def load_hypernet(run: Path) -> tuple[TagiModel, PreTrainedTokenizerBase, str]:
    """Return a finished run's hypernetwork in evaluation mode, its tokenizer, and the name or folder of its base model.

    Raises:
        ApportionError: The folder holds no finished run of a hypernetwork.
    """
    if not (run / "recipe.yaml").is_file():
        raise ApportionError(f"'{run}' is no run folder: give the folder that 'apportion train' wrote.")
    recipe = parse_recipe(read_yaml(run / "recipe.yaml"))
    if recipe.kind["type"] != "tagi":
        raise ApportionError(f"The run '{run}' trained no hypernetwork: its recipe's 'kind' is {recipe.kind['type']}.")
    if not (run / "summary.json").is_file():
        raise ApportionError(f"The run '{run}' is not finished: the same command that began it goes on with it.")
    tokenizer = load_tokenizer(ModelSpec(name=str(run / "model")), recipe.tasks)
    return load_trained(cast("Tagi", recipe.model_kind()), recipe, tokenizer, run / "model")
