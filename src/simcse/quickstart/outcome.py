"""What a quickstart found: as numbers, a table and words."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from simcse.quickstart.measure import (
    RECALL_AT,
    Difference,
    Hit,
    Measures,
    mrr_difference,
    verdict,
)
from simcse.quickstart.prose import Corpus
from simcse.report.tables import Column, Table, Value
from simcse.report.versions import versions
from simcse.train.events import TrainResult
from simcse.train.settings import TrainConfig

COMMAND = "simcse quickstart"


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a quickstart found; all measures are of the test part.

    Attributes:
        model: name of the start model.
        corpus: what was trained on and held out.
        config: all training settings.
        training: steps, time, and the best step by the development part.
        log: events of the training, as lines of the log.
        start: the start model.
        best: the model in ``best/``: the start model where no step beat it.
        last: the model after the last step.
        answers: what the best model finds, by question.
        seconds: wall-clock time.
    """

    model: str
    corpus: Corpus
    config: TrainConfig
    training: TrainResult
    log: tuple[dict[str, Any], ...]
    start: Measures
    best: Measures
    last: Measures
    answers: dict[str, list[Hit]]
    seconds: float

    @property
    def models(self) -> dict[str, Measures]:
        """The distinct models, each under what it is to the user."""
        name, best_step, steps = Path(self.model).name, self.training.best_step, self.training.steps
        last = {f"last/: step {steps}": self.last}
        if best_step == 0:
            return {f"before, and best/: {name}": self.start} | last
        models = {f"before: {name}": self.start, f"after, best/: step {best_step}": self.best}
        return models if best_step == steps else models | last

    def table(self) -> Table:
        """Return the measures before and after."""
        columns = (
            Column("Model"),
            Column("MRR", 3, best="highest"),
            Column(f"Recall@{RECALL_AT}", 3, best="highest"),
            Column("Alignment", 3),
            Column("Uniformity", 3),
        )
        rows: tuple[tuple[Value, ...], ...] = tuple(
            (name, *found.numbers.values()) for name, found in self.models.items()
        )
        title = f"Finding the body of {len(self.corpus.test)} held-out docstrings by their summary"
        return Table(title, columns, rows)

    def conclusions(self) -> list[str]:
        """Say of each trained model whether it is better than the start model."""
        best_step, steps = self.training.best_step, self.training.steps
        last = f"last/ against the start model: {verdict(self.change(self.last))}"
        if best_step == 0:
            return ["best/ is the start model: no step beat it on the development part.", last]
        best = f"best/ against the start model: {verdict(self.change(self.best))}"
        return [best] if best_step == steps else [best, last]

    def change(self, trained: Measures) -> Difference:
        """Compare a trained model's MRR with the start model's."""
        return mrr_difference(self.start, trained, seed=self.config.seed)

    def results(self) -> dict[str, Any]:
        """Return the numbers and answers as plain values."""
        corpus = self.corpus
        return {
            "command": COMMAND,
            "model": self.model,
            "seed": self.config.seed,
            "sentences": {"trained": len(corpus.sentences), "available": corpus.available},
            "held_out": {"dev": len(corpus.dev), "test": len(corpus.test)},
            "test": {
                "start": self.start.numbers,
                "best": self.best.numbers,
                "last": self.last.numbers,
            },
            "mrr_change": {
                "best": asdict(self.change(self.best)),
                "last": asdict(self.change(self.last)),
            },
            "training": asdict(self.training),
            "answers": {
                question: [{**asdict(hit.sentence), "cosine": hit.cosine} for hit in hits]
                for question, hits in self.answers.items()
            },
            "seconds": self.seconds,
            "versions": versions(),
        }


def next_commands(output: Path) -> list[str]:
    """Return commands to type next, each of which runs as it stands, in this order."""
    paths = (f"{output / name}" for name in ("best", "sentences.txt"))
    best, sentences = (f'"{path}"' if " " in path else path for path in paths)
    return [
        f'simcse similarity "Open a file." "Read from disk." --model {best}',
        f"simcse encode {sentences} --model {best} --output vectors.npy",
        f"simcse train --train {sentences} --output runs/mine eval.dev=none",
        "simcse data fetch",
        "simcse evaluate sts mini",
        "simcse --help",
    ]
