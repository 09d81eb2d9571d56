"""The losses of SimCSE: contrastive with in-batch and hard negatives, MLM term, regularizer."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from simcse.errors import ConfigError, UsageError

Piece = TypeVar("Piece")
Regularizer = Literal["none", "uniformity", "spectrum"]
ContrastiveForm = Literal["softmax", "decoupled", "debiased", "focal"]
Form = Literal["softmax", "decoupled", "debiased", "focal", "classifier"]
Similarity = Literal["cosine", "dot"]


@dataclass(frozen=True)
class LossConfig:
    """What is minimized.

    Attributes:
        temperature: divisor of the similarity.
        similarity: cosine, or the dot product, which the paper takes with a temperature of 1.
        fixed_mask: one dropout mask for both passes, so that the positive equals the anchor.
        hard_negative_weight: the paper's alpha, on the row's own hard negatives.
        mask_duplicates: sentences with equal text are not each other's negatives.
        form: the paper's softmax, a published variant (see `contrastive_loss`), or SBERT's
            ``classifier`` on labeled pairs in place of any contrastive loss.
        debias: for ``form=debiased``, the chance that a negative means the same as the anchor.
        focal_margin: for ``form=focal``, its m.
        matryoshka: sizes at which the first dimensions alone are trained to be embeddings, too.
        dropout_free_negatives: compare different sentences as they are without dropout.
        repetition: largest share of a positive's tokens that are repeated (`simcse.data.augment`).
        dimension_weight: factor of `dimension_loss`; 0 leaves it out.
        dimension_temperature: its temperature.
        contrastive_weight: factor of the contrastive loss, or the classifier's; 0 trains the MLM
            term alone.
        mlm_weight: the paper's lambda, factor of the MLM term; 0 leaves it out.
        mlm_rate: share of tokens masked for the MLM term.
        queue: embeddings of earlier batches that are negatives, too; 0 for none.
        momentum: how much a step leaves of the encoder that made them.
        dropout_sampling: rates that anchors and positives each draw theirs from, at every step.
        regularizer: what spreads the embeddings, besides the contrastive loss it is added to.
        regularizer_weight: its factor.
    """

    temperature: float = 0.05  # Gao et al. 2021, table D.1
    similarity: Similarity = "cosine"  # the same table
    fixed_mask: bool = False  # table 3
    hard_negative_weight: float = 1.0  # table 7
    mask_duplicates: bool = True
    form: Form = "softmax"
    debias: float = 0.1
    focal_margin: float = 0.3
    matryoshka: tuple[int, ...] | None = None
    dropout_free_negatives: bool = False
    repetition: float = 0.0  # Wu et al. 2022 use 0.32
    dimension_weight: float = 0.0  # the authors' code has 0.1 (train_re_vicreg.py, sw_weight)
    # There, too (sw_temp): 5 beside negatives without dropout, 20 for the dimensions alone.
    dimension_temperature: float = 5.0
    contrastive_weight: float = 1.0
    mlm_weight: float = 0.0  # table D.2
    mlm_rate: float = 0.15
    queue: int = 0  # Wu et al. 2022: 2.5 batches do best
    momentum: float = 0.995  # the same
    dropout_sampling: tuple[float, ...] | None = None
    regularizer: Regularizer = "none"
    regularizer_weight: float = 0.1

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"loss.temperature must be > 0, got {self.temperature}")
        if not self.hard_negative_weight > 0:
            raise ConfigError(
                f"loss.hard_negative_weight must be > 0, got {self.hard_negative_weight}; "
                "it is the paper's alpha, not its logarithm"
            )
        if not (self.contrastive_weight >= 0 and self.mlm_weight >= 0):
            raise ConfigError("loss.contrastive_weight and loss.mlm_weight must be >= 0")
        if self.contrastive_weight == self.mlm_weight == 0:
            raise ConfigError("loss.contrastive_weight and loss.mlm_weight are both 0")
        if not 0 < self.mlm_rate < 1:
            raise ConfigError(f"loss.mlm_rate must be between 0 and 1, got {self.mlm_rate}")
        self._check_variants()
        if not self.regularizer_weight > 0:
            raise ConfigError(
                f"loss.regularizer_weight must be > 0, got {self.regularizer_weight}; to leave it "
                "out: loss.regularizer=none"
            )

    def _check_variants(self) -> None:
        if not 0 < self.debias < 1:
            raise ConfigError(f"loss.debias must be between 0 and 1, got {self.debias}")
        if not 0 <= self.repetition <= 1:
            raise ConfigError(f"loss.repetition must be from 0 to 1, got {self.repetition}")
        if not (self.dimension_weight >= 0 and self.dimension_temperature > 0):
            raise ConfigError(
                "loss.dimension_weight must be >= 0 and loss.dimension_temperature > 0, got "
                f"{self.dimension_weight} and {self.dimension_temperature}"
            )
        if self.similarity == "dot" and self.form in ("debiased", "focal"):
            raise ConfigError(f"loss.form={self.form} is made for cosines; loss.similarity is dot")
        self._check_passes()
        if self.form == "classifier":
            self._check_classifier()
        sizes = self.matryoshka
        if sizes is not None and (not sizes or min(sizes) < 1 or len(set(sizes)) < len(sizes)):
            raise ConfigError(f"loss.matryoshka must be different sizes above 0, got {sizes}")

    def _check_passes(self) -> None:
        rates = self.dropout_sampling
        for name in ("repetition", "dropout_sampling"):
            if self.fixed_mask and getattr(self, name):
                raise ConfigError(f"loss.{name} makes the positive another than loss.fixed_mask")
        if self.queue < 0 or not 0 <= self.momentum < 1:
            raise ConfigError(
                "loss.queue must be >= 0 and loss.momentum from 0 to below 1, got "
                f"{self.queue} and {self.momentum}"
            )
        if rates is not None and not (rates and all(0 <= rate < 1 for rate in rates)):
            raise ConfigError(f"loss.dropout_sampling must be rates from 0 to below 1, got {rates}")

    def _check_classifier(self) -> None:
        """Refuse what only a contrastive loss has."""
        free = ("form", "mask_duplicates", "contrastive_weight", "mlm_weight", "mlm_rate")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in free and value != field.default:
                raise ConfigError(
                    f"loss.form=classifier has no contrastive loss: loss.{field.name}={value} "
                    "cannot be part of it"
                )


def contrastive_loss(
    anchors: Tensor,
    candidates: Tensor,
    *,
    temperature: float,
    similarity: Similarity = "cosine",
    owners: Tensor | None = None,
    hard_negative_weight: float = 1.0,
    ignore: Tensor | None = None,
    clean: Tensor | None = None,
    form: ContrastiveForm = "softmax",
    debias: float = 0.1,
    focal_margin: float = 0.3,
) -> Tensor:
    """Cross-entropy of each anchor's own positive among all positives and hard negatives.

    Unsupervised SimCSE passes two encodings of the same sentences (equation 1, section 3);
    supervised SimCSE passes premises, entailments and contradictions (equation 5, appendix).
    Similarities and the log-sum-exp are computed in fp32 whatever the inputs are.

    With p the positive's and n the K negatives' exponentials, ``softmax`` is -log p / (p + sum n).
    ``decoupled`` leaves p out below the line (Yeh et al. 2022). ``debiased`` puts
    max((sum n - K t p) / (1 - t), K exp(-1 / temperature)) for the sum, t the share ``debias`` of
    negatives that are none (Chuang et al. 2020). ``focal`` makes the exponents s^2 of
    the positive's cosine s and s (s + m) of a negative's (Hou and Li 2023).

    Args:
        anchors: (N, D).
        candidates: (N + M, D); row i < N is the positive of anchor i, the other positives are
            its in-batch negatives, and every anchor sees all M hard negatives that follow.
        temperature: divisor of the similarity.
        similarity: ``cosine`` or ``dot``.
        owners: (M,) int64, the row that each hard negative belongs to.
        hard_negative_weight: the paper's alpha; its logarithm is added to the logits of the
            row's own hard negatives.
        ignore: (N, N + M) bool, candidates left out of a row's sum (see `duplicate_mask`).
        clean: (N, D), the anchors without dropout; of different rows their similarities count
            instead (Xu et al. 2023, SimCSE++).
        form: what the sum over the candidates is.
        debias: share of negatives that are none, for ``debiased``.
        focal_margin: m, for ``focal``.

    Returns:
        The mean loss, a scalar.

    Raises:
        UsageError: there are hard negatives to be weighted, and nobody owns them.
    """
    if owners is None and hard_negative_weight != 1 and len(candidates) > len(anchors):
        raise UsageError(
            f"hard_negative_weight {hard_negative_weight} needs owners, the row of each of the "
            f"{len(candidates) - len(anchors)} hard negatives"
        )
    compare = cosines if similarity == "cosine" else dots
    similar = compare(anchors, candidates)  # (N, N + M)
    own = torch.eye(*similar.shape, dtype=torch.bool, device=similar.device)
    if clean is not None:
        others = nn.functional.pad(compare(clean, clean), (0, len(candidates) - len(clean)))
        apart = torch.arange(similar.shape[1], device=similar.device) < len(clean)
        similar = torch.where(apart & ~own, others, similar)
    if form == "focal":
        similar = similar * (similar + focal_margin * (~own).to(similar.dtype))
    logits = similar / temperature
    if owners is not None and hard_negative_weight != 1:
        boost = torch.zeros_like(logits)
        boost[owners, len(anchors) + torch.arange(len(owners), device=logits.device)] = 1.0
        logits = logits + boost * math.log(hard_negative_weight)
    if ignore is not None:
        logits = logits.masked_fill(ignore, float("-inf"))
    if form == "decoupled":
        return _decoupled(logits, own)
    if form == "debiased":
        return _debiased(logits, own, debias, lowest=-1 / temperature)
    return nn.functional.cross_entropy(logits, torch.arange(len(anchors), device=logits.device))


def _decoupled(logits: Tensor, own: Tensor) -> Tensor:
    """Leave the positive out of its row's sum; a row without negatives is left out itself."""
    negatives = logits.masked_fill(own, float("-inf"))
    rows = ~negatives.isneginf().all(1)  # (N,)
    losses = negatives[rows].logsumexp(1) - logits[own][rows]
    return losses.sum() / max(1, len(losses))


