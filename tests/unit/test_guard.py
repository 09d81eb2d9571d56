"""The guard: bad updates, collapse, harm; what it names and what it keeps."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from simcse.errors import NumericError
from simcse.evaluate.geometry import mean_cosine
from simcse.io.records import Example, read_examples
from simcse.loss import LossConfig
from simcse.train.guard import SETTLED, Guard, collapse, name_rows
from simcse.train.loop import fit
from simcse.train.objective import Objective
from simcse.train.optim import OptimConfig
from simcse.train.settings import EvalConfig, GuardConfig, TrainConfig
from simcse.train.validation import Validation

ROWS = [Example(f"the {a} {b}") for a in ("man", "dog", "cat", "woman") for b in ("runs", "eats")]


def weights(encoder):
    return torch.cat([p.detach().flatten() for p in encoder.parameters()])


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1), (math.inf, 1), (1, math.nan)])
def test_what_is_not_finite_is_bad_from_the_first_update(loss, norm):
    assert "nan" in Guard().bad_update(loss, norm, GuardConfig()) or math.isinf(loss)
    assert Guard().bad_update(loss, norm, GuardConfig()) is not None


def test_an_explosion_is_measured_by_what_is_usual():
    guard, config = Guard(), GuardConfig(explosion=100)
    for norm in (1.0, 4.0) * (SETTLED // 2):
        assert guard.bad_update(1, norm, config) is None
    assert guard.bad_update(1, 199, config) is None  # the geometric mean is 2
    assert "exploded to 400, usual is 2." in guard.bad_update(1, 400, config)
    assert guard.bad_update(1, 1e30, GuardConfig(explosion=0)) is None
    assert guard.bad_update(1, 0, config) is None


def test_an_exploded_update_is_not_applied_and_may_be_left_out(monkeypatch, tiny_encoder):
    whole, usual = Objective.backward, LossConfig()

    def backward(self, rows, step, **options):
        weight = 1e6 if step == SETTLED + 3 else 1.0
        self.config = replace(usual, contrastive_weight=weight)
        return whole(self, rows, step, **options)

    monkeypatch.setattr(Objective, "backward", backward)
    optim = OptimConfig(batch_size=4, epochs=13)
    events, trail = [], []

    def observe(event):
        events.append(event)
        trail.append(weights(tiny_encoder))

    guard = GuardConfig(skip=1)
    fit(tiny_encoder, ROWS, TrainConfig(optim=optim, guard=guard), observe=observe)
    told = [i for i, event in enumerate(events) if event["event"] == "guard"]
    assert len(told) == 1
    assert f"step {SETTLED + 3}: the gradient norm exploded" in events[told[0]]["text"]
    assert torch.equal(trail[told[0]], trail[told[0] - 1])
    assert sum(event["event"] == "step" for event in events) == 25

    with pytest.raises(NumericError, match="exploded"):
        fit(tiny_encoder, ROWS, TrainConfig(optim=optim))


def test_t4_a_bad_update_names_its_rows_by_file_and_line(tmp_path):
    first, second = tmp_path / "a.txt", tmp_path / "b.tsv"
    first.write_text("the man\n\nthe dog\n")
    second.write_text("a\tb\nc\td\te\n")
    rows = read_examples([first, second])
    assert [(row.file, row.line) for row in rows] == [
        (str(first), 1), (str(first), 3), (str(second), 1), (str(second), 2)
    ]  # fmt: skip
    named = name_rows(rows)
    assert f"its rows are {first}:1, 3; {second}:1, 2; the batch begins with: 'the man'" in named
    assert "and 3 more" in name_rows([rows[0]] * 13)


def test_a_collapse_is_narrower_than_the_start_and_nearly_one_vector():
    assert "mean cosine 0.9995, 0.3000 at the start" in collapse(
        {"mean_cosine": 0.3}, {"mean_cosine": 0.9995}
    )
    assert collapse({"mean_cosine": 0.3}, {"mean_cosine": 0.99}) is None
    assert collapse({"mean_cosine": 0.9997}, {"mean_cosine": 0.9995}) is None  # born narrow
    assert collapse({"mean_cosine": 0.9995}, {"mean_cosine": 0.9999}) is None
    assert collapse({"mean_cosine": 0.9995}, {"mean_cosine": 0.99999}) is not None
    assert collapse({"mean_cosine": 1 - 1e-7}, {"mean_cosine": 1.0}) is None  # one sentence
    assert collapse({}, {}) is None


def test_mean_cosine_is_that_of_all_pairs():
    vectors = np.random.default_rng(0).normal(size=(9, 4)) + 1
    pairs = [
        a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        for i, a in enumerate(vectors)
        for b in vectors[:i]
    ]
    assert mean_cosine(vectors) == pytest.approx(np.mean(pairs))


def narrowing(*cosines):
    looks = iter(cosines)

    def validate(encoder):
        cosine = next(looks)
        return Validation(100 * cosine, {"dev": 100 * cosine, "mean_cosine": cosine})

    return validate


def test_t13_a_collapsed_look_is_never_the_best_and_stops_the_run(tiny_encoder):
    kept = []
    config = TrainConfig(optim=OptimConfig(batch_size=4, epochs=3), eval=EvalConfig(every=1))
    with pytest.raises(NumericError, match="step 2: the embeddings collapsed") as error:
        fit(
            tiny_encoder,
            ROWS,
            config,
            validate=narrowing(0.1, 0.2, 1.0),
            keep=lambda encoder, best: kept.append(best),
        )
    assert error.value.exit_code == 6
    assert kept == [True, True, False, False]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_t13_a_collapse_is_seen_without_a_dev_set(tiny_encoder, precision):
    """The last layer norm is set to give one vector for every token, as a diverged run does."""
    norms = [m for m in tiny_encoder.backbone.modules() if isinstance(m, torch.nn.LayerNorm)]
    kept = []

    def observe(event):
        if event["event"] == "step" and event["step"] == 3:
            with torch.no_grad():
                norms[-1].weight.zero_()
                norms[-1].bias.fill_(1.0)

    config = TrainConfig(
        precision=precision,
        optim=OptimConfig(batch_size=4, epochs=3, lr=1e-12),
        eval=EvalConfig(every=1),
    )
    with pytest.raises(NumericError, match="step 3: the embeddings collapsed: mean cosine 1.0000"):
        fit(
            tiny_encoder,
            ROWS,
            config,
            observe=observe,
            keep=lambda encoder, best: kept.append(best),
        )
    assert kept == [True, True, True, False, False]


def test_rows_that_are_one_sentence_are_no_collapse(tiny_encoder):
    config = TrainConfig(optim=OptimConfig(batch_size=4, epochs=2), eval=EvalConfig(every=1))
    report = fit(tiny_encoder, [Example("the man runs"), Example("The man runs")] * 8, config)
    assert report.last["mean_cosine"] == pytest.approx(1)


def test_after_a_collapse_the_run_may_go_back_to_its_best_weights(tiny_encoder):
    trail, events = [], []

    def keep(encoder, best):
        trail.append(weights(encoder).clone())

    def observe(event):
        events.append((event, weights(tiny_encoder).clone()))

    config = TrainConfig(
        precision="fp32",
        optim=OptimConfig(batch_size=4, epochs=2, schedule="constant"),
        eval=EvalConfig(every=1),
        guard=GuardConfig(rollback=1),
    )
    validate = narrowing(0.1, 0.2, 1.0, 0.3, 0.4)
    report = fit(tiny_encoder, ROWS, config, validate=validate, keep=keep, observe=observe)
    (told,) = [(event, now) for event, now in events if event["event"] == "guard"]
    assert "back to the weights of step 1, the rate is divided by 2" in told[0]["text"]
    assert torch.equal(told[1], trail[1])
    rates = [event["lr"] for event, _ in events if event["event"] == "step"]
    assert rates == [5e-5, 5e-5, 2.5e-5, 2.5e-5]
    assert report.best_step == 4


def test_a_run_that_ends_below_its_start_says_so(tiny_encoder):
    config = TrainConfig(optim=OptimConfig(batch_size=4, epochs=1), eval=EvalConfig(every=1))
    report = fit(tiny_encoder, ROWS, config, validate=narrowing(0.3, 0.2, 0.1))
    assert report.worse
    assert report.best_step == 0
    report = fit(tiny_encoder, ROWS, config, validate=narrowing(0.3, 0.4, 0.3))
    assert not report.worse
