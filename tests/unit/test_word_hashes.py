"""Words as arrays, against plain Python sets and lists."""

import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simcse.data import word_hashes as module
from simcse.data.duplicates import near_repeats, repeats
from simcse.data.word_hashes import BANDS, among, jaccard, split_words
from simcse.errors import DataError
from simcse.io.records import Example

WORD = re.compile(r"[^\W_]+")
texts = st.lists(st.text(alphabet="abAB c.,-é1", max_size=30), min_size=1, max_size=12)


def plain(text):
    return [word.lower() if word.isascii() else word for word in WORD.findall(text)]


@settings(max_examples=60, deadline=None)
@given(texts)
def test_words_are_counted_and_keyed_as_lists_of_words_are(lines):
    lines = [line.replace("É", "é") for line in lines]
    words, expected = split_words(lines), [fold(plain(line)) for line in lines]
    assert words.counts.tolist() == [len(found) for found in expected]
    keys = words.keys().tolist()
    for i in range(len(lines)):
        for j in range(i):
            assert (keys[i] == keys[j]) == (expected[i] == expected[j]), (lines[i], lines[j])
    assert [key == 0 for key in keys] == [not found for found in expected]


def fold(found):
    """ASCII capitals fold, others stay: what is not ASCII is compared byte by byte."""
    return ["".join(c.lower() if c.isascii() else c for c in word) for word in found]


def test_chinese_and_japanese_characters_are_words_of_their_own():
    assert split_words(["日本語の文", "ab 日c", "русский язык"]).counts.tolist() == [5, 2, 2]


def test_long_words_are_told_apart_beyond_the_table():
    first, second = "a" * 64 + "b" * 64, "b" * 64 + "a" * 64
    keys = split_words([first, second, first, "x" * 5000]).keys()
    assert keys[0] == keys[2] != keys[1]


@pytest.mark.parametrize("lines", [[], [""], ["...", ""], [".", "a"]])
def test_texts_without_words(lines):
    words = split_words(lines)
    assert len(words.keys()) == len(words.bands()) == len(lines)
    assert not words.bands()[words.counts == 0].any()


def test_too_much_at_once_is_refused(monkeypatch):
    monkeypatch.setattr(module, "_LIMIT", 10)
    with pytest.raises(DataError, match="at most 10 bytes"):
        split_words(["0123456789"])


@settings(max_examples=60, deadline=None)
@given(texts)
def test_similarityis_jaccard_on_sets(lines):
    words, found = split_words(lines), [set(fold(plain(line))) for line in lines]
    pairs = np.array([(i, j) for i in range(len(lines)) for j in range(len(lines))])
    expected = [len(found[i] & found[j]) / max(1, len(found[i] | found[j])) for i, j in pairs]
    assert jaccard(words, pairs).tolist() == pytest.approx(expected)


@settings(max_examples=30, deadline=None)
@given(texts, texts)
def test_keys_are_looked_up_as_in_a_set(lines, known):
    keys, others = split_words(lines).keys(), np.unique(split_words(known).keys())
    expected = [key in set(others.tolist()) - {0} for key in keys.tolist()]
    assert among(keys, others).tolist() == expected
    assert not among(keys, others[:0]).any()


def variant(sentence, changed, draw):
    words = list(sentence)
    for place in draw.sample(range(len(words)), changed):
        words[place] = f"new{draw.random()}".replace(".", "")
    return words


def test_bands_find_near_duplicates_as_often_as_the_formula_says():
    draw = random.Random(0)
    base = [[f"w{draw.randrange(10**9)}" for _ in range(18)] for _ in range(2000)]
    for changed, similarity, low, high in ((1, 17 / 19, 0.995, 1), (2, 0.8, 0.93, 0.98)):
        near = split_words([" ".join(variant(words, changed, draw)) for words in base]).bands()
        own = split_words([" ".join(words) for words in base]).bands()
        formula = 1 - (1 - similarity**5) ** BANDS
        found = (own == near).any(axis=1).mean()
        assert low <= found <= high
        assert found == pytest.approx(formula, abs=0.02)
    others = np.roll(own, 1, axis=0)
    assert (own == others).any(axis=1).mean() == 0


def test_repeats_and_near_repeats_are_the_later_ones():
    base = [f"one two three four five six seven eight nine ten {i}" for i in "abc"]
    lines = ["", "unlike all else here", base[0], base[0].upper() + "!", base[1], "", base[2]]
    words = split_words(lines)
    keys = words.keys()
    assert repeats(keys).tolist() == [False, False, False, True, False, False, False]

    near = near_repeats(keys, words.bands(), lambda: [Example(line) for line in lines])
    assert near.tolist() == [False, False, False, False, True, False, True]


def test_what_is_like_a_dropped_row_only_stays():
    words = [f"w{i}" for i in range(20)]
    chain = [" ".join(words[i : i + 12]) for i in (0, 1, 2)]  # neighbors share 11 of 13

    found = split_words(chain)
    everywhere = np.zeros((3, 1), np.uint64) + np.uint64(7)
    near = near_repeats(found.keys(), everywhere, lambda: [Example(line) for line in chain])
    assert near.tolist() == [False, True, False]  # 10 of 14 with the first, which is kept
