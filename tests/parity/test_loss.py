"""The contrastive loss against the paper's equations, written as plain loops over plain numbers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from simcse.errors import ConfigError, UsageError
from simcse.losses.contrastive import ContrastiveLoss, duplicate_mask
from simcse.losses.gradcache import gradcache_backward
from simcse.losses.settings import LossConfig
from simcse.losses.spectrum import spectrum_loss
from simcse.losses.uniformity import uniformity_loss

RAGGED = [(0, 0, 0, 0), (1, 1, 1, 1), (0, 2, 1, 0), (3, 0, 0, 1), (0, 0, 0, 5)]
TEMPERATURES = [0.05, 0.2, 1.0]
batches = st.tuples(st.integers(1, 6), st.integers(1, 8), st.integers(0, 2**32 - 1))


def cosine(u, v, sqrt=math.sqrt):
    dot = sum(a * b for a, b in zip(u, v, strict=True))
    return dot / (sqrt(sum(a * a for a in u)) * sqrt(sum(b * b for b in v)))


def unsupervised_equation(h, h_prime, tau):
    losses = []
    for i in range(len(h)):
        below = sum(math.exp(cosine(h[i], h_prime[j]) / tau) for j in range(len(h)))
        losses.append(-math.log(math.exp(cosine(h[i], h_prime[i]) / tau) / below))
    return sum(losses) / len(losses)


def supervised_equation(h, positives, negatives, tau, alpha=1.0, left_out=(), ops=math):
    """negatives[j] are row j's own; left_out has (i, j) of positives and (i, j, k) of negatives."""
    losses = []
    for i in range(len(h)):
        below = 0.0
        for j in range(len(h)):
            if (i, j) not in left_out:
                below = below + ops.exp(cosine(h[i], positives[j], ops.sqrt) / tau)
            weight = alpha if i == j else 1.0
            for k, negative in enumerate(negatives[j]):
                if (i, j, k) not in left_out:
                    below = below + weight * ops.exp(cosine(h[i], negative, ops.sqrt) / tau)
        losses.append(-ops.log(ops.exp(cosine(h[i], positives[i], ops.sqrt) / tau) / below))
    return sum(losses) / len(losses)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def contrastive_loss(anchors, candidates, *, negative_owners=None, ignore=None, **settings):
    """Candidates are the positives and, behind them, the hard negatives."""
    positives, negatives = candidates[: len(anchors)], candidates[len(anchors) :]
    loss = ContrastiveLoss(**settings)
    return loss(anchors, positives, negatives, negative_owners=negative_owners, ignore=ignore)


def supervised_batch(counts, dtype=torch.float64):
    """Anchors, candidates, negative_owners; and the same as nested lists for the equation."""
    n = len(counts)
    anchors, candidates = draw(n, 6, dtype=dtype), draw(n + sum(counts), 6, seed=1, dtype=dtype)
    negative_owners = torch.tensor(
        [i for i, count in enumerate(counts) for _ in range(count)]
    ).long()
    pieces = torch.split(candidates[n:], list(counts))
    lists = anchors.tolist(), candidates[:n].tolist(), [piece.tolist() for piece in pieces]
    return (anchors, candidates, negative_owners), lists


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("tau", TEMPERATURES)
@pytest.mark.parametrize("n", [2, 7])
def test_unsupervised_loss_is_equation_1(n, tau, dtype):
    h, h_prime = draw(n, 5, dtype=dtype), draw(n, 5, seed=1, dtype=dtype)
    expected = unsupervised_equation(h.tolist(), h_prime.tolist(), tau)
    loss = contrastive_loss(h, h_prime, temperature=tau)
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("tau", TEMPERATURES)
@pytest.mark.parametrize("counts", RAGGED)
def test_supervised_loss_is_the_equation_with_alpha_on_own_negatives(counts, tau, alpha, dtype):
    (anchors, candidates, negative_owners), lists = supervised_batch(counts, dtype)
    loss = contrastive_loss(
        anchors,
        candidates,
        temperature=tau,
        negative_owners=negative_owners,
        hard_negative_weight=alpha,
    )
    assert loss.item() == pytest.approx(supervised_equation(*lists, tau, alpha), rel=1e-6, abs=1e-6)


def test_hard_negatives_may_come_in_any_order():
    (anchors, candidates, negative_owners), lists = supervised_batch((2, 0, 1, 3))
    order = torch.tensor([5, 0, 3, 1, 4, 2])
    mixed = torch.cat([candidates[:4], candidates[4:][order]])
    loss = contrastive_loss(
        anchors,
        mixed,
        temperature=0.1,
        negative_owners=negative_owners[order],
        hard_negative_weight=3.0,
    )
    assert loss.item() == pytest.approx(supervised_equation(*lists, 0.1, 3.0), rel=1e-9)


