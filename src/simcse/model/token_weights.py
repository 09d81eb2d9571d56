"""Token weights: smooth inverse frequency (SIF) of tokens in the mean over a sentence."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from simcse.errors import ArtifactError, DataError, UsageError
from simcse.io.checkpoints import read_json
from simcse.io.files import write_text

SMOOTHING = 0.003  # docs/recipe.md; Arora et al. 2017 use 1e-3 to 1e-4, of words
_CONFIG = "config.json"


class TokenWeights(nn.Module):
    """A fixed weight from 0 for each token id: (T,) or (B, L) int64 -> the same shape, float32."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weights.float(), requires_grad=False)  # (V,)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the weights of tokens."""
        return self.weight[ids]


def fit_token_weights(
    rows: Iterable[Sequence[int]], vocabulary: int, *, smoothing: float = SMOOTHING
) -> TokenWeights:
    """Fit smooth inverse frequency, a / (a + p), p a token's share of all (Arora et al. 2017).

    A token that the corpus does not have gets weight 1. Special tokens are in every sentence and
    get a small weight, so that a sentence of nothing else has an embedding, too.

    Args:
        rows: tokenized sentences of the corpus, special tokens included.
        vocabulary: number of token ids.
        smoothing: a; smaller values reduce the weight of frequent tokens.

    Raises:
        UsageError: ``smoothing`` is not above 0.
        DataError: there are no tokens.
    """
    if not smoothing > 0:
        raise UsageError(f"smoothing must be above 0, got {smoothing}")
    counts = Counter(chain.from_iterable(rows))
    if not counts:
        raise DataError("the corpus has no tokens to count")
    shares = torch.zeros(vocabulary, dtype=torch.float64)
    shares[list(counts)] = torch.tensor(list(counts.values()), dtype=torch.float64)
    return TokenWeights(smoothing / (smoothing + shares / counts.total()))


def read_token_weights(folder: Path, tokenizer: Any) -> TokenWeights:  # noqa: ANN401 - HF has no common type
    """Read a WordWeights module of sentence-transformers: weights by token, tokens by id.

    Raises:
        ArtifactError: the file is damaged, lacks tokens of the tokenizer, or has a weight below 0.
    """
    path = folder / _CONFIG
    config = read_json(path)
    try:
        known, other = dict(config["word_weights"]), config.get("unknown_word_weight", 1.0)
        words = [str(word) for word in config["vocab"]]
        weights = torch.tensor([float(known.get(w, known.get(w.lower(), other))) for w in words])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path} is damaged: {error!r}") from error
    if not ((weights >= 0) & weights.isfinite()).all():
        raise ArtifactError(f"{path}: expected finite weights from 0")
    needed = 1 + max(tokenizer.get_vocab().values())
    if len(words) < needed:
        raise ArtifactError(f"{path} has {len(words)} tokens, the tokenizer {needed}")
    return TokenWeights(weights)


def write_token_weights(folder: Path, weights: TokenWeights, tokenizer: Any) -> None:  # noqa: ANN401
    """Write what `read_token_weights` reads."""
    words = {number: word for word, number in tokenizer.get_vocab().items()}
    values = weights.weight.tolist()
    vocabulary = [words.get(number, "") for number in range(len(values))]  # "" for no token's id
    known = dict(zip(vocabulary, values, strict=True))
    config = {"vocab": vocabulary, "word_weights": known, "unknown_word_weight": 1.0}
    write_text(folder / _CONFIG, json.dumps(config) + "\n")
