"""The quickstart: from the prose of this Python to a trained model, its measures and answers."""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import tomli_w

from simcse.config import to_dict
from simcse.errors import UsageError
from simcse.evaluate import Encode
from simcse.io.checkpoints import atomic_folder
from simcse.io.examples import Example
from simcse.io.files import write_text
from simcse.io.log import append_log
from simcse.io.results import read_results, write_results
from simcse.io.vectors import vector_writer
from simcse.model.encoder import SentenceEncoder
from simcse.quickstart.measure import Hit, Measures, measure, search
from simcse.quickstart.outcome import COMMAND, Outcome
from simcse.quickstart.prose import Corpus, Pair, build_corpus, read_docstrings, read_topics
from simcse.quickstart.report import quickstart_report
from simcse.train.events import Callback, Event, ModelReady, TrainResult
from simcse.train.optim import OptimConfig
from simcse.train.order import count_steps
from simcse.train.settings import EvalConfig, TrainConfig
from simcse.train.trainer import Trainer
from simcse.train.training_data import TrainingData
from simcse.train.validation import Validation

SENTENCES = 4096
QUESTIONS = (
    "How do I catch an exception?",
    "How can I stop a loop early?",
    "What is a generator?",
)
ANSWERS = 3  # shown for each question
EVALUATIONS = 4  # on the development part, after the one before the first step

BEST, LAST, LOG, SETTINGS = "best", "last", "log.jsonl", "settings.toml"
RESULTS, TEXTS, VECTORS, REPORT = "results.json", "sentences.txt", "embeddings.npy", "report.html"
WRITTEN = {BEST, LAST, LOG, SETTINGS, RESULTS, TEXTS, VECTORS, REPORT}


@dataclass(frozen=True)
class StageStarted(Event):
    """A stage of the quickstart begins."""

    title: str
    name: ClassVar[str] = "stage"


def quickstart(
    output: Path,
    *,
    model: str = "mini",
    sentences: int = SENTENCES,
    seed: int = 0,
    callback: Callback = lambda event: None,
) -> Outcome:
    """Train unsupervised SimCSE on the prose of this Python; measure it, search with it, report.

    ``output`` appears, or takes the place of an earlier quickstart's, when all of it is there.

    Args:
        output: the folder to write.
        model: the start model: a folder, a bundled name or a hub id.
        sentences: how many to train on and search in.
        seed: of the batch order, the dropout and the bootstrap.
        callback: receives a `StageStarted` for each stage, and the events of the training.

    Raises:
        UsageError: ``output`` holds something else.
        DataError: this Python carries no documentation, or ``sentences`` is below 2.
        ResourceError: ``output`` cannot be written.
        NumericError: training left the finite numbers.

    Example:
        >>> quickstart(Path("quickstart")).best.mrr  # doctest: +SKIP
        0.51
    """
    check_output(output)
    with atomic_folder(output) as folder:
        return _Quickstart(folder, model, seed, callback).run(sentences)


def check_output(output: Path) -> None:
    """Refuse a folder with anything that no quickstart wrote, because it will be replaced.

    Raises:
        UsageError: it has, or it is a file, or the folder the command runs in.
        ArtifactError: its results are damaged.
    """
    if not output.exists():
        return
    if not output.is_dir() or Path.cwd().is_relative_to(output.resolve()):
        raise UsageError(f"{output} cannot be replaced; give --output a folder of its own")
    present = {path.name for path in output.iterdir()}
    ours = RESULTS in present and read_results(output / RESULTS).get("command") == COMMAND
    foreign = sorted(present - WRITTEN if ours else present)
    if foreign:
        raise UsageError(
            f"{output} would be replaced and has what no quickstart wrote: "
            f"{', '.join(foreign[:3])}; move that away or give another --output"
        )


