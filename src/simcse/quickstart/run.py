"""The quickstart: from the prose of this Python to a trained model, its measures and answers."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import tomli_w

from simcse.config import to_dict
from simcse.errors import UsageError
from simcse.evaluate import Encode
from simcse.io.checkpoints import atomic_folder
from simcse.io.files import write_text
from simcse.io.log import append_log
from simcse.io.records import Example
from simcse.io.results import read_results, write_results
from simcse.io.vectors import vector_writer
from simcse.model.encoder import SentenceEncoder
from simcse.quickstart.measure import Hit, Measures, measure, search
from simcse.quickstart.outcome import COMMAND, Outcome
from simcse.quickstart.prose import Corpus, Pair, build_corpus, read_docstrings, read_topics
from simcse.quickstart.report import quickstart_report
from simcse.train.evaluator import Event, TrainReport
from simcse.train.loop import count_steps, fit
from simcse.train.optim import OptimConfig
from simcse.train.settings import EvalConfig, TrainConfig
from simcse.train.validation import Validation

SENTENCES = 4096
QUESTIONS = (
    "How do I catch an exception?",
    "How can I stop a loop early?",
    "What is a generator?",
)
ANSWERS = 3  # shown for each question
LOOKS = 4  # at the development part, after the one before the first step

BEST, LAST, LOG, SETTINGS = "best", "last", "log.jsonl", "settings.toml"
RESULTS, TEXTS, VECTORS, REPORT = "results.json", "sentences.txt", "embeddings.npy", "report.html"
WRITTEN = {BEST, LAST, LOG, SETTINGS, RESULTS, TEXTS, VECTORS, REPORT}

Observe = Callable[[Event], None]


def quickstart(
    output: Path,
    *,
    model: str = "mini",
    sentences: int = SENTENCES,
    seed: int = 0,
    observe: Observe = lambda event: None,
) -> Outcome:
    """Train unsupervised SimCSE on the prose of this Python; measure it, search with it, report.

    ``output`` appears, or takes the place of an earlier quickstart's, when all of it is there.

    Args:
        output: the folder to write.
        model: the start model: a folder, a bundled name or a hub id.
        sentences: how many to train on and search in.
        seed: of the batch order, the dropout and the bootstrap.
        observe: is told of each stage, as ``{"event": "stage", "title": ...}``, and of all that
            `simcse.train.loop.fit` tells.

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
        return _Quickstart(folder, model, seed, observe).run(sentences)


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

    def __init__(self, folder: Path, model: str, seed: int, observe: Observe) -> None:
        self.folder, self.model, self.seed, self.observe = folder, model, seed, observe
        self.started = time.perf_counter()
        self.log: list[Event] = []

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
        self.tell({"event": "stage", "title": title})

    def tell(self, event: Event) -> None:
        """Log an event and pass it on."""
        self.log.append(event)
        append_log(self.folder / LOG, event)
        self.observe(event)

    def write_inputs(self, corpus: Corpus, config: TrainConfig) -> None:
        """Write what goes into training."""
        texts = "".join(f"{sentence.text}\n" for sentence in corpus.sentences)
        write_text(self.folder / TEXTS, texts)
        run = {"command": COMMAND, "model": self.model, "sentences": len(corpus.sentences)}
        write_text(self.folder / SETTINGS, tomli_w.dumps({**to_dict(config), "run": run}))

    def train(self, corpus: Corpus, config: TrainConfig) -> TrainReport:
        """Train the start model; save the best by the development part, and the last."""
        encoder = SentenceEncoder.load(self.model, precision="fp32")  # fit chooses how to run it
        encoder.provenance = {
            "command": COMMAND,
            "start": Path(self.model).name,
            "start_provenance": encoder.provenance,
            "settings": to_dict(config),
        }

        def keep(encoder: SentenceEncoder, best: bool) -> None:
            encoder.provenance["step"] = self.log[-1]["step"]  # of the look just told
            if best:
                encoder.save(self.folder / BEST)

        examples = [Example(sentence.text) for sentence in corpus.sentences]
        look = partial(validate_pairs, pairs=corpus.dev)
        report = fit(encoder, examples, config, validate=look, observe=self.tell, keep=keep)
        encoder.save(self.folder / LAST)
        return report

    def measure_trained(
        self, pairs: tuple[Pair, ...], start: Measures, training: TrainReport
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
    every = max(1, count_steps(sentences, optim) // LOOKS)
    return TrainConfig(seed=seed, optim=optim, eval=EvalConfig(every=every, dev="none"))


def validate_pairs(encoder: SentenceEncoder, pairs: tuple[Pair, ...]) -> Validation:
    """Look at the model: MRR of the held-out pairs chooses."""
    found = measure(partial(encoder.encode, truncation="truncate"), pairs)
    return Validation(found.mrr, dict(found.numbers))


def encoding(model: str | Path) -> Encode:
    """Load a model for its embeddings only; what is over its length limit is cut."""
    return partial(SentenceEncoder.load(model).encode, truncation="truncate")
