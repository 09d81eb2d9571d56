"""Layers that spread a finished embedding space evenly: whitening, all-but-the-top, flow.

Each is fitted on the embeddings of a named corpus and maps (N, D) to (N, K) after pooling and
head, before normalization. Gao et al. 2021 compare their model with the first and the last.
"""

import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from simcse.errors import DataError, NumericError, UsageError

Postprocess = Literal["none", "whitening", "all_but_the_top", "flow", "linear"]
POSTPROCESS: tuple[Postprocess, ...] = get_args(Postprocess)

MIN_VARIANCE = 1e-10  # of the largest variance: a direction below it is rounding, not data
FLOW_STEPS = 4
FLOW_HIDDEN = 256
FLOW_RATE = 1e-3  # Li et al. 2020 (BERT-flow), section 4
FLOW_BATCH = 256


class Affine(nn.Module):
    """A linear map with bias, (N, D) -> (N, K): whitening and all-but-the-top."""

    def __init__(self, width: int, dimensions: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, dimensions)
        self.requires_grad_(False)

    @property
    def dimensions(self) -> int:
        """K, the size of a mapped vector."""
        return self.linear.out_features

    def forward(self, vectors: Tensor) -> Tensor:
        """Map vectors (N, D) to (N, K)."""
        mapped: Tensor = self.linear(vectors)
        return mapped


class Flow(nn.Module):
    """A compact Glow: an invertible map (N, D) -> (N, D) to a standard normal distribution.

    Steps of activation normalization, a learnt linear mixing and an additive coupling, as
    Kingma and Dhariwal 2018 build them and BERT-flow (Li et al. 2020) uses them on embeddings.
    """

    def __init__(self, width: int, *, steps: int = FLOW_STEPS, hidden: int = FLOW_HIDDEN) -> None:
        super().__init__()
        self.dimensions, self.hidden = width, hidden
        self.steps = nn.ModuleList(_FlowStep(width, hidden) for _ in range(steps))
        self.requires_grad_(False)

    def forward(self, vectors: Tensor) -> Tensor:
        """Map vectors (N, D) to the latent space (N, D)."""
        for step in self.steps:
            vectors = step(vectors)
        return vectors

    def inverse(self, latent: Tensor) -> Tensor:
        """Map latent vectors (N, D) back."""
        for step in reversed(self._flow_steps()):
            latent = step.inverse(latent)
        return latent

    def log_volume(self) -> Tensor:
        """Return log |det J|, the same at every point: the coupling preserves volumes."""
        return torch.stack([step.log_volume() for step in self._flow_steps()]).sum()

    def start(self, vectors: Tensor) -> None:
        """Set each step's normalization from the first vectors (N, D)."""
        for step in self._flow_steps():
            vectors = step.start(vectors)

    def _flow_steps(self) -> list["_FlowStep"]:
        return list(self.steps)  # type: ignore[arg-type]  # a ModuleList has no element type


Layer = Affine | Flow


