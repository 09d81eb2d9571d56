"""Training speed: systems that take steps of SimCSE and minimize the same loss.

python benchmarks/train.py --model mini --input sentences.txt
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn

from encode import DEVICE, mean_encoder
from race import System
from race_options import race_options, read_sentences, run_race
from simcse import config
from simcse.cli.main import main
from simcse.cli.options import count_option
from simcse.io.records import Example
from simcse.losses.settings import LossConfig
from simcse.model.huggingface import locate
from simcse.train.optim import OptimConfig
from simcse.train.settings import TrainConfig
from simcse.train.trainer import Trainer
from simcse.train.training_data import TrainingData

TextRow = Sequence[str]  # a sentence; or anchor, positive and any number of hard negatives
TEMPERATURE = LossConfig().temperature
RATE = OptimConfig().lr
PLACEHOLDERS = (Example("a"), Example("b"))  # the race passes its own batches
SYSTEMS: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("simcse, auto", "ours", {"precision": "auto"}),
    ("original code's step, fp32", "reference", {}),
    ("sentence-transformers' step, bf16", "sentence_transformers", {}),
)


@click.command()
@race_options
@count_option("--batch", "Number of sentences per step.", default=64, minimum=2)
@click.option(
    "--dropout",
    type=click.FloatRange(0, 1, max_open=True),
    help="Dropout rate in place of the model's.",
)
def train(
    model: str,
    source: Path | None,
    sentences: int,
    max_length: int,
    batch: int,
    dropout: float | None,
    **options: Any,  # noqa: ANN401 - of the race
) -> None:
    """Take steps of unsupervised training: simcse, the original code's step, its peers.

    Agreement is the difference to the first system's loss on the first batch; with `--dropout 0`
    it is the difference that rounding makes.

    \b
    Example:
      python benchmarks/train.py --output results.json
    """
    texts = read_sentences(source, sentences)
    if len(texts) < batch:
        raise click.UsageError(f"a batch needs {batch} sentences, found {len(texts)}")
    entered = systems(model, texts, batch=batch, max_length=max_length, dropout=dropout)
    title = f"One step on {batch} sentences, twice each, of at most {max_length} tokens"
    products = {
        "model": model,
        "sentences": texts,
        "max_length": max_length,
        "passes": 2 * 3 * batch / len(texts),  # forward and backward, on one batch
    }
    run_race(title, entered, lambda ours, theirs: theirs - ours, products, **options)


@dataclass(frozen=True)
class TrainingRun:
    """A model in training.

    Attributes:
        update: takes a step on rows and returns its loss.
        encode: sentences -> (N, D), by the model as it is now.
    """

    update: Callable[[Sequence[TextRow]], float]
    encode: Callable[[Sequence[str]], np.ndarray]


def systems(
    model: str, sentences: Sequence[str], *, batch: int, max_length: int, dropout: float | None
) -> list[System]:
    """List the systems: first simcse, then its peers."""
    task = {
        "model": model,
        "rows": [[sentence] for sentence in sentences],
        "batch": batch,
        "max_length": max_length,
        "dropout": dropout,
    }
    return [
        System(name, "train:steps", {**task, "system": system, "system_options": options})
        for name, system, options in SYSTEMS
    ]


def steps(
    system: str,
    system_options: dict[str, Any],
    model: str,
    rows: Sequence[TextRow],
    *,
    batch: int,
    **options: Any,  # noqa: ANN401 - of the training run
) -> Callable[[], float]:
    """Return a function that takes the next step and returns its loss."""
    run, following = RUNS[system](model, **options, **system_options), batches(rows, batch)
    return lambda: run.update(next(following))


def ours(
    model: str, *, max_length: int, dropout: float | None, precision: str, lr: float = RATE
) -> TrainingRun:
    """Train by the step of `simcse.train.trainer.Trainer`."""
    settings = config.build(
        TrainConfig,
        {
            "precision": precision,
            "model": {"dropout": dropout},
            "loss": {"mask_duplicates": False},  # as the peers
            "optim": {"lr": lr, "schedule": "constant"},
        },
    )
    encoder = mean_encoder(model, max_length)
    trainer, numbers = Trainer(encoder, TrainingData(PLACEHOLDERS), settings), itertools.count(1)
    trainer.setup()

    def update(rows: Sequence[TextRow]) -> float:
        examples = [
            Example(row[0], row[1] if len(row) > 1 else None, tuple(row[2:])) for row in rows
        ]
        return trainer.training_step(next(numbers), examples).loss

    return TrainingRun(update, lambda texts: encoder.encode(texts, truncation="truncate"))


def reference(
    model: str, *, max_length: int, dropout: float | None, lr: float = RATE
) -> TrainingRun:
    """Train as the original SimCSE code does: padded, in fp32, by a plain forward pass."""
    encoder = mean_encoder(model, max_length)
    backbone, tokenizer = encoder.backbone.padded_model(), encoder.tokenizer.hf_tokenizer
    _set_dropout(backbone, dropout)
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=lr, weight_decay=0.0)

    def embed(texts: list[str]) -> Tensor:
        inputs = tokenizer(
            texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt"
        ).to(encoder.device)
        hidden = backbone(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1)
        pooled: Tensor = (hidden * mask).sum(1) / mask.sum(1)
        return pooled

    def update(rows: Sequence[TextRow]) -> float:
        backbone.train()
        columns = _columns(rows)
        texts = [
            column[i] for i in range(len(rows)) for column in columns
        ]  # in the order of the original code
        pooled = embed(texts).view(len(rows), len(columns), -1)  # (N, C, D)
        candidates = pooled[:, 1:].transpose(0, 1).flatten(0, 1)
        return _step(_loss(pooled[:, 0], candidates), backbone, optimizer)

    @torch.inference_mode()
    def encode(texts: Sequence[str]) -> np.ndarray:
        backbone.eval()
        starts = range(0, len(texts), 64)
        return np.concatenate(
            [embed(list(texts[start : start + 64])).cpu().numpy() for start in starts]
        )

    return TrainingRun(update, encode)


def sentence_transformers(
    model: str, *, max_length: int, dropout: float | None, lr: float = RATE
) -> TrainingRun:
    """Train by the step of sentence-transformers' trainer, in bf16, with its ranking loss."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.util import batch_to_device

    encoder = SentenceTransformer(str(locate(model)), device=DEVICE)
    encoder.max_seq_length = max_length
    _set_dropout(encoder, dropout)
    ranking = MultipleNegativesRankingLoss(encoder, scale=1 / TEMPERATURE)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=lr, fused=True)

    def update(rows: Sequence[TextRow]) -> float:
        encoder.train()
        features = [
            batch_to_device(encoder.tokenize(column), torch.device(DEVICE))
            for column in _columns(rows)
        ]
        with torch.autocast(DEVICE, torch.bfloat16):
            loss = ranking(features, torch.zeros(len(rows), device=DEVICE))
        return _step(loss, encoder, optimizer)

    return TrainingRun(update, lambda texts: np.asarray(encoder.encode(list(texts))))


