"""The quickstart: train on the documentation that comes with Python, evaluate, search, report."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from simcse.errors import UsageError
from simcse.evaluate import Encode
from simcse.evaluate.geometry import alignment, uniformity
from simcse.evaluate.retrieval import query_scores
from simcse.evaluate.significance import PairedDifference, compare_means
from simcse.evaluate.vectors import Floats, cosine, unit
from simcse.io.checkpoints import atomic_folder
from simcse.io.files import write_text
from simcse.io.locks import LOCK
from simcse.io.log import read_log
from simcse.io.records import Example
from simcse.io.results import read_results, write_results
from simcse.io.vectors import vector_writer
from simcse.model.encoder import SentenceEncoder
from simcse.quickstart.prose import (
    Corpus,
    Pair,
    Sentence,
    build_corpus,
    read_docstrings,
    read_topics,
)
from simcse.report.versions import versions
from simcse.train.callbacks import BEST, LAST, LOG, REPORT, SETTINGS
from simcse.train.events import Callback, Event, TrainResult
from simcse.train.optim import OptimConfig
from simcse.train.order import count_steps
from simcse.train.run import train
from simcse.train.settings import EvalConfig, TrainConfig
from simcse.train.state import CHECKPOINTS
from simcse.train.training_data import TrainingData
from simcse.train.validation import Validation

COMMAND = "simcse quickstart"
SENTENCES = 4096
QUESTIONS = (
    "How do I catch an exception?",
    "How can I stop a loop early?",
    "What is a generator?",
)
ANSWERS = 3  # per question
EVALUATIONS = 4  # on the dev pairs, after the one before the first step
RECALL_AT = 10

RESULTS, TEXTS, VECTORS = "results.json", "sentences.txt", "embeddings.npy"
RUN = {BEST, LAST, LOG, SETTINGS, LOCK, CHECKPOINTS, "tensorboard"}
WRITTEN = {*RUN, RESULTS, TEXTS, VECTORS, REPORT}

Answers = Mapping[str, Sequence[tuple[Sentence, float]]]  # by question, with the cosine


@dataclass(frozen=True)
class StageStarted(Event):
    """A stage of the quickstart begins."""

    title: str
    name: ClassVar[str] = "stage"
    logged: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, eq=False)
class DocstringMetrics:
    """Scores of one model on held-out docstrings."""

    reciprocal_ranks: Floats  # (N,) 1 / rank of each summary's own body among all bodies
    recall: float  # share of summaries whose body is among the first `RECALL_AT`
    alignment: float  # of summary and body; lower is better
    uniformity: float  # of all summaries and bodies; lower is better
    positive_cosines: Floats  # (N,) of each summary and its own body
    random_cosines: Floats  # (N,) of each summary and another body

    @property
    def mrr(self) -> float:
        """Mean reciprocal rank, from 0 to 1."""
        return float(self.reciprocal_ranks.mean())

    @property
    def scores(self) -> dict[str, float | None]:
        """The four scores by name."""
        return {
            "mrr": self.mrr,
            "recall": self.recall,
            "alignment": self.alignment,
            "uniformity": self.uniformity,
        }


@dataclass(frozen=True, slots=True, eq=False)
class QuickstartResult:
    """The result of a quickstart; all metrics are of the test pairs."""

    model: str  # name of the start model
    corpus: Corpus  # the training sentences and the held-out pairs
    config: TrainConfig  # all training settings
    training: TrainResult  # steps, time, and the best step by the dev pairs
    log: Sequence[Mapping[str, Any]]  # the events of the training, as lines of the log
    start: DocstringMetrics  # the start model
    best: DocstringMetrics  # the model in best/, which is the start model if no step was better
    last: DocstringMetrics  # the model after the last step
    answers: Answers  # what the best model finds
    seconds: float  # wall-clock time

    def change(self, trained: DocstringMetrics) -> PairedDifference:
        """Compare the MRR of a trained model with that of the start model, x100."""
        seed = self.config.seed
        return compare_means(self.start.reciprocal_ranks, trained.reciprocal_ranks, seed=seed)[0]

    def to_json(self) -> dict[str, Any]:
        """Return the scores and answers as plain values."""
        models = {"start": self.start, "best": self.best, "last": self.last}
        trained = {"best": self.best, "last": self.last}
        return {
            "command": COMMAND,
            "model": self.model,
            "seed": self.config.seed,
            "sentences": {
                "trained": len(self.corpus.sentences),
                "available": self.corpus.available,
            },
            "held_out": {"dev": len(self.corpus.dev), "test": len(self.corpus.test)},
            "test": {name: found.scores for name, found in models.items()},
            "mrr_change_x100": {name: asdict(self.change(it)) for name, it in trained.items()},
            "training": asdict(self.training),
            "answers": {
                question: [{**asdict(sentence), "cosine": score} for sentence, score in found]
                for question, found in self.answers.items()
            },
            "seconds": self.seconds,
            "versions": versions(),
        }


def quickstart(
    output: Path,
    *,
    model: str = "mini",
    sentences: int = SENTENCES,
    seed: int = 0,
    callback: Callback = lambda event: None,
) -> QuickstartResult:
    """Train unsupervised SimCSE on the documentation of this Python, evaluate, search and report.

    ``output`` appears, or replaces that of an earlier quickstart, when it is complete.

    Args:
        output: the folder to write.
        model: the start model: a folder, a bundled name or a hub id.
        sentences: number of sentences to train on and to search in.
        seed: of the batch order, the dropout and the bootstrap.
        callback: receives a `StageStarted` for each stage, and the events of the training.

    Raises:
        UsageError: ``output`` holds something else.
        DataError: this Python has no documentation, or ``sentences`` is below 2.
        ResourceError: ``output`` cannot be written.
        NumericError: the loss is not finite.

    Example:
        >>> quickstart(Path("quickstart")).best.mrr  # doctest: +SKIP
        0.51
    """
    from simcse.quickstart.report import quickstart_report  # which needs the result's class

    def stage(title: str) -> None:
        callback(StageStarted(title))

    started = time.perf_counter()
    check_output(output)
    with atomic_folder(output) as folder:
        stage("Reading the documentation that comes with this Python")
        corpus = build_corpus(read_topics(), read_docstrings(), limit=sentences)
        config = train_config(len(corpus.sentences), seed=seed)
        stage(f"Evaluating {model} on {len(corpus.test)} held-out docstrings")
        start = evaluate_pairs(load_encode(model), corpus.test)
        trained = f"{len(corpus.sentences):,} of {corpus.available:,} sentences"
        stage(f"Training on {trained}, seed {seed}")
        training = _train(folder, model, corpus, config, [callback])
        log = read_log(folder / LOG)
        stage("Evaluating the trained model")
        last = evaluate_pairs(load_encode(folder / LAST), corpus.test)
        encode = load_encode(folder / BEST)
        known = {0: start, training.steps: last}
        best = known.get(training.best_step) or evaluate_pairs(encode, corpus.test)
        stage(f"Encoding {len(corpus.sentences):,} sentences to answer {len(QUESTIONS)} questions")
        answers = _encode_and_search(folder, encode, corpus.sentences)
        seconds = time.perf_counter() - started
        result = QuickstartResult(
            model, corpus, config, training, log, start, best, last, answers, seconds
        )
        write_text(folder / REPORT, quickstart_report(result))
        write_results(folder / RESULTS, result.to_json())
    return result


def check_output(output: Path) -> None:
    """Check that a folder, which will be replaced, holds only files of an earlier quickstart.

    Raises:
        UsageError: it does not, or it is a file, or the current folder.
        ArtifactError: its results are damaged.
    """
    if not output.exists():
        return
    if not output.is_dir() or Path.cwd().is_relative_to(output.resolve()):
        raise UsageError(f"{output} cannot be replaced; pass another folder as --output")
    present = {path.name for path in output.iterdir()}
    ours = RESULTS in present and read_results(output / RESULTS).get("command") == COMMAND
    foreign = sorted(present - WRITTEN if ours else present)
    if foreign:
        raise UsageError(
            f"{output} would be replaced, but holds files that no quickstart wrote: "
            f"{', '.join(foreign[:3])}. Move them, or pass another folder as --output."
        )


def train_config(sentences: int, *, seed: int) -> TrainConfig:
    """Return settings with a low learning rate, because the start model embeds sentences already.

    Raises:
        DataError: there are too few sentences for one step.
    """
    optim = OptimConfig(lr=2e-5, batch_size=64, epochs=1)
    every = max(1, count_steps(sentences, optim) // EVALUATIONS)
    return TrainConfig(seed=seed, optim=optim, eval=EvalConfig(every=every, dev="none"))


def evaluate_pairs(encode: Encode, pairs: Sequence[Pair]) -> DocstringMetrics:
    """Evaluate an encoder on held-out pairs: a summary is the query for its own body.

    Raises:
        NumericError: an embedding holds NaN or infinity.
    """
    summaries = encode([pair.summary for pair in pairs])  # (N, D)
    bodies = encode([pair.body for pair in pairs])  # (N, D)
    found = query_scores(summaries, bodies, range(len(pairs)), k=RECALL_AT)  # (N, 3)
    return DocstringMetrics(
        reciprocal_ranks=found[:, 0],
        recall=float(found[:, 1].mean()),
        alignment=alignment(summaries, bodies),
        uniformity=uniformity(np.concatenate([summaries, bodies])),
        positive_cosines=cosine(summaries, bodies),
        random_cosines=cosine(summaries, np.roll(bodies, 1, axis=0)),
    )


def find_sentences(
    encode: Encode, vectors: np.ndarray, sentences: Sequence[Sentence], question: str, *, count: int
) -> list[tuple[Sentence, float]]:
    """Return the nearest sentences and their cosines: vectors (N, D), best first."""
    cosines = unit(vectors) @ unit(encode([question]))[0]  # (N,)
    nearest = np.argsort(-cosines, kind="stable")[:count]
    return [(sentences[row], float(cosines[row])) for row in nearest]


def load_encode(model: str | Path) -> Encode:
    """Load a model for its embeddings; texts over its length limit are truncated."""
    return partial(SentenceEncoder.load(model).encode, truncation="truncate")


def _train(
    folder: Path,
    model: str,
    corpus: Corpus,
    config: TrainConfig,
    callbacks: Sequence[Callback],
) -> TrainResult:
    """Train on the sentences; the dev pairs choose the best model."""

    def validate(encoder: SentenceEncoder) -> Validation:
        found = evaluate_pairs(partial(encoder.encode, truncation="truncate"), corpus.dev)
        return Validation(found.mrr, found.scores)

    rows = [Example(sentence.text) for sentence in corpus.sentences]
    return train(
        TrainingData(rows, validate),
        model=model,
        output=folder,
        config=config,
        callbacks=callbacks,
        command=COMMAND,
        report=None,
    )


def _encode_and_search(folder: Path, encode: Encode, sentences: Sequence[Sentence]) -> Answers:
    """Write the sentences and their embeddings, and search them."""
    texts = [sentence.text for sentence in sentences]
    write_text(folder / TEXTS, "".join(f"{text}\n" for text in texts))
    vectors = encode(texts)
    with vector_writer(folder / VECTORS) as append:
        append(texts, vectors)
    return {
        question: find_sentences(encode, vectors, sentences, question, count=ANSWERS)
        for question in QUESTIONS
    }
