"""`SentenceEncoder.encode`: what it reports while it works."""

import numpy as np
import pytest

from simcse.errors import TruncationWarning
from simcse.model.encoder import SentenceEncoder


def test_one_warning_a_call_says_how_many_were_truncated(tiny_encoder: SentenceEncoder) -> None:
    texts = ["dog " * 40, "dog", "cat " * 50]
    for _ in range(2):
        with pytest.warns(TruncationWarning) as caught:
            tiny_encoder.encode(texts)
        assert [str(w.message) for w in caught] == ["2 of 3 sentences were truncated to 32 tokens"]
    with pytest.warns(TruncationWarning, match="2 of 3"):
        list(tiny_encoder.encode_stream(iter(texts)))
    tiny_encoder.encode(texts, truncation="truncate")
    tiny_encoder.encode(["dog"])


def test_progress_goes_to_stderr(
    tiny_encoder: SentenceEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = tiny_encoder.encode(["dog", "cat"], progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "2/2" in captured.err
    np.testing.assert_array_equal(vectors, tiny_encoder.encode(["dog", "cat"]))


def test_similarity_is_the_cosine_of_embeddings(tiny_encoder: SentenceEncoder) -> None:
    first, second = ["the dog runs", "a cat"], ["the man eats", "a cat", "dog"]
    left, right = tiny_encoder.encode(first), tiny_encoder.encode(second)
    lengths = np.outer(np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=1))
    found = tiny_encoder.similarity(first, second)
    assert found.shape == (2, 3)
    np.testing.assert_allclose(found, left @ right.T / lengths, atol=1e-5)
    with pytest.raises(TypeError, match=r"pass \[sentence\]"):
        tiny_encoder.similarity("a cat", second)