def batches(rows: Sequence[TextRow], batch: int) -> Iterator[Sequence[TextRow]]:
    """Yield whole batches, again and again."""
    starts = range(0, len(rows) - batch + 1, batch)
    return itertools.cycle([rows[start : start + batch] for start in starts])


RUNS: dict[str, Callable[..., TrainingRun]] = {
    "ours": ours,
    "reference": reference,
    "sentence_transformers": sentence_transformers,
}


def _columns(rows: Sequence[TextRow]) -> list[list[str]]:
    """Return anchors, positives and hard negatives; a sentence is its own positive."""
    return [
        list(column)
        for column in zip(*((*row, *row) if len(row) == 1 else row for row in rows), strict=True)
    ]


def _step(loss: Tensor, module: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(module.parameters(), OptimConfig().clip_norm)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def _loss(anchors: Tensor, candidates: Tensor) -> Tensor:
    cosines = nn.functional.cosine_similarity(anchors[:, None], candidates[None], dim=-1)
    return nn.functional.cross_entropy(
        cosines / TEMPERATURE, torch.arange(len(anchors), device=anchors.device)
    )


def _set_dropout(module: nn.Module, rate: float | None) -> None:
    for child in module.modules():
        if rate is not None and isinstance(child, nn.Dropout):
            child.p = rate


if __name__ == "__main__":
    main(command=train)
