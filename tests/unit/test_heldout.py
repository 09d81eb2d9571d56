"""The loss on held-out rows: what is held out, and what the score is made of."""

import numpy as np
import pytest

from simcse.errors import DataError
from simcse.io.records import Example
from simcse.loss import LossConfig
from simcse.train.heldout import heldout_validation, hold_out
from simcse.train.validation import Validation, first_of

ROWS = [Example(f"sentence {i}") for i in range(100)]


def test_rows_are_held_out_by_seed_and_never_trained_on():
    rest, held = hold_out(ROWS, 8, seed=3)
    assert (len(rest), len(held)) == (92, 8)
    assert {row.anchor for row in rest} | {row.anchor for row in held} == {
        row.anchor for row in ROWS
    }
    assert hold_out(ROWS, 8, seed=3) == (rest, held)
    assert hold_out(ROWS, 8, seed=4)[1] != held
    assert len(hold_out(ROWS, 512, seed=0)[1]) == 10


def test_a_sentence_that_is_held_out_is_dropped_where_it_comes_again():
    rows = [Example("same", f"other {i}") for i in range(50)] + ROWS[:50]
    rest, held = hold_out(rows, 10, seed=0)
    assert "same" in {row.anchor for row in held}
    assert "same" not in {row.anchor for row in rest}


def test_twenty_rows_are_needed():
    with pytest.raises(DataError, match="at least 20 rows, got 19"):
        hold_out(ROWS[:19], 512, seed=0)


def test_the_score_is_the_loss_by_hand_where_nothing_is_drawn(tiny_encoder):
    rows = [Example("the man", "a man"), Example("the dog", "a dog", ("cat",)), Example("x", "y")]
    tiny_encoder.backbone.model.config.hidden_dropout_prob = 0.0
    for module in tiny_encoder.modules():
        if hasattr(module, "p"):
            module.p = 0.0
        if hasattr(module, "dropout_p"):
            module.dropout_p = 0.0
    seen = heldout_validation(rows, LossConfig(), batch_size=8)(tiny_encoder)
    left = tiny_encoder.encode([row.anchor for row in rows])
    right = tiny_encoder.encode(["a man", "a dog", "y", "cat"])
    cosines = left @ right.T / np.linalg.norm(left, axis=1)[:, None] / np.linalg.norm(right, axis=1)
    logits = cosines / 0.05
    own = np.diag(logits)
    expected = float(np.mean(np.log(np.exp(logits - own[:, None]).sum(axis=1))))
    assert seen.metrics["heldout_loss"] == pytest.approx(expected, rel=1e-4)
    assert seen.score == -seen.metrics["heldout_loss"]
    assert set(seen.metrics) == {"heldout_loss", "alignment", "uniformity", "mean_cosine"}


def test_two_looks_at_one_model_see_the_same_dropout(tiny_encoder):
    validate = heldout_validation(ROWS[:12], LossConfig(), batch_size=4)
    first = validate(tiny_encoder)
    assert validate(tiny_encoder) == first
    assert "alignment" not in first.metrics
    assert not tiny_encoder.training


def test_of_several_sets_the_first_chooses_and_the_others_are_watched():
    looks = (
        Validation(1.0, {"stsb_dev": 1.0, "mean_cosine": 0.2}),
        Validation(-3.0, {"heldout_loss": 3.0, "mean_cosine": 0.9}),
    )
    seen = first_of([lambda encoder, look=look: look for look in looks])(None)
    assert seen.score == 1.0
    assert list(seen.metrics.items()) == [
        ("stsb_dev", 1.0), ("mean_cosine", 0.2), ("heldout_loss", 3.0)
    ]  # fmt: skip
