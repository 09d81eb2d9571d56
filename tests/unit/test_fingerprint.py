"""One hash for what makes an embedding: the same model has one, whatever it runs in."""

import dataclasses

import pytest
import torch

from simcse import SentenceEncoder
from simcse.model.fingerprint import fingerprint_sha256, model_fingerprint
from simcse.model.settings import ModelSettings

MEAN = ModelSettings(pooling="mean", max_length=32)
HEADED = dataclasses.replace(MEAN, head="always")


def test_it_does_not_depend_on_folder_precision_or_what_was_encoded(make_encoder, tmp_path):
    encoder = make_encoder(MEAN)
    expected = fingerprint_sha256(encoder)
    encoder.encode(["a sentence that is cut " * 20, "b"], truncation="truncate")
    assert fingerprint_sha256(encoder) == expected
    encoder.save(tmp_path / "model")
    for precision in ("fp32", "bf16"):
        loaded = SentenceEncoder.load(tmp_path / "model", precision=precision)
        assert fingerprint_sha256(loaded) == expected


@pytest.mark.parametrize(
    "changed", [{"pooling": "cls"}, {"head": "always"}, {"max_length": 16}, {"normalize": True}]
)
def test_it_depends_on_every_setting(make_encoder, changed):
    other = make_encoder(dataclasses.replace(MEAN, **changed))
    assert fingerprint_sha256(other) != fingerprint_sha256(make_encoder(MEAN))


def test_it_depends_on_weights_and_on_the_head_that_applies(make_encoder):
    encoder = make_encoder(HEADED)
    before = fingerprint_sha256(encoder)
    with torch.no_grad():
        encoder.head.dense.bias[0] += 1
    headed = fingerprint_sha256(encoder)
    with torch.no_grad():
        next(encoder.backbone.parameters()).view(-1)[0] += 1
    assert len({before, headed, fingerprint_sha256(encoder)}) == 3


def test_a_head_for_training_only_does_not_count(make_encoder):
    trained = make_encoder(dataclasses.replace(MEAN, head="train_only"))
    assert fingerprint_sha256(trained) == fingerprint_sha256(make_encoder(MEAN))
    assert model_fingerprint(trained, "x").settings["head"] == "none"


def test_it_depends_on_the_tokenizer(make_encoder):
    encoder = make_encoder(MEAN)
    before = fingerprint_sha256(encoder)
    encoder.tokenizer.hf_tokenizer.add_tokens(["elephant"])
    assert fingerprint_sha256(encoder) != before


def test_the_bundled_models_stays_as_it_is():
    # Stored indexes carry it: if this changes, they are all refused.
    known = "8f4d6a3946eb1b5b23cec4798bd7cb5e6deafd7a8be0271c76f3147e1d06eae7"
    assert fingerprint_sha256(SentenceEncoder.load("mini")) == known
