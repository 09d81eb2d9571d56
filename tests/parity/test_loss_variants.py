"""Published variants of the loss against their equations in plain loops, gradients included."""

import doctest
import importlib
import math
import pkgutil

import pytest
import torch

from simcse import losses
from simcse.errors import ConfigError
from simcse.losses import LOSSES
from simcse.losses.dimension import DimensionLoss
from simcse.losses.settings import LossConfig
from simcse.train.batches import repeat_tokens

TAU, ALPHA, PRIOR, MARGIN = 0.3, 2.0, 0.2, 0.4
NEGATIVE_OWNERS = [0, 0, 2]  # of three hard negatives; rows 1 and 3 have none


def dot(u, v):
    return sum(a * b for a, b in zip(u, v, strict=True))


def cosine(u, v):
    return dot(u, v) / torch.sqrt(dot(u, u) * dot(v, v))


def exponent(s, form, positive):
    if form != "focal":
        return s / TAU
    return (s * s if positive else s * (s + MARGIN)) / TAU


def equation(anchors, candidates, form, *, dropout_free=None, ignored=(), alike=cosine):
    """One loop over rows and one over candidates, on scalars."""
    n, losses = len(anchors), []
    for i in range(n):
        p = torch.exp(exponent(alike(anchors[i], candidates[i]), form, positive=True))
        negatives = []
        for j in range(len(candidates)):
            if j == i or (i, j) in ignored:
                continue
            own = j >= n and NEGATIVE_OWNERS[j - n] == i
            off = dropout_free is not None and j < n
            s = alike(dropout_free[i], dropout_free[j]) if off else alike(anchors[i], candidates[j])
            negatives.append((ALPHA if own else 1) * torch.exp(exponent(s, form, positive=False)))
        total, k = sum(negatives), len(negatives)
        if form == "decoupled":
            losses.append(-torch.log(p / total))
        elif form == "debiased":
            corrected = (total - k * PRIOR * p) / (1 - PRIOR)
            lowest = torch.tensor(k * math.exp(-1 / TAU), dtype=p.dtype)
            losses.append(-torch.log(p / (p + torch.maximum(corrected, lowest))))
        else:
            losses.append(-torch.log(p / (p + total)))
    return sum(losses) / n


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(rows, 5, generator=generator, dtype=torch.float64).requires_grad_()
        for rows in (4, 7, 4)
    ]


def contrastive_loss(anchors, candidates, *, form, negative_owners=None, ignore=None, **settings):
    """Candidates are the positives and, behind them, the hard negatives."""
    extra = {"dropout_free": settings.pop("dropout_free", None)}
    positives, negatives = candidates[: len(anchors)], candidates[len(anchors) :]
    loss = LOSSES[form](**settings)
    return loss(
        anchors, positives, negatives, negative_owners=negative_owners, ignore=ignore, **extra
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("with_dropout_free", [False, True])
@pytest.mark.parametrize(
    ("form", "similarity"),
    [
        *((form, "cosine") for form in ("contrastive", "decoupled", "debiased", "focal")),
        ("contrastive", "dot"),
        ("decoupled", "dot"),
    ],
)
def test_a_form_and_its_gradient_are_those_of_its_equation(
    form, similarity, with_dropout_free, seed
):
    anchors, candidates, dropout_free = inputs = batch(seed)
    ignore = torch.zeros(4, 7, dtype=torch.bool)
    ignore[1, 2] = ignore[3, 6] = True
    ours = contrastive_loss(
        anchors,
        candidates,
        temperature=TAU,
        similarity=similarity,
        negative_owners=torch.tensor(NEGATIVE_OWNERS),
        hard_negative_weight=ALPHA,
        ignore=ignore,
        dropout_free=dropout_free if with_dropout_free else None,
        form=form,
        **{"debiased": {"prior": PRIOR}, "focal": {"margin": MARGIN}}.get(form, {}),
    )
    loops = equation(
        anchors,
        candidates,
        form,
        dropout_free=dropout_free if with_dropout_free else None,
        ignored={(1, 2), (3, 6)},
        alike={"cosine": cosine, "dot": dot}[similarity],
    )
    assert ours.item() == pytest.approx(loops.item(), rel=1e-9)
    for mine, theirs in zip(
        torch.autograd.grad(ours, inputs, allow_unused=True),
        torch.autograd.grad(loops, inputs, allow_unused=True),
        strict=True,
    ):
        assert (mine is None) == (theirs is None)
        if mine is not None and theirs is not None:
            torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-11)


def test_where_the_negatives_are_all_expected_positives_debiasing_stops_at_its_lowest():
    """The correction would make the sum negative, and the loss the logarithm of nothing."""
    anchors = torch.eye(4, dtype=torch.float64)
    loss = contrastive_loss(anchors, anchors, temperature=0.05, form="debiased", prior=0.9)
    lowest = 3 * math.exp(-1 / 0.05)
    expected = -math.log(math.exp(1 / 0.05) / (math.exp(1 / 0.05) + lowest))
    assert loss.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("form", ["contrastive", "decoupled", "debiased", "focal"])
@pytest.mark.parametrize("tau", [0.005, 0.05])
def test_small_temperatures_do_not_overflow(form, tau):
    anchors, candidates, _ = (x.detach().float().requires_grad_() for x in batch())
    loss = contrastive_loss(anchors, candidates, temperature=tau, form=form)
    (gradient,) = torch.autograd.grad(loss, anchors)
    assert loss.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("form", ["decoupled", "debiased"])
