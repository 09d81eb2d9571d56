"""The trainer on a tiny encoder: what it learns, saves, reports and refuses."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from simcse.errors import DataError, NumericError, UsageError
from simcse.io.benchmarks import StsTask
from simcse.io.records import Example
from simcse.losses.settings import LossConfig
from simcse.model.mlm import MlmHead
from simcse.model.settings import ModelSettings
from simcse.train.events import ModelReady, StepDone
from simcse.train.objective import Objective
from simcse.train.optim import OptimConfig
from simcse.train.settings import EvalConfig, ModelConfig, TrainConfig
from simcse.train.trainer import Trainer
from simcse.train.training_data import TrainingData
from simcse.train.validation import Validation, sts_validation

SENTENCES = ["the man is eating", "a dog runs", "she plays the guitar", "two cats", "a woman eats"]
ROWS = [Example(sentence) for sentence in SENTENCES]
WORDS = {"man": "guitar", "dog": "7", "cat": "the", "woman": "2", "run": "is", "eat": "play"}


def pairs():
    """A learnable task: two words belong together though nothing in them says so."""
    return [Example(first, second) for first, second in WORDS.items()]


def dev_set():
    rows = [(a, b, 5.0 if WORDS[a] == b else 0.0) for a in WORDS for b in WORDS.values()]
    first, second, scores = zip(*rows, strict=True)
    return StsTask("toy", ("toy",) * len(rows), np.array(scores), first, second, Path("toy"), "")


def settings(*, steps=3, every=100, patience=None, precision="fp32", **sections):
    defaults = {
        "optim": OptimConfig(lr=1e-3, batch_size=4, epochs=100, max_steps=steps),
        "eval": EvalConfig(every=every, patience=patience),
    }
    return TrainConfig(precision=precision, **{**defaults, **sections})


def scripted(*scores):
    """A validation that gives these scores one after another."""
    remaining = iter(scores)

    def validate(encoder):
        score = next(remaining)
        return Validation(score, {"stsb_dev": score})

    return validate


def weights(module):
    return torch.cat([p.detach().float().flatten() for p in module.parameters()])


class Record:
    """A callback that stores events, and the models that could be saved."""

    def __init__(self):
        self.events, self.saved, self.dtypes = [], [], set()

    def __call__(self, event):
        if isinstance(event, ModelReady):
            self.saved.append((weights(event.encoder).clone(), event.best))
            self.dtypes |= {p.dtype for p in event.encoder.parameters()}
        else:
            self.events.append(event.to_json())

    def of(self, event, key):
        return [e[key] for e in self.events if e["event"] == event]


def run(encoder, config, rows=ROWS, *, validate=None, record=None, callbacks=()):
    record = record or Record()
    data = TrainingData(rows, validate)
    return Trainer(encoder, data, config, callbacks=[record, *callbacks]).fit(), record


def poison(monkeypatch, *, step, where):
    """Let one step's loss be NaN, or a finite loss have a gradient that is not."""
    whole = Objective.backward

    def backward(self, rows, at, *, collect):
        parts = whole(self, rows, at, collect=collect)
        if at == step and where == "loss":
            return replace(parts, total=parts.total * math.nan)
        if at == step:
            (next(self.encoder.parameters()).sum() * 0).sqrt().backward()
        return parts

    monkeypatch.setattr(Objective, "backward", backward)


def test_training_lowers_the_loss_and_moves_the_validation_up(tiny_encoder):
    config = settings(
        optim=OptimConfig(lr=1e-3, batch_size=6, epochs=20), model=ModelConfig(dropout=0.0)
    )
    report, record = run(
        tiny_encoder, config, pairs(), validate=sts_validation(dev_set(), name="toy")
    )
    losses = record.of("step", "loss")
    assert len(losses) == report.steps == 20
    assert losses[-1] < 0.4 * losses[0]
    assert report.last["toy"] > report.start["toy"] + 30
    assert report.last["uniformity"] < report.start["uniformity"] - 0.3
    assert report.best_step == 20
    assert report.best == report.last
    assert report.seen == 20 * 12
    assert report.truncated == 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_seed_settles_the_weights_bit_for_bit(make_encoder, precision):
    def trained(seed):
        torch.rand(seed + 1)  # what was drawn before does not matter
        encoder = make_encoder(ModelSettings("mean", max_length=32))
        config = settings(precision=precision, loss=LossConfig(mlm_weight=0.1))
        run(encoder, replace(config, seed=seed))
        return weights(encoder)

    first = trained(5)
    assert torch.equal(trained(5), first)
    assert not torch.equal(trained(6), first)


