"""What a pass costs, in FLOPs: the one place where the ledger's arithmetic is written down.

Convention. A multiply-add counts 2. Counted: every matrix product of the model (linear layers, LoRA, the output head,
both products of attention). Not counted: embedding look-ups, norms, activations, rotary, residuals (some 20 d a layer
and token beside 24 d^2: under 0.1 % at a hidden size d of 1,000), softmax (5 / (4 * head size) of attention: 1-2 % of
it), the loss, and the optimizer (some 15 a weight and step, beside 6 a weight and token).
Attention is counted as the full square, as eager attention and torch's flop counter do, sliding windows included:
4 d a layer forward for each of length^2 pairs, d = heads * head size. A causal kernel does half of that, a windowed one
less. Tokens are positions really processed; padding is a column of its own in the ledger and is not priced.

For N matmul parameters in use (head in, look-ups out) and short texts this gives, a token: forward 2N, full training
step 6N, LoRA step about 4N + 6 N_lora, recomputed activations up to 2N more (layers only), in_run read 2 N_trainable.

References: Kaplan et al. 2020 (arXiv 2001.08361), section 2.1, for 2N and 6N. Torch's flop counter agrees to rounding
on Llama, Qwen3 and Gemma 3, full and LoRA, with and without checkpointing (``tests/budget/test_flops.py`` holds 2 %).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle
from transformers import PretrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from apportion._errors import ApportionError
from apportion.budget.prices import Cost, Work

_LENGTHS = (4, 8)
# Each product by the position of its first operand.
_PRODUCTS: dict[Callable[..., Any], int] = {
    **dict.fromkeys((functional.linear, torch.matmul, torch.mm, torch.bmm), 0),
    **dict.fromkeys((Tensor.matmul, Tensor.__matmul__, Tensor.mm, Tensor.bmm), 0),
    **dict.fromkeys((torch.addmm, torch.baddbmm), 1),
}
# What torch raises where the shapes of a model, made of any config, do not go together.
_FAILURES = (RuntimeError, ValueError, TypeError, ArithmeticError, AssertionError, LookupError, AttributeError)
_UNPRICED = (torch.einsum, functional.conv1d, functional.conv2d, functional.bilinear, torch.tensordot)


class _Line(NamedTuple):
    """A cost of one text: ``token`` for each of its positions, ``pair`` for each of its length^2 pairs."""

    token: float
    pair: float

    def at(self, work: Work) -> float:
        return float(self.token * work.tokens + self.pair * work.pairs)


@dataclass(frozen=True)
class ModelFlops:
    """FLOPs of one model's passes, exact in tokens and pairs.

    Backward is structural: each product costs once more for each operand that needs a gradient, so frozen weights cost
    no weight gradient, and the first layer under frozen embeddings no input gradient.
    """

    itemised: ClassVar[bool] = False

    forward_cost: _Line
    backward_cost: _Line
    recompute_cost: _Line
    read_cost: _Line
    tangent_cost: _Line

    @classmethod
    def of(cls, model: nn.Module) -> ModelFlops:
        """Measure a causal language model, PEFT-wrapped or not, with its parameters' present ``requires_grad``.

        Runs two forward passes of 4 and 8 tokens in eval mode and writes down the products; the model is left as it
        was, and no random number is drawn. On the meta device this costs nothing, so a plan can price any model.

        Raises:
            ApportionError: The model uses a kind of product that has no price here.
        """
        counts = [_trace(model, length) for length in _LENGTHS]
        lines = {name: _line([count[name] for count in counts]) for name in counts[0]}
        return cls(lines["forward"], lines["backward"], lines["recompute"], lines["read"], lines["tangent"])

    def forward(self, work: Work) -> float:
        """Price a forward pass: 2N a token and 4 L d a layer."""
        return self.forward_cost.at(work)

    def backward(self, work: Work) -> float:
        """Price a backward pass to the trainable parameters."""
        return self.backward_cost.at(work)

    def train(self, work: Work, *, recompute: bool = False) -> float:
        """Price a training step's forward and backward.

        ``recompute`` adds gradient checkpointing's second forward of the layers, non-reentrant as transformers does it:
        each layer runs again up to the last tensor its backward needs, which can spare its last product.
        """
        again = self.recompute_cost.at(work) if recompute else 0.0
        return self.forward(work) + self.backward(work) + again

    def in_run_read(self, tokens: float) -> float:
        """Price reading `<grad l_k, u>` from an ordinary backward pass: one product a trainable weight, 2 N_trainable."""
        return self.read_cost.at(Work(tokens, 0))

    def ahead(self) -> Cost:
        """Return nothing: nothing is read before training."""
        return Cost()

    def jvp(self, work: Work) -> float:
        """Price a forward-mode pass along a direction of the trainable parameters: the primal pass and its tangent.

        Torch makes both products of a tangent, x' W + x W', even where one factor is a known zero, so a frozen weight
        saves nothing here: 3 times the forward pass for every product that a trainable parameter reaches.
        """
        return self.forward(work) + self.tangent_cost.at(work)


def _line(counts: list[int]) -> _Line:
    """Solve cost(L) = token * L + pair * L^2 through the two measured lengths."""
    (a, b), (cost_a, cost_b) = _LENGTHS, counts
    pair = (cost_b * a - cost_a * b) / (a * b * (b - a))
    return _Line(token=(cost_a - pair * a * a) / a, pair=pair)


class _Products(TorchFunctionMode):
    """Writes down every matrix product made while active, by what its backward pass will need."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = {"forward": 0, "backward": 0, "recompute": 0, "read": 0, "tangent": 0}
        self._layer_start = self._last_saved = 0

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        """Run one torch call and add it up if it is a product."""
        out = func(*args, **(kwargs or {}))
        if func in _PRODUCTS and isinstance(out, Tensor):
            first = _PRODUCTS[func]
            self._add(out, *args[first : first + 2])
        elif func in _UNPRICED:
            name = getattr(func, "__name__", func)
            raise ApportionError(f"The model uses {name}, which apportion.models.flops cannot price.")
        return out

    def _add(self, out: Tensor, left: Tensor, right: Tensor) -> None:
        cost = 2 * out.numel() * left.shape[-1]
        wanted = [operand for operand in (left, right) if operand.requires_grad and torch.is_grad_enabled()]
        self.counts["forward"] += cost
        self.counts["backward"] += cost * len(wanted)
        self.counts["tangent"] += 2 * cost if wanted else 0
        self.counts["read"] += cost * sum(_is_parameter(operand) for operand in wanted)

    def enter_layer(self, *_: object) -> None:
        """Mark where a layer that checkpointing would run again begins."""
        self._layer_start = self._last_saved = self.counts["forward"]

    def leave_layer(self, *_: object) -> None:
        """Add what checkpointing would run again of the layer that ends here."""
        self.counts["recompute"] += self._last_saved - self._layer_start

    def saved(self, tensor: Tensor) -> Tensor:
        """Mark that backward needs a tensor from here; a product's operands are saved before it is added up."""
        self._last_saved = self.counts["forward"]
        return tensor


