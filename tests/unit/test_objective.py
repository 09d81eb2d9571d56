"""The loss of a batch from its examples, and its gradient whatever the pieces."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch

from simcse.errors import ConfigError, UsageError
from simcse.io.records import Example
from simcse.loss import LossConfig, spread_penalty
from simcse.model.dropout import Dropout, dropout_key
from simcse.model.mlm import MlmHead
from simcse.model.settings import ModelSettings
from simcse.train.classifier import PairClassifier
from simcse.train.objective import Objective, refuse_unfit

SENTENCES = ["the man is eating", "a dog runs", "she plays the guitar", "two cats", "a woman eats"]
ROWS = [Example(sentence) for sentence in SENTENCES]


def test_the_objective_is_the_loss_of_its_parts(tiny_encoder):
    """Hard negatives, any number a row; duplicates left out; a positive of None is the anchor."""
    rows = [Example("a", "b", ("c", "dog")), Example("cat"), Example("man", "a", ("run",))]
    config = LossConfig(temperature=0.1, hard_negative_weight=2.0)
    total = Objective(tiny_encoder.eval(), config).backward(rows, 1).total.item()

    h = {text: v / np.linalg.norm(v) for text in "a b c dog cat man run".split()
         for v in tiny_encoder.encode([text]).astype(float)}  # fmt: skip

    def term(first, second, weight=1.0):
        return weight * math.exp(float(h[first] @ h[second]) / 0.1)

    def row_loss(own, *others):
        return -math.log(own / (own + sum(others)))

    expected = [
        row_loss(term("a", "b"), term("a", "cat"), term("a", "c", 2.0), term("a", "dog", 2.0),
                 term("a", "run")),  # the third row's positive is this anchor: left out
        row_loss(term("cat", "cat"), term("cat", "b"), term("cat", "a"), term("cat", "c"),
                 term("cat", "dog"), term("cat", "run")),
        row_loss(term("man", "a"), term("man", "b"), term("man", "cat"), term("man", "c"),
                 term("man", "dog"), term("man", "run", 2.0)),
    ]  # fmt: skip
    assert total == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.parametrize("kind", ["uniformity", "spectrum"])
def test_the_regularizer_is_added_for_the_anchors(tiny_encoder, kind):
    plain, spread = LossConfig(), LossConfig(regularizer=kind, regularizer_weight=0.5)
    losses = [
        Objective(tiny_encoder.eval(), config).backward(ROWS, 1).total.item()
        for config in (plain, spread)
    ]
    anchors = torch.from_numpy(tiny_encoder.encode([row.anchor for row in ROWS]))
    expected = 0.5 * spread_penalty(anchors, kind).item()
    assert losses[1] - losses[0] == pytest.approx(expected, abs=1e-5)


def gradients(encoder, rows, *, micro_batch_tokens, config, **options):
    """Loss and gradient of one batch, dropout on."""
    torch.manual_seed(0)
    if config.mlm_weight:
        options["mlm_head"] = MlmHead(encoder.backbone).to(next(encoder.parameters()).dtype)
    encoder.backbone.set_dropout(0.3)
    objective = Objective(encoder, config, seed=3, micro_batch_tokens=micro_batch_tokens, **options)
    objective.train().zero_grad()
    parts = objective.backward(rows, 5)
    return parts, torch.cat([p.grad.flatten() for p in objective.parameters()])


@pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
@pytest.mark.parametrize("micro_batch_tokens", [1, 12, 40])
def test_gradient_caching_is_exact_with_dropout_on(
    tiny_encoder, micro_batch_tokens, dtype, accuracy
):
    encoder, config = tiny_encoder.to(dtype), LossConfig(mlm_weight=0.5, mlm_rate=0.4)
    rows = [*ROWS, Example("cat", "a dog", ("the man", "run"))]
    assert_the_same_in_pieces(encoder, rows, config, micro_batch_tokens, accuracy)


def assert_the_same_in_pieces(encoder, rows, config, micro_batch_tokens, accuracy, **options):
    whole, expected = gradients(encoder, rows, micro_batch_tokens=10**6, config=config, **options)
    parts, gradient = gradients(
        encoder, rows, micro_batch_tokens=micro_batch_tokens, config=config, **options
    )
    assert parts.total.item() == pytest.approx(whole.total.item(), rel=1e-6)
    assert ((gradient - expected).norm() / expected.norm()).item() < accuracy


VARIANTS = [
    LossConfig(
        form="debiased",
        matryoshka=(4, 16),
        dropout_free_negatives=True,
        repetition=0.5,
        dimension_weight=0.1,
    ),
    LossConfig(fixed_mask=True, similarity="dot", temperature=1.0),
    LossConfig(dropout_sampling=(0.05, 0.3)),
]


@pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
@pytest.mark.parametrize("micro_batch_tokens", [1, 12])
@pytest.mark.parametrize("config", VARIANTS)
def test_gradient_caching_is_exact_for_the_variants(
    tiny_encoder, config, micro_batch_tokens, dtype, accuracy
):
    assert_the_same_in_pieces(tiny_encoder.to(dtype), ROWS, config, micro_batch_tokens, accuracy)


def test_a_fixed_mask_is_the_sentence_twice_under_one_mask(tiny_encoder):
    """Against two explicit passes with the same masks, compared in loops."""
    tiny_encoder.backbone.set_dropout(0.3)
    objective = Objective(tiny_encoder.train(), LossConfig(fixed_mask=True), seed=3)
    objective.zero_grad()
    total = objective.backward(ROWS, 4).total.item()
    gradient = torch.cat([p.grad.flatten() for p in tiny_encoder.parameters()])

    objective.zero_grad()
    tiny_encoder.backbone.dropout_rng.key = dropout_key(3, 4)
    first, second = (tiny_encoder(tiny_encoder.tokenizer(SENTENCES)) for _ in range(2))
    tiny_encoder.backbone.dropout_rng.key = None
    assert torch.equal(first, second)
    plain = 0.0
    for i in range(len(ROWS)):
        terms = [
            torch.exp(first[i] @ other / first[i].norm() / other.norm() / 0.05) for other in second
        ]
        plain = plain - torch.log(terms[i] / sum(terms)) / len(ROWS)
    plain.backward()
    expected = torch.cat([p.grad.flatten() for p in tiny_encoder.parameters()])
    assert total == pytest.approx(plain.item(), rel=1e-5)
    assert (gradient - expected).norm() <= 1e-5 * expected.norm()
    with_two = Objective(tiny_encoder.train(), LossConfig(), seed=3).backward(ROWS, 4)
    assert total < with_two.total.item()  # the positive is as near as can be


def test_matryoshka_is_the_sum_over_sizes_with_its_gradient(tiny_encoder):
    """Against one loss at each size, of embeddings that are cut before they are compared."""
    encoder, sizes = tiny_encoder.eval(), (4, 16, 32)
    config = LossConfig(matryoshka=sizes[:-1])
    objective = Objective(encoder, config)
    objective.zero_grad()
    total = objective.backward(ROWS, 1).total.item()
    gradient = torch.cat([p.grad.flatten() for p in encoder.parameters()])

    objective.zero_grad()
    embedded = encoder(encoder.tokenizer(SENTENCES))  # (N, D)
    plain = 0.0
    for size in sizes:
        for i in range(len(SENTENCES)):
            cut = [row[:size] / row[:size].norm() for row in embedded]
            terms = [torch.exp(cut[i] @ other / 0.05) for other in cut]
            plain = plain - torch.log(terms[i] / sum(terms)) / len(SENTENCES)
    plain.backward()
    expected = torch.cat([p.grad.flatten() for p in encoder.parameters()])
    assert total == pytest.approx(plain.item(), rel=1e-6)
    assert (gradient - expected).norm() <= 1e-5 * expected.norm()


def other_tower(encoder):
    """A second tower that is not the first: its weights are moved a little."""
    second = copy.deepcopy(encoder)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    second.backbone.set_dropout(0.3)
    return second


@pytest.mark.parametrize("micro_batch_tokens", [1, 12])
def test_gradient_caching_is_exact_for_two_towers(tiny_encoder, micro_batch_tokens):
    rows = [*ROWS, Example("cat", "a dog", ("the man", "run"))]
    encoder, config = tiny_encoder.double(), LossConfig(mlm_weight=0.1, mlm_rate=0.4)
    second = other_tower(encoder)
    assert_the_same_in_pieces(encoder, rows, config, micro_batch_tokens, 1e-6, second=second)


def test_the_second_tower_embeds_positives_and_hard_negatives(tiny_encoder):
    """Against loops over what each of the two gives by itself, gradients of both included."""
    first, second = tiny_encoder.double().eval(), other_tower(tiny_encoder).eval()
    rows = [Example("a", "b", ("c",)), Example("cat", "dog"), Example("man", "a", ("run", "eat"))]
    objective = Objective(first, LossConfig(temperature=0.1), second=second)
    objective.zero_grad()
    total = objective.backward(rows, 1).total.item()
    gradient = torch.cat([p.grad.flatten() for p in objective.parameters()])

    objective.zero_grad()
    anchors = first(first.tokenizer(["a", "cat", "man"]))
    others = second(second.tokenizer(["b", "dog", "a", "c", "run", "eat"]))
    plain = 0.0
    for i, left_out in enumerate([{2}, set(), set()]):  # the third positive is the first anchor
        terms = [
            torch.exp(anchors[i] @ other / anchors[i].norm() / other.norm() / 0.1)
            for other in others
        ]
        kept = sum(term for j, term in enumerate(terms) if j not in left_out)
        plain = plain - torch.log(terms[i] / kept) / 3
    plain.backward()
    expected = torch.cat([p.grad.flatten() for p in objective.parameters()])
    assert total == pytest.approx(plain.item(), rel=1e-6)
    assert (gradient - expected).norm() <= 1e-6 * expected.norm()
    assert all(p.grad.any() for p in second.parameters())


def test_each_pass_draws_its_rate_from_seed_and_step(tiny_encoder):
    """S-SimCSE: against explicit passes at the rates that were drawn, compared in loops."""
    rates = (0.05, 0.2, 0.4)
    config = LossConfig(dropout_sampling=rates, temperature=0.1)
    objective = Objective(tiny_encoder.train(), config, seed=3)

    def drawn(step):
        with objective._noise(dropout_key(3, step)):
            return tuple(way.rate for way in objective.passes)

    pairs = [drawn(step) for step in range(1, 200)]
    assert pairs == [drawn(step) for step in range(1, 200)]
    assert set(pairs) == {(a, b) for a in rates for b in rates}  # each by itself
    step = next(step for step in range(1, 200) if drawn(step) == (0.4, 0.05))
    total = objective.backward(ROWS, step).total.item()

    tokens = tiny_encoder.tokenizer(SENTENCES)
    embedded = []
    tiny_encoder.backbone.dropout_rng.key = dropout_key(3, step)
    for rate, first in ((0.4, 0), (0.05, 5)):  # positives are sentences 5 to 9 of the batch
        tiny_encoder.backbone.set_dropout(rate)
        embedded.append(
            tiny_encoder(dataclasses.replace(tokens, original_index=tokens.original_index + first))
        )
    anchors, positives = (torch.nn.functional.normalize(x).tolist() for x in embedded)
    losses = []
    for i, anchor in enumerate(anchors):
        terms = [math.exp(sum(a * b for a, b in zip(anchor, other, strict=True)) / 0.1)
                 for other in positives]  # fmt: skip
        losses.append(-math.log(terms[i] / sum(terms)))
    assert total == pytest.approx(np.mean(losses), rel=1e-5)


def test_the_masked_pass_draws_a_rate_too(tiny_encoder):
    config = LossConfig(dropout_sampling=(0.25,), mlm_weight=1.0, contrastive_weight=0.0)
    tiny_encoder.backbone.set_dropout(0.1)
    head = MlmHead(tiny_encoder.backbone)
    Objective(tiny_encoder.train(), config, mlm_head=head).backward(ROWS, 1)
    rates = {m.p for m in tiny_encoder.modules() if isinstance(m, Dropout)}
    assert rates == {0.25}


LABELED = [
    Example("the man runs", "a man moves", label="yes"),
    Example("a dog", "a cat", label="no"),
    Example("she plays", "she plays the guitar", label="maybe"),
    Example("two cats", "cats", label="yes"),
]


@pytest.mark.parametrize("micro_batch_tokens", [1, 12])
def test_gradient_caching_is_exact_for_the_classifier(tiny_encoder, micro_batch_tokens):
    """Its own weights included, which are no part of what is embedded in pieces."""
    config = LossConfig(form="classifier", mlm_weight=0.1, mlm_rate=0.4)
    classifier = PairClassifier(32, ["yes", "no", "maybe"])
    encoder = tiny_encoder.double()
    for rows in (LABELED, LABELED[:1]):
        assert_the_same_in_pieces(
            encoder, rows, config, micro_batch_tokens, 1e-6, classifier=classifier
        )
        assert classifier.dense.weight.grad.any()


def test_the_classifier_is_the_softmax_of_sbert(tiny_encoder):
    """softmax(W [u; v; |u - v|] + b) in loops over classes and dimensions."""
    encoder = tiny_encoder.double().eval()
    torch.manual_seed(2)
    classifier = PairClassifier(32, [row.label for row in LABELED])
    assert classifier.classes == {"maybe": 0, "no": 1, "yes": 2}
    config = LossConfig(form="classifier", contrastive_weight=2.0)
    objective = Objective(encoder, config, classifier=classifier)
    objective.zero_grad()
    parts = objective.backward(LABELED, 1)
    gradient = torch.cat([p.grad.flatten() for p in objective.parameters()])

    objective.zero_grad()
    u = encoder(encoder.tokenizer([row.anchor for row in LABELED]))
    v = encoder(encoder.tokenizer([row.positive for row in LABELED]))
    weight, bias = classifier.dense.weight, classifier.dense.bias
    plain = 0.0
    for i, row in enumerate(LABELED):
        features = [*u[i], *v[i], *((a - b).abs() for a, b in zip(u[i], v[i], strict=True))]
        scores = [sum(w * x for w, x in zip(weight[k], features, strict=True)) + bias[k]
                  for k in range(3)]  # fmt: skip
        own = scores[["maybe", "no", "yes"].index(row.label)]
        plain = plain - torch.log(own.exp() / sum(score.exp() for score in scores)) / 4
    (2 * plain).backward()
    expected = torch.cat([p.grad.flatten() for p in objective.parameters()])
    assert parts.contrastive.item() == pytest.approx(plain.item(), rel=1e-6)
    assert parts.total.item() == pytest.approx(2 * plain.item(), rel=1e-6)
    assert (gradient - expected).norm() <= 1e-6 * expected.norm()


def test_labels_stand_where_the_classifier_wants_them_and_nowhere_else():
    config = LossConfig(form="classifier")
    refuse_unfit(LABELED, config)
    for rows in (ROWS, LABELED[:1], [*LABELED, ROWS[0]], []):
        with pytest.raises(ConfigError, match="needs labeled rows, with two labels at least"):
            refuse_unfit(rows, config)
    misread = [Example("entailment", "a man", ("a dog",)), Example("neutral", "a", ("b",))]
    with pytest.raises(ConfigError, match=r"begin with a label \(entailment\).*`simcse data nli`"):
        refuse_unfit(misread, LossConfig())


def test_a_classifier_without_its_weights_is_no_contrastive_loss(tiny_encoder):
    with pytest.raises(UsageError, match="needs a classifier"):
        Objective(tiny_encoder, LossConfig(form="classifier")).backward(LABELED, 1)


def test_negatives_without_dropout_are_what_the_model_gives_when_it_is_used(tiny_encoder):
    """Positives are compared with dropout, different sentences without: SimCSE++."""
    config = LossConfig(dropout_free_negatives=True, temperature=0.1)
    tiny_encoder.backbone.set_dropout(0.3)
    objective = Objective(tiny_encoder.train(), config, seed=3)
    seen = {}

    def spy(own, rows):
        seen.update({name: embedded.detach() for name, embedded in own.items()})
        return Objective._loss(objective, own, rows)

    objective._loss = spy
    total = objective.backward(ROWS, 2).total.item()
    assert tiny_encoder.backbone.training
    usual = tiny_encoder.eval().encode(SENTENCES)
    np.testing.assert_allclose(seen["clean"].numpy(), usual, atol=1e-5)
    unit = torch.nn.functional.normalize
    first, second = unit(seen["anchors"]), unit(seen["positives"])
    clean = unit(seen["clean"])
    losses = []
    for i in range(5):
        p = math.exp(float(first[i] @ second[i]) / 0.1)
        negatives = [math.exp(float(clean[i] @ clean[j]) / 0.1) for j in range(5) if j != i]
        losses.append(-math.log(p / (p + sum(negatives))))
    assert total == pytest.approx(np.mean(losses), rel=1e-5)
    assert not torch.allclose(first, second)


def test_positives_are_repeated_anchors_of_the_same_seed_and_step(tiny_encoder):
    objective = Objective(tiny_encoder.train(), LossConfig(repetition=0.5), seed=3)
    noise = tiny_encoder.backbone.dropout_rng

    def lengths(step):
        noise.key = dropout_key(3, step)
        batch = objective._tokenize(ROWS)
        noise.key = None
        ((_, tokens),) = batch.whole
        return tokens.unsort(torch.tensor(tokens.lengths)).tolist()

    own = [len(ids) for ids in tiny_encoder.tokenizer.ids(SENTENCES)]
    found = lengths(1)
    assert found[:5] == own
    assert found[5:] != own
    assert all(0 <= more - n <= max(2, n // 2) for more, n in zip(found[5:], own, strict=True))
    assert lengths(1) == found
    assert any(lengths(step) != found for step in (2, 3, 4))


@pytest.mark.parametrize("name", ["fixed_mask", "dropout_free_negatives", "repetition"])
def test_what_is_for_sentences_alone_refuses_positives(name):
    config = LossConfig(**{name: 1})
    refuse_unfit(ROWS, config)
    for row in (Example("a", "b"), Example("a", None, ("c",))):
        with pytest.raises(ConfigError, match=name):
            refuse_unfit([*ROWS, row], config)


def test_matryoshka_sizes_fit_the_model(tiny_encoder, make_encoder):
    with pytest.raises(ConfigError, match="below the model's 32"):
        Objective(tiny_encoder, LossConfig(matryoshka=(32,)))
    encoder = make_encoder(ModelSettings("mean", "train_only", 32))
    with pytest.raises(ConfigError, match="train_only"):
        Objective(encoder, LossConfig(matryoshka=(8,)))
