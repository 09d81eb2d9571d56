"""SimCSE's contrastive loss, and what every variant of it shares."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor, nn

from simcse.errors import ConfigError, UsageError

Similarity = Literal["cosine", "dot"]


class Loss(Protocol):
    """What a contrastive loss is: any callable with this signature, a user's own class included."""

    def __call__(
        self,
        anchors: Tensor,
        positives: Tensor,
        negatives: Tensor,
        *,
        negative_owners: Tensor,
        ignore: Tensor,
    ) -> Tensor:
        """Return the mean loss of a batch, a scalar that depends on the embeddings.

        Args:
            anchors: (N, D).
            positives: (N, D); the positives of other rows are a row's in-batch negatives.
            negatives: (M, D), hard negatives and, behind them, those of a momentum queue.
            negative_owners: (M,) int64, the row of each hard negative; -1 for a queued one.
            ignore: (N, N + M) bool, the positives and negatives that have the text of the row's
                own anchor or positive and must not count as its negatives.
        """
        ...


@dataclass(frozen=True)
class ContrastiveLoss:
    """Cross-entropy of each anchor's own positive among all positives and hard negatives.

    Unsupervised SimCSE compares two encodings of the same sentences (Gao et al. 2021, equation 1);
    supervised SimCSE compares premises, entailments and contradictions (equation 5, appendix):

        l_i = -log( exp(s(h_i, h_i+) / t)
                    / sum_j (exp(s(h_i, h_j+) / t) + alpha^[i = j] exp(s(h_i, h_j-) / t)) )

    Similarities and the log-sum-exp are computed in fp32 or more, whatever the inputs are.

    Raises:
        ConfigError: a setting is out of range.

    Example:
        >>> h = torch.eye(4)
        >>> ContrastiveLoss(temperature=1.0)(h, h)
        tensor(0.7437)
    """

    # T, the divisor of the similarity.
    temperature: float = 0.05  # Gao et al. 2021, table D.1
    # S, the cosine or the dot product, which the paper uses without a temperature.
    similarity: Similarity = "cosine"  # the same table
    # Alpha, on the row's own hard negatives, however many there are; its logarithm is added to
    # their logits.
    hard_negative_weight: float = 1.0  # table 7

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"loss.temperature must be > 0, got {self.temperature}")
        if self.similarity not in get_args(Similarity):
            raise ConfigError(f"loss.similarity must be cosine or dot, got {self.similarity!r}")
        if not self.hard_negative_weight > 0:
            raise ConfigError(
                f"loss.hard_negative_weight must be > 0, got {self.hard_negative_weight}; "
                "it is the paper's alpha, not its logarithm"
            )

    def __call__(
        self,
        anchors: Tensor,
        positives: Tensor,
        negatives: Tensor | None = None,
        *,
        negative_owners: Tensor | None = None,
        ignore: Tensor | None = None,
        dropout_free: Tensor | None = None,
    ) -> Tensor:
        """Return the mean loss, a scalar; see `Loss` for the arguments.

        The similarity of two different rows is taken between ``dropout_free`` (N, D), the anchors
        encoded without dropout, if these are given (Xu et al. 2023, SimCSE++).

        Raises:
            UsageError: hard negatives have a weight, and their rows are not given.
        """
        candidates = positives if negatives is None else torch.cat([positives, negatives])
        count = len(candidates) - len(anchors)  # M
        if negative_owners is None and self.hard_negative_weight != 1 and count:
            raise UsageError(
                f"hard_negative_weight {self.hard_negative_weight} needs negative_owners, the row "
                f"of each of the {count} hard negatives"
            )
        similarities = self._compare(anchors, candidates)  # (N, N + M)
        own = torch.eye(*similarities.shape, dtype=torch.bool, device=similarities.device)
        if dropout_free is not None:
            others = nn.functional.pad(self._compare(dropout_free, dropout_free), (0, count))
            in_batch = torch.arange(similarities.shape[1], device=own.device) < len(anchors)
            similarities = torch.where(in_batch & ~own, others, similarities)
        logits = self._exponents(similarities, own) / self.temperature
        if negative_owners is not None and self.hard_negative_weight != 1:
            rows = torch.arange(len(anchors), device=own.device)[:, None]
            weighted = nn.functional.pad(rows == negative_owners, (len(anchors), 0))
            logits = logits + weighted.to(logits.dtype) * math.log(self.hard_negative_weight)
        if ignore is not None:
            logits = logits.masked_fill(ignore, float("-inf"))
        return self._reduce(logits, own)

    def _compare(self, first: Tensor, second: Tensor) -> Tensor:
        """Compare every pair: (N, D), (M, D) -> (N, M)."""
        return cosines(first, second) if self.similarity == "cosine" else _dots(first, second)

    def _exponents(self, similarities: Tensor, own: Tensor) -> Tensor:
        """Return the exponents before the temperature: (N, N + M); ``own`` marks the positives."""
        del own
        return similarities

    def _reduce(self, logits: Tensor, own: Tensor) -> Tensor:
        """Return the mean loss of logits (N, N + M); an ignored one is -inf."""
        del own
        rows = torch.arange(len(logits), device=logits.device)
        return nn.functional.cross_entropy(logits, rows)


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of every pair by one product of unit vectors: (N, D), (M, D) -> (N, M)."""
    return _dots(*(nn.functional.normalize(at_least_fp32(x)) for x in (first, second)))


def _dots(first: Tensor, second: Tensor) -> Tensor:
    return at_least_fp32(first) @ at_least_fp32(second).T


def at_least_fp32(values: Tensor) -> Tensor:
    """Return values in fp32, or as they are if that is more precise."""
    return values.float() if values.dtype.itemsize < 4 else values


def text_keys(texts: Sequence[str]) -> Tensor:
    """Identify texts by 64 bits of a hash: (n,) int64."""
    digests = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return torch.tensor(
        [int.from_bytes(digest, "little", signed=True) for digest in digests], dtype=torch.int64
    )


def duplicate_mask(
    anchors: Sequence[str],
    positives: Sequence[str],
    negatives: Sequence[str] = (),
    *,
    queued: Tensor | None = None,
) -> Tensor:
    """Mark candidates with the text of a row's own anchor or positive: they are no negatives.

    N anchors, N positives, M hard negatives and the `text_keys` (Q,) of queued negatives give
    (N, N + M + Q) bool; a row's own positive is never marked.
    """
    anchor, positive, negative = (text_keys(texts) for texts in (anchors, positives, negatives))
    candidates = [positive, negative] if queued is None else [positive, negative, queued.cpu()]
    candidate = torch.cat(candidates)
    same = (candidate == anchor[:, None]) | (candidate == positive[:, None])
    return same.fill_diagonal_(False)
