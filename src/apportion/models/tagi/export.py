"""A generated adapter as a folder that plain PEFT loads."""

from __future__ import annotations

from pathlib import Path

from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor

from apportion._errors import ApportionError
from apportion.models.tagi.adapting import TagiModel
from apportion.models.tagi.slots import Factors


def adapter(model: TagiModel, instruction: Tensor) -> Factors:
    """Return the adapter for one instruction's token ids (s,): A (1, d_in, r) and B (1, r, d_out) by slot.

    Cost: a pass of the base model's encoder over the instruction, and the generator's products.
    """
    ids = instruction[None].to(model.pool.weight.device)
    return model.factors(model.reader.read(ids, ids.new_ones(ids.shape)).pooled)


def write_adapter(model: TagiModel, factors: Factors, base: str, out: Path) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors``.

    Args:
        model: The hypernetwork.
        factors: Of one task, as `adapter` returns.
        base: Name or folder of the base model.
        out: A folder that is not there yet, or is empty.

    Raises:
        ApportionError: The model reads instructions by other ways too, which no adapter holds, or the folder is taken.
    """
    ways = [name for name in ("fusion", "memory") if getattr(model.spec, name)]
    if ways:
        raise ApportionError(
            f"This hypernetwork also reads the instruction by {' and '.join(ways)}, which a LoRA adapter cannot hold: train "
            f"one with {' and '.join(f'kind.{way}: false' for way in ways)}."
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ApportionError(f"'{out}' is there already: choose another folder, or empty it.")
    out.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, (a, b) in factors.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = a[0].T.detach().contiguous().cpu()
        tensors[f"base_model.model.{name}.lora_B.weight"] = b[0].T.detach().contiguous().cpu()
    LoraConfig(
        task_type="SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM",
        r=model.spec.r,
        lora_alpha=model.spec.alpha,
        target_modules=sorted({slot.name.rpartition(".")[2] for slot in model.slots}),
        base_model_name_or_path=base,
        inference_mode=True,
    ).save_pretrained(str(out))
    save_file(tensors, str(out / "adapter_model.safetensors"), metadata={"format": "pt"})
