"""Plain text cut in three, so that a hypernetwork can be pretrained without instructions."""

from __future__ import annotations

import numpy as np

from apportion._errors import ApportionError


def split_text(
    tokens: np.ndarray, rng: np.random.Generator, least: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut a text in an instruction a, an input b and a target c, in this order and together the whole.

    Two points are drawn uniformly and independently; the lower is where a ends, the upper where b does. ``least`` tokens
    of each part are set aside beforehand, so that the draws need no repeating and no part can be too short.

    Source: TAGI (arXiv 2406.12382), section 3.2.3, after HINT (Ivison et al., arXiv 2212.10315). Departures: the public
    code of HINT draws both points from one seed, so that they depend on each other, and b may be empty.

    Args:
        tokens: (n,) token ids.
        rng: Where the two draws come from; each call takes the same number of draws.
        least: Fewest tokens of a part, at least 1.

    Raises:
        ApportionError: The text is too short, or ``least`` is below 1.
    """
    if least < 1:
        raise ApportionError(f"'least' is {least}: each part of a text needs at least one token.")
    spare = len(tokens) - 3 * least
    if spare < 0:
        raise ApportionError(
            f"A text of {len(tokens)} tokens cannot be cut in three parts of at least {least}: leave out texts shorter than "
            f"{3 * least} tokens."
        )
    lower, upper = np.sort(rng.integers(0, spare + 1, size=2))
    first, second = least + lower, 2 * least + upper
    return tokens[:first], tokens[first:second], tokens[second:]


def cut_of(context: int) -> int:
    """Return where the instruction of a text ends whose instruction and input are ``context`` tokens together.

    The target was cut off at the upper of two uniform draws; below it the lower one is uniform again. It is drawn from a
    generator seeded by the length, so that what a pass costs follows from lengths alone.

    Raises:
        ApportionError: Fewer than two tokens.
    """
    if context < 2:
        raise ApportionError(f"A context of {context} tokens cannot be cut in instruction and input.")
    return int(np.random.default_rng([3, context]).integers(1, context))