def _is_parameter(operand: Tensor) -> bool:
    base = operand if operand._base is None else operand._base
    return isinstance(base, nn.Parameter)


def _trace(model: nn.Module, length: int) -> dict[str, int]:
    ids = torch.zeros((1, length), dtype=torch.long, device=next(model.parameters()).device)
    mask = torch.ones_like(ids)  # given, because without one transformers looks for packed texts in the values
    return count_products(model, lambda: model(input_ids=ids, attention_mask=mask, use_cache=False))


def count_products(model: nn.Module, run: Callable[[], object]) -> dict[str, int]:
    """Return the FLOPs of ``run``'s products by what makes them.

    ``forward`` is what it costs, ``backward``, ``recompute``, ``read`` and ``tangent`` what these would add. ``run`` calls
    the model, which is in eval mode and attends by plain products meanwhile.

    Raises:
        ApportionError: A kind of product that has no price here, or shapes that do not go together.
    """
    products = _Products()
    hooks: list[RemovableHandle] = []
    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            hooks.append(layer.register_forward_pre_hook(products.enter_layer))
            hooks.append(layer.register_forward_hook(products.leave_layer))
    try:
        with _eager(model), torch.enable_grad(), saved_tensors_hooks(products.saved, lambda tensor: tensor), products:
            run()
    except _FAILURES as error:
        raise ApportionError(f"A model of these shapes cannot read a text: {error}. Check 'model.config'.") from error
    finally:
        for hook in hooks:
            hook.remove()
    return products.counts


@contextmanager
def _eager(model: nn.Module) -> Iterator[None]:
    """Eval mode and plain attention, so that each product is a visible matmul; both are put back."""
    training = {module: module.training for module in model.modules()}
    held = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
    configs: list[Any] = [config for config in held.values() if isinstance(config, PretrainedConfig)]
    attention = [(config, config._attn_implementation) for config in configs]
    model.eval()
    for config, _ in attention:
        config._attn_implementation = "eager"
    try:
        yield
    finally:
        for config, name in attention:
            config._attn_implementation = name
        for module, was in training.items():
            module.training = was