def _debiased(logits: Tensor, own: Tensor, share: float, *, lowest: float) -> Tensor:
    """Take the positives that are expected among the negatives from their sum."""
    top = logits.detach().amax(1)  # (N,), against overflow
    terms = (logits - top[:, None]).exp()
    positive = terms[own]
    negatives = ~own & ~logits.isneginf()
    count = negatives.sum(1).to(terms.dtype)
    found = ((terms * negatives).sum(1) - share * count * positive) / (1 - share)
    found = torch.maximum(found, count * (lowest - top).exp())
    return ((positive + found).log() + top - logits[own]).mean()


def dimension_loss(anchors: Tensor, positives: Tensor, *, temperature: float) -> Tensor:
    """Tell each dimension from all others by its values over the batch, (N, D) and (N, D).

    The contrastive loss of the columns, standardized over the batch, instead of the rows: Xu et
    al. 2023, SimCSE++.

    Returns:
        The mean over dimensions, a scalar; 0 for fewer than two rows.
    """
    if len(anchors) < 2:
        return anchors.new_zeros((), dtype=torch.float32)
    first, second = (
        nn.functional.batch_norm(_wide(x), None, None, training=True) for x in (anchors, positives)
    )
    correlations = first.T @ second / len(first)  # (D, D)
    dimensions = torch.arange(len(correlations), device=correlations.device)
    return nn.functional.cross_entropy(correlations / temperature, dimensions)