class _FlowStep(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fixed = width // 2
        self.shift = nn.Parameter(torch.zeros(width))
        self.log_scale = nn.Parameter(torch.zeros(width))
        self.mixing = nn.Parameter(nn.init.orthogonal_(torch.empty(width, width)))
        last = nn.Linear(hidden, width - self.fixed)
        nn.init.zeros_(last.weight)  # a step starts as a linear map: Glow, section 3.3
        nn.init.zeros_(last.bias)
        self.coupling = nn.Sequential(
            nn.Linear(self.fixed, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), last
        )

    def forward(self, vectors: Tensor) -> Tensor:
        mixed = ((vectors + self.shift) * self.log_scale.exp()) @ self.mixing  # (N, D)
        fixed, moved = mixed[:, : self.fixed], mixed[:, self.fixed :]
        return torch.cat([fixed, moved + self.coupling(fixed)], dim=1)

    def inverse(self, latent: Tensor) -> Tensor:
        fixed, moved = latent[:, : self.fixed], latent[:, self.fixed :]
        mixed = torch.cat([fixed, moved - self.coupling(fixed)], dim=1)  # (N, D)
        scaled = torch.linalg.solve(self.mixing.T, mixed.T).T
        restored: Tensor = scaled * (-self.log_scale).exp() - self.shift
        return restored

    def log_volume(self) -> Tensor:
        volume: Tensor = self.log_scale.sum() + torch.linalg.slogdet(self.mixing).logabsdet
        return volume

    def start(self, vectors: Tensor) -> Tensor:
        """Normalize each dimension of the first vectors: Glow, section 3.1."""
        self.shift.copy_(-vectors.mean(0))
        self.log_scale.copy_(-vectors.std(0).clamp_min(1e-6).log())
        started: Tensor = self(vectors)
        return started


def fit_whitening(vectors: ArrayLike, *, dimensions: int | None = None) -> Affine:
    """Fit BERT-whitening (Su et al. 2021): mean 0, covariance I, the K widest directions.

    Args:
        vectors: (N, D) embeddings of the corpus, before normalization.
        dimensions: K; ``None`` takes all that are spanned by more sentences than dimensions:
            D - 1 for a backbone that ends in layer normalization, which removes one.

    Raises:
        UsageError: ``dimensions`` is not in 1..D.
        DataError: the corpus does not span that many directions.
        NumericError: a vector is not finite.
    """
    rows = _checked(vectors)
    width = rows.shape[1]
    if dimensions is not None and not 1 <= dimensions <= width:
        raise UsageError(f"dimensions must be from 1 to {width}, got {dimensions}")
    mean, variances, directions = _principal(rows)
    spanned = int((variances > MIN_VARIANCE * variances[0]).sum())
    enough = dimensions is None and spanned and len(rows) > width
    count = spanned if enough else dimensions or width
    if spanned < count:
        raise DataError(
            f"{len(rows):,} embeddings span {spanned} directions, fewer than {count}: fit on more "
            f"sentences or ask for at most {spanned} dimensions"
        )
    return _affine(mean, directions[:, :count] / np.sqrt(variances[:count]))


def fit_all_but_the_top(vectors: ArrayLike, *, directions: int | None = None) -> Affine:
    """Fit all-but-the-top (Mu and Viswanath 2018): remove mean and widest directions.

    Args:
        vectors: (N, D) embeddings of the corpus, before normalization.
        directions: number to remove; ``None`` is D / 100, at least 1, as the authors advise.

    Raises:
        UsageError: ``directions`` is not in 1..D-1.
        DataError: there are fewer than two vectors.
        NumericError: a vector is not finite.
    """
    rows = _checked(vectors)
    width = rows.shape[1]
    count = max(1, width // 100) if directions is None else directions
    if not 1 <= count < width:
        raise UsageError(f"directions must be from 1 to {width - 1}, got {count}")
    mean, _, principal = _principal(rows)
    top = principal[:, :count]  # (D, k)
    return _affine(mean, np.eye(width) - top @ top.T)


def fit_flow(
    vectors: ArrayLike,
    *,
    epochs: int = 1,
    seed: int = 0,
    on_step: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> Flow:
    """Fit a flow by maximum likelihood, as BERT-flow (Li et al. 2020) does.

    Args:
        vectors: (N, D) embeddings of the corpus, before normalization.
        epochs: passes over them.
        seed: of the first weights and of the order.
        on_step: called with step, number of steps and negative log-likelihood in nats a dimension.

    Raises:
        DataError: there are fewer vectors than one batch of `FLOW_BATCH`.
        NumericError: a vector is not finite, or the likelihood left the finite numbers.
    """
    rows = torch.from_numpy(_checked(vectors).astype(np.float32))
    if len(rows) < FLOW_BATCH:
        raise DataError(f"a flow is fitted on at least {FLOW_BATCH} sentences, got {len(rows)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flow = Flow(rows.shape[1])
        flow.start(rows[torch.randperm(len(rows))[: 16 * FLOW_BATCH]])
        order = torch.cat([torch.randperm(len(rows)) for _ in range(epochs)])
    flow.requires_grad_(True)
    optimizer = torch.optim.Adam(flow.parameters(), lr=FLOW_RATE)
    steps = len(order) // FLOW_BATCH
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    for number in range(steps):
        latent = flow(rows[order[number * FLOW_BATCH : (number + 1) * FLOW_BATCH]])  # (B, D)
        likelihood = -0.5 * (latent**2).sum(1).mean() + flow.log_volume()
        loss = 0.5 * math.log(2 * math.pi) - likelihood / flow.dimensions
        if not loss.isfinite():
            raise NumericError(f"the flow's likelihood is {loss.item()} at step {number + 1}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        on_step(number + 1, steps, loss.item())
    return flow.requires_grad_(False)


def _checked(vectors: ArrayLike) -> NDArray[np.float64]:
    rows = np.asarray(vectors, np.float64)
    if rows.ndim != 2 or len(rows) < 2:
        raise DataError(f"expected at least two embeddings (N, D), got shape {rows.shape}")
    if not np.isfinite(rows).all():
        raise NumericError("an embedding of the corpus is not finite")
    return rows


def _principal(
    rows: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return mean (D,), variances (D,) from the largest, and their directions (D, D)."""
    variances, directions = np.linalg.eigh(np.cov(rows, rowvar=False).reshape(rows.shape[1], -1))
    return rows.mean(axis=0), variances[::-1], directions[:, ::-1]


def _affine(mean: NDArray[np.float64], matrix: NDArray[np.float64]) -> Affine:
    """Return x -> (x - mean) matrix: (D,), (D, K)."""
    layer = Affine(*matrix.shape)
    layer.linear.weight.copy_(torch.from_numpy(matrix.T))
    layer.linear.bias.copy_(torch.from_numpy(-mean @ matrix))
    return layer
