"""Evaluation of one model of a grid: its test scores, and the values that figures draw."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from simcse.evaluate import Encode
from simcse.evaluate.classifier import FULL, Protocol
from simcse.evaluate.embeddings import embed_once
from simcse.evaluate.retrieval import RetrievalSet, groups_set
from simcse.evaluate.sts import STS_TASKS, sts_average
from simcse.evaluate.suite import (
    EvaluationSuite,
    ModelEvaluation,
    ProgressCallback,
    evaluate_model,
)
from simcse.evaluate.transfer import TRANSFER_TASKS, transfer_average
from simcse.evaluate.vectors import unit
from simcse.io.benchmarks import load_sts_task, load_transfer_task
from simcse.io.files import Source
from simcse.io.records import stream_examples
from simcse.model.encoder import SentenceEncoder
from simcse.paper.metrics import Family
from simcse.paper.training_files import corpus_sentences
from simcse.postprocess import Layer, fit_all_but_the_top, fit_flow, fit_whitening
from simcse.report.evaluation import rating_bands

MAX_LENGTH = 128  # tokens; the original SimCSE code trains on 32 and evaluates without a limit
TEST_FILES = {"stsb": "stsb-test", "sickr": "sickr-test"}
COSINE_EDGES = np.linspace(-1, 1, 201)
NEAREST = 3  # sentences per query, as in the paper
DIGITS = 5  # of a singular value: results are committed
LAYERS: dict[str, Callable[[np.ndarray], Layer]] = {
    "whitening": fit_whitening,
    "all-but-the-top": fit_all_but_the_top,
    "flow": fit_flow,
}


@dataclass(frozen=True, eq=False)
class NeighborSearch:
    """Queries, and the pairs among whose sentences their neighbors are found."""

    queries: tuple[str, ...]  # sentences
    # Line and column of the first occurrence of each document.
    positions: tuple[tuple[int, int], ...]
    retrieval_set: RetrievalSet  # every sentence of the file is a query for those it is paired with


def read_search(path: Path, queries: Sequence[str], limit: int | None) -> NeighborSearch:
    """Read the first rows of a file of pairs to search in.

    Raises:
        DataError: a row is not a pair, or no two different sentences are paired.
    """
    pairs: list[tuple[str, str]] = []
    positions: dict[str, tuple[int, int]] = {}
    for row in islice(stream_examples(Source(path)), limit):
        pairs.append(row.pair)
        for column, text in enumerate(pairs[-1], 1):
            positions.setdefault(text, (row.line, column))
    found = groups_set(path.name, pairs)
    return NeighborSearch(tuple(queries), tuple(positions[text] for text in found.documents), found)


def load_tests(
    wanted: set[Family], protocol: Protocol = FULL, search: NeighborSearch | None = None
) -> EvaluationSuite:
    """Read the test sets that the metrics need, before anything is trained.

    Raises:
        DataError: one is missing.
    """
    names = STS_TASKS if "sts" in wanted else ("stsb",) if "cosines" in wanted else ()
    tasks = TRANSFER_TASKS if "transfer" in wanted else ()
    return EvaluationSuite(
        sts={name: load_sts_task(TEST_FILES.get(name, name)) for name in names},
        transfer=[load_transfer_task(name) for name in tasks],
        protocol=protocol,
        geometry=load_sts_task(TEST_FILES["stsb"]) if "geometry" in wanted else None,
        retrieval=[search.retrieval_set] if search else [],
    )


def has_tests(tests: EvaluationSuite) -> bool:
    """Return whether there is anything to evaluate besides the dev set."""
    return bool(tests.sts or tests.transfer or tests.geometry or tests.retrieval)


def with_layer(
    encoder: SentenceEncoder, layer: str, corpus: Path, sentences: int | None
) -> SentenceEncoder:
    """Fit a post-processing layer to an encoder's embeddings of a training file and add it."""
    texts = corpus_sentences(corpus, sentences)
    fitted = LAYERS[layer](encoder.without_postprocess().encode(texts, truncation="truncate"))
    return encoder.with_postprocess(layer.replace("-", "_"), fitted)  # type: ignore[arg-type]


def evaluate_encoder(
    encoder: SentenceEncoder,
    tests: EvaluationSuite,
    progress: ProgressCallback,
    search: NeighborSearch | None = None,
) -> dict[str, Any]:
    """Return the scores by metric, and the values that figures draw."""
    limit = min(MAX_LENGTH, encoder.backbone.max_positions or MAX_LENGTH)
    encode: Encode = partial(encoder.with_max_length(limit).encode, truncation="truncate")
    if search is not None:  # once for both, the scores and the neighbors
        sentences = chain(tests.sentences(), search.queries)
        encode = embed_once(encode, sentences, progress=partial(progress, "encoding"))
    found = evaluate_model("model", encode, tests, progress=progress)
    drawn: dict[str, Any] = {}
    if "stsb" in found.cosines:
        bands = rating_bands(found.cosines["stsb"], tests.sts["stsb"].scores)
        drawn["cosines"] = {name: _histogram(band) for name, band in bands.items()}
    if found.space is not None:
        values = found.space.singular_values.tolist()
        drawn["singular_values"] = [float(f"{value:.{DIGITS}g}") for value in values]
    if search is not None:
        drawn["neighbors"] = find_neighbors(encode, search)
    return {"scores": test_scores(found), **{name: value for name, value in drawn.items() if value}}


def test_scores(found: ModelEvaluation) -> dict[str, float | None]:
    """Return every test score by the name of its metric."""
    scores: dict[str, float | None] = {}
    if len(found.sts) == len(STS_TASKS):
        scores = {task: result.spearman() for task, result in found.sts.items()}
        scores["sts_avg"] = sts_average(found.sts)
    if found.transfer:
        scores |= {task: result.accuracy for task, result in found.transfer.items()}
        scores["transfer_avg"] = transfer_average(found.transfer)
    for result in found.retrieval.values():
        scores["mrr"] = 100 * result.mrr
    for values, names in (
        (found.geometry, ("alignment", "uniformity")),
        (found.space, ("mean_cosine", "effective_rank", "top_1")),
    ):
        scores |= {name: getattr(values, name) for name in names if values is not None}
    return scores


def find_neighbors(encode: Encode, search: NeighborSearch) -> dict[str, list[list[float]]]:
    """Return each query's nearest sentences: line, column and cosine."""
    documents = unit(encode(search.retrieval_set.documents))
    found = {}
    for query, vector in zip(search.queries, unit(encode(search.queries)), strict=True):
        cosines = documents @ vector
        best = np.argsort(-cosines, kind="stable")[:NEAREST].tolist()
        found[query] = [[*search.positions[row], round(float(cosines[row]), 4)] for row in best]
    return found


def cosines_of(counts: Mapping[str, Sequence[int]]) -> dict[str, list[float]]:
    """Return the cosines that `rating_densities` draws from the histograms of a result."""
    middles = (COSINE_EDGES[1:] + COSINE_EDGES[:-1]) / 2
    return {band: np.repeat(middles, each).tolist() for band, each in counts.items()}


def _histogram(cosines: Sequence[float]) -> list[int]:
    counts, _ = np.histogram(np.clip(cosines, -1, 1), COSINE_EDGES)
    return [int(count) for count in counts]
