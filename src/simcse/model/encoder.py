"""`SentenceEncoder`: sentences to embeddings, the facade over backbone, pooling and head."""

import itertools
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from simcse.errors import TruncationWarning, UsageError
from simcse.model.backbone import Backbone
from simcse.model.head import ProjectionHead
from simcse.model.mlm import MlmHead
from simcse.model.pooling import SPECS, cls_pool, pool
from simcse.model.precision import DTYPES, EncodingPrecision, choose_precision
from simcse.model.settings import ModelSettings
from simcse.model.token_weights import TokenWeights
from simcse.postprocess import Layer, Postprocess
from simcse.text import TokenBatch, Tokenizer, Truncation, pack

if TYPE_CHECKING:
    from simcse.model.folder import StoredDtype

BATCH_TOKENS = 4096
CHUNK = 4096  # sentences tokenized and sorted by length together


class SentenceEncoder(nn.Module):
    """A backbone with pooling and projection head that turns sentences into embeddings.

    Example:
        >>> encoder = SentenceEncoder.load("mini")
        >>> encoder.encode(["A man is playing a guitar."]).shape
        (1, 384)

    Attributes:
        backbone: hidden states of a `TokenBatch`.
        head: the projection head, or ``None``.
        tokenizer: counts the sentences that it had to truncate.
        settings: pooling, head policy, length limit, normalization.
        token_weights: weights of tokens in a mean; ``None`` weights all the same.
        postprocess: the layer fitted to the finished embeddings, or ``None``.
        provenance: where the weights come from, as stored in the model folder.
        mlm_head: predicts masked words where training needs it, and is then saved, too.
    """

    mlm_head: MlmHead | None

    def __init__(
        self,
        backbone: Backbone,
        tokenizer: Tokenizer,
        settings: ModelSettings,
        *,
        head: ProjectionHead | None = None,
        token_weights: TokenWeights | None = None,
        postprocess: Layer | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if token_weights is not None and SPECS[settings.pooling].reduce is cls_pool:
            raise UsageError(
                f"token weights need a pooling by the mean, got pooling {settings.pooling}"
            )
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.settings = settings
        needs_new = settings.head != "none" and head is None
        self.head = ProjectionHead(backbone.width) if needs_new else head
        self.token_weights = token_weights
        self.postprocess = postprocess
        self.provenance = dict(provenance or {})
        self.mlm_head = None
        self.eval()

    @classmethod
    def load(
        cls,
        name_or_folder: str | Path = "mini",
        *,
        device: str | None = None,
        precision: EncodingPrecision = "auto",
        settings: ModelSettings | None = None,
        changes: Mapping[str, Any] | None = None,
    ) -> "SentenceEncoder":
        """Load a bundled model, a folder or a hub id; see `simcse.model.folder.read_model`.

        A projection head that the settings require and the folder does not have starts fresh.
        """
        from simcse.model.folder import read_model

        return read_model(
            name_or_folder, device=device, precision=precision, settings=settings, changes=changes
        )

    def save(self, folder: str | Path, *, dtype: "StoredDtype" = "fp32") -> None:
        """Save the model as a folder; see `simcse.model.folder.write_model`."""
        from simcse.model.folder import write_model

        write_model(self, Path(folder), dtype=dtype)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dimensions(self) -> int:
        """Size of an embedding."""
        return self.backbone.width if self.postprocess is None else self.postprocess.dimensions

    @property
    def matryoshka_dims(self) -> tuple[int, ...]:
        """Sizes that embeddings may be truncated to, the whole one last."""
        trained = self.settings.matryoshka if self.postprocess is None else ()  # a layer mixes them
        return (*sorted(trained), self.dimensions)

    def validate_dim(self, dimensions: int | None) -> None:
        """Check that embeddings may be truncated to ``dimensions``; ``None`` is the whole size.

        Raises:
            UsageError: the model was not trained for this size.
        """
        if dimensions not in (None, *self.matryoshka_dims):
            known = ", ".join(map(str, self.matryoshka_dims))
            raise UsageError(f"this model's embeddings have dimensions {known}, not {dimensions}")

    def truncate_dim(self, vectors: np.ndarray, dimensions: int | None) -> np.ndarray:
        """Keep the first dimensions of finished embeddings: (N, D) -> (N, K), unit length again.

        Raises:
            UsageError: the model was not trained for this size.
        """
        self.validate_dim(dimensions)
        if dimensions in (None, self.dimensions):
            return vectors
        short = torch.from_numpy(vectors[:, :dimensions])
        return (nn.functional.normalize(short) if self.settings.normalize else short).numpy()

    def without_postprocess(self) -> "SentenceEncoder":
        """Return this encoder, its weights shared, without post-processing and normalization.

        `postprocess_embeddings` turns its embeddings into this encoder's.
        """
        settings = replace(self.settings, postprocess="none", normalize=False)
        return self._replace(settings=settings, postprocess=None, provenance=None)

    def with_postprocess(self, name: Postprocess, layer: Layer | None) -> "SentenceEncoder":
        """Return this encoder, its weights shared, with another layer on its embeddings."""
        return self._replace(settings=replace(self.settings, postprocess=name), postprocess=layer)

    def with_token_weights(
        self, weights: TokenWeights | None, provenance: Mapping[str, Any] | None = None
    ) -> "SentenceEncoder":
        """Return this encoder, its other weights shared, with token weights.

        Args:
            weights: the weights, or ``None`` for none.
            provenance: how they were fitted, to be stored with the model.
        """
        rest = {name: value for name, value in self.provenance.items() if name != "token_weights"}
        fitted = {"token_weights": dict(provenance)} if provenance else {}
        moved = None if weights is None else weights.to(self.device)
        return self._replace(token_weights=moved, provenance={**rest, **fitted})

    def with_max_length(self, limit: int) -> "SentenceEncoder":
        """Return this encoder, its weights shared, with another length limit."""
        tokenizer = Tokenizer(self.tokenizer.hf_tokenizer, max_length=limit)
        return self._replace(settings=replace(self.settings, max_length=limit), tokenizer=tokenizer)

    @torch.inference_mode()
    def postprocess_embeddings(self, vectors: np.ndarray) -> np.ndarray:
        """Post-process and normalize pooled vectors as the settings say: (N, D) -> (N, K)."""
        return self._postprocess(torch.from_numpy(vectors).to(self.device)).cpu().numpy()

    def forward(self, batch: TokenBatch) -> Tensor:
        """Embed a batch: (B, D) float32 in the caller's order, before `postprocess_embeddings`."""
        return batch.unsort(self.embed(batch))

    def embed(self, batch: TokenBatch) -> Tensor:
        """Embed a batch: (B, D) float32 in its own order, before `postprocess_embeddings`."""
        states = self.backbone(batch, SPECS[self.settings.pooling].layers)
        lengths = torch.tensor(batch.lengths, device=batch.input_ids.device)
        weights = None if self.token_weights is None else self.token_weights(batch.input_ids)
        return self._project(pool(states, lengths, self.settings.pooling, weights))  # (B, D)

    def encode(
        self,
        texts: Sequence[str],
        *,
        batch_tokens: int = BATCH_TOKENS,
        truncation: Truncation = "warn",
        progress: bool = False,
        dimensions: int | None = None,
    ) -> np.ndarray:
        """Embed sentences: (N, D) float32, unit length if the settings say so.

        Args:
            texts: N sentences.
            batch_tokens: tokens computed at once.
            truncation: what to do with a sentence over the length limit.
            progress: show a progress bar on stderr.
            dimensions: one of `matryoshka_dims` to truncate to; ``None`` leaves embeddings whole.

        Raises:
            TypeError: ``texts`` is one string; put it in a list.
            DataError: a sentence is too long and ``truncation`` is "error".
            UsageError: the model was not trained for these ``dimensions``.
        """
        if isinstance(texts, str):
            raise TypeError("encode takes a list of sentences; for one sentence pass [sentence]")
        self.validate_dim(dimensions)
        nothing = np.empty((0, dimensions or self.dimensions), np.float32)
        stream = self.encode_stream(texts, batch_tokens=batch_tokens, truncation=truncation)
        if progress:
            stream = _show_progress(stream, len(texts))
        return np.concatenate(
            [nothing, *(self.truncate_dim(chunk, dimensions) for chunk in stream)]
        )

    def encode_stream(
        self,
        texts: Iterable[str],
        *,
        batch_tokens: int = BATCH_TOKENS,
        truncation: Truncation = "warn",
    ) -> Iterator[np.ndarray]:
        """Embed any number of sentences in constant memory: yields (n, D) float32 in order."""
        texts = iter(texts)
        seen, truncated = self.tokenizer.seen, self.tokenizer.truncated
        while chunk := list(itertools.islice(texts, CHUNK)):
            rows = self.tokenizer.ids(chunk, truncation=truncation)
            yield self.encode_ids(rows, batch_tokens=batch_tokens)
        seen, truncated = self.tokenizer.seen - seen, self.tokenizer.truncated - truncated
        if truncated and truncation == "warn":
            limit = self.tokenizer.max_length
            message = f"{truncated:,} of {seen:,} sentences were truncated to {limit} tokens"
            warnings.warn(message, TruncationWarning, stacklevel=2)

    @torch.inference_mode()
    def encode_ids(
        self, rows: Sequence[Sequence[int]], *, batch_tokens: int = BATCH_TOKENS
    ) -> np.ndarray:
        """Embed tokenized sentences, special tokens included: (N, D) float32.

        Raises:
            DataError: a sentence has no tokens.
        """
        vectors = np.empty((len(rows), self.dimensions), np.float32)
        for indices in batches_by_tokens([len(row) for row in rows], batch_tokens):
            batch = pack([rows[i] for i in indices]).to(self.device)
            vectors[indices] = self._postprocess(self(batch)).cpu().numpy()
        return vectors

    def similarity(self, first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        """Return the cosines of N and M sentences: (N, M) float32.

        Raises:
            TypeError: one of them is a string; put it in a list.
        """
        left, right = (
            nn.functional.normalize(torch.from_numpy(self.encode(texts)))
            for texts in (first, second)
        )
        return (left @ right.T).numpy()

    def set_precision(self, precision: EncodingPrecision) -> None:
        """Run the backbone in the named precision, resolving "auto" for the device.

        Raises:
            UsageError: int8, and the backbone or the device does not support it.
            ResourceError: int8, and the processor has no instructions for it.
        """
        if precision == "int8":
            from simcse.model.int8 import quantize, random_sentences

            frame = self.tokenizer.hf_tokenizer("")["input_ids"]
            vocabulary = int(self.backbone.model.config.vocab_size)
            quantize(self.backbone, random_sentences(frame, vocabulary))
        else:
            chosen = choose_precision(precision, self.device, width=self.backbone.width)
            self.backbone.set_compute(DTYPES[chosen])

    def embed_pooled(self, pooled: Tensor) -> Tensor:
        """Apply head, post-processing and normalization to pooled vectors: (B, D) -> (B, K)."""
        return self._postprocess(self._project(pooled))

    def _replace(self, **changes: Any) -> "SentenceEncoder":  # noqa: ANN401 - arguments of __init__
        """Return an encoder that shares all but ``changes``."""
        own = {
            "backbone": self.backbone,
            "tokenizer": self.tokenizer,
            "settings": self.settings,
            "head": self.head,
            "token_weights": self.token_weights,
            "postprocess": self.postprocess,
            "provenance": self.provenance,
        }
        return SentenceEncoder(**{**own, **changes})

    def _project(self, pooled: Tensor) -> Tensor:
        policy = self.settings.head
        applies = policy == "always" or (policy == "train_only" and self.training)
        return self.head(pooled) if self.head is not None and applies else pooled

    def _postprocess(self, pooled: Tensor) -> Tensor:
        if self.postprocess is not None:
            pooled = self.postprocess(pooled)
        return nn.functional.normalize(pooled) if self.settings.normalize else pooled


def batches_by_tokens(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Split sentence indices, sorted by length, into batches of at most ``batch_tokens`` tokens."""
    batch: list[int] = []
    total = 0
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and total + lengths[i] > batch_tokens:
            yield batch
            batch, total = [], 0
        batch.append(i)
        total += lengths[i]
    if batch:
        yield batch


def _show_progress(chunks: Iterator[np.ndarray], total: int) -> Iterator[np.ndarray]:
    """Pass on chunks of rows and show how many of ``total`` rows are done, on stderr."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(file=sys.stderr)) as bar:
        task = bar.add_task("encoding", total=total)
        for chunk in chunks:
            bar.advance(task, len(chunk))
            yield chunk
