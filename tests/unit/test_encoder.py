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
