"""The mean of several models' weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from simcse import SentenceEncoder
from simcse.errors import UsageError
from simcse.model.average import average_encoders
from simcse.model.settings import ModelSettings

MEAN = ModelSettings(pooling="mean", head="always", max_length=32)


def shifted(encoder, by):
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += by
    return encoder


def test_weights_are_the_mean_and_the_folder_says_of_what(make_encoder, sentences, tmp_path):
    torch.manual_seed(0)
    encoders = [shifted(make_encoder(MEAN), by) for by in (-0.3, 0.1, 0.2)]
    weights = [[p.clone() for p in encoder.parameters()] for encoder in encoders]
    found = average_encoders(encoders)
    for own, *each in zip(found.parameters(), *weights, strict=True):
        torch.testing.assert_close(own, sum(each) / 3)
    vectors = found.encode(sentences)
    assert np.abs(vectors - encoders[1].encode(sentences)).max() > 1e-3
    found.save(tmp_path / "model")
    again = SentenceEncoder.load(tmp_path / "model", precision="fp32")
    np.testing.assert_array_equal(again.encode(sentences), vectors)
    assert len(again.provenance["average of"]) == 3


def test_models_that_do_not_belong_together_are_refused(make_encoder):
    plain = make_encoder(MEAN)
    with pytest.raises(UsageError, match="at least two"):
        average_encoders([plain])
    with pytest.raises(UsageError, match="settings"):
        average_encoders([plain, make_encoder(replace(MEAN, pooling="cls"))])
    with pytest.raises(UsageError, match="shapes"):
        average_encoders([plain, make_encoder(MEAN, layers=3)])
    other = make_encoder(MEAN)
    other.tokenizer.hf_tokenizer.add_tokens(["elephant"])
    with pytest.raises(UsageError, match="tokenizers"):
        average_encoders([plain, other])
