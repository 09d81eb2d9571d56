"""Embeddings cut to the sizes a model was trained for."""

from dataclasses import replace

import numpy as np
import pytest

from simcse import SentenceEncoder
from simcse.config import build
from simcse.errors import UsageError
from simcse.io.records import Example
from simcse.model.fingerprint import fingerprint_sha256
from simcse.model.settings import ModelSettings
from simcse.postprocess import fit_whitening
from simcse.train.loop import fit
from simcse.train.run import load_start
from simcse.train.settings import TrainConfig

MEAN = ModelSettings(pooling="mean", max_length=32, matryoshka=(16, 8))


@pytest.mark.parametrize("normalize", [False, True])
def test_cut_embeddings_are_the_first_dimensions(make_encoder, sentences, normalize):
    encoder = make_encoder(replace(MEAN, normalize=normalize))
    whole = encoder.encode(sentences)
    assert encoder.sizes == (8, 16, 32)
    np.testing.assert_array_equal(encoder.encode(sentences, dimensions=32), whole)
    cut = encoder.encode(sentences, dimensions=8)
    expected = whole[:, :8]
    if normalize:
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(cut, expected, atol=1e-6)
    assert encoder.encode([], dimensions=8).shape == (0, 8)


def test_sizes_it_was_not_trained_for_are_refused(make_encoder):
    for size in (0, 9, 33):
        with pytest.raises(UsageError, match="8, 16, 32"):
            make_encoder(MEAN).encode(["a"], dimensions=size)


def test_a_layer_that_mixes_dimensions_leaves_only_the_whole(make_encoder):
    encoder = make_encoder(MEAN)
    layer = fit_whitening(np.random.default_rng(0).normal(size=(99, 32)))
    settings = replace(MEAN, postprocess="whitening")
    mixed = SentenceEncoder(encoder.backbone, encoder.tokenizer, settings, postprocess=layer)
    assert mixed.sizes == (32,)


def test_a_folder_keeps_the_sizes_and_they_are_no_part_of_the_fingerprint(make_encoder, tmp_path):
    encoder = make_encoder(MEAN)
    encoder.save(tmp_path / "model")
    assert SentenceEncoder.load(tmp_path / "model").settings.matryoshka == (16, 8)
    assert fingerprint_sha256(encoder) == fingerprint_sha256(
        make_encoder(replace(MEAN, matryoshka=()))
    )


def test_training_says_which_sizes_it_trained(make_encoder, tmp_path):
    """A model trained on without them has lost them."""
    make_encoder(MEAN).save(tmp_path / "model")
    for sizes in (None, (4, 16)):
        settings = {
            "loss": {"matryoshka": sizes},
            "optim": {"batch_size": 2, "max_steps": 1},
            "eval": {"dev": "none"},
        }
        config = build(TrainConfig, settings)
        encoder = load_start(str(tmp_path / "model"), config)
        fit(encoder, [Example("the dog"), Example("a cat")], config)
        assert encoder.settings.matryoshka == (sizes or ())