@pytest.mark.parametrize("counts", RAGGED)
def test_gradients_are_those_of_the_equation(counts):
    (anchors, candidates, negative_owners), _ = supervised_batch(counts)
    inputs = anchors.requires_grad_(), candidates.requires_grad_()
    ours = contrastive_loss(
        *inputs, temperature=0.2, negative_owners=negative_owners, hard_negative_weight=2.0
    )
    pieces = torch.split(candidates[len(anchors) :], list(counts))
    loops = supervised_equation(
        anchors, candidates[: len(anchors)], pieces, tau=0.2, alpha=2.0, ops=torch
    )
    assert torch.count_nonzero(torch.autograd.grad(loops, inputs, retain_graph=True)[1])
    torch.testing.assert_close(
        torch.autograd.grad(ours, inputs), torch.autograd.grad(loops, inputs), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("tau", [0.05, 1.0])
def test_bf16_inputs_are_compared_in_fp32(tau):
    (anchors, candidates, negative_owners), exact = supervised_batch((1, 2, 0, 1))
    _, rounded = supervised_batch((1, 2, 0, 1), torch.bfloat16)
    loss = contrastive_loss(
        anchors.bfloat16(),
        candidates.bfloat16(),
        temperature=tau,
        negative_owners=negative_owners,
        hard_negative_weight=2.0,
    )
    assert loss.dtype == torch.float32
    # Nothing but the rounding of the inputs is lost ...
    assert loss.item() == pytest.approx(supervised_equation(*rounded, tau, 2.0), rel=1e-6, abs=1e-6)
    # ... which moves each vector by at most 2**-8 of its length, a cosine by at most 4 * 2**-8
    # and a loss, a difference of logits, by at most twice that over the temperature.
    assert loss.item() == pytest.approx(
        supervised_equation(*exact, tau, 2.0), abs=2 * 4 * 2**-8 / tau
    )


def test_hard_negative_weight_1_is_none():
    (anchors, candidates, negative_owners), _ = supervised_batch((1, 2, 0, 1))
    plain = contrastive_loss(anchors, candidates, temperature=0.05)
    weighted = contrastive_loss(
        anchors,
        candidates,
        temperature=0.05,
        negative_owners=negative_owners,
        hard_negative_weight=1.0,
    )
    assert torch.equal(plain, weighted)


@pytest.mark.parametrize("flag", [-1.0, 0.0, 0.7])
def test_the_reference_projects_flag_is_the_logarithm_of_our_weight(flag):
    """princeton-nlp/SimCSE 49fa580, simcse/models.py: it is added to the diagonal's logits."""
    (anchors, candidates, negative_owners), _ = supervised_batch((1, 1, 1, 1))
    z1, z2, z3 = anchors, candidates[:4], candidates[4:]
    similarity = nn.CosineSimilarity(dim=-1)
    logits = torch.cat([similarity(z1[:, None], z[None]) / 0.05 for z in (z2, z3)], 1)
    weights = [[0.0] * 4 + [0.0] * i + [flag] + [0.0] * (3 - i) for i in range(4)]
    expected = nn.functional.cross_entropy(logits + torch.tensor(weights), torch.arange(4))
    loss = contrastive_loss(
        anchors,
        candidates,
        temperature=0.05,
        negative_owners=negative_owners,
        hard_negative_weight=math.exp(flag),
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-7)


def test_a_weight_without_owners_is_refused():
    (anchors, candidates, _), _ = supervised_batch((1, 1, 1, 1))
    with pytest.raises(UsageError, match="negative_owners"):
        contrastive_loss(anchors, candidates, temperature=0.05, hard_negative_weight=2.0)


def test_masked_duplicates_are_terms_left_out():
    anchors = ["a", "b", "a", "c"]
    positives = ["a'", "b'", "a''", "b'"]  # rows 1 and 3 share a positive
    negatives = [["n0", "c"], [], ["n2"], ["a'", "b'"]]  # "c" is an anchor, the last is its own
    (h, candidates, negative_owners), lists = supervised_batch(tuple(map(len, negatives)))
    mask = duplicate_mask(anchors, positives, sum(negatives, []))
    loss = contrastive_loss(
        h,
        candidates,
        temperature=0.2,
        negative_owners=negative_owners,
        hard_negative_weight=2.0,
        ignore=mask,
    )
    left_out = {(1, 3), (3, 1), (3, 0, 1), (0, 3, 0), (1, 3, 1), (3, 3, 1)}
    expected = supervised_equation(*lists, 0.2, 2.0, left_out)
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    assert expected < supervised_equation(*lists, 0.2, 2.0)


@pytest.mark.parametrize("tau", TEMPERATURES)
def test_the_temperature_scales_the_cosine(tau):
    vectors = torch.eye(5, dtype=torch.float64)
    loss = contrastive_loss(vectors, vectors, temperature=tau)  # cosines 1 and 0
    assert loss.item() == pytest.approx(math.log(1 + 4 * math.exp(-1 / tau)), rel=1e-9)


def test_one_row_without_negatives_has_no_loss():
    anchor, positive = draw(1, 4).requires_grad_(), draw(1, 4, seed=1)
    loss = contrastive_loss(anchor, positive, temperature=0.05)
    loss.backward()
    assert loss.item() == 0
    assert torch.count_nonzero(anchor.grad) == 0


@settings(max_examples=25, deadline=None)
@given(batches, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(batch, random):
    n, width, seed = batch
    anchors, candidates = draw(n, width, seed=seed), draw(n + 2 * n, width, seed=seed ^ 1)
    negative_owners = torch.arange(n).repeat(2)
    order = torch.tensor(random.sample(range(n), n))
    moved = torch.cat([candidates[:n][order], candidates[n:]])
    new_place = torch.argsort(order)

    def loss(anchors, candidates, negative_owners):
        return contrastive_loss(
            anchors,
            candidates,
            temperature=0.1,
            negative_owners=negative_owners,
            hard_negative_weight=2.0,
        ).item()

    first, second = (
        loss(anchors, candidates, negative_owners),
        loss(anchors[order], moved, new_place[negative_owners]),
    )
    assert first == pytest.approx(second, rel=1e-9, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(batches, st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_the_length_of_vectors_does_not_matter(batch, first, second):
    n, width, seed = batch
    anchors, candidates = draw(n, width, seed=seed), draw(n + 1, width, seed=seed ^ 1)
    plain = contrastive_loss(anchors, candidates, temperature=0.1)
    scaled = contrastive_loss(anchors * first, candidates * second, temperature=0.1)
    assert scaled.item() == pytest.approx(plain.item(), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("sizes", [[9], [4, 5], [1] * 9, [8, 1]])
def test_gradient_of_micro_batches_is_the_gradient_of_the_whole(sizes):
    inputs, layer = draw(9, 5), nn.Linear(5, 6).double()
    collected = []

    def loss(embedded):
        return contrastive_loss(embedded[:3], embedded[3:], temperature=0.05)

    def encode(rows):
        return torch.tanh(layer(rows))

    whole = loss(encode(inputs))
    expected = torch.autograd.grad(3.0 * whole, layer.parameters())
    value = gradcache_backward(
        encode, inputs.split(sizes), loss, weight=3.0, collect=lambda: collected.append(1)
    )
    assert value.item() == pytest.approx(whole.item(), rel=1e-12)
    assert len(collected) == len(sizes)
    for parameter, gradient in zip(layer.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-12, rtol=1e-9)


def test_the_uniformity_loss_is_wang_and_isolas():
    vectors = torch.randn(9, 5, dtype=torch.float64)
    distances = torch.pdist(nn.functional.normalize(vectors)).pow(2)
    expected = distances.mul(-2).exp().mean().log()
    assert uniformity_loss(vectors).item() == pytest.approx(expected.item())


def test_the_spectrum_loss_is_the_sum_of_squared_eigenvalues():
    vectors = torch.randn(9, 5, dtype=torch.float64)
    unit = nn.functional.normalize(vectors)
    eigenvalues = torch.linalg.eigvalsh(unit @ unit.T)
    expected = (eigenvalues.square().sum() - 9) / (9 * 8)
    assert spectrum_loss(vectors).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("regularizer", [uniformity_loss, spectrum_loss])
def test_descending_a_regularizer_flattens_the_spectrum(regularizer):
    vectors = (torch.randn(12, 6) + 3).requires_grad_()
    optimizer = torch.optim.SGD([vectors], lr=2.0)
    first = torch.linalg.svdvals(nn.functional.normalize(vectors.detach()))
    for _ in range(300):
        optimizer.zero_grad()
        regularizer(vectors).backward()
        optimizer.step()
    last = torch.linalg.svdvals(nn.functional.normalize(vectors.detach()))
    assert last[0] < 0.7 * first[0]


def test_a_regularizer_of_one_embedding_is_0_and_its_weight_is_checked():
    assert spectrum_loss(torch.randn(1, 3)) == uniformity_loss(torch.randn(1, 3)) == 0
    with pytest.raises(ConfigError, match="regularizer_weight"):
        LossConfig(regularizer="spectrum", regularizer_weight=0)
