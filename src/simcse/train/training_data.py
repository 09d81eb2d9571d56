"""Training rows, from files or from memory, and the dev evaluation that goes with them."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import torch

from simcse.errors import DataError, UsageError
from simcse.io.benchmarks import load_sts_task, read_sts
from simcse.io.files import ReadCounts, clean_text, sha256_file
from simcse.io.records import Example, Note, read_examples
from simcse.train.objective import refuse_unfit
from simcse.train.order import count_steps, step_seed
from simcse.train.settings import TrainConfig
from simcse.train.validation import Validate, first_of, heldout_validation, sts_validation

MAX_HELD_OUT = 10  # at most one row in ten is held out
MIN_HELD_OUT = 2

Row: TypeAlias = "str | Sequence[str] | Example"


@dataclass(frozen=True)
class TrainingData:
    """Rows to train on, and the dev evaluation; without one a `Trainer` only detects a collapse."""

    rows: Sequence[Example]
    validate: Validate | None = None
    all_rows: Sequence[Example] = ()  # `rows` together with held-out ones
    files: Sequence[Path] = ()  # where they were read; empty for rows in memory
    counts: ReadCounts = field(default_factory=ReadCounts)

    @property
    def keep_single(self) -> bool:
        """Whether a last batch of one row has a loss: rows have hard negatives."""
        return any(row.negatives for row in self.rows)

    def count_steps(self, config: TrainConfig) -> int:
        """Return the number of steps of a run.

        Raises:
            DataError: there are too few rows for one step.
        """
        return count_steps(len(self.rows), config.optim, keep_single=self.keep_single)

    def check(self, config: TrainConfig) -> None:
        """Check that there are enough rows, and that they fit the loss.

        Raises:
            DataError: there are too few rows for one step.
            ConfigError: the rows do not fit the loss.
        """
        self.count_steps(config)
        refuse_unfit(self.rows, config.loss)

    def sha256(self) -> list[str]:
        """Return the SHA-256 of every file, or one of the rows in memory."""
        if self.files:
            return [sha256_file(file) for file in self.files]
        digest = hashlib.sha256()
        for row in self.all_rows or self.rows:
            digest.update(repr((row.anchor, row.positive, row.negatives, row.label)).encode())
        return [digest.hexdigest()]


DataSource: TypeAlias = "str | Path | Sequence[Path] | Sequence[Row] | TrainingData"


def load_training_data(
    source: DataSource, config: TrainConfig, *, note: Note | None = None
) -> TrainingData:
    """Read rows, hold some out, and check all that can be checked before a model is loaded.

    Args:
        source: see `simcse.train.run.train`; a `TrainingData` keeps its dev evaluation, if any.
        config: settings; ``data``, ``eval``, ``loss`` and ``optim`` are used.
        note: receives a line about the columns of each table.

    Raises:
        DataError: a row is wrong, there are too few, or the dev set is missing.
        ConfigError: the rows do not fit the loss.
    """
    if not isinstance(source, TrainingData):
        data = _add_validation(_read(source, config, note), config)
    else:
        data = source if source.validate else _add_validation(source, config)
    data.check(config)
    return data


def _read(
    source: "str | Path | Sequence[Path] | Sequence[Row]",
    config: TrainConfig,
    note: Note | None,
) -> TrainingData:
    counts = ReadCounts()
    if isinstance(source, (str, Path)):
        source = [Path(source)]
    files = [item for item in source if isinstance(item, Path)]
    if files and len(files) == len(source):
        rows = read_training_rows(files, config, counts, note)
        return TrainingData(rows, files=files, counts=counts)
    labeled = config.loss.type == "classifier"
    rows = rows_from_memory(source, labeled=labeled, counts=counts)  # type: ignore[arg-type]
    return TrainingData(rows[: config.data.limit], counts=counts)


def read_training_rows(
    files: Sequence[Path],
    config: TrainConfig,
    counts: ReadCounts,
    note: Note | None = None,
) -> list[Example]:
    """Read the training rows of all files as the settings of ``data`` say."""
    data = config.data
    return read_examples(
        files,
        columns=data.columns or "",
        note=note,
        labeled=config.loss.type == "classifier",
        bad_lines=data.bad_lines,
        counts=counts,
        limit=data.limit,
    )


def rows_from_memory(
    rows: Iterable[Row], *, labeled: bool = False, counts: ReadCounts | None = None
) -> list[Example]:
    """Make examples of sentences, tuples of sentences, or examples; blank ones are left out.

    A tuple is an anchor, a positive and any number of hard negatives, or with ``labeled`` a
    label, a premise and a hypothesis.

    Raises:
        DataError: a row is none of these, or is the name of a file.
    """
    counts = ReadCounts() if counts is None else counts
    found = [_example(row, number, labeled=labeled) for number, row in enumerate(rows, start=1)]
    examples = [row for row in found if row.anchor]
    counts.rows, counts.blank = len(examples), len(found) - len(examples)
    if examples and all(row.anchor and Path(row.anchor).is_file() for row in examples[:2]):
        raise DataError(
            f"expected sentences, found names of files such as {examples[0].anchor!r}; to read "
            "files, pass pathlib.Path objects"
        )
    return examples


def _example(row: Row, number: int, *, labeled: bool) -> Example:
    if isinstance(row, Example):
        return row
    texts = [row] if isinstance(row, str) else row
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise DataError(
            f"row {number}: expected a sentence, a tuple of sentences or an Example, found "
            f"{type(row).__name__}"
        )
    cells = [clean_text(text) for text in texts]
    if labeled and len(cells) != 3:
        raise DataError(f"row {number}: expected label, premise, hypothesis, found {len(cells)}")
    if not cells or not all(cells[1:2]):
        raise DataError(f"row {number}: expected an anchor and a positive, found an empty one")
    if labeled:
        return Example(cells[1], cells[2], label=cells[0], line=number)
    positive = cells[1] if len(cells) > 1 else None
    return Example(cells[0], positive, tuple(filter(None, cells[2:])), line=number)


def _add_validation(data: TrainingData, config: TrainConfig) -> TrainingData:
    rows, held_out = data.rows, list[Example]()
    if "heldout" in config.eval.sets:
        rows, held_out = hold_out(data.rows, config.eval.heldout, seed=config.seed)
    validate = find_validation(config, held_out)
    return replace(data, rows=rows, validate=validate, all_rows=data.rows)


def hold_out(
    examples: Sequence[Example], count: int, *, seed: int
) -> tuple[list[Example], list[Example]]:
    """Split rows into those to train on and ``count``, at most a tenth, for evaluation.

    A row with a held-out sentence is not trained on either: it is dropped.

    Raises:
        DataError: a tenth of the rows is fewer than two.
    """
    count = min(count, len(examples) // MAX_HELD_OUT)
    if count < MIN_HELD_OUT:
        least = MIN_HELD_OUT * MAX_HELD_OUT
        raise DataError(f"eval.dev=heldout needs at least {least} rows, got {len(examples)}")
    generator = torch.Generator().manual_seed(step_seed(seed, 0))
    chosen = set(torch.randperm(len(examples), generator=generator)[:count].tolist())
    held_out = [examples[i] for i in sorted(chosen)]
    known = {text for row in held_out for text in (row.anchor, row.positive) if text is not None}
    rest = [
        row
        for i, row in enumerate(examples)
        if i not in chosen and row.anchor not in known and row.positive not in known
    ]
    return rest, held_out


def find_validation(config: TrainConfig, held_out: Sequence[Example]) -> Validate | None:
    """Return the dev evaluation that ``eval.dev`` names; ``None`` for ``none``.

    Raises:
        DataError: a set is missing; the message says what else can be chosen.
    """
    found = [_validation(name, config, held_out) for name in config.eval.sets]
    return first_of(found) if found else None


def _validation(name: str, config: TrainConfig, held_out: Sequence[Example]) -> Validate:
    if name == "heldout":
        if not held_out:
            raise UsageError("eval.dev=heldout needs held-out rows")
        return heldout_validation(held_out, config.loss, batch_size=config.optim.batch_size)
    try:
        if name == "stsb":
            return sts_validation(load_sts_task("stsb-dev"))
        return sts_validation(read_sts(name), name=Path(name).stem)
    except DataError as error:
        raise DataError(
            f"{error}. Pass eval.dev=heldout to evaluate on held-out training rows, or "
            "eval.dev=none to train without a dev set"
        ) from error
