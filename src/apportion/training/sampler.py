"""Draws examples by task so that what is really drawn follows the mixture; seeded, stateful, and undoable."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from apportion._errors import ApportionError

Draw = tuple[int, int]

_SHUFFLE, _ORDER, _TIES = 1, 2, 3
_SLACK = 1e-9  # tokens or examples; rounding of running sums, not a tolerance on the bound


class TaskSampler:
    """Turns a distribution over tasks into (task, example) pairs.

    Inside a task examples come without replacement, in an order that depends on the seed, the task's index and the epoch
    alone, so what other tasks draw never changes it.

    ``systematic`` draws keep what each task is still owed, p's share of everything drawn so far less what it got. A draw
    goes to a task that is not ahead of its share, the one whose next example falls due first: earliest eligible virtual
    deadline first, Stoica and Abdel-Wahab 1995. Under a constant p no task is ever a whole example (``unit`` examples), or
    the tokens of the longest example (``unit`` tokens), away from its share. A changing p is followed likewise: what was
    owed stays owed. ``multinomial`` draws are independent, with rate p_i, or p_i / mean supervised tokens of task i.

    A task of share zero is never drawn, nor one that was seen ``max_epochs`` times: its share goes to the others in
    proportion.

    Args:
        sizes: Train examples of each task, (T,).
        supervised: Supervised tokens of each example, one (sizes[i],) int array a task.
        seed: Of every order and every draw.
        unit: What p shares out.
        draws: How shares become counts.
        max_epochs: Most often that each task may be seen, one number for all or one a task, rounded down to whole examples;
            None for no limit.

    Raises:
        ValueError: An empty task, an example without supervised tokens, or sizes that do not match.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        supervised: Sequence[np.ndarray],
        *,
        seed: int,
        unit: Literal["examples", "tokens"] = "examples",
        draws: Literal["systematic", "multinomial"] = "systematic",
        max_epochs: float | Sequence[float] | None = None,
    ) -> None:
        if not sizes or [len(tokens) for tokens in supervised] != list(sizes):
            raise ValueError("'supervised' must hold one array a task, of that task's size.")
        if any(len(tokens) == 0 or tokens.min() < 1 for tokens in supervised):
            raise ValueError("Every task needs an example, and every example a supervised token.")
        self._sizes = np.asarray(sizes, dtype=np.int64)
        self._supervised = [np.asarray(tokens, dtype=np.int64) for tokens in supervised]
        self._mean = np.array([tokens.mean() for tokens in self._supervised])
        self._seed, self._unit, self._draws = seed, unit, draws
        cap = np.asarray(math.inf if max_epochs is None else max_epochs, dtype=np.float64)
        if not (cap > 0).all():
            raise ApportionError(f"'mixture.max_epochs' must be more than zero, not {max_epochs}.")
        self._cap = np.floor(cap * self._sizes + _SLACK)
        # Equal shares fall due together: a seeded order, so that the collection's order favours nobody.
        self._tie = np.random.default_rng((seed, _TIES)).permutation(len(sizes))
        self._orders: list[tuple[int, np.ndarray]] = [(-1, np.empty(0, np.int64))] * len(sizes)
        self._step = 0
        self._owed = np.zeros(len(sizes))
        self._examples = np.zeros(len(sizes), dtype=np.int64)
        self._tokens = np.zeros(len(sizes), dtype=np.int64)
        self._returned: list[list[int]] = [[] for _ in sizes]
        self._last: dict[Draw, list[np.ndarray]] = {}

    @property
    def drawn_examples(self) -> np.ndarray:
        """Examples drawn and not put back, (T,) int64."""
        return self._examples.copy()

    @property
    def drawn_supervised(self) -> np.ndarray:
        """Their supervised tokens, (T,) int64."""
        return self._tokens.copy()

    @property
    def epochs(self) -> np.ndarray:
        """How often each task was seen, (T,) float64."""
        return self._examples / self._sizes

    def available(self, p: np.ndarray) -> np.ndarray:
        """Return p with nothing for tasks that have reached ``max_epochs``, (T,); it need not sum to one.

        Args:
            p: The mixture, (T,).
        """
        return np.where(self._examples < self._cap, p, 0.0)

    def draw(self, p: np.ndarray, n: int) -> list[Draw]:
        """Draw ``n`` pairs (task index, example index), in a shuffled order.

        Fewer come back, in the end none, when every task of positive share has reached ``max_epochs``.

        Args:
            p: The mixture, (T,).
            n: How many.

        Raises:
            ApportionError: ``p`` is not a distribution over the tasks.
        """
        p = self._distribution(p)
        rng = np.random.default_rng((self._seed, _SHUFFLE, self._step))
        self._step += 1
        self._last = {}
        tasks: list[int] = []
        queues: list[list[int]] = [[] for _ in self._sizes]
        lengths = np.array([self._length(task, self._peek(task)) for task in range(len(self._sizes))])
        for _ in range(n):
            shares = self.available(p)
            if shares.sum() <= 0:
                break
            shares /= shares.sum()
            task = self._due(shares, lengths) if self._draws == "systematic" else self._chance(shares, rng)
            queues[task].append(self._take(task, shares))
            tasks.append(task)
            lengths[task] = self._length(task, self._peek(task))
        # The tasks are shuffled, not the examples: each task's own come in the order they were taken.
        turns = [iter(queue) for queue in queues]
        return [(tasks[i], next(turns[tasks[i]])) for i in rng.permutation(len(tasks))]

    def put_back(self, items: Sequence[Draw]) -> None:
        """Undo the draw of pairs that were not used; they come first when their task is drawn again.

        Raises:
            ValueError: A pair that is not of the last draw, or was put back before.
        """
        for item in reversed(items):
            if not self._last.get(item):
                raise ValueError(f"{item} is not of the last draw.")
            task, index = item
            self._owed -= self._last[item].pop()
            self._examples[task] -= 1
            self._tokens[task] -= self._supervised[task][index]
            self._returned[task].insert(0, index)

    def most(self, p: np.ndarray, worth: Sequence[np.ndarray]) -> float:
        """Return what ``max_epochs`` leaves to draw from ``p``, infinite without it.

        Args:
            p: The mixture, (T,).
            worth: What each example counts, one (sizes[i],) array a task, such as its tokens.
        """
        total = 0.0
        for task, cap in enumerate(self._cap):
            if p[task] == 0:
                continue
            if math.isinf(cap):
                return math.inf
            epochs, rest = divmod(int(cap), int(self._sizes[task]))
            counts = worth[task]
            total += epochs * float(counts.sum()) + float(counts[self._order(task, epochs)[:rest]].sum())
        return total

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain numbers and lists."""
        return {
            **self._identity(),
            "step": self._step,
            "owed": self._owed.tolist(),
            "examples": self._examples.tolist(),
            "tokens": self._tokens.tolist(),
            "returned": [list(queue) for queue in self._returned],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where ``state_dict`` was taken.

        Raises:
            ApportionError: The state is of other tasks, another seed or other settings.
        """
        for key, value in self._identity().items():
            if state.get(key) != value:
                raise ApportionError(
                    f"The saved draws have '{key}' {state.get(key)!r}, this run {value!r}: "
                    "resume with the saved settings, or start the run in a new folder."
                )
        self._step = state["step"]
        self._owed = np.array(state["owed"], dtype=np.float64)
        self._examples = np.array(state["examples"], dtype=np.int64)
        self._tokens = np.array(state["tokens"], dtype=np.int64)
        self._returned = [list(queue) for queue in state["returned"]]
        self._last = {}

    def _identity(self) -> dict[str, Any]:
        return {"seed": self._seed, "unit": self._unit, "draws": self._draws, "sizes": self._sizes.tolist()}

    def _distribution(self, p: np.ndarray) -> np.ndarray:
        p = np.asarray(p, dtype=np.float64)
        if p.shape != self._sizes.shape:
            raise ApportionError(f"The mixture has shape {p.shape}, but there are {len(self._sizes)} tasks.")
        if not np.isfinite(p).all() or (p < 0).any() or abs(p.sum() - 1) > 1e-6:
            raise ApportionError(f"The mixture is not a distribution: {np.array2string(p, precision=4)}.")
        return p / p.sum()

    def _due(self, shares: np.ndarray, lengths: np.ndarray) -> int:
        able = shares > 0
        eligible = able & (self._owed >= -_SLACK)
        # After p has changed, all that is owed may be owed to tasks that are no longer drawn.
        chosen = np.flatnonzero(eligible if eligible.any() else able)
        deadlines = (lengths[chosen] - self._owed[chosen]) / shares[chosen]
        return int(chosen[np.lexsort((self._tie[chosen], deadlines))[0]])

    def _chance(self, shares: np.ndarray, rng: np.random.Generator) -> int:
        rates = shares / self._mean if self._unit == "tokens" else shares
        return int(rng.choice(len(rates), p=rates / rates.sum()))

    def _take(self, task: int, shares: np.ndarray) -> int:
        index = self._peek(task)
        if self._returned[task]:
            self._returned[task].pop(0)
        length = self._length(task, index)
        owed = shares * length
        owed[task] -= length
        self._owed += owed
        self._examples[task] += 1
        self._tokens[task] += self._supervised[task][index]
        self._last.setdefault((task, index), []).append(owed)
        return index

    def _peek(self, task: int) -> int:
        if self._returned[task]:
            return self._returned[task][0]
        epoch, place = divmod(int(self._examples[task]), int(self._sizes[task]))
        return int(self._order(task, epoch)[place])

    def _order(self, task: int, epoch: int) -> np.ndarray:
        if self._orders[task][0] != epoch:
            rng = np.random.default_rng((self._seed, _ORDER, task, epoch))
            self._orders[task] = (epoch, rng.permutation(int(self._sizes[task])))
        return self._orders[task][1]

    def _length(self, task: int, index: int) -> int:
        return int(self._supervised[task][index]) if self._unit == "tokens" else 1
