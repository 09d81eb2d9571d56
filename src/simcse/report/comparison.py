"""Two models on the same test items: differences, intervals, p-values; kept beside the results."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse.errors import ArtifactError, DataError
from simcse.evaluate.bootstrap import (
    PairedDifference,
    compare_average,
    compare_means,
    compare_spearman,
)
from simcse.evaluate.sts import STS_TASKS
from simcse.evaluate.transfer import TRANSFER_TASKS
from simcse.report.tables import Column, Table

TITLES = {
    "sts12": "STS12",
    "sts13": "STS13",
    "sts14": "STS14",
    "sts15": "STS15",
    "sts16": "STS16",
    "stsb": "STS-B",
    "sickr": "SICK-R",
    "mr": "MR",
    "cr": "CR",
    "subj": "SUBJ",
    "mpqa": "MPQA",
    "sst2": "SST-2",
    "trec": "TREC",
    "mrpc": "MRPC",
}
STS_AVERAGE, TRANSFER_AVERAGE = "STS average", "Transfer average"


@dataclass(frozen=True, eq=False)
class Items:
    """What each test item got from one model.

    Attributes:
        model: the model's name.
        gold: the ratings (N,) of each STS task.
        cosines: its cosines (N,) by STS task.
        correct: which test examples (N,) it told right, by transfer task.
    """

    model: str
    gold: Mapping[str, NDArray[Any]]
    cosines: Mapping[str, NDArray[Any]]
    correct: Mapping[str, NDArray[Any]]


Comparison = dict[str, PairedDifference]


def compare(first: Items, second: Items) -> Comparison:
    """Compare two models on every task both were measured on, and on whole averages.

    Raises:
        DataError: they share no task, or a task's items differ.
    """
    found, sts, transfer = {}, [], []
    for task in (task for task in STS_TASKS if task in first.cosines and task in second.cosines):
        if not np.array_equal(first.gold[task], second.gold[task]):
            raise DataError(f"{TITLES[task]}: the two models were measured on other pairs")
        sts.append(compare_spearman(first.cosines[task], second.cosines[task], first.gold[task]))
        found[TITLES[task]] = sts[-1][0]
    if len(sts) == len(STS_TASKS):
        found[STS_AVERAGE] = compare_average(sts)
    for task in (
        task for task in TRANSFER_TASKS if {task} <= first.correct.keys() & second.correct
    ):
        transfer.append(compare_means(first.correct[task], second.correct[task]))
        found[TITLES[task]] = transfer[-1][0]
    if len(transfer) == len(TRANSFER_TASKS):
        found[TRANSFER_AVERAGE] = compare_average(transfer)
    if not found:
        raise DataError(f"{first.model} and {second.model} were not measured on a common task")
    return found


def comparison_table(first: str, second: str, found: Comparison) -> Table:
    """Return one task a row: both scores, the difference, its interval and p-value."""
    columns = (
        Column("Task"),
        Column(first),
        Column(second),
        Column("Difference"),
        Column("95 % from"),
        Column("to"),
        Column("p", decimals=3),
    )
    rows = tuple(
        (task, each.first, each.second, each.difference, each.low, each.high, each.p)
        for task, each in found.items()
    )
    return Table(f"{second} minus {first}, paired bootstrap", columns, rows)


def pack(values: NDArray[Any]) -> str:
    """Write numbers as base64 of little-endian float32, truth values as base64 of bits."""
    array = np.asarray(values)
    if array.dtype == np.bool_:
        return f"bits:{len(array)}:{base64.b64encode(np.packbits(array).tobytes()).decode()}"
    return f"f4:{len(array)}:{base64.b64encode(array.astype('<f4').tobytes()).decode()}"


def unpack(text: str) -> NDArray[Any]:
    """Read what `pack` wrote.

    Raises:
        ValueError: it is something else.
    """
    kind, length, data = text.split(":")
    stored = base64.b64decode(data, validate=True)
    if kind == "bits":
        return np.unpackbits(np.frombuffer(stored, np.uint8), count=int(length)).astype(bool)
    found = np.frombuffer(stored, "<f4")
    if kind != "f4" or len(found) != int(length):
        raise ValueError(f"expected {length} numbers, got {kind} {len(found)}")
    return found


def read_items(results: Mapping[str, Any], path: object) -> list[Items]:
    """Return the items of each model in the results of an evaluation.

    Raises:
        ArtifactError: the results are of another kind or damaged.
    """
    try:
        gold = {task: unpack(text) for task, text in results["gold"].items()}
        return [
            Items(
                str(model["model"]),
                gold,
                {task: unpack(text) for task, text in model["cosines"].items()},
                {task: unpack(text) for task, text in model["correct"].items()},
            )
            for model in results["models"]
        ]
    except (KeyError, TypeError, AttributeError, ValueError, binascii.Error) as error:
        raise ArtifactError(
            f"{path} has no items to compare by; make it with `simcse evaluate all|sts|transfer "
            f"--output FOLDER` ({error!r})"
        ) from error
