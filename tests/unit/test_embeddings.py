"""One pass of encoding, kept between evaluations."""

import numpy as np
import pytest

from simcse.errors import DataError, ResourceError
from simcse.evaluate import embeddings
from simcse.evaluate.embeddings import embed_once
from simcse.io.embedding_cache import EmbeddingCache

TEXTS = ["one", "three", "one", "eleven", "", "five"]


class Counting:
    """Encodes a text by its length and first letter, and remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, texts):
        self.asked += texts
        return np.array([[len(text), ord((text or " ")[0])] for text in texts], np.float32)


def test_each_distinct_sentence_is_encoded_once_and_found_again(monkeypatch):
    monkeypatch.setattr(embeddings, "BLOCK", 2)
    encode, seen = Counting(), []
    stored = embed_once(encode, TEXTS, progress=lambda done, total: seen.append((done, total)))
    assert sorted(encode.asked) == sorted(set(TEXTS))
    assert stored(TEXTS).tolist() == Counting()(TEXTS).tolist()
    assert stored(["five"]).tolist() == [[4, ord("f")]]
    assert seen == [(0, 5), (2, 5), (4, 5), (5, 5)]


def test_the_cache_serves_other_selections_and_survives_damage(monkeypatch, tmp_path):
    monkeypatch.setattr(embeddings, "BLOCK", 2)
    cache = EmbeddingCache("model", folder=tmp_path)
    embed_once(Counting(), TEXTS, cache=cache)
    again = Counting()
    embed_once(again, ["five", "new", "one"], cache=cache)
    assert again.asked == ["new"]
    other = Counting()
    embed_once(other, TEXTS, cache=EmbeddingCache("another", folder=tmp_path))
    assert sorted(other.asked) == sorted(set(TEXTS))
    for path in (tmp_path / "model").iterdir():
        path.write_bytes(path.read_bytes()[:-3])
    damaged = Counting()
    stored = embed_once(damaged, TEXTS, cache=cache)
    assert sorted(damaged.asked) == sorted(set(TEXTS))
    assert stored(["eleven"]).tolist() == [[6, ord("e")]]


def test_an_interrupted_pass_keeps_its_finished_blocks(monkeypatch, tmp_path):
    monkeypatch.setattr(embeddings, "BLOCK", 2)
    cache, count = EmbeddingCache("model", folder=tmp_path), Counting()

    def interrupted(texts):
        if len(count.asked) >= 4:
            raise KeyboardInterrupt
        return count(texts)

    with pytest.raises(KeyboardInterrupt):
        embed_once(interrupted, TEXTS, cache=cache)
    rest = Counting()
    embed_once(rest, TEXTS, cache=cache)
    assert len(rest.asked) == 1


def test_wrong_shapes_and_unwritable_caches_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"\(2, D\)"):
        embed_once(lambda texts: np.ones(2), ["a", "b"])
    for wrong in ([[1.0], [1.0, 2.0]], [["x"], ["y"]], {"a": 1}):
        with pytest.raises(DataError, match="must return numbers"):
            embed_once(lambda texts, wrong=wrong: wrong, ["a", "b"])
    with pytest.raises(DataError, match=r"got \(\)"):
        embed_once(lambda texts: None, ["a", "b"])
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot write"):
        embed_once(Counting(), TEXTS, cache=EmbeddingCache("model", folder=tmp_path / "file"))
