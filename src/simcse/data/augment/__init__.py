"""The paper's discrete augmentations (its table 1), each by name.

These work on words as whitespace parts them, as the paper's do, and on a whole list of sentences
at once. A share of the words is met exactly in expectation: the number of words is rounded up or
down at random. No sentence becomes empty.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from simcse.data.augment.deletion import crop, delete_one, delete_words
from simcse.data.augment.draws import check_rate
from simcse.data.augment.replacement import replace_by_predictions, replace_by_synonyms
from simcse.errors import ConfigError

__all__ = [
    "AUGMENTATIONS",
    "Augment",
    "augmentation",
    "crop",
    "delete_one",
    "delete_words",
    "replace_by_predictions",
    "replace_by_synonyms",
]

Augment = Callable[[Sequence[str], np.random.Generator], list[str]]
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
        name: which.
        rate: share of each sentence's words.
        wordnet: for ``synonym``; see `simcse.data.augment.wordnet.wordnet_synonyms`.
        model: for ``mlm``, a masked-language model: folder or hub id.

    Raises:
        ConfigError: there is none of that name, or the rate is missing, useless or no rate.
        UsageError: the model stands for nothing, or has no masked-language-model head.
        DataError: there is no WordNet here.
        ResourceError: an extra is not installed.

    Example:
        >>> augment = augmentation("delete", 0.5)
        >>> len(augment(["a b c d"], np.random.default_rng(0))[0].split())
        2
    """
    if name not in AUGMENTATIONS:
        raise ConfigError(f"no augmentation {name!r}; there are {', '.join(AUGMENTATIONS)}")
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