def test_a_row_without_negatives_adds_nothing(form):
    """All other candidates say the same, or there are none."""
    anchors, candidates, _ = batch()
    ignore = ~torch.eye(4, 7, dtype=torch.bool)
    loss = contrastive_loss(anchors, candidates, temperature=TAU, form=form, ignore=ignore)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    (gradient,) = torch.autograd.grad(loss, anchors)
    assert not gradient.isnan().any()
    assert not gradient.any()


def test_the_dimension_loss_contrasts_columns_as_its_equation_says():
    first, second, _ = (x[:4] for x in batch())
    n, width = first.shape

    def standardized(column):
        mean = sum(column) / n
        deviation = torch.sqrt(sum((x - mean) ** 2 for x in column) / n + 1e-5)
        return [(x - mean) / deviation for x in column]

    left = [standardized(first[:, c]) for c in range(width)]
    right = [standardized(second[:, c]) for c in range(width)]
    losses = []
    for c in range(width):
        terms = [
            torch.exp(sum(a * b for a, b in zip(left[c], right[d], strict=True)) / n / 0.5)
            for d in range(width)
        ]
        losses.append(-torch.log(terms[c] / sum(terms)))
    loops, ours = sum(losses) / width, DimensionLoss(0.5)(first, second)
    assert ours.item() == pytest.approx(loops.item(), rel=1e-9)
    torch.testing.assert_close(
        torch.autograd.grad(ours, first), torch.autograd.grad(loops, first), rtol=1e-8, atol=1e-11
    )
    assert DimensionLoss(0.5)(first[:1], second[:1]) == 0


def test_repeated_tokens_are_the_sentences_own_and_as_many_as_allowed():
    ids = [0, *range(10, 30), 1]
    counts = set()
    for seed in range(300):
        found = repeat_tokens(ids, 0.32, special_ids=(0, 1), seed=seed)
        assert found == repeat_tokens(ids, 0.32, special_ids=(0, 1), seed=seed)
        assert list(dict.fromkeys(found)) == ids  # in order, none lost
        assert max(map(found.count, ids)) <= 2
        assert found.count(0) == found.count(1) == 1
        counts.add(len(found) - len(ids))
    assert counts == set(range(7))  # int(0.32 * 20) = 6
    assert repeat_tokens([0, 1], 1.0, special_ids=(0, 1), seed=3) == [0, 1]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"type": "debiased", "options": {"prior": 0.0}}, "loss.options.prior"),
        ({"type": "debiased", "options": {"prior": "1.0"}}, "loss.options.prior"),
        ({"type": "debiased", "options": {"prio": 1}}, "did you mean 'loss.options.prior'"),
        ({"type": "focal", "options": {"margin": "much"}}, "loss.options.margin must be float"),
        ({"type": "focal", "options": {"temperature": 1}}, "set loss.temperature"),
        ({"options": {"prior": 0.1}}, "loss.options.prior"),
        ({"type": "focale"}, "did you mean 'focal'"),
        ({"similarity": "angle"}, "loss.similarity must be cosine or dot"),
        ({"word_repetition": 1.5}, "loss.word_repetition"),
        ({"dimension_weight": -1.0}, "loss.dimension_weight"),
        ({"dimension_temperature": 0.0}, "loss.dimension_temperature"),
        ({"matryoshka": (64, 64)}, "loss.matryoshka"),
        ({"matryoshka": (0,)}, "loss.matryoshka"),
        ({"matryoshka": ()}, "loss.matryoshka"),
        ({"similarity": "dot", "type": "focal"}, "loss.type=focal"),
        ({"similarity": "dot", "type": "debiased"}, "loss.type=debiased"),
        ({"fixed_mask": True, "word_repetition": 0.3}, "loss.fixed_mask"),
        ({"fixed_mask": True, "dropout_sampling": (0.1,)}, "loss.dropout_sampling"),
        ({"dropout_sampling": ()}, "loss.dropout_sampling"),
        ({"dropout_sampling": (0.1, 1.0)}, "loss.dropout_sampling"),
        ({"type": "classifier", "temperature": 0.1}, "loss.temperature=0.1"),
        ({"type": "classifier", "matryoshka": (8,)}, "loss.matryoshka"),
    ],
)
def test_settings_out_of_range_are_refused(settings, named):
    with pytest.raises(ConfigError, match=named):
        LossConfig(**settings)


def test_the_options_of_a_loss_are_resolved_with_their_defaults():
    assert LossConfig(type="debiased").options == {"prior": 0.1}
    assert LossConfig(type="focal", options={"margin": "0.2"}).options == {"margin": 0.2}
    config = LossConfig(type="focal", temperature=0.1)
    assert config.arguments == {
        "temperature": 0.1, "similarity": "cosine", "hard_negative_weight": 1.0, "margin": 0.3
    }  # fmt: skip


@pytest.mark.parametrize("name", [each.name for each in pkgutil.iter_modules(losses.__path__)])
def test_the_examples_in_the_documentation_of_the_losses_are_right(name):
    module = importlib.import_module(f"simcse.losses.{name}")
    assert doctest.testmod(module, extraglobs={"torch": torch}).failed == 0
