"""The harness works aside: it says nothing, has its own seeds, and leaves every random generator where it was."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

# What the harness's own command seeds NumPy, torch and the choice of examples that are shown with; Python's seed is 0.
SEED = 1234


@contextmanager
def aside() -> Iterator[None]:
    """Let the harness work within the block without a trace."""
    logger = logging.getLogger("lm_eval")
    level, python, numbers, tensors = logger.level, random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    logger.setLevel(logging.ERROR)
    random.seed(0)
    np.random.seed(SEED)
    torch.manual_seed(SEED)
    try:
        yield
    finally:
        logger.setLevel(level)
        random.setstate(python)
        np.random.set_state(numbers)
        torch.set_rng_state(tensors)
        if devices:
            torch.cuda.set_rng_state_all(devices)
