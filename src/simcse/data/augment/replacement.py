"""Augmentations that replace words: by synonyms, or by what a language model predicts."""

import re
from collections.abc import Callable, Sequence

import numpy as np

from simcse.data.augment.draws import check_rate, lengths_of, rounded, shuffled_places

Synonyms = Callable[[str], Sequence[str]]  # of a word in lower case; none if it has none
# Texts, each cut where words are to be replaced (text, word, text, ..., word, text), -> new words
# for each text's words in their order; fewer where a text is longer than the model takes.
Predict = Callable[[Sequence[Sequence[str]], np.random.Generator], list[list[str]]]

_WORD = re.compile(r"(\W*)(.*?)(\W*)", re.DOTALL)  # what is around a word stays


def replace_by_synonyms(
    sentences: Sequence[str],
    rate: float | None,
    random: np.random.Generator,
    *,
    synonyms: Synonyms,
) -> list[str]:
    """Replace ``rate`` of each sentence's words by synonyms, or one word if it is ``None``.

    The words are drawn from those that have synonyms; a sentence with too few of them has all
    replaced. One word is what the paper's table 1 replaces.

    Raises:
        ConfigError: ``rate`` is not from 0 to below 1.
    """
    words = [sentence.split() for sentence in sentences]
    drawn = _draw(words, rate, random, lambda word: bool(synonyms(_core(word).lower())))
    choices = iter(random.random(sum(map(len, drawn))).tolist())
    for each, places in zip(words, drawn, strict=True):
        for place in places:
            found = synonyms(_core(each[place]).lower())
            each[place] = _put(found[int(next(choices) * len(found))], each[place])
    return [" ".join(each) for each in words]


def replace_by_predictions(
    sentences: Sequence[str], rate: float, random: np.random.Generator, *, predict: Predict
) -> list[str]:
    """Replace ``rate`` of each sentence's words by others that a language model predicts there.

    Raises:
        ConfigError: ``rate`` is not from 0 to below 1.
    """
    words = [sentence.split() for sentence in sentences]
    drawn = [
        sorted(places) for places in _draw(words, rate, random, lambda word: _core(word) != "")
    ]
    cut = [_cut(each, places) for each, places in zip(words, drawn, strict=True) if places]
    predicted = iter(predict(cut, random))
    for each, places in zip(words, drawn, strict=True):
        for place, word in zip(places, next(predicted) if places else (), strict=False):
            each[place] = _put(word, each[place])
    return [" ".join(each) for each in words]


def _draw(
    words: Sequence[list[str]],
    rate: float | None,
    random: np.random.Generator,
    fits: Callable[[str], bool],
) -> list[list[int]]:
    """Draw places of words that fit: ``rate`` of all words, or one."""
    if rate is None:
        counts = np.ones(len(words), np.int64)
    else:
        check_rate(rate)
        counts = rounded(lengths_of(words) * rate, random)
    drawn = []
    for each, places, count in zip(
        words, shuffled_places(words, random), counts.tolist(), strict=True
    ):
        fitting = (place for place in places if fits(each[place]))
        drawn.append([place for _, place in zip(range(count), fitting, strict=False)])
    return drawn


def _cut(words: Sequence[str], places: Sequence[int]) -> list[str]:
    """Cut a sentence into text, word, text, ..., word, text at ``places``."""
    parts, text = list[str](), ""
    for place, word in enumerate(words):
        text += " " * (place > 0)
        if place in places:
            before, core, after = _parts(word)
            parts += [text + before, core]
            text = after
        else:
            text += word
    return [*parts, text]


def _parts(word: str) -> tuple[str, str, str]:
    """Part a word from the punctuation around it."""
    before, core, after = _WORD.fullmatch(word).groups()  # type: ignore[union-attr] # it fits any
    return before, core, after


def _core(word: str) -> str:
    return _parts(word)[1]


def _put(new: str, word: str) -> str:
    """Put a new word in the place of one, with its punctuation and its capitals."""
    before, core, after = _parts(word)
    if core.isupper() and len(core) > 1:
        new = new.upper()
    elif core[:1].isupper():
        new = new[:1].upper() + new[1:]
    return f"{before}{new}{after}"
