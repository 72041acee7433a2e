"""The stage of selection: every example of the pool scored once, and those that are kept written down."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from apportion._errors import ApportionError, nearest
from apportion._ranks import part_of, rank, wait
from apportion.budget import Account, Budget, Ledger
from apportion.budget.prices import Cost, Prices
from apportion.models.loading import parameters
from apportion.plans.build import Data
from apportion.plans.progress import Told
from apportion.plans.recipe import Recipe
from apportion.plans.stages import Costs, Stage
from apportion.runs import RunFolder
from apportion.runs.atomic import atomic_write_bytes, atomic_write_text
from apportion.runs.selection import KEPT, OUTSIDE, UNSCORED, Scored, read_selection, write_selection
from apportion.selections._selection import Limited, read_limit, within
from apportion.signals._pool import Look, Pool, PoolBench, PoolSignal
from apportion.training.recorder import Show

FILE = "selection.parquet"
WORK = "selecting"
_CANDIDATES = 5  # the stream of random numbers that candidates are drawn from
_COLUMNS = ("supervised", "processed", "padded", "flops")


Looks = Callable[[int], Iterable[Look]]


class Selecting(Stage):
    """Scores the pool, keeps the best of it, and leaves a file that says so; each part of it is done once, whatever happens.

    Args:
        recipe: Whose selection it is.
        data: The pool: all tasks, before anything is left out.
        file: The file to write.
        work: A folder for the parts that are scored, deleted at the end.
        shapes: The model on the meta device.
        prices: Of its passes.
        looks: Returns the models to look at the pool with, so many, each on its device.
        before: Returns what was spent on them before, by account, which the file says too.

    Attributes:
        told: Called with how many chunks of how many are scored.
    """

    name = "select"

    def __init__(
        self,
        recipe: Recipe,
        data: Data,
        file: Path,
        work: Path,
        shapes: nn.Module,
        prices: Prices,
        looks: Looks,
        before: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self.selection = recipe.chosen()
        self._file = self.selection.given() or file
        self._before = before
        self.told: Told = lambda done, of: None
        self._recipe, self._data, self._work, self._shapes, self._looks = recipe, data, work, shapes, looks
        self._scratch = Ledger(Budget("flops", 1e40))
        self._pool = Pool(data.tasks, self._candidates())
        args = recipe.arguments(work)
        self._optim, self._device, self._bf16 = str(args.optim.value), args.device, bool(args.bf16)
        bench = PoolBench(
            self._pool,
            data.targets if self.selection.looks_at is None else data.targets.steered_by(self.selection.looks_at),
            prices,
            parameters(shapes)["trainable"],
            self._scratch,
            args.per_device_eval_batch_size,
            data.pad_id,
            lambda ids: str(data.tokenizer.decode(ids.tolist(), skip_special_tokens=True)),
        )
        self._signal: PoolSignal | None = next((signal.attach(bench) for signal in self.selection.needs()), None)

    @property
    def _limited(self) -> Limited:
        return cast("Limited", self.selection)  # one that is given needs nothing of this

    def _candidates(self) -> list[np.ndarray]:
        sizes = [len(task.train) for task in self._data.tasks.tasks]
        share = self.selection.scored
        if share == 1:
            return [np.arange(size) for size in sizes]
        draws = np.random.default_rng([_CANDIDATES, self._recipe.seed]).random(sum(sizes))
        chosen = np.zeros(len(draws), dtype=bool)
        chosen[np.argsort(draws, kind="stable")[: max(1, round(share * len(draws)))]] = True
        return [np.flatnonzero(part) for part in np.split(chosen, np.cumsum(sizes)[:-1])]

    @property
    def finished(self) -> bool:
        """Whether it is known what is kept."""
        return self.selection.given() is not None or self._file.is_file()

    @property
    def block(self) -> dict[str, Any]:
        """The block by which another run keeps the same, at no charge."""
        return {"type": "file", "path": str(self._file.absolute()), "charge": False}

    def check(self, ledger: Ledger) -> None:
        """Refuse a limit that reaches for nothing, what cannot be measured, and a price that the budget does not leave."""
        if self.selection.given() is not None:
            read_selection(self._file)
            return
        unit, limit = self._limit()
        if limit >= self._amounts(unit).sum() and self._signal is not None:
            raise ApportionError(
                "'selection.limit' keeps everything that is scored, so that scoring decides nothing: lower it, or raise "
                "'selection.pool'."
            )
        if self._signal is not None:
            self._signal.check(self._shapes, self._optim)
        spent = ledger.total_flops + sum(cost.flops for cost in self.price(ledger).values())
        if ledger.budget.unit == "flops" and spent >= ledger.budget.limit:
            raise ApportionError(
                f"The selection '{self._recipe.selection['type']}' is expected to take {spent:.3g} FLOPs, the budget is "
                f"{ledger.budget}: lower 'selection.pool', the share of the examples that is scored, or raise 'budget'."
            )

    def price(self, ledger: Ledger) -> Costs:
        """Return what is expected to be spent, or was."""
        if self.finished:
            return {
                account: Cost(*(of[c] for c in ("supervised", "processed", "flops"))) for account, of in self._spent()
            }
        return {} if self._signal is None else {self._signal.account: self._signal.price()}

    def _spent(self) -> list[tuple[Account, Mapping[str, Any]]]:
        if not self.selection.charges:
            return []
        about = read_selection(self._file).about
        before = about.get("before", {}) if self.selection.given() is not None else {}
        return [(cast("Account", name), of) for part in (before, about.get("spent", {})) for name, of in part.items()]

    def run(self, ledger: Ledger, folder: RunFolder | None, show: Show | None) -> None:
        """Score what is not scored yet, write the file, and charge all that it cost."""
        if show is not None:
            self.told = lambda done, of: show({"scored": (done, of)}, 0.0)
        if not self.finished:
            self._score()
        if rank() == 0 and self._work.exists():
            shutil.rmtree(self._work)  # a run may have been stopped between the file and this
        for account, of in self._spent():
            ledger.charge(account, **{column: of[column] for column in _COLUMNS})

    def _score(self) -> None:
        """Score what is not scored yet and write the file, all ranks together."""
        if rank() == 0:
            self._work.mkdir(parents=True, exist_ok=True)
            self._same_pool()
        wait()
        scores, spent = self._measured()
        if rank() == 0:
            self._write(scores, spent)
        wait()

    def _same_pool(self) -> None:
        """Refuse to go on with parts that were scored of other data."""
        origin, now = self._work / "origin", self._data.tasks.fingerprint
        if origin.exists() and origin.read_text("utf-8") != now:
            raise ApportionError(
                "The tasks' data or the tokenizer changed since this selection began: put them back to resume it, or delete "
                f"'{self._work}' to score anew."
            )
        atomic_write_text(origin, now)

    def _measured(self) -> tuple[Tensor, dict[str, Any]]:
        """Return the scores of all candidates, (n, V), and what measuring them cost, by account."""
        if self._signal is None:
            return self._limited.blind([len(rows) for rows in self._pool.candidates], self._recipe.seed), {}
        chunks, signal = self._pool.chunks, self._signal
        missing = [at for at in range(signal.looks) if not all(self._part(at, k).exists() for k in range(len(chunks)))]
        wait()  # before another rank writes what this one counts as missing
        if missing:
            signal.survey()
            for at, look in enumerate(self._looks(signal.looks)):
                if at in missing:
                    self._pass(at, look)
        wait()
        total: Tensor | None = None
        spent = np.zeros(len(_COLUMNS))
        for at in range(signal.looks):
            files = [self._targets_file(at), *(self._part(at, k) for k in range(len(chunks)))]
            read = [load_file(str(file)) for file in files]
            spent += sum(part["spent"].numpy() for part in read)
            scores = torch.cat([part["scores"] for part in read[1:]])
            total = scores if total is None else total + scores
        assert total is not None
        amounts = dict(zip(_COLUMNS, spent.tolist(), strict=True))
        return total, {signal.account: {name: v if name == "flops" else int(v) for name, v in amounts.items()}}

    def _pass(self, at: int, look: Look) -> None:
        """Score the chunks that this rank has to in one pass, each into a file of its own."""
        signal, chunks = self._signal, self._pool.chunks
        assert signal is not None
        targets = self._targets_file(at)
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._bf16):
            if rank() == 0 and not targets.exists():
                with self._metered(targets) as found:
                    found |= {f"state.{name}": value for name, value in signal.begin(look).items()}
            wait()
            saved = load_file(str(targets))
            prefix = "state."
            signal.resume(look, {k.removeprefix(prefix): v for k, v in saved.items() if k.startswith(prefix)})
            done = sum(self._part(at, k).exists() for k in range(len(chunks)))
            for k in part_of(range(len(chunks))):
                if self._part(at, k).exists():
                    continue
                with self._metered(self._part(at, k)) as found:
                    scores = self._limited.score(signal.show(chunks[k])).float().cpu()
                    found["scores"] = (look.weight * scores).contiguous()
                done += 1
                self.told(at * len(chunks) + done, signal.looks * len(chunks))

    @contextmanager
    def _metered(self, file: Path) -> Iterator[dict[str, Tensor]]:
        """Write what the block puts into the yielded mapping, and with it what the block charged, at once or not at all."""
        account = self._signal.account if self._signal else "select"
        found: dict[str, Tensor] = {}
        before = self._scratch.spent(account)
        yield found
        after = self._scratch.spent(account)
        found["spent"] = torch.tensor([getattr(after, c) - getattr(before, c) for c in _COLUMNS], dtype=torch.float64)
        atomic_write_bytes(file, save(found))

    def _targets_file(self, at: int) -> Path:
        return self._work / f"look-{at}.safetensors"

    def _part(self, at: int, chunk: int) -> Path:
        return self._work / f"look-{at}-{chunk}.safetensors"

    def _amounts(self, unit: str) -> np.ndarray:
        columns = [
            np.ones(len(rows), np.int64) if unit == "examples" else getattr(task.train, unit)[rows]
            for task, rows in zip(self._data.tasks.tasks, self._pool.candidates, strict=True)
        ]
        return np.concatenate(columns)

    def _limit(self) -> tuple[str, int]:
        """Return the limit; one that reaches for nothing is refused before anybody counts on what is kept."""
        examples = sum(len(task.train) for task in self._data.tasks.tasks)
        unit, limit = read_limit(self._limited.limit, self._data.pool, examples)
        most = int(self._amounts(unit).max())
        if limit < most:
            raise ApportionError(
                f"'selection.limit' keeps {limit:,} {unit} tokens, and the longest example has {most:,}: raise it."
            )
        return unit, limit

    def _write(self, scores: Tensor, spent: Mapping[str, Any]) -> None:
        scored, ranked = self._limited.gathered(scores, self._data.targets.importance)
        order = _ordered(ranked.numpy(), self._pool)
        unit, limit = self._limit()
        kept = within(order, self._amounts(unit), limit)
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(1, len(order) + 1)
        about = {
            "selection": self._recipe.resolved()["selection"],
            "seed": self._recipe.seed,
            "targets": dict(zip(self._data.targets.names, self._data.targets.importance.tolist(), strict=True)),
            "fingerprint": self._data.tasks.fingerprint,
            "spent": dict(spent),
            "before": dict(self._before()),
        }
        write_selection(self._file, _by_task(self._pool, scored.numpy(), ranks, kept), about)

    def kept(self) -> list[np.ndarray]:
        """Return which train examples of each task are kept, ascending; once it is finished.

        Raises:
            ApportionError: The file is of other data, or keeps none of it.
        """
        return kept_rows(self._file, self._data)

    def expected(self) -> list[np.ndarray]:
        """Return as many examples as will be kept, at random: what a plan goes by before it is known which."""
        if self.finished:
            return self.kept()
        unit, limit = self._limit()
        amounts = self._amounts(unit)
        kept = within(np.random.default_rng(0).permutation(len(amounts)), amounts, limit)
        parts = np.split(kept, np.cumsum([len(rows) for rows in self._pool.candidates])[:-1])
        return [rows[part] for rows, part in zip(self._pool.candidates, parts, strict=True)]

    def summary(self) -> dict[str, Any]:
        """Return what was kept, in numbers, for the run's summary."""
        scored = read_selection(self._file)
        kept = _rows(scored, self._data)
        found = summary_of(self._recipe.selection["type"], self._data, scored, kept)
        # Pieces of one text share an id: there may be more examples than rows, which is no loss.
        missing = int(scored.kept().sum()) - found["kept"]["examples"]
        return found | ({"missing": missing} if missing > 0 else {})