class _Quickstart:
    """One run, stage by stage, into a folder that is published when it is complete."""

    def __init__(self, folder: Path, model: str, seed: int, callback: Callback) -> None:
        self.folder, self.model, self.seed, self.callback = folder, model, seed, callback
        self.started = time.perf_counter()
        self.log: list[dict[str, Any]] = []

    def run(self, sentences: int) -> Outcome:
        """Go through the stages."""
        self.stage("Reading the documentation that comes with this Python")
        corpus = build_corpus(read_topics(), read_docstrings(), limit=sentences)
        config = train_config(len(corpus.sentences), seed=self.seed)
        self.write_inputs(corpus, config)
        self.stage(f"Measuring {self.model} on {len(corpus.test)} held-out docstrings")
        start = measure(encoding(self.model), corpus.test)
        trained, available = len(corpus.sentences), corpus.available
        self.stage(f"Training on {trained:,} of {available:,} sentences, seed {self.seed}")
        training = self.train(corpus, config)
        self.stage("Measuring what training changed")
        best, last = self.measure_trained(corpus.test, start, training)
        self.stage(f"Encoding {trained:,} sentences and asking {len(QUESTIONS)} questions")
        answers = self.answer(corpus)
        outcome = Outcome(
            model=self.model,
            corpus=corpus,
            config=config,
            training=training,
            log=tuple(self.log),
            start=start,
            best=best,
            last=last,
            answers=answers,
            seconds=time.perf_counter() - self.started,
        )
        write_text(self.folder / REPORT, quickstart_report(outcome))
        write_results(self.folder / RESULTS, outcome.results())
        return outcome

    def stage(self, title: str) -> None:
        """Announce the next stage."""
        self.record(StageStarted(title))

    def record(self, event: Event) -> None:
        """Log an event and pass it on."""
        if event.logged:
            self.log.append(event.to_json())
            append_log(self.folder / LOG, event.to_json())
        self.callback(event)

    def write_inputs(self, corpus: Corpus, config: TrainConfig) -> None:
        """Write what goes into training."""
        texts = "".join(f"{sentence.text}\n" for sentence in corpus.sentences)
        write_text(self.folder / TEXTS, texts)
        run = {"command": COMMAND, "model": self.model, "sentences": len(corpus.sentences)}
        write_text(self.folder / SETTINGS, tomli_w.dumps({**to_dict(config), "run": run}))

    def train(self, corpus: Corpus, config: TrainConfig) -> TrainResult:
        """Train the start model; save the best by the development part, and the last."""
        encoder = SentenceEncoder.load(
            self.model, precision="fp32"
        )  # the trainer chooses how to run it
        encoder.provenance = {
            "command": COMMAND,
            "start": Path(self.model).name,
            "start_provenance": encoder.provenance,
            "settings": to_dict(config),
        }

        def save(event: Event) -> None:
            if isinstance(event, ModelReady):
                encoder.provenance["step"] = event.step
                if event.best:
                    encoder.save(self.folder / BEST)

        rows = [Example(sentence.text) for sentence in corpus.sentences]
        data = TrainingData(rows, validate=partial(validate_pairs, pairs=corpus.dev))
        result = Trainer(encoder, data, config, callbacks=[self.record, save]).fit()
        encoder.save(self.folder / LAST)
        return result

    def measure_trained(
        self, pairs: tuple[Pair, ...], start: Measures, training: TrainResult
    ) -> tuple[Measures, Measures]:
        """Measure the best and the last model, and no model twice."""
        last = measure(encoding(self.folder / LAST), pairs)
        known = {0: start, training.steps: last}
        best = known.get(training.best_step) or measure(encoding(self.folder / BEST), pairs)
        return best, last

    def answer(self, corpus: Corpus) -> dict[str, list[Hit]]:
        """Embed the sentences with the best model, write them, and search them."""
        encode = encoding(self.folder / BEST)
        texts = [sentence.text for sentence in corpus.sentences]
        vectors = encode(texts)
        with vector_writer(self.folder / VECTORS) as append:
            append(texts, vectors)
        return {
            question: search(encode, vectors, corpus.sentences, question, count=ANSWERS)
            for question in QUESTIONS
        }


def train_config(sentences: int, *, seed: int) -> TrainConfig:
    """Return the settings: gentle ones, for a start model that embeds sentences already.

    Raises:
        DataError: there are too few sentences for one step.
    """
    optim = OptimConfig(lr=2e-5, batch_size=64, epochs=1)
    every = max(1, count_steps(sentences, optim) // EVALUATIONS)
    return TrainConfig(seed=seed, optim=optim, eval=EvalConfig(every=every, dev="none"))


def validate_pairs(encoder: SentenceEncoder, pairs: tuple[Pair, ...]) -> Validation:
    """Evaluate the model: MRR of the held-out pairs is the score."""
    found = measure(partial(encoder.encode, truncation="truncate"), pairs)
    return Validation(found.mrr, dict(found.numbers))


def encoding(model: str | Path) -> Encode:
    """Load a model for its embeddings only; what is over its length limit is cut."""
    return partial(SentenceEncoder.load(model).encode, truncation="truncate")