def spread_penalty(embeddings: Tensor, kind: Regularizer) -> Tensor:
    """Return what is large where embeddings (N, D) crowd together; 0 for ``none``.

    ``uniformity`` is that of Wang and Isola 2020 as a loss: log E exp(-2 ||x - y||^2) over pairs.
    ``spectrum`` is the mean squared cosine of pairs: the eigenvalues of the similarity matrix have
    a fixed sum, and their squares, which it adds up, are least where the spectrum is flat.

    Returns:
        A scalar; 0 for fewer than two embeddings.
    """
    if kind == "none" or len(embeddings) < 2:
        return embeddings.new_zeros((), dtype=torch.float32)
    rows, columns = torch.triu_indices(len(embeddings), len(embeddings), 1).to(embeddings.device)
    pairs = cosines(embeddings, embeddings)[rows, columns]  # (N (N - 1) / 2,)
    if kind == "spectrum":
        return (pairs**2).mean()
    return (4 * (pairs - 1)).logsumexp(0) - math.log(len(pairs))


def backward_in_pieces(
    encode: Callable[[Piece], Tensor],
    pieces: Sequence[Piece],
    loss: Callable[[Tensor], Tensor],
    *,
    weight: float = 1.0,
    collect: Callable[[], None] = lambda: None,
) -> Tensor:
    """Add the gradient of a loss over many embeddings in the memory of one piece's graph.

    Gradient caching: embed all pieces without a graph, take the loss's gradient with respect to
    the embeddings, then embed each piece anew and send its part of that gradient on. This is
    exact if ``encode`` gives the same embeddings twice, dropout included. Gao, Zhang, Han and
    Callan 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup".

    Args:
        encode: a piece -> its embeddings (n, D).
        pieces: what to encode; a single one is encoded once, with its graph.
        loss: embeddings of all pieces (B, D), one after another -> a scalar.
        weight: factor of the loss in the gradient.
        collect: called whenever a piece's gradient has reached the parameters.

    Returns:
        The loss, a scalar without graph.
    """
    if len(pieces) == 1:
        value = loss(encode(pieces[0]))
        torch.autograd.backward(weight * value)
        collect()
        return value.detach()
    with torch.no_grad():
        embedded = [encode(piece) for piece in pieces]
    leaf = torch.cat(embedded).requires_grad_()  # (B, D)
    value = loss(leaf)
    torch.autograd.backward(weight * value)  # weights of the loss itself get theirs here
    gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    parts = torch.split(gradient, [len(rows) for rows in embedded])
    for piece, part in zip(pieces, parts, strict=True):
        torch.autograd.backward(encode(piece), part)
        collect()
    return value.detach()


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of every pair by one product of unit vectors: (N, D), (M, D) -> (N, M)."""
    return dots(*(nn.functional.normalize(_wide(x)) for x in (first, second)))


def dots(first: Tensor, second: Tensor) -> Tensor:
    """Dot product of every pair: (N, D), (M, D) -> (N, M)."""
    return _wide(first) @ _wide(second).T


def _wide(values: Tensor) -> Tensor:
    """Return values in fp32 at least."""
    return values.float() if values.dtype.itemsize < 4 else values


def duplicate_mask(
    anchors: Sequence[str], positives: Sequence[str], negatives: Sequence[str] = ()
) -> Tensor:
    """Mark candidates with the very text of a row's anchor or positive: they are no negatives.

    Args:
        anchors: N sentences.
        positives: N sentences.
        negatives: M hard negatives.

    Returns:
        (N, N + M) bool; a row's own positive is never marked.
    """
    numbers: dict[str, int] = {}
    anchor, positive, negative = (
        torch.tensor([numbers.setdefault(text, len(numbers)) for text in texts], dtype=torch.int64)
        for texts in (anchors, positives, negatives)
    )
    candidate = torch.cat([positive, negative])
    same = (candidate == anchor[:, None]) | (candidate == positive[:, None])  # (N, N + M)
    same[torch.arange(len(anchor)), torch.arange(len(anchor))] = False
    return same
