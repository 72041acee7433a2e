"""The processes that train one model together: which of them this is, and what they agree on.

Started alone, a process is rank 0 of 1 and everything here returns at once. The calls that exchange anything must be
made by all ranks, in the same order.
"""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

T = TypeVar("T")


def rank() -> int:
    """Return which of the processes this is, from 0; known before they have found each other."""
    return dist.get_rank() if _joined() else int(os.environ.get("RANK", "0"))


def world() -> int:
    """Return how many processes there are."""
    return dist.get_world_size() if _joined() else int(os.environ.get("WORLD_SIZE", "1"))


def part_of(items: Sequence[T]) -> Sequence[T]:
    """Return this rank's part of ``items``, perhaps none; all of them where it is alone."""
    return items[rank() :: world()]


def summed(value: Tensor) -> Tensor:
    """Return the sum of ``value`` over all ranks, the same on each to the last bit."""
    if world() == 1:
        return value
    carried = value.detach().to(_carrier()).clone()
    dist.all_reduce(carried)
    return carried.to(value.device)


def joined(values: Tensor) -> tuple[Tensor, slice]:
    """Return all ranks' one-dimensional ``values`` one after the other, and where this rank's are among them."""
    if world() == 1:
        return values, slice(0, len(values))
    lengths = torch.zeros(world(), dtype=torch.int64)
    lengths[rank()] = len(values)
    ends = summed(lengths).cumsum(0).tolist()
    mine = slice(ends[rank()] - len(values), ends[rank()])
    every = values.new_zeros(ends[-1])
    every[mine] = values
    return summed(every), mine


def told(text: str) -> str:
    """Return rank 0's ``text`` on every rank, whatever the others give."""
    if world() == 1:
        return text
    letters = torch.tensor(list(text.encode()) if rank() == 0 else [], dtype=torch.uint8)
    return bytes(joined(letters)[0].tolist()).decode()


def wait() -> None:
    """Wait until every rank is here."""
    if world() > 1:
        dist.barrier()


@contextmanager
def one_first() -> Iterator[None]:
    """Let rank 0 run the block before the others, who then find what it left in the cache."""
    if rank() > 0:
        wait()
    try:
        yield
    finally:
        if rank() == 0:
            wait()


def leave_at_exit() -> None:
    """See to it that the process ends its connections before it ends itself, which else may abort it."""
    atexit.unregister(_leave)
    atexit.register(_leave)


def _leave() -> None:
    if _joined():
        dist.destroy_process_group()
        # The model's wrapper holds the group too, in a cycle; its threads end with the last of those who hold it, and one
        # that still runs when the interpreter goes may abort the process.
        gc.collect()


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def _carrier() -> torch.device:
    # NCCL carries tensors of the device alone, Gloo those of the CPU.
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