def test_a_sentence_and_its_positive_differ_by_dropout_in_training_only(tiny_encoder):
    batch = tiny_encoder.tokenizer(["the man is eating"] * 2)
    first, second = tiny_encoder.eval()(batch)
    assert torch.equal(first, second)
    for dropout, alike in ((None, False), (0.0, True)):  # table 3: the rate is the augmentation
        run(tiny_encoder, settings(steps=1, model=ModelConfig(dropout=dropout)))
        first, second = tiny_encoder.train()(batch)
        assert torch.allclose(first, second) is alike


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_an_update_that_is_not_finite_is_not_applied(monkeypatch, tiny_encoder, where, precision):
    config = settings(steps=5, every=2, precision=precision)
    poison(monkeypatch, step=3, where=where)
    record = Record()
    with pytest.raises(NumericError, match="step 3: loss .* not applied") as error:
        run(tiny_encoder, config, record=record)
    assert error.value.exit_code == 6
    assert any(repr(sentence) in str(error.value) for sentence in SENTENCES)
    assert record.of("step", "step") == [1, 2]
    assert record.of("guard", "text") == [str(error.value)]
    last_good, _ = record.saved[-1]  # the evaluation after step 2
    assert torch.equal(weights(tiny_encoder), last_good)
    assert not tiny_encoder.training

    monkeypatch.undo()
    report, _ = run(tiny_encoder, config)  # and it can be trained on
    assert report.steps == 5


def test_an_undefined_score_is_never_the_best(tiny_encoder):
    report, record = run(tiny_encoder, settings(every=1), validate=scripted(None, 1.0, None, 2.0))
    assert [best for _, best in record.saved] == [False, True, False, True]
    assert report.best_step == 3

    scores = (math.nan, None, -1.0, math.nan)
    report, record = run(tiny_encoder, settings(every=1), validate=scripted(*scores))
    assert [best for _, best in record.saved] == [False, False, True, False]
    assert report.best == {"stsb_dev": -1.0}

    report, record = run(tiny_encoder, settings(every=1), validate=scripted(*[None] * 4))
    assert not any(best for _, best in record.saved)


def test_the_start_model_stays_the_best_if_training_hurts(tiny_encoder):
    start = weights(tiny_encoder)
    scores = (50.0, 49.0, 50.0, 48.0)  # an equal score is not a better one
    report, record = run(tiny_encoder, settings(every=1), validate=scripted(*scores))
    assert [best for _, best in record.saved] == [True, False, False, False]
    assert torch.equal(record.saved[0][0], start)
    assert (report.best_step, report.best["stsb_dev"]) == (0, 50)
    assert report.last["stsb_dev"] == 48
    assert record.of("eval", "best") == [True, False, False, False]


@pytest.mark.parametrize(
    ("scores", "patience", "evaluated"),
    [
        ([1.0, 2.0, 1.5, 1.9, 3.0, 4.0], 2, [0, 2, 4, 6]),
        ([1.0, 0.5, 2.0, 1.0, 0.0, 4.0], 2, [0, 2, 4, 6, 8]),
        ([1.0, 0.5, 2.0, 1.0, 0.0, 4.0], None, [0, 2, 4, 6, 8, 10]),
        ([None, 1.0, 0.5, 2.0, 3.0, 4.0], 1, [0, 2, 4]),
        ([None, None, 1.0, 2.0, 3.0, 4.0], 2, [0, 2, 4, 6, 8, 10]),
    ],
)
def test_patience_counts_evaluations_since_the_best(tiny_encoder, scores, patience, evaluated):
    config = settings(steps=10, every=2, patience=patience)
    report, record = run(tiny_encoder, config, validate=scripted(*scores))
    assert record.of("eval", "step") == evaluated
    assert record.of("step", "step")[-1] == report.steps == evaluated[-1]


