"""A training step of unsupervised SimCSE: contestants that minimise the same loss."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from simcse import config
from simcse.bench.encode import mean_encoder
from simcse.bench.race import Contestant
from simcse.io.examples import Example
from simcse.loss import LossConfig
from simcse.model.encoder import SentenceEncoder
from simcse.model.names import locate
from simcse.train.loop import Stepper
from simcse.train.optim import OptimConfig
from simcse.train.settings import TrainConfig

Work = Callable[[], float]
TEMPERATURE = LossConfig().temperature
RATE = OptimConfig().lr
STEPS = 10**6  # of the schedule: the learning rate stands still


def contestants(
    model: str, sentences: Sequence[str], *, batch: int, max_length: int, dropout: float | None
) -> list[Contestant]:
    """Name who takes the step: first us, at the precision we choose here, then peers."""
    task = {
        "model": model,
        "sentences": list(sentences),
        "batch": batch,
        "max_length": max_length,
        "dropout": dropout,
    }
    named: list[tuple[str, str, dict[str, object]]] = [
        ("simcse, auto", "ours", {"precision": "auto"}),
        ("2021 code's step, fp32", "reference", {}),
        ("sentence-transformers' step, bf16", "sentence_transformers", {}),
    ]
    return [Contestant(name, f"{__name__}:{how}", {**task, **more}) for name, how, more in named]


def ours(
    model: str,
    sentences: Sequence[str],
    *,
    batch: int,
    max_length: int,
    precision: str,
    dropout: float | None,
) -> Work:
    """Take a step of `simcse.train.loop.fit`."""
    settings = config.build(
        TrainConfig,
        {
            "precision": precision,
            "model": {"dropout": dropout},
            "loss": {"mask_duplicates": False},  # as the peers
            "optim": {"batch_size": batch},
        },
    )
    encoder = SentenceEncoder.load(model, precision="fp32", changes={"max_length": max_length})
    stepper = Stepper(encoder, settings, STEPS, None)
    batches, steps = _batches(sentences, batch), itertools.count(1)

    def work() -> float:
        rows = [Example(text) for text in next(batches)]
        loss: float = stepper.update(next(steps), rows)["loss"]
        return loss

    return work


def reference(
    model: str, sentences: Sequence[str], *, batch: int, max_length: int, dropout: float | None
) -> Work:
    """Take the step of the 2021 code on a CPU: padded, fp32, a plain Hugging Face forward."""
    encoder = mean_encoder(model, max_length)
    backbone, tokenizer = encoder.backbone.model.train(), encoder.tokenizer.inner
    _set_dropout(backbone, dropout)
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=RATE, weight_decay=0.0)
    batches = _batches(sentences, batch)

    def work() -> float:
        texts = [text for text in next(batches) for _ in range(2)]
        inputs = tokenizer(
            texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt"
        )
        hidden = backbone(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state
        pooled = _mean(hidden, inputs["attention_mask"]).view(batch, 2, -1)  # (N, 2, D)
        return _step(_loss(pooled[:, 0], pooled[:, 1]), backbone, optimizer)

    return work


def sentence_transformers(
    model: str, sentences: Sequence[str], *, batch: int, max_length: int, dropout: float | None
) -> Work:
    """Take the step of sentence-transformers' trainer, in bf16: (s, s) with ranking loss."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    encoder = SentenceTransformer(str(locate(model)), device="cpu").train()
    encoder.max_seq_length = max_length
    _set_dropout(encoder, dropout)
    ranking = MultipleNegativesRankingLoss(encoder, scale=1 / TEMPERATURE)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=RATE, fused=True)
    batches = _batches(sentences, batch)

    def work() -> float:
        texts = next(batches)
        features = [encoder.tokenize(texts) for _ in range(2)]
        with torch.autocast("cpu", torch.bfloat16):
            loss = ranking(features, torch.zeros(batch))
        return _step(loss, encoder, optimizer)

    return work


def _step(loss: Tensor, module: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(module.parameters(), OptimConfig().clip_norm)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def _loss(anchors: Tensor, positives: Tensor) -> Tensor:
    cosines = nn.functional.cosine_similarity(anchors[:, None], positives[None], dim=-1)
    return nn.functional.cross_entropy(cosines / TEMPERATURE, torch.arange(len(anchors)))


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    return (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)


def _set_dropout(module: nn.Module, rate: float | None) -> None:
    for child in module.modules():
        if rate is not None and isinstance(child, nn.Dropout):
            child.p = rate


def _batches(sentences: Sequence[str], batch: int) -> Iterator[list[str]]:
    starts = range(0, len(sentences) - batch + 1, batch)
    return itertools.cycle([list(sentences[start : start + batch]) for start in starts])
