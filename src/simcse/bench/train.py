"""Training steps of SimCSE: systems that minimize the same loss."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from simcse import config
from simcse.bench.encode import mean_encoder
from simcse.bench.race import System
from simcse.io.records import Example
from simcse.loss import LossConfig
from simcse.model.names import locate
from simcse.train.loop import Stepper
from simcse.train.optim import OptimConfig
from simcse.train.settings import TrainConfig

Row = Sequence[str]  # a sentence; or anchor, positive and any number of hard negatives
TEMPERATURE = LossConfig().temperature
RATE = OptimConfig().lr
STEPS = 10**6  # of the schedule: the learning rate stands still
CONTESTANTS: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("simcse, auto", "ours", {"precision": "auto"}),
    ("2021 code's step, fp32", "reference", {}),
    ("sentence-transformers' step, bf16", "sentence_transformers", {}),
)


@dataclass(frozen=True)
class TrainingRun:
    """A model in training.

    Attributes:
        update: takes a step on rows and returns its loss.
        encode: sentences -> (N, D), by the model as it is now.
    """

    update: Callable[[Sequence[Row]], float]
    encode: Callable[[Sequence[str]], np.ndarray]


def systems(
    model: str, sentences: Sequence[str], *, batch: int, max_length: int, dropout: float | None
) -> list[System]:
    """Name who takes the step: first us, at the precision we choose here, then peers."""
    task = {
        "model": model,
        "rows": [[sentence] for sentence in sentences],
        "batch": batch,
        "max_length": max_length,
        "dropout": dropout,
    }
    return [
        System(name, f"{__name__}:steps", {**task, "how": how, "more": more})
        for name, how, more in CONTESTANTS
    ]


def steps(
    how: str,
    more: dict[str, Any],
    model: str,
    rows: Sequence[Row],
    *,
    batch: int,
    **options: Any,  # noqa: ANN401 - the trainee's
) -> Callable[[], float]:
    """Return a function that takes the next step and returns its loss."""
    trainee, following = TRAINEES[how](model, **options, **more), batches(rows, batch)
    return lambda: trainee.update(next(following))


def ours(
    model: str, *, max_length: int, dropout: float | None, precision: str, lr: float = RATE
) -> TrainingRun:
    """Train by the step of `simcse.train.loop.fit`."""
    settings = config.build(
        TrainConfig,
        {
            "precision": precision,
            "model": {"dropout": dropout},
            "loss": {"mask_duplicates": False},  # as the peers
            "optim": {"lr": lr},
        },
    )
    encoder = mean_encoder(model, max_length)
    stepper, numbers = Stepper(encoder, settings, STEPS, None), itertools.count(1)

    def update(rows: Sequence[Row]) -> float:
        examples = [
            Example(row[0], row[1] if len(row) > 1 else None, tuple(row[2:])) for row in rows
        ]
        loss: float = stepper.update(next(numbers), examples)["loss"]
        return loss

    return TrainingRun(update, lambda texts: encoder.encode(texts, truncation="truncate"))


def reference(
    model: str, *, max_length: int, dropout: float | None, lr: float = RATE
) -> TrainingRun:
    """Train as the 2021 code does on a CPU: padded, fp32, a plain Hugging Face forward."""
    encoder = mean_encoder(model, max_length)
    backbone, tokenizer = encoder.backbone.padded_model(), encoder.tokenizer.hf_tokenizer
    _set_dropout(backbone, dropout)
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=lr, weight_decay=0.0)

    def embed(texts: list[str]) -> Tensor:
        inputs = tokenizer(
            texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt"
        )
        hidden = backbone(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1)
        pooled: Tensor = (hidden * mask).sum(1) / mask.sum(1)
        return pooled

    def update(rows: Sequence[Row]) -> float:
        backbone.train()
        columns = _columns(rows)
        texts = [column[i] for i in range(len(rows)) for column in columns]  # as it lays them out
        pooled = embed(texts).view(len(rows), len(columns), -1)  # (N, C, D)
        candidates = pooled[:, 1:].transpose(0, 1).flatten(0, 1)
        return _step(_loss(pooled[:, 0], candidates), backbone, optimizer)

    @torch.inference_mode()
    def encode(texts: Sequence[str]) -> np.ndarray:
        backbone.eval()
        starts = range(0, len(texts), 64)
        return np.concatenate([embed(list(texts[start : start + 64])).numpy() for start in starts])

    return TrainingRun(update, encode)


def sentence_transformers(
    model: str, *, max_length: int, dropout: float | None, lr: float = RATE
) -> TrainingRun:
    """Train by the step of sentence-transformers' trainer, in bf16, with its ranking loss."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    encoder = SentenceTransformer(str(locate(model)), device="cpu")
    encoder.max_seq_length = max_length
    _set_dropout(encoder, dropout)
    ranking = MultipleNegativesRankingLoss(encoder, scale=1 / TEMPERATURE)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=lr, fused=True)

    def update(rows: Sequence[Row]) -> float:
        encoder.train()
        features = [encoder.tokenize(column) for column in _columns(rows)]
        with torch.autocast("cpu", torch.bfloat16):
            loss = ranking(features, torch.zeros(len(rows)))
        return _step(loss, encoder, optimizer)

    return TrainingRun(update, lambda texts: np.asarray(encoder.encode(list(texts))))


def batches(rows: Sequence[Row], batch: int) -> Iterator[Sequence[Row]]:
    """Give whole batches, over and over."""
    starts = range(0, len(rows) - batch + 1, batch)
    return itertools.cycle([rows[start : start + batch] for start in starts])


TRAINEES: dict[str, Callable[..., TrainingRun]] = {
    "ours": ours,
    "reference": reference,
    "sentence_transformers": sentence_transformers,
}


def _columns(rows: Sequence[Row]) -> list[list[str]]:
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
    return nn.functional.cross_entropy(cosines / TEMPERATURE, torch.arange(len(anchors)))


def _set_dropout(module: nn.Module, rate: float | None) -> None:
    for child in module.modules():
        if rate is not None and isinstance(child, nn.Dropout):
            child.p = rate
