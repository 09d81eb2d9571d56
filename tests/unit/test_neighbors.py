"""Neighboring sentences as positives, and which corpora have none."""

import random
from functools import partial

import pytest

from simcse.data import neighbors
from simcse.data.neighbors import DocumentOrder, neighbor_pairs
from simcse.errors import DataError
from simcse.io.files import Source


def documents(count, *, length=8, seed=0):
    """Documents whose sentences share some words of a subject and have some of their own."""
    draw = random.Random(seed)
    words = [f"word{i}" for i in range(400)]
    for _ in range(count):
        subject = draw.sample(words, 6)
        yield [" ".join([*draw.sample(subject, 3), *draw.sample(words, 7)]) for _ in range(length)]


@pytest.fixture
def corpus(tmp_path):
    def write(sentences, name="corpus.txt"):
        path = tmp_path / name
        path.write_text("\n".join(sentences) + "\n")
        return Source(path)

    return write


def in_loops(lines, distance):
    """Every pair that is allowed, by line."""
    for i, line in enumerate(lines):
        document = []
        for other in lines[i + 1 :]:
            if not other:
                break
            document.append(other)
        if line and document:
            yield line, {text for text in document[:distance] if text != line}


@pytest.mark.parametrize("distance", [1, 3])
def test_pairs_are_of_one_document_and_no_further_apart_than_asked(corpus, distance):
    lines = [line for document in documents(30) for line in [*document, ""]]
    order = DocumentOrder()
    found = list(neighbor_pairs(corpus(lines), distance=distance, seed=4, order=order))
    expected = list(in_loops(lines, distance))
    assert [anchor for anchor, _ in found] == [anchor for anchor, _ in expected]
    assert all(positive in ok for (_, positive), (_, ok) in zip(found, expected, strict=True))
    assert order.pairs == 30 * 7
    if distance == 1:
        assert [positive for _, positive in found] == [next(iter(ok)) for _, ok in expected]
    else:
        places = [lines.index(positive) - lines.index(anchor) for anchor, positive in found]
        assert {1, 2, 3} == set(places)
        assert found == list(neighbor_pairs(corpus(lines), distance=distance, seed=4))
        assert found != list(neighbor_pairs(corpus(lines), distance=distance, seed=5))


def test_what_was_measured_is_the_mean_share_of_words_in_common(corpus):
    lines = [line for document in documents(20) for line in document]
    order = DocumentOrder()
    list(neighbor_pairs(corpus(lines), order=order))

    def share(first, second):
        first, second = set(first.split()), set(second.split())
        return len(first & second) / len(first | second)

    near = sum(map(share, lines, lines[1:])) / (len(lines) - 1)
    far = sum(share(a, b) for a in lines for b in lines if a != b)
    far /= len(lines) * (len(lines) - 1)
    assert order.neighbors / order.pairs == pytest.approx(near, abs=1e-9)
    assert order.random_pairs / order.pairs == pytest.approx(far, rel=0.3)  # a sample of them
    assert f"{100 * near:.1f} % of their words" in str(order)


def test_a_shuffled_corpus_is_refused_with_what_was_found(corpus):
    lines = [line for document in documents(200) for line in document]
    random.Random(1).shuffle(lines)
    with pytest.raises(DataError, match=r"corpus.txt: lines 1 to 1,600 are not in document order"):
        list(neighbor_pairs(corpus(lines)))


def test_a_part_that_is_shuffled_is_found_where_it_is(corpus, monkeypatch):
    monkeypatch.setattr(neighbors, "MIN_PAIRS", 100)
    monkeypatch.setattr(neighbors, "chunks", partial(neighbors.chunks, size=400))
    lines = [line for document in documents(100) for line in document]
    ordered, rest = lines[:400], lines[400:]
    assert len(list(neighbor_pairs(corpus(lines)))) == 799
    random.Random(1).shuffle(rest)
    with pytest.raises(DataError, match="lines 401 to 800 are not"):
        list(neighbor_pairs(corpus([*ordered, *rest])))


def test_sorted_lines_share_words_and_are_refused_all_the_same(corpus):
    lines = sorted(line for document in documents(200) for line in document)
    with pytest.raises(DataError, match="lines 1 to 1,600 are sorted"):
        list(neighbor_pairs(corpus(lines)))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "no usable rows"),
        (["one sentence"], "too few to decide"),
        (["a b c", "", "a b d", "", "a b e"], r"\(0 pairs\)"),
        (["the same words"] * 50, r"\(0 pairs\)"),
        (["alpha beta", "beta gamma", "gamma delta"], "too few to decide"),
    ],
)
def test_too_little_is_refused(corpus, lines, message):
    with pytest.raises(DataError, match=message):
        list(neighbor_pairs(corpus(lines)))


def test_a_sentence_that_comes_twice_is_not_its_own_positive(corpus):
    lines = [line for document in documents(30) for line in document]
    found = dict(neighbor_pairs(corpus([lines[0], *lines])))
    assert found[lines[0]] == lines[1]


@pytest.mark.data
def test_the_two_corpora_are_distinguished(data_folder):
    wiki = data_folder / "wiki"
    assert next(neighbor_pairs(Source(wiki / "wiki_ordered.txt.gz")))
    with pytest.raises(DataError, match="5.2 % of their words, random pairs 5.2 %"):
        next(neighbor_pairs(Source(wiki / "wiki1m.txt.gz")))
