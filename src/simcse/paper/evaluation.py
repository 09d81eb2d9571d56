"""Measuring one model of a grid: its test scores, and what the grid's figure draws."""

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
from simcse.evaluate.measure import ModelEvaluation, Plan, Report, measure_model
from simcse.evaluate.retrieval import RetrievalSet, groups_set
from simcse.evaluate.sts import STS_TASKS, sts_average
from simcse.evaluate.transfer import TRANSFER_TASKS, transfer_average
from simcse.evaluate.vectors import unit
from simcse.io.benchmarks import load_sts_task, load_transfer_task
from simcse.io.files import Source
from simcse.io.records import stream_examples
from simcse.model.encoder import SentenceEncoder
from simcse.paper.materials import corpus_sentences
from simcse.paper.measures import Family
from simcse.postprocess import Layer, fit_all_but_the_top, fit_flow, fit_whitening
from simcse.report.evaluation import rating_bands

MAX_LENGTH = 128  # of a test sentence: the reference code trains on 32 tokens and tests uncut
SPLITS = {"stsb": "stsb-test", "sickr": "sickr-test"}
COSINE_EDGES = np.linspace(-1, 1, 201)
NEAREST = 3  # sentences shown of a query, as in the paper
DIGITS = 5  # of a singular value: results are committed
LAYERS: dict[str, Callable[[np.ndarray], Layer]] = {
    "whitening": fit_whitening,
    "all-but-the-top": fit_all_but_the_top,
    "flow": fit_flow,
}


@dataclass(frozen=True, eq=False)
class Search:
    """Queries, and the pairs among whose sentences the nearest are looked up.

    Attributes:
        path: the file of pairs.
        queries: sentences.
        places: the line and column of each document, where it stands first.
        asked: every sentence of the file looks for those it is paired with.
    """

    path: Path
    queries: tuple[str, ...]
    places: tuple[tuple[int, int], ...]
    asked: RetrievalSet


def read_search(path: Path, queries: Sequence[str], limit: int | None) -> Search:
    """Read the first rows of a file of pairs as something to search in.

    Raises:
        DataError: a row is no pair, or no two different sentences are paired.
    """
    pairs: list[tuple[str, str]] = []
    places: dict[str, tuple[int, int]] = {}
    for row in islice(stream_examples(Source(path)), limit):
        pairs.append(row.pair)
        for column, text in enumerate(pairs[-1], 1):
            places.setdefault(text, (row.line, column))
    asked = groups_set(path.name, pairs)
    found = tuple(places[text] for text in asked.documents)
    return Search(path, tuple(queries), found, asked)


def plan_tests(
    wanted: set[Family], protocol: Protocol = FULL, search: Search | None = None
) -> Plan:
    """Read the test sets that these measures need, before anything is trained.

    Raises:
        DataError: one is not there.
    """
    names = STS_TASKS if "sts" in wanted else ("stsb",) if "cosines" in wanted else ()
    sts = {name: load_sts_task(SPLITS.get(name, name)) for name in names}
    geometry = load_sts_task(SPLITS["stsb"]) if "geometry" in wanted else None
    tasks = TRANSFER_TASKS if "transfer" in wanted else ()
    transfer = [load_transfer_task(name) for name in tasks]
    asked = [search.asked] if search else []
    return Plan(sts=sts, transfer=transfer, protocol=protocol, geometry=geometry, retrieval=asked)


def is_empty(plan: Plan) -> bool:
    """Say whether nothing beyond the dev set is measured."""
    return not (plan.sts or plan.transfer or plan.geometry or plan.retrieval)


def with_layer(
    encoder: SentenceEncoder, kind: str, corpus: Path, sentences: int | None
) -> SentenceEncoder:
    """Fit post-processing to an encoder's embeddings of a training file and put it on top."""
    texts = corpus_sentences(corpus, sentences)
    layer = LAYERS[kind](encoder.without_postprocess().encode(texts, truncation="truncate"))
    return encoder.with_postprocess(kind.replace("-", "_"), layer)  # type: ignore[arg-type]


def measure_encoder(
    encoder: SentenceEncoder, plan: Plan, report: Report, search: Search | None = None
) -> dict[str, Any]:
    """Return the scores by measure, and under names of their own what figures draw."""
    encode: Encode = partial(_uncut(encoder).encode, truncation="truncate")
    if search is not None:  # once for both, the scores and the nearest sentences
        sentences = chain(plan.sentences(), search.queries)
        encode = embed_once(encode, sentences, advance=partial(report, "encoding"))
    found = measure_model("model", encode, plan, report=report)
    bands = (
        rating_bands(found.cosines["stsb"], plan.sts["stsb"].scores)
        if "stsb" in found.cosines
        else {}
    )
    drawn: dict[str, Any] = {"cosines": {name: _counts(band) for name, band in bands.items()}}
    if found.space is not None:
        values = found.space.singular_values.tolist()
        drawn["singular_values"] = [float(f"{value:.{DIGITS}g}") for value in values]
    if search is not None:
        drawn["neighbors"] = nearest(encode, search)
    return {"scores": test_scores(found), **{name: value for name, value in drawn.items() if value}}


def test_scores(found: ModelEvaluation) -> dict[str, float | None]:
    """Return every test score by the name of its measure."""
    scores: dict[str, float | None] = {}
    if len(found.sts) == len(STS_TASKS):
        scores = {task: result.spearman() for task, result in found.sts.items()}
        scores["sts_avg"] = sts_average(found.sts)
    if found.transfer:
        scores |= {task: result.accuracy for task, result in found.transfer.items()}
        scores["transfer_avg"] = transfer_average(found.transfer)
    for result in found.retrieval.values():
        scores["mrr"] = 100 * result.mrr
    for part, names in (
        (found.geometry, ("alignment", "uniformity")),
        (found.space, ("mean_cosine", "effective_rank", "top_1")),
    ):
        scores |= {name: getattr(part, name) for name in names if part is not None}
    return scores


def nearest(encode: Encode, search: Search) -> dict[str, list[list[float]]]:
    """Return each query's nearest sentences: line, column and cosine."""
    documents = unit(encode(search.asked.documents))
    found = {}
    for query, vector in zip(search.queries, unit(encode(search.queries)), strict=True):
        cosines = documents @ vector
        best = np.argsort(-cosines, kind="stable")[:NEAREST].tolist()
        found[query] = [[*search.places[row], round(float(cosines[row]), 4)] for row in best]
    return found


def cosines_of(counts: Mapping[str, Sequence[int]]) -> dict[str, list[float]]:
    """Return what `rating_densities` draws from the counts that a result keeps."""
    middles = (COSINE_EDGES[1:] + COSINE_EDGES[:-1]) / 2
    return {band: np.repeat(middles, kept).tolist() for band, kept in counts.items()}


def _counts(cosines: Sequence[float]) -> list[int]:
    """Count cosines in bins of a hundredth."""
    counts, _ = np.histogram(np.clip(cosines, -1, 1), COSINE_EDGES)
    return [int(count) for count in counts]


def _uncut(encoder: SentenceEncoder) -> SentenceEncoder:
    """Return the encoder with the length limit that test sentences have."""
    limit = min(MAX_LENGTH, encoder.backbone.max_positions or MAX_LENGTH)
    return encoder.with_max_length(limit)
