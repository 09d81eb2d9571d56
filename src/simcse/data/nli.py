"""Labeled premises and hypotheses as training rows: pairs, or with hard negatives."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from simcse.errors import ConfigError, DataError
from simcse.io.records import Example

LABELS = ("entailment", "neutral", "contradiction")
UNDECIDED = "-"  # SNLI's label where its annotators did not agree


@dataclass(frozen=True)
class NliRows:
    """Training rows out of labeled ones.

    Attributes:
        rows: premise, positive, and a hard negative of each label that was asked for.
        labels: rows read, by label.
        premises: different ones that were read.
        lacking: by label, premises left out because they lack a hypothesis of it; with ``every``
            rows that do without.
    """

    rows: tuple[tuple[str, ...], ...]
    labels: Counter[str]
    premises: int
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
    a hypothesis of every label asked for gives one row, of several hypotheses one is drawn. With
    ``every`` each positive gives a row, with one drawn of each label that its premise has. A
    hypothesis that has several labels for one premise is left out there.

    Args:
        examples: rows with labels, from `simcse.io.records.stream_labeled`; all are held.
        positives: one of `LABELS`, or ``all``.
        hard_negatives: others of `LABELS`, in the order of the columns.
        every: a row for each positive, whatever hard negatives there are.
        seed: of the draws.

    Raises:
        ConfigError: a label is positive and hard negative, or none of `LABELS`; or ``every`` is
            asked for without hard negatives.
        DataError: a row has another label (``file:line``), or no row comes out.
    """
    wanted = LABELS if positives == "all" else (positives,)
    _check(wanted, hard_negatives)
    if every and not hard_negatives:
        raise ConfigError("every positive is a row anyway where no hard negatives are asked for")
    labels: Counter[str] = Counter()
    pairs: list[tuple[str, ...]] = []
    premises: dict[str, dict[str, str]] = {}  # premise -> hypothesis -> label, UNDECIDED if several
    for row in examples:
        premise, hypothesis, label = row.anchor, row.positive or "", row.label
        if label not in (*LABELS, UNDECIDED):
            where = f"{row.file}:{row.line}: " if row.file else ""
            raise DataError(f"{where}expected one of {', '.join(LABELS)}, got {label!r}")
        labels[label] += 1
        if label in wanted:
            pairs.append((premise, hypothesis))
        known = premises.setdefault(premise, {})
        known[hypothesis] = label if known.get(hypothesis, label) == label else UNDECIDED
    lacking: Counter[str] = Counter()
    if hard_negatives:
        match = _each_positive if every else _matched
        pairs = list(match(premises, (positives, *hard_negatives), lacking, seed))
    if not pairs:
        asked = ", ".join((positives, *hard_negatives))
        raise DataError(
            f"no premise has what was asked for ({asked}); rows by label: {dict(labels)}"
        )
    return NliRows(tuple(pairs), labels, len(premises), lacking)


def _check(positives: Sequence[str], hard_negatives: Sequence[str]) -> None:
    for label in (*positives, *hard_negatives):
        if label not in LABELS:
            raise ConfigError(f"expected one of {', '.join(LABELS)}, got {label!r}")
    if len({*positives, *hard_negatives}) < len(positives) + len(hard_negatives):
        asked = f"positives {', '.join(positives)}, hard negatives {', '.join(hard_negatives)}"
        raise ConfigError(f"each label can be asked for once, got {asked}")


def _matched(
    premises: Mapping[str, Mapping[str, str]],
    wanted: Sequence[str],
    lacking: Counter[str],
    seed: int,
) -> Iterator[tuple[str, ...]]:
    """Yield each premise that has hypotheses of all labels ``wanted``, with one of each."""
    draw = random.Random(seed)
    for premise, known in premises.items():
        found = _by_label(known, wanted)
        lacking.update(name for name, texts in found.items() if not texts)
        if all(found.values()):
            yield (premise, *map(draw.choice, found.values()))


def _each_positive(
    premises: Mapping[str, Mapping[str, str]],
    wanted: Sequence[str],
    lacking: Counter[str],
    seed: int,
) -> Iterator[tuple[str, ...]]:
    """Yield each hypothesis of the first label, with one of each other label that is there."""
    draw = random.Random(seed)
    for premise, known in premises.items():
        found = _by_label(known, wanted)
        for positive in found.pop(wanted[0]):
            lacking.update(name for name, texts in found.items() if not texts)
            yield (premise, positive, *(draw.choice(texts) for texts in found.values() if texts))


def _by_label(known: Mapping[str, str], wanted: Sequence[str]) -> dict[str, list[str]]:
    return {name: [text for text, label in known.items() if label == name] for name in wanted}
