"""Generators of adapters: from a task's code to the two factors of every slot, by name as the recipe's ``head``.

All start at Delta W = 0 with a live gradient: one factor is drawn as LoRA draws its A, the other is zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from apportion.models.tagi.slots import Factors, Slot


class SharedIndex(nn.Module):
    """One two-layer perceptron a kind of slot, shared by all its layers, which are told apart by an index in the input.

    The reading of TAGI in its authors' code, with the index as a share of the depth instead of an integer, which would
    drown a code in (-1, 1).
    """

    def __init__(self, slots: Sequence[Slot], code: int, rank: int, hidden: int) -> None:
        super().__init__()
        self._slots = list(slots)
        self._depth = max(slot.layer for slot in slots) + 1
        kinds = {slot.kind: slot for slot in slots}
        self._names = {kind: f"kind{i}" for i, kind in enumerate(kinds)}
        self.nets = nn.ModuleDict(
            {self._names[kind]: _Pair(code + 1, hidden, slot, rank) for kind, slot in kinds.items()}
        )

    def forward(self, codes: Tensor) -> Factors:
        """Return every slot's factors from the codes, (T, code)."""
        made = {}
        for slot in self._slots:
            index = codes.new_full((len(codes), 1), (slot.layer + 0.5) / self._depth)
            made[slot.name] = self.nets[self._names[slot.kind]](torch.cat([codes, index], 1))
        return made


class PerLayer(nn.Module):
    """One two-layer perceptron a layer, its hidden part shared by the layer's slots, told apart by an index.

    TAGI as the paper has it: "a unique network for each layer, shared between Q and V". Slots of other shapes get an
    output layer of their own.
    """

    def __init__(self, slots: Sequence[Slot], code: int, rank: int, hidden: int) -> None:
        super().__init__()
        self._groups: dict[str, list[Slot]] = {}
        for slot in slots:
            # T5 has an encoder's and a decoder's layer of each number.
            self._groups.setdefault(f"{slot.kind.split('.')[0]}{slot.layer}", []).append(slot)
        self.inner = nn.ModuleDict({name: nn.Linear(code + 1, hidden) for name in self._groups})
        self.outer = nn.ModuleDict()
        for name, group in self._groups.items():
            for slot in group:
                key = _shape(name, slot)
                if key not in self.outer:
                    self.outer[key] = _Factors(hidden, slot, rank)

    def forward(self, codes: Tensor) -> Factors:
        """Return every slot's factors from the codes, (T, code)."""
        made = {}
        for name, group in self._groups.items():
            for number, slot in enumerate(group):
                index = codes.new_full((len(codes), 1), (number + 0.5) / len(group))
                hidden = torch.relu(self.inner[name](torch.cat([codes, index], 1)))
                made[slot.name] = self.outer[_shape(name, slot)](hidden)
        return made


class ModuleDepth(nn.Module):
    """Learned embeddings of kind and depth beside the code, a residual perceptron, one output layer a kind (Text-to-LoRA).

    Source: Charakorn et al. 2025 (arXiv 2506.06105).
    """

    def __init__(self, slots: Sequence[Slot], code: int, rank: int, hidden: int) -> None:
        super().__init__()
        self._slots = list(slots)
        kinds = {slot.kind: slot for slot in slots}
        self._kind = {kind: i for i, kind in enumerate(kinds)}
        width = max(code // 2, 1)
        self.kinds = nn.Embedding(len(kinds), width)
        self.depths = nn.Embedding(max(slot.layer for slot in slots) + 1, width)
        # Drawn at their usual size, places would drown the codes, whose differences are small at the start.
        with torch.no_grad():
            self.kinds.weight.mul_(0.1)
            self.depths.weight.mul_(0.1)
        self.mixer = nn.Sequential(nn.Linear(code + 2 * width, hidden), nn.SiLU(), nn.LayerNorm(hidden))
        self.block = nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.SiLU(), nn.Linear(4 * hidden, hidden))
        self.outer = nn.ModuleList(_Factors(hidden, slot, rank) for slot in kinds.values())

    def forward(self, codes: Tensor) -> Factors:
        """Return every slot's factors from the codes, (T, code)."""
        made = {}
        for slot in self._slots:
            place = torch.cat([self.kinds.weight[self._kind[slot.kind]], self.depths.weight[slot.layer]])
            mixed = self.mixer(torch.cat([codes, place.expand(len(codes), -1)], 1))
            made[slot.name] = self.outer[self._kind[slot.kind]](mixed + self.block(mixed))
        return made


class Diagonal(nn.Module):
    """Learned factors a slot, shared by all tasks; a task only sets the r scales between them: Delta W = A diag(z) B.

    Source: Zhyper (arXiv 2510.19733). The scales come from embeddings of kind and depth beside the code, and start at 0.
    """

    def __init__(self, slots: Sequence[Slot], code: int, rank: int, hidden: int) -> None:
        super().__init__()
        self._slots = list(slots)
        self.a = nn.ParameterList(_drawn(slot.d_in, rank) for slot in slots)
        self.b = nn.ParameterList(_drawn(rank, slot.d_out) for slot in slots)
        self.places = nn.Embedding(len(slots), code)
        self.mixer = nn.Sequential(nn.Linear(2 * code, hidden), nn.SiLU())
        self.scales = _zero(nn.Linear(hidden, rank))

    def forward(self, codes: Tensor) -> Factors:
        """Return every slot's factors from the codes, (T, code)."""
        made = {}
        for number, slot in enumerate(self._slots):
            place = self.places.weight[number].expand(len(codes), -1)
            z = self.scales(self.mixer(torch.cat([codes, place], 1)))
            made[slot.name] = (self.a[number].expand(len(codes), -1, -1), z[:, :, None] * self.b[number])
        return made


HEADS: dict[str, Callable[[Sequence[Slot], int, int, int], nn.Module]] = {
    "shared_index": SharedIndex,
    "per_layer": PerLayer,
    "module_depth": ModuleDepth,
    "diagonal": Diagonal,
}


class _Factors(nn.Module):
    """Output layers of one shape of slot: A around a drawn start that is the bias, B from zero."""

    def __init__(self, hidden: int, slot: Slot, rank: int) -> None:
        super().__init__()
        self._shapes = (slot.d_in, rank), (rank, slot.d_out)
        self.a = nn.Linear(hidden, slot.d_in * rank)
        self.b = _zero(nn.Linear(hidden, rank * slot.d_out))
        with torch.no_grad():
            self.a.weight.mul_(0.1)
            self.a.bias.copy_(_drawn(slot.d_in, rank).flatten())

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.a(hidden), self.b(hidden)
        return a.view(-1, *self._shapes[0]), b.view(-1, *self._shapes[1])


class _Pair(nn.Module):
    """A hidden layer with a rectifier, and the output layers of one slot's shape."""

    def __init__(self, width: int, hidden: int, slot: Slot, rank: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, hidden)
        self.outer = _Factors(hidden, slot, rank)

    def forward(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        made: tuple[Tensor, Tensor] = self.outer(torch.relu(self.inner(codes)))
        return made


def _drawn(rows: int, columns: int) -> nn.Parameter:
    """Return a factor as LoRA draws its A: uniform within 1 / sqrt(d_in)."""
    bound = 1 / math.sqrt(rows)
    return nn.Parameter(torch.empty(rows, columns).uniform_(-bound, bound))


def _zero(linear: nn.Linear) -> nn.Linear:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _shape(name: str, slot: Slot) -> str:
    return f"{name}_{slot.d_in}_{slot.d_out}"
