"""Training rows from labeled premises and hypotheses: pairs, or with hard negatives."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from simcse.errors import ConfigError, DataError
from simcse.io.columns import UNDECIDED
from simcse.io.records import LABELS, Example

Hypotheses = dict[str, dict[str, str]]  # premise -> hypothesis -> label, UNDECIDED if several


@dataclass(frozen=True)
class NliRows:
    """Training rows made from labeled ones."""

    # Premise, positive, and a hard negative of each label that was asked for.
    rows: tuple[tuple[str, ...], ...]
    labels: Counter[str]  # number of rows read, by label
    premises: int  # number of different premises
    # By label, premises left out because they lack a hypothesis of it; with every rows without that
    # hard negative.
    lacking: Counter[str]


def nli_rows(
    examples: Iterable[Example],
    *,
    positives: str,
    hard_negatives: Sequence[str] = (),
    every: bool = False,
    seed: int = 0,
) -> NliRows:
    """Make the supervised training sets of Gao et al. 2021, tables 4 and 7.

    Without hard negatives each row with the label ``positives`` (``all``: any) is a pair, in the
    order read. With them rows are matched by their premise, word for word: each premise that has
    a hypothesis of every label asked for gives one row, and one of several hypotheses is drawn.
    With ``every`` each positive gives a row, with one drawn of each label that its premise has. A
    hypothesis that has several labels for one premise is left out there.

    Args:
        examples: labeled rows, from `simcse.io.records.stream_examples`; all are held in memory.
        positives: one of `LABELS`, or ``all``.
        hard_negatives: others of `LABELS`, in the order of the columns.
        every: make a row for each positive, whatever hard negatives there are.
        seed: random seed.

    Raises:
        ConfigError: a label is positive and hard negative, or none of `LABELS`; or ``every`` is
            given without hard negatives.
        DataError: a row has another label (``file:line``), or no row comes out.
    """
    wanted = LABELS if positives == "all" else (positives,)
    _check_labels(wanted, hard_negatives)
    if every and not hard_negatives:
        raise ConfigError("every positive is a row anyway where no hard negatives are asked for")
    labels: Counter[str] = Counter()
    rows: list[tuple[str, ...]] = []
    premises: Hypotheses = {}
    for example in examples:
        premise, hypothesis, label = example.anchor, example.positive or "", example.label
        if label not in (*LABELS, UNDECIDED):
            where = f"{example.file}:{example.line}: " if example.file else ""
            raise DataError(f"{where}expected one of {', '.join(LABELS)}, found {label!r}")
        labels[label] += 1
        if label in wanted:
            rows.append((premise, hypothesis))
        known = premises.setdefault(premise, {})
        known[hypothesis] = label if known.get(hypothesis, label) == label else UNDECIDED
    lacking: Counter[str] = Counter()
    if hard_negatives:
        match = _each_positive if every else _each_premise
        rows = list(match(premises, (positives, *hard_negatives), lacking, random.Random(seed)))
    if not rows:
        asked = ", ".join((positives, *hard_negatives))
        raise DataError(f"no premise has hypotheses of {asked}; rows by label: {dict(labels)}")
    return NliRows(tuple(rows), labels, len(premises), lacking)


def _check_labels(positives: Sequence[str], hard_negatives: Sequence[str]) -> None:
    for label in (*positives, *hard_negatives):
        if label not in LABELS:
            raise ConfigError(f"expected one of {', '.join(LABELS)}, found {label!r}")
    if len({*positives, *hard_negatives}) < len(positives) + len(hard_negatives):
        asked = f"positives {', '.join(positives)}, hard negatives {', '.join(hard_negatives)}"
        raise ConfigError(f"each label can be asked for once, found {asked}")


def _each_premise(
    premises: Hypotheses, wanted: Sequence[str], lacking: Counter[str], generator: random.Random
) -> Iterator[tuple[str, ...]]:
    """Yield each premise that has hypotheses of all labels ``wanted``, with one of each."""
    for premise, known in premises.items():
        found = _by_label(known, wanted)
        lacking.update(name for name, texts in found.items() if not texts)
        if all(found.values()):
            yield (premise, *map(generator.choice, found.values()))


def _each_positive(
    premises: Hypotheses, wanted: Sequence[str], lacking: Counter[str], generator: random.Random
) -> Iterator[tuple[str, ...]]:
    """Yield each hypothesis of the first label, with one of each other label that is there."""
    for premise, known in premises.items():
        found = _by_label(known, wanted)
        for positive in found.pop(wanted[0]):
            lacking.update(name for name, texts in found.items() if not texts)
            negatives = [generator.choice(texts) for texts in found.values() if texts]
            yield (premise, positive, *negatives)


def _by_label(known: Mapping[str, str], wanted: Sequence[str]) -> dict[str, list[str]]:
    return {name: [text for text, label in known.items() if label == name] for name in wanted}
