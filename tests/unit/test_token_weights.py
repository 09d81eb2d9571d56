"""Token weights: their formula, their file, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from simcse.errors import ArtifactError, DataError, UsageError
from simcse.model.encoder import SentenceEncoder
from simcse.model.fingerprint import fingerprint_sha256
from simcse.model.folder import OWN
from simcse.model.token_weights import TokenWeights, fit_token_weights


@pytest.fixture
def weighted(tiny_encoder: SentenceEncoder, sentences: list[str]) -> SentenceEncoder:
    """The tiny encoder with weights counted over the test's sentences."""
    vocabulary = tiny_encoder.backbone.model.config.vocab_size
    rows = tiny_encoder.tokenizer.ids(sentences)
    return tiny_encoder.with_token_weights(fit_token_weights(rows, vocabulary, smoothing=0.1))


def test_weights_are_smooth_inverse_frequency() -> None:
    found = fit_token_weights([[0, 2, 2], [0]], 4, smoothing=0.25)
    expected = [0.25 / (0.25 + 0.5), 1.0, 0.25 / (0.25 + 0.5), 1.0]
    torch.testing.assert_close(found.weight, torch.tensor(expected))
    assert not found.weight.requires_grad
    even = fit_token_weights([[0, 2, 2], [0]], 4, smoothing=1e9).weight
    torch.testing.assert_close(even, torch.ones(4))


def test_nothing_to_count_and_no_smoothing_are_refused() -> None:
    with pytest.raises(DataError, match="no tokens"):
        fit_token_weights([], 4)
    for smoothing in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="above 0"):
            fit_token_weights([[1]], 4, smoothing=smoothing)


def test_an_embedding_is_the_weighted_mean(weighted: SentenceEncoder, sentences: list[str]) -> None:
    assert weighted.token_weights is not None
    for text in sentences:
        ids = weighted.tokenizer.hf_tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            hidden = weighted.backbone.model(**ids).last_hidden_state[0].double()
        weights = weighted.token_weights(ids["input_ids"][0]).double()
        expected = (weights / weights.sum()) @ hidden
        np.testing.assert_allclose(weighted.encode([text])[0], expected.numpy(), atol=1e-5)


def test_weights_are_part_of_the_model(
    weighted: SentenceEncoder, tiny_encoder: SentenceEncoder, sentences: list[str], tmp_path: Path
) -> None:
    vectors = weighted.encode(sentences)
    assert np.abs(vectors - tiny_encoder.encode(sentences)).max() > 0.02
    assert fingerprint_sha256(weighted) != fingerprint_sha256(tiny_encoder)
    assert weighted.with_max_length(16).token_weights is weighted.token_weights
    assert weighted.without_postprocess().token_weights is weighted.token_weights
    weighted.save(tmp_path / "model")
    again = SentenceEncoder.load(tmp_path / "model", precision="fp32")
    np.testing.assert_array_equal(again.encode(sentences), vectors)
    assert fingerprint_sha256(again) == fingerprint_sha256(weighted)
    (tmp_path / "model" / OWN).unlink()  # as any folder of sentence-transformers
    foreign = SentenceEncoder.load(tmp_path / "model", precision="fp32")
    np.testing.assert_array_equal(foreign.encode(sentences), vectors)


def test_a_sentence_of_weight_0_is_the_zero_vector_as_in_sentence_transformers(
    tiny_encoder: SentenceEncoder, tmp_path: Path
) -> None:
    weights = torch.zeros(tiny_encoder.backbone.model.config.vocab_size)
    weights[tiny_encoder.tokenizer.hf_tokenizer("dog")["input_ids"][1]] = 1.0
    tiny_encoder.with_token_weights(TokenWeights(weights)).save(tmp_path / "model")
    texts = ["the cat", "the dog"]
    ours = SentenceEncoder.load(tmp_path / "model", precision="fp32").encode(texts)
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(texts)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert not ours[0].any()
    assert ours[1].any()


def test_the_first_token_alone_gets_no_weights(weighted: SentenceEncoder, tmp_path: Path) -> None:
    weighted.save(tmp_path / "model")
    with pytest.raises(UsageError, match="got pooling cls"):
        SentenceEncoder.load(tmp_path / "model", changes={"pooling": "cls"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vocab": ["the", "dog"]}, "2 tokens, the tokenizer"),
        ({"vocab": 3}, "damaged"),
        ({"word_weights": {"the": "much"}}, "damaged"),
        ({"word_weights": None}, "damaged"),
        ({"word_weights": {"the": -1.0}}, "finite weights from 0"),
        ({"word_weights": {"the": float("inf")}}, "finite weights from 0"),
        ({"unknown_word_weight": float("nan"), "word_weights": {}}, "finite weights from 0"),
    ],
)
def test_a_damaged_file_is_named(
    weighted: SentenceEncoder, tmp_path: Path, change: dict[str, object], words: str
) -> None:
    weighted.save(tmp_path / "model")
    (tmp_path / "model" / OWN).unlink()
    path = tmp_path / "model" / "1_WordWeights" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ArtifactError, match=words):
        SentenceEncoder.load(tmp_path / "model")