def kept_rows(file: Path, data: Data) -> list[np.ndarray]:
    """Return which train examples of each task a selection's file keeps, ascending.

    Raises:
        ApportionError: No selection, one of tasks that are none here, or one that keeps none of these data.
    """
    rows = _rows(read_selection(file), data)
    if not any(map(len, rows)):
        raise ApportionError(f"'{file}' keeps no example of these tasks: it was made of other data.")
    return rows


def _rows(scored: Scored, data: Data) -> list[np.ndarray]:
    """Return which train examples of each task are kept, ascending: by their places, or by id in a file of other data."""
    kept, tasks = scored.kept(), data.tasks.tasks
    sizes = [len(task.train) for task in tasks]
    if scored.about.get("fingerprint") == data.tasks.fingerprint and len(kept) == sum(sizes):
        return [np.flatnonzero(part) for part in np.split(kept, np.cumsum(sizes)[:-1])]
    wanted = scored.table.filter(pa.array(kept))
    names = wanted.column("task").to_pylist()
    ids: dict[str, list[str]] = {task.name: [] for task in tasks}
    for name, id in zip(names, wanted.column("id").to_pylist(), strict=True):
        if name not in ids:
            raise ApportionError(
                f"'{scored.path}' keeps examples of a task '{name}', which is none here{nearest(name, ids)}."
            )
        ids[name].append(id)
    return [
        np.flatnonzero(pc.is_in(task.train.id_column, pa.array(ids[task.name], pa.large_string())).to_numpy(False))
        for task in tasks
    ]


