"""Adapting a model to a user's own text: train briefly, choose without labels, keep what helps."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from simcse.evaluate import Encode
from simcse.evaluate.retrieval import RetrievalSet, query_scores
from simcse.evaluate.significance import PairedDifference, compare_means
from simcse.io.locks import lock_folder
from simcse.model.encoder import SentenceEncoder
from simcse.model.token_weights import SMOOTHING, fit_token_weights
from simcse.report.tables import Column, Table
from simcse.train.callbacks import BEST, write_report
from simcse.train.callbacks import SETTINGS as RUN_SETTINGS
from simcse.train.events import Callback, TrainResult
from simcse.train.processes import join_processes
from simcse.train.run import START, emit_note, refuse_used, train
from simcse.train.settings import TrainConfig
from simcse.train.training_data import DataSource, TrainingData, load_training_data

REJECTED = "rejected"  # folder of a model that is worse than before
MIN_COUNTED = 1_000  # rows; fewer are not enough to count token frequencies
TITLE = "Adaptation"

# A few minutes on two cores. A low learning rate: the model is good already, the text is narrow.
SETTINGS: dict[str, Any] = {
    "data": {"limit": 20_000},
    "optim": {"lr": 2e-5, "warmup": 0.1},
    "eval": {"dev": "heldout", "every": 25, "patience": 4},
}


@dataclass(frozen=True)
class Adaptation:
    """Outcome of an adaptation."""

    training: TrainResult
    pairs: PairedDifference | None  # mean reciprocal rank x100 on the user's pairs
    rejection: str | None  # why the model is in rejected/; None if it is in best/
    trained: bool  # false if only the token weights were counted
    table: Table | None  # `pairs` as a table


def adapt(
    model: str,
    data: DataSource,
    output: Path,
    config: TrainConfig,
    *,
    pairs: RetrievalSet | None = None,
    resume: bool = False,
    command: str = "",
    callbacks: Sequence[Callback] = (),
) -> Adaptation:
    """Train ``model`` on a user's text and leave ``best/`` only if it is no worse than before.

    Token weights, if the model has them, are first counted again on the text. If they alone rank
    ``pairs`` as well as the trained model does, ``best/`` has them alone.

    The checkpoint is chosen by the loss on held-out rows; a collapsed one is never chosen. The
    chosen model and the start model are then compared on ``pairs``, which take no part in
    training or in that choice. A model that is worse is moved from ``best/`` to ``rejected/``.

    Arguments and errors are those of `simcse.train.run.train`; ``config`` is based on `SETTINGS`.
    """
    with join_processes(config.train.timeout) as processes:
        if processes.is_first:
            refuse_used(output, resume=resume)
        rows = load_training_data(data, config, note=partial(emit_note, callbacks))
        start, note = processes.from_first(lambda: _make_start(model, rows, output, config))
        if note:
            emit_note(callbacks, note)
        result = train(
            rows,
            model=start,
            output=output,
            config=config,
            resume=resume,
            command=command,
            callbacks=callbacks,
            report=TITLE,
        )
        return processes.from_first(lambda: _judge(model, start, output, config, result, pairs))


def _judge(
    model: str,
    start: str,
    output: Path,
    config: TrainConfig,
    result: TrainResult,
    pairs: RetrievalSet | None,
) -> Adaptation:
    """Rank the labeled pairs, move the better model to ``best/``, reject it if it is worse."""
    adapted = output / (REJECTED if (output / REJECTED).exists() else BEST)
    difference, trained, table = None, True, None
    if pairs is not None:
        before = SentenceEncoder.load(model, precision="fp32", changes=_start_changes(config))
        after = SentenceEncoder.load(adapted, precision="fp32")
        ranks = [reciprocal_ranks(each.encode, pairs) for each in (before, after)]
        if start != model:
            counted = SentenceEncoder.load(start, precision="fp32")
            counted_ranks = reciprocal_ranks(counted.encode, pairs)
            if sum(counted_ranks) >= sum(ranks[1]):
                ranks[1], trained = counted_ranks, False
                counted.save(adapted)
        difference = compare_means(*ranks)[0]
        table = _table(pairs.name, difference)
        write_report(output, table, title=TITLE)
    rejection = _find_rejection(result, difference, trained=trained)
    if rejection is not None and adapted.name == BEST:
        adapted.rename(output / REJECTED)
    return Adaptation(result, difference, rejection, trained, table)


def _make_start(
    model: str, data: TrainingData, output: Path, config: TrainConfig
) -> tuple[str, str]:
    """Return the start model, or a copy of it with new token weights, and a note."""
    start = output / START
    if (output / RUN_SETTINGS).exists():
        return (str(start) if start.exists() else model), ""
    rows = data.all_rows
    encoder = SentenceEncoder.load(model, precision="fp32", changes=_start_changes(config))
    if encoder.token_weights is None or len(rows) < MIN_COUNTED:
        return model, ""
    texts = [text for row in rows for text in (row.anchor, row.positive, *row.negatives) if text]
    vocabulary = encoder.backbone.model.config.vocab_size
    weights = fit_token_weights(encoder.tokenizer.ids(texts), vocabulary)
    provenance = {
        "corpus": [path.name for path in data.files],
        "sentences": len(texts),
        "smoothing": SMOOTHING,
    }
    with lock_folder(output):
        encoder.with_token_weights(weights, provenance).save(start)
    return str(start), f"token weights are counted again on {len(texts):,} sentences"


def reciprocal_ranks(encode: Encode, pairs: RetrievalSet) -> Sequence[float]:
    """Return 1 / rank of each query's best relevant document."""
    documents, queries = encode(pairs.documents), encode(pairs.queries)
    scores = query_scores(queries, documents, pairs.relevant, own=pairs.own)
    ranks: list[float] = scores[:, 0].tolist()
    return ranks


def _start_changes(config: TrainConfig) -> dict[str, Any]:
    """Return the changes with which the start model is loaded for comparison: pooling alone."""
    pooling = config.model.pooling
    return {} if pooling is None else {"pooling": pooling}


def _table(name: str, pairs: PairedDifference) -> Table:
    titles = ("Pairs", "Before", "After", "Difference", "From", "To", "p")
    columns = tuple(Column(title, 3 if title == "p" else 2) for title in titles)
    row = (name, pairs.first, pairs.second, pairs.difference, pairs.low, pairs.high, pairs.p)
    return Table("Mean reciprocal rank x100, with its 95 % interval", columns, (row,))


def _find_rejection(
    result: TrainResult, difference: PairedDifference | None, *, trained: bool
) -> str | None:
    if trained and result.start and result.best_step == 0:
        return "no evaluation was better than that of the start model on the held-out rows"
    if difference is not None and difference.difference < 0:
        return (
            f"it is worse on the labeled pairs: mean reciprocal rank {difference.first:.1f} "
            f"before, {difference.second:.1f} after (95 % interval of the difference "
            f"{difference.low:+.1f} to {difference.high:+.1f})"
        )
    return None
