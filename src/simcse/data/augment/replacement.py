"""Augmentations that replace words by synonyms or by predictions of a language model."""

import re
from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np

from simcse.data.augment.draws import check_rate, lengths_of, rounded, shuffled_positions

Synonyms = Callable[[str], Sequence[str]]  # of a word in lower case; none if it has none
# Texts, each split at the words to replace (text, word, text, ..., word, text), -> new words for
# each text's words in their order; fewer if a text is longer than the model's limit.
Predict = Callable[[Sequence[Sequence[str]], np.random.Generator], list[list[str]]]

_WORD = re.compile(r"(\W*)(.*?)(\W*)", re.DOTALL)  # punctuation, word, punctuation


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
    for each, chosen in zip(words, drawn, strict=True):
        for position in chosen:
            found = synonyms(_core(each[position]).lower())
            each[position] = _replace(found[int(next(choices) * len(found))], each[position])
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
        sorted(chosen) for chosen in _draw(words, rate, random, lambda word: _core(word) != "")
    ]
    texts = [_split_at(each, chosen) for each, chosen in zip(words, drawn, strict=True) if chosen]
    predicted = iter(predict(texts, random))
    for each, chosen in zip(words, drawn, strict=True):
        for position, word in zip(chosen, next(predicted) if chosen else (), strict=False):
            each[position] = _replace(word, each[position])
    return [" ".join(each) for each in words]


def _draw(
    words: Sequence[list[str]],
    rate: float | None,
    random: np.random.Generator,
    fits: Callable[[str], bool],
) -> list[list[int]]:
    """Draw positions of words that fit: ``rate`` of all words, or one."""
    if rate is None:
        counts = np.ones(len(words), np.int64)
    else:
        check_rate(rate)
        counts = rounded(lengths_of(words) * rate, random)
    drawn = []
    shuffled = shuffled_positions(words, random)
    for each, positions, count in zip(words, shuffled, counts.tolist(), strict=True):
        fitting = (position for position in positions if fits(each[position]))
        drawn.append(list(islice(fitting, count)))
    return drawn


def _split_at(words: Sequence[str], chosen: Sequence[int]) -> list[str]:
    """Split a sentence into text, word, text, ..., word, text at the ``chosen`` words."""
    found, text = list[str](), ""
    for position, word in enumerate(words):
        text += " " * (position > 0)
        if position in chosen:
            before, core, after = _strip(word)
            found += [text + before, core]
            text = after
        else:
            text += word
    return [*found, text]


def _strip(word: str) -> tuple[str, str, str]:
    """Separate a word from the punctuation around it."""
    before, core, after = _WORD.fullmatch(word).groups()  # type: ignore[union-attr] # matches any
    return before, core, after


def _core(word: str) -> str:
    return _strip(word)[1]


def _replace(new: str, word: str) -> str:
    """Replace a word, with its punctuation and its capitals."""
    before, core, after = _strip(word)
    if core.isupper() and len(core) > 1:
        new = new.upper()
    elif core[:1].isupper():
        new = new[:1].upper() + new[1:]
    return f"{before}{new}{after}"