@pytest.mark.parametrize(
    ("steps", "every", "evaluated"),
    [(5, 2, [0, 2, 4, 5]), (4, 2, [0, 2, 4]), (3, 1, [0, 1, 2, 3]), (3, 9, [0, 3])],
)
def test_the_model_is_evaluated_at_the_start_in_between_and_at_the_end(
    tiny_encoder, steps, every, evaluated
):
    modes = []

    def validate(encoder):
        modes.append(encoder.training)
        return Validation(1.0, {})

    _, record = run(tiny_encoder, settings(steps=steps, every=every), validate=validate)
    assert record.of("eval", "step") == evaluated
    assert not any(modes)
    order = [(e["step"], e["event"]) for e in record.events[1:-1]]
    assert order == sorted(order, key=lambda item: (item[0], item[1] == "eval"))


def test_without_a_validation_the_last_model_is_the_best(tiny_encoder):
    report, record = run(tiny_encoder, settings(steps=4, every=2, patience=1))
    assert all(best for _, best in record.saved)
    assert len(record.saved) == 3
    assert record.of("eval", "best") == [False] * 3  # nothing was compared
    assert (report.steps, report.best_step, report.best) == (4, 4, report.last)
    assert set(report.best) == {"uniformity", "mean_cosine"}  # watched, for a collapse


def test_fp32_weights_are_saved_though_bf16_is_run(make_encoder, tiny_encoder):
    seen = set()

    def validate(encoder):
        seen.update(p.dtype for p in encoder.backbone.parameters())
        return Validation(1.0, {})

    config = settings(precision="bf16", every=1)
    _, record = run(tiny_encoder, config, validate=validate)
    assert torch.bfloat16 in seen
    assert record.dtypes == {torch.float32}
    assert len({saved.sum().item() for saved, _ in record.saved}) == 4
    last, _ = record.saved[-1]
    assert not torch.equal(last, last.bfloat16().float())
    assert torch.equal(weights(tiny_encoder), last)
    assert {p.dtype for p in tiny_encoder.parameters()} == {torch.float32}
    assert torch.equal(record.saved[0][0], weights(make_encoder(tiny_encoder.settings)))


def test_bf16_trains_as_fp32_does(make_encoder):
    trained = {}
    for precision in ("fp32", "bf16"):
        encoder = make_encoder(ModelSettings("mean", max_length=32))
        start = weights(encoder)
        config = settings(steps=8, precision=precision, model=ModelConfig(dropout=0.0))
        run(encoder, config, pairs())
        trained[precision] = weights(encoder) - start
    cosine = torch.nn.functional.cosine_similarity(trained["fp32"], trained["bf16"], dim=0)
    assert cosine > 0.9


def test_events_say_what_happened(tiny_encoder):
    config = settings(steps=2, loss=LossConfig(mlm_weight=0.5))
    rows = [Example("a man", "the man", ("a dog", "two dogs")), Example("a cat", "the cat")]
    report, record = run(tiny_encoder, config, rows, validate=scripted(1.0, None))
    names = [e["event"] for e in record.events]
    assert names == ["start", "eval", "step", "step", "eval", "finish"]
    start, first, step, *_, last, finish = record.events
    assert start == {"event": "start", "steps": 2, "rows": 2}
    assert first == {"event": "eval", "step": 0, "best": True, "stsb_dev": 1.0}
    assert last == {
        "event": "eval",
        "step": 2,
        "best": False,
        "stsb_dev": None,
        "loss": pytest.approx(np.mean(record.of("step", "loss"))),
        "gradient_norm": pytest.approx(np.mean(record.of("step", "gradient_norm"))),
    }
    assert step.keys() == {
        "event", "step", "loss", "contrastive", "mlm", "gradient_norm", "lr", "sentences", "tokens",
        "seconds",
    }  # fmt: skip
    assert step["loss"] == pytest.approx(step["contrastive"] + 0.5 * step["mlm"])
    assert step["sentences"] == 6
    assert step["gradient_norm"] > 0
    assert record.of("step", "lr") == [1e-3, 0.5e-3]
    assert finish == {"event": "finish", "skipped": 0, "blank": 0, **vars(report)}
    assert json.loads(json.dumps(record.events, allow_nan=False)) == record.events


