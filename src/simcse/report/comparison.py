"""Paired comparison of two models on the same test items, stored with the results."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse.errors import ArtifactError, DataError, UsageError
from simcse.evaluate.significance import (
    PairedDifference,
    compare_average,
    compare_means,
    compare_spearman,
)
from simcse.evaluate.sts import STS_TASKS
from simcse.evaluate.suite import ModelEvaluation
from simcse.evaluate.transfer import TRANSFER_TASKS
from simcse.report.tables import Column, Table

TITLES = {task: task.upper() for task in (*STS_TASKS, *TRANSFER_TASKS)}
TITLES |= {"stsb": "STS-B", "sickr": "SICK-R", "sst2": "SST-2"}
STS_AVERAGE, TRANSFER_AVERAGE = "STS average", "Transfer average"
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class ItemScores:
    """One model's score on each test item."""

    model: str  # the model's name
    gold: Arrays  # the ratings (N,) of each STS task
    cosines: Arrays  # the model's cosines (N,) by STS task
    correct: Arrays  # whether each test example (N,) was classified correctly, by transfer task

    @classmethod
    def of(cls, model: ModelEvaluation, gold: Arrays) -> "ItemScores":
        """Return the item scores of an evaluated model."""
        correct = {task: result.correct for task, result in model.transfer.items()}
        return cls(model.model, gold, model.cosines, correct)


def find_model(
    models: Sequence[ItemScores], name: str | None, path: object, option: str
) -> ItemScores:
    """Return the model of this name, or the only one.

    Raises:
        UsageError: there is no such model, or there are several and no name.
    """
    known = ", ".join(model.model for model in models)
    if name is None and len(models) != 1:
        raise UsageError(f"{path} has {len(models)} models ({known}). Choose one by {option}.")
    found = [model for model in models if name in (None, model.model)]
    if not found:
        raise UsageError(f"{path} has no model {name!r}; it has {known}")
    return found[0]


def compare_models(first: ItemScores, second: ItemScores) -> dict[str, PairedDifference]:
    """Compare two models on every task both were evaluated on, and on complete averages.

    Raises:
        DataError: they share no task, or a task's items differ.
    """
    sts = [task for task in STS_TASKS if task in first.cosines and task in second.cosines]
    transfer = [task for task in TRANSFER_TASKS if task in first.correct and task in second.correct]
    for task in sts:
        if not np.array_equal(first.gold[task], second.gold[task]):
            raise DataError(f"{TITLES[task]}: the two models were evaluated on other pairs")
    if not sts + transfer:
        raise DataError(f"{first.model} and {second.model} were not evaluated on a common task")
    found = {
        task: compare_spearman(first.cosines[task], second.cosines[task], first.gold[task])
        for task in sts
    } | {task: compare_means(first.correct[task], second.correct[task]) for task in transfer}
    differences: dict[str, PairedDifference] = {}
    for tasks, complete, title in (
        (sts, STS_TASKS, STS_AVERAGE),
        (transfer, TRANSFER_TASKS, TRANSFER_AVERAGE),
    ):
        differences |= {TITLES[task]: found[task][0] for task in tasks}
        if len(tasks) == len(complete):
            differences[title] = compare_average([found[task] for task in tasks])
    return differences


def model_comparison_table(first: ItemScores, second: ItemScores) -> Table:
    """Return one task a row: both scores, the difference, its interval and p-value."""
    titles = ("Task", first.model, second.model, "Difference", "95 % from", "to")
    columns = (*map(Column, titles), Column("p", decimals=3))
    rows = tuple(
        (task, each.first, each.second, each.difference, each.low, each.high, each.p)
        for task, each in compare_models(first, second).items()
    )
    return Table(f"{second.model} minus {first.model}, paired bootstrap", columns, rows)


def array_to_text(values: NDArray[Any]) -> str:
    """Write numbers as base64 of little-endian float32, truth values as base64 of bits."""
    array = np.asarray(values)
    is_bits = array.dtype == np.bool_
    data = np.packbits(array) if is_bits else array.astype("<f4")
    encoded = base64.b64encode(data.tobytes()).decode()
    return f"{'bits' if is_bits else 'f4'}:{len(array)}:{encoded}"


def text_to_array(text: str) -> NDArray[Any]:
    """Read the text of `array_to_text`.

    Raises:
        ValueError: it is something else.
    """
    dtype, length, encoded = text.split(":")
    data = base64.b64decode(encoded, validate=True)
    if dtype == "bits":
        return np.unpackbits(np.frombuffer(data, np.uint8), count=int(length)).astype(bool)
    found = np.frombuffer(data, "<f4")
    if dtype != "f4" or len(found) != int(length):
        raise ValueError(f"expected {length} numbers, got {dtype} {len(found)}")
    return found


def read_item_scores(results: Mapping[str, Any], path: object) -> list[ItemScores]:
    """Return the item scores of each model in the results of an evaluation.

    Raises:
        ArtifactError: the results are not those of an evaluation, or damaged.
    """

    def arrays(texts: Mapping[str, str]) -> Arrays:
        return {task: text_to_array(text) for task, text in texts.items()}

    try:
        gold = arrays(results["gold"])
        return [
            ItemScores(
                str(model["model"]), gold, arrays(model["cosines"]), arrays(model["correct"])
            )
            for model in results["models"]
        ]
    except (KeyError, TypeError, AttributeError, ValueError, binascii.Error) as error:
        raise ArtifactError(
            f"{path} has no scores of single test items. Make it with `simcse evaluate "
            f"all|sts|transfer --output FOLDER` ({error!r})"
        ) from error
