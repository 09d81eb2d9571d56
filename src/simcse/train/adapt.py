"""Adapting a model to a user's own text: train briefly, choose without labels, keep what helps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simcse.evaluate import Encode
from simcse.evaluate.retrieval import RetrievalSet, query_scores
from simcse.evaluate.significance import PairedDifference, compare_means
from simcse.io.files import ReadCounts
from simcse.io.locks import lock_folder
from simcse.model.encoder import SentenceEncoder
from simcse.model.token_weights import SMOOTHING, fit_token_weights
from simcse.train.evaluator import Event, TrainReport
from simcse.train.processes import join_processes
from simcse.train.run import BEST, START, read_rows, refuse_used, train_run
from simcse.train.run import SETTINGS as RUN_SETTINGS
from simcse.train.settings import TrainConfig

REFUSED = "refused"  # the folder of a model that is not handed over
COUNTED = 1_000  # rows; fewer do not say how frequent a token is

# A few minutes on two cores. A gentle rate: the model is good already, the text is narrow.
SETTINGS: dict[str, Any] = {
    "data": {"limit": 20_000},
    "optim": {"lr": 2e-5, "warmup": 0.1},
    "eval": {"dev": "heldout", "every": 25, "patience": 4},
}


@dataclass(frozen=True)
class Adaptation:
    """What adapting a model came to.

    Attributes:
        training: the run.
        pairs: mean reciprocal rank x100 on the user's pairs, before and after; ``None`` without.
        refusal: why the model is not handed over; ``None`` if it is.
        trained: whether training had a part in it, and not the token weights alone.
    """

    training: TrainReport
    pairs: PairedDifference | None
    refusal: str | None
    trained: bool


def adapt(
    model: str,
    files: Sequence[Path],
    output: Path,
    config: TrainConfig,
    *,
    pairs: RetrievalSet | None = None,
    resume: bool = False,
    command: str = "",
    observe: Callable[[Event], None] = lambda event: None,
) -> Adaptation:
    """Train ``model`` on a user's text and leave ``best/`` only if it is no worse than before.

    Token weights, where the model has them, are counted anew on the text before; if ``pairs`` are
    ranked no worse by them alone than by the trained model, they alone are handed over.

    The checkpoint is chosen by the loss on held-out rows; one that collapsed is never chosen. With
    ``pairs``, which have no part in training or in that choice, the chosen model and the start
    model are compared. A model that is not handed over is moved from ``best/`` to ``refused/``.

    Args:
        model: the start model, a folder, bundled name or hub id.
        files: training files; see `train_run`, which raises the same errors.
        output: the run folder.
        config: all settings; see `SETTINGS`.
        pairs: queries and their documents.
        resume: go on from the last checkpoint.
        command: what was typed, for the model's provenance.
        observe: is told of every event.
    """
    with join_processes(config.train.timeout) as processes:
        start = processes.from_first(
            lambda: _begin(model, files, output, config, resume=resume, observe=observe)
        )
    report = train_run(
        start, files, output, config, resume=resume, command=command, observe=observe
    )
    with join_processes(config.train.timeout) as processes:
        return processes.from_first(lambda: _judge(model, start, output, config, report, pairs))


def _judge(
    model: str,
    start: str,
    output: Path,
    config: TrainConfig,
    report: TrainReport,
    pairs: RetrievalSet | None,
) -> Adaptation:
    """Rank the labeled pairs, put the better model into ``best/``, refuse it if it is worse."""
    adapted = output / (REFUSED if (output / REFUSED).exists() else BEST)
    found, trained = None, True
    if pairs is not None:
        before = SentenceEncoder.load(model, precision="fp32", changes=_told(config))
        after = SentenceEncoder.load(adapted, precision="fp32")
        ranks = [reciprocal_ranks(each.encode, pairs) for each in (before, after)]
        if start != model:
            counted = SentenceEncoder.load(start, precision="fp32")
            alone = reciprocal_ranks(counted.encode, pairs)
            if sum(alone) >= sum(ranks[1]):
                ranks[1], trained = alone, False
                counted.save(adapted)
        found = compare_means(*ranks)[0]
    refusal = _refusal(report, found, trained=trained)
    if refusal is not None and adapted.name == BEST:
        adapted.rename(output / REFUSED)
    return Adaptation(report, found, refusal, trained)


def _begin(
    model: str,
    files: Sequence[Path],
    output: Path,
    config: TrainConfig,
    *,
    resume: bool,
    observe: Callable[[Event], None],
) -> str:
    """Return what to train from: the start model, or one made of it with token weights anew."""
    refuse_used(output, resume=resume)
    start = output / START
    if (output / RUN_SETTINGS).exists():
        return str(start) if start.exists() else model
    rows = read_rows(files, config, ReadCounts())
    encoder = SentenceEncoder.load(model, precision="fp32", changes=_told(config))
    if encoder.token_weights is None or len(rows) < COUNTED:
        return model
    texts = [text for row in rows for text in (row.anchor, row.positive, *row.negatives) if text]
    vocabulary = encoder.backbone.model.config.vocab_size
    weights = fit_token_weights(encoder.tokenizer.ids(texts), vocabulary)
    told = {
        "corpus": [path.name for path in files],
        "sentences": len(texts),
        "smoothing": SMOOTHING,
    }
    with lock_folder(output):
        encoder.with_token_weights(weights, told).save(start)
    observe({"event": "note", "text": f"token weights counted anew on {len(texts):,} sentences"})
    return str(start)


def reciprocal_ranks(encode: Encode, asked: RetrievalSet) -> Sequence[float]:
    """Return 1 / rank of each query's best relevant document."""
    documents, queries = encode(asked.documents), encode(asked.queries)
    scores = query_scores(queries, documents, asked.relevant, own=asked.own)
    ranks: list[float] = scores[:, 0].tolist()
    return ranks


def _told(config: TrainConfig) -> dict[str, Any]:
    """Return what the start model was told: it is compared as it was before training."""
    pooling = config.model.pooling
    return {} if pooling is None else {"pooling": pooling}


def _refusal(report: TrainReport, found: PairedDifference | None, *, trained: bool) -> str | None:
    if trained and report.start and report.best_step == 0:
        return "no look at the model was better than the start model on the held-out rows"
    if found is not None and found.difference < 0:
        return (
            f"on the labeled pairs it is worse: mean reciprocal rank {found.first:.1f} before, "
            f"{found.second:.1f} after (95 % interval of the difference {found.low:+.1f} to "
            f"{found.high:+.1f})"
        )
    return None