def test_an_interrupted_run_saves_the_model_and_stops(tiny_encoder):
    def interrupt(event):
        if isinstance(event, StepDone) and event.step == 2:
            raise KeyboardInterrupt

    record, config = Record(), settings(steps=9, precision="bf16")
    with pytest.raises(KeyboardInterrupt):
        run(tiny_encoder, config, validate=scripted(1.0), record=record, callbacks=[interrupt])
    assert [best for _, best in record.saved] == [True, False]
    assert record.dtypes == {torch.float32}
    assert not torch.equal(record.saved[0][0], record.saved[1][0])
    assert torch.equal(weights(tiny_encoder), record.saved[1][0])
    assert not tiny_encoder.training


def test_the_mlm_term_reaches_head_and_backbone(tiny_encoder):
    head = MlmHead(tiny_encoder.backbone)
    before = weights(head)
    config = settings(precision="bf16", loss=LossConfig(mlm_weight=1.0, mlm_rate=0.5))
    tiny_encoder.mlm_head = head
    report, record = run(tiny_encoder, config)
    assert min(record.of("step", "mlm")) > 0
    assert min(record.of("step", "contrastive")) > 0
    assert not torch.equal(weights(head), before)
    assert {p.dtype for p in head.parameters()} == {torch.float32}
    assert report.steps == 3


def test_the_mlm_term_can_be_trained_alone(tiny_encoder):
    start = weights(tiny_encoder.backbone)
    config = settings(
        loss=LossConfig(contrastive_weight=0, mlm_weight=1.0, mlm_rate=0.5),
        optim=OptimConfig(lr=1e-2, batch_size=5, epochs=20),
    )
    _, record = run(tiny_encoder, config)
    assert set(record.of("step", "contrastive")) == {0.0}
    losses = record.of("step", "mlm")
    assert losses == record.of("step", "loss")
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert not torch.equal(weights(tiny_encoder.backbone), start)


def test_a_batch_in_which_nothing_was_masked_is_no_failure(tiny_encoder):
    start = weights(tiny_encoder.backbone)
    config = settings(loss=LossConfig(contrastive_weight=0, mlm_weight=1.0, mlm_rate=1e-9))
    _, record = run(tiny_encoder, config)
    assert record.of("step", "loss") == [0, 0, 0]
    assert torch.equal(weights(tiny_encoder.backbone), start)


def test_the_mlm_term_needs_a_mask_token(tiny_encoder):
    tiny_encoder.tokenizer.hf_tokenizer.mask_token = None
    with pytest.raises(UsageError, match="mask token"):
        run(tiny_encoder, settings(loss=LossConfig(mlm_weight=0.1)))


def test_micro_batches_give_the_same_run(tiny_encoder):
    start = {name: weight.clone() for name, weight in tiny_encoder.state_dict().items()}
    ends = []
    for micro_batch_tokens in (10**6, 10):
        tiny_encoder.load_state_dict(start)
        run(
            tiny_encoder,
            settings(optim=OptimConfig(batch_size=4, micro_batch_tokens=micro_batch_tokens)),
        )
        ends.append(weights(tiny_encoder))
    torch.testing.assert_close(*ends, atol=1e-5, rtol=0)  # AdamW divides by tiny gradients
    assert not torch.equal(ends[0], torch.cat([w.flatten() for w in start.values()]))


@pytest.mark.parametrize(
    ("rows", "sentences"),
    [
        ([Example(text) for text in "abcde"], [8, 8]),  # D9: a last batch of one is dropped ...
        ([Example(text, text * 2, ("cat",)) for text in "abcde"], [12, 3, 12, 3]),  # ... or kept
    ],
)
def test_a_last_batch_of_one_trains_only_with_hard_negatives(tiny_encoder, rows, sentences):
    config = settings(optim=OptimConfig(batch_size=4, epochs=2))
    _, record = run(tiny_encoder, config, rows)
    assert record.of("step", "sentences") == sentences


def test_one_row_is_too_few(tiny_encoder):
    with pytest.raises(DataError, match="at least 2 rows"):
        run(tiny_encoder, settings(), ROWS[:1])


def test_a_head_of_train_only_is_trained_and_left_out_afterward(make_encoder):
    encoder = make_encoder(ModelSettings("cls", head="train_only", max_length=32))
    head = weights(encoder.head)
    run(encoder, settings())
    assert not torch.equal(weights(encoder.head), head)
    plain = encoder.encode(SENTENCES)
    encoder.head = None
    assert np.array_equal(encoder.encode(SENTENCES), plain)
