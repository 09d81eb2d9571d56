"""The paper's discrete augmentations (its table 1), each by name.

Words are separated by whitespace, as in the paper, and a whole list of sentences is augmented at
once. A rate is met exactly in expectation: the number of words is rounded up or down at random. No
sentence becomes empty.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from simcse.data.augment.deletion import crop, delete_one, delete_words
from simcse.data.augment.draws import check_rate
from simcse.data.augment.replacement import replace_by_predictions, replace_by_synonyms
from simcse.data.duplicates import chunks
from simcse.errors import ConfigError

__all__ = [
    "AUGMENTATIONS",
    "Augment",
    "augmentation",
    "augmented_pairs",
    "crop",
    "delete_one",
    "delete_words",
    "replace_by_predictions",
    "replace_by_synonyms",
]

Augment = Callable[[Sequence[str], np.random.Generator], list[str]]
CHUNK = 2000  # sentences augmented at once
AUGMENTATIONS = ("crop", "delete", "delete-one", "synonym", "mlm")


def augmentation(
    name: str,
    rate: float | None,
    *,
    wordnet: Path | None = None,
    model: str | None = None,
) -> Augment:
    """Return an augmentation by its name, one of `AUGMENTATIONS`.

    ``crop``, ``delete`` and ``mlm`` need a rate, ``delete-one`` takes none, ``synonym`` replaces
    one word without a rate, as the paper does.

    Args:
        name: one of `AUGMENTATIONS`.
        rate: share of each sentence's words.
        wordnet: for ``synonym``; see `simcse.data.augment.wordnet.wordnet_synonyms`.
        model: for ``mlm``, a masked-language model: folder or hub id.

    Raises:
        ConfigError: the name is unknown, or the rate is missing, not used or out of range.
        UsageError: the model is unknown, or has no masked-language-model head.
        DataError: WordNet is not in its folder.
        ResourceError: an extra is not installed.

    Example:
        >>> augment = augmentation("delete", 0.5)
        >>> len(augment(["a b c d"], np.random.default_rng(0))[0].split())
        2
    """
    if name not in AUGMENTATIONS:
        raise ConfigError(
            f"unknown augmentation {name!r}; expected one of {', '.join(AUGMENTATIONS)}"
        )
    if (model is not None) is not (name == "mlm"):
        raise ConfigError(
            "mlm needs a masked-language model: --model"
            if name == "mlm"
            else f"{name} takes no model"
        )
    if rate is not None:
        check_rate(rate)
    if name == "synonym":
        from simcse.data.augment.wordnet import wordnet_synonyms

        synonyms = wordnet_synonyms(wordnet)
        return lambda texts, random: replace_by_synonyms(texts, rate, random, synonyms=synonyms)
    if name == "delete-one":
        if rate is not None:
            raise ConfigError("delete-one takes no rate: it deletes one word")
        return delete_one
    return _by_rate(name, rate, model)


def augmented_pairs(
    sentences: Iterable[str],
    augment: Augment,
    *,
    seed: int = 0,
    done: Callable[[int], object] = lambda count: None,
) -> Iterator[tuple[str, str]]:
    """Pair each sentence with its augmentation; ``done`` gets the number of each chunk."""
    random = np.random.default_rng(seed)
    for chunk in chunks(sentences, CHUNK):
        yield from zip(chunk, augment(chunk, random), strict=True)
        done(len(chunk))


def _by_rate(name: str, rate: float | None, model: str | None) -> Augment:
    if rate is None:
        raise ConfigError(f"{name} needs a rate, such as 0.1")
    share = rate
    if model is None:
        function = {"crop": crop, "delete": delete_words}[name]
        return lambda texts, random: function(texts, share, random)
    from simcse.model.fill_mask import word_predictor

    predict = word_predictor(model)
    return lambda texts, random: replace_by_predictions(texts, share, random, predict=predict)