def summary_of(kind: str, data: Data, scored: Scored, kept: Sequence[np.ndarray]) -> dict[str, Any]:
    """Return a selection in numbers: examples and tokens of the pool and of what is kept, by task, and reasons."""
    tasks = data.tasks.tasks

    def totals(rows: Sequence[Any]) -> dict[str, int]:
        parts = list(zip(tasks, rows, strict=True))
        return {
            "examples": sum(len(task.train.supervised[of]) for task, of in parts),
            "supervised": sum(int(task.train.supervised[of].sum()) for task, of in parts),
            "processed": sum(int(task.train.processed[of].sum()) for task, of in parts),
        }

    return {
        "type": kind,
        "pool": totals([slice(None)] * len(tasks)),
        "kept": totals(kept),
        "tasks": {task.name: {"pool": len(task.train), "kept": len(of)} for task, of in zip(tasks, kept, strict=True)},
        "reasons": dict(Counter(scored.reasons)),
    }


def _ordered(ranked: np.ndarray, pool: Pool) -> np.ndarray:
    """Return the candidates by what they are ranked by, the most first, equals by id; ids are looked at only for equals."""
    order = np.argsort(-ranked, kind="stable")
    if len(order) and (np.diff(ranked[order]) == 0).any():
        order = np.lexsort((_ids(pool), -ranked))
    return order


def _ids(pool: Pool) -> np.ndarray:
    names = [
        task.train.id_column.take(rows).to_numpy(zero_copy_only=False)
        for task, rows in zip(pool.tasks.tasks, pool.candidates, strict=True)
    ]
    return np.concatenate(names).astype(str) if names else np.zeros(0, str)


def _by_task(pool: Pool, scores: np.ndarray, ranks: np.ndarray, kept: np.ndarray) -> Iterator[dict[str, Any]]:
    """Yield each task's columns, its examples that were no candidates included."""
    start = 0
    for task, rows in zip(pool.tasks.tasks, pool.candidates, strict=True):
        size, part = len(task.train), slice(start, start + len(rows))
        start += len(rows)
        columns: dict[str, Any] = {
            "score": np.full(size, np.nan),
            "rank": np.zeros(size, np.int64),
            "kept": np.zeros(size, bool),
        }
        for name, values in (("score", scores), ("rank", ranks), ("kept", kept)):
            columns[name][rows] = values[part]
        reasons = np.full(size, UNSCORED, dtype=object)
        reasons[rows] = np.where(kept[part], KEPT, OUTSIDE)
        yield {"id": task.train.id_column, "task": [task.name] * size, "reason": reasons, **columns}
