"""A recipe's hypernetwork, put together to be trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftConfig
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedTokenizerBase, set_seed

from apportion._errors import ApportionError
from apportion.models._kind import Asked
from apportion.models.causal import BASE
from apportion.models.loading import build_model, load_model, model_config, quietly
from apportion.models.specs import ModelSpec
from apportion.models.tagi.adapting import TagiModel, check_base
from apportion.models.tagi.kind import Tagi
from apportion.models.tagi.teachers import groups_of
from apportion.tasks import EncodedCollection
from apportion.tasks.encoder import Encoder
from apportion.tasks.files import expand

WEIGHTS = "model.safetensors"


def limit_of(config: Any) -> int | None:  # noqa: ANN401
    """Return how many tokens the encoder that reads instructions takes, None where there is no limit."""
    # T5's positions are relative: the n_positions in its published configs bind nothing.
    limit: int | None = getattr(config, "max_position_embeddings", None)
    return limit


def encode_instructions(
    texts: Mapping[str, str],
    tokenizer: PreTrainedTokenizerBase,
    config: Any,  # noqa: ANN401
) -> list[Tensor]:
    """Return each task's instruction as token ids, (s,), with an encoder-decoder's end token behind them.

    Raises:
        ApportionError: One is empty, or longer than the encoder takes.
    """
    limit = limit_of(config)
    encoder = Encoder(tokenizer, limit or 1)  # the length is for examples; instructions are never cut
    found = []
    for name, text in texts.items():
        if not text.strip():
            raise ApportionError(f"The instruction of {name} is empty: say what the task asks for.")
        ids = encoder.instruction(text.strip())
        if config.is_encoder_decoder:  # its encoder was pretrained on texts that end so
            ids = np.append(ids, config.eos_token_id)
        if limit is not None and len(ids) > limit:
            raise ApportionError(
                f"The instruction of {name} has {len(ids):,} tokens but the model's encoder takes {limit:,}: shorten it."
            )
        found.append(torch.from_numpy(ids.astype(np.int64)))
    return found


def build(
    spec: Tagi, asked: Asked, tasks: EncodedCollection, tokenizer: PreTrainedTokenizerBase, *, meta: bool
) -> TagiModel:
    """Build or load base model, hypernetwork and teacher; on the meta device only their shapes.

    Raises:
        ApportionError: An unsupported base, an instruction or example it cannot take, or a start or teacher that does not
            load.
    """
    config = model_config(asked.model, tokenizer)
    check_base(config, spec)
    instructions = []
    if spec.stage == "finetune":
        named = {f"task '{task.name}'": task.instruction for task in tasks}
        instructions = encode_instructions(named, tokenizer, config)
        _check_room(spec, config, instructions, tasks)
    base = build_model(asked.model, tokenizer, lora=None, seed=asked.seed, meta=meta, encoder_decoder=True)
    teacher = None
    if spec.distils and spec.teacher != "self":
        teacher = _load_teacher(spec.teacher, config, meta=meta)
    set_seed(asked.seed)
    with torch.device("meta" if meta else "cpu"):
        model = TagiModel(base, spec, instructions, teacher=teacher)
    if spec.start is not None:
        _start(model, spec.start, meta=meta)
    if meta and spec.teachers is not None:
        # Nothing is aligned with these: they have the shapes that a step's price follows from.
        shape = {s.name: (torch.empty(s.d_in, spec.r), torch.empty(spec.r, s.d_out)) for s in model.slots}
        groups = groups_of(spec.teachers, tasks.names)
        model.distiller.targets = {tasks.names.index(name): shape for names in groups.values() for name in names}
    return model


def _check_room(spec: Tagi, config: Any, instructions: list[Tensor], tasks: EncodedCollection) -> None:  # noqa: ANN401
    limit = limit_of(config)
    if limit is None or not spec.distils:
        return
    for task, ids in zip(tasks, instructions, strict=True):
        longest = max(int(split.processed.max()) for split in (task.train, task.validation) if len(split))
        if len(ids) + longest > limit:
            raise ApportionError(
                f"A teacher reads an example of task '{task.name}' behind its instruction, {len(ids):,} + {longest:,} "
                f"tokens, but the model takes {limit:,}: lower 'tasks.max_length', or set 'kind.kl: 0'."
            )


def _load_teacher(place: str, config: Any, *, meta: bool) -> nn.Module:  # noqa: ANN401
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    name, folder = place, expand(place)
    try:
        if (folder / "adapter_config.json").is_file():
            name = str(PeftConfig.from_pretrained(str(folder)).base_model_name_or_path)
        its = model_config(ModelSpec(name=name), None)
    except ApportionError as error:
        raise ApportionError(f"'kind.teacher' is '{place}': {error}") from None
    if (its.vocab_size, its.is_encoder_decoder) != (config.vocab_size, config.is_encoder_decoder):
        raise ApportionError(
            f"'kind.teacher' is a {its.model_type} of {its.vocab_size:,} tokens, the base a {config.model_type} of "
            f"{config.vocab_size:,}: a teacher needs the base model's vocabulary, and an encoder where it has one."
        )
    if not meta:
        return load_model(kind, place, "teacher")
    # Shapes are enough to price it; an adapter's are its base model's, to within what the adapter adds.
    with torch.device("meta"):
        shapes: nn.Module = kind.from_config(its)
    return shapes


def _start(model: TagiModel, place: str, *, meta: bool) -> None:
    """Load the weights of a finished hypernetwork into this one, of the same shapes."""
    file = expand(place) / "model" / WEIGHTS
    if not file.is_file():
        raise ApportionError(f"'kind.start' names '{place}', which is no finished run of a hypernetwork.")
    found = load_file(str(file))
    known = dict(model.named_parameters())
    # The base model is loaded already; of the hypernetwork, everything must be there.
    for name in [*found, *(name for name in known if not name.startswith("base."))]:
        if name not in known or name not in found or known[name].shape != found[name].shape:
            raise ApportionError(
                f"'kind.start': '{place}' does not have {name} in this one's shape: its 'kind' block and model must "
                "agree with this one's."
            )
    if not meta:
        model.load_state_dict(found, strict=False)


def save_base(model: TagiModel, tokenizer: PreTrainedTokenizerBase, asked: Asked, folder: Path) -> None:
    """Save base model and tokenizer beside the hypernetwork where the base may not be the named one, unchanged."""
    if not model.spec.frozen or asked.model.name is None or model.spec.start is not None:
        with quietly():
            model.base.save_pretrained(folder / BASE)
        tokenizer.save_pretrained(folder / BASE)


def load_trained(
    spec: Tagi, asked: Asked, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> tuple[TagiModel, PreTrainedTokenizerBase, str]:
    """Return the hypernetwork that was saved into ``folder``, in evaluation mode, and its base's name or folder.

    Raises:
        ApportionError: It does not load.
    """
    place = str(asked.model.name)
    for its in (expand(place), folder / BASE):  # an adapter names its base so that it is found from anywhere
        place = str(its.absolute()) if its.is_dir() else place
    named = asked.model.model_copy(update={"name": place, "config": None})
    base = build_model(named, tokenizer, lora=None, seed=asked.seed, encoder_decoder=True)
    model = TagiModel(base, spec, [])
    try:
        model.load_state_dict(load_file(str(folder / WEIGHTS)))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ApportionError(f"The hypernetwork in '{folder}' does not load: {str(error).splitlines()[0]}") from None
    return model.eval(), tokenizer, place
