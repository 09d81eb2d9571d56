"""Words that a masked-language model predicts in place of others."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simcse.errors import UsageError
from simcse.model import huggingface
from simcse.model.backbone import Backbone
from simcse.model.encoder import BATCH_TOKENS, batches_by_tokens
from simcse.model.mlm import MlmHead, read_mlm_head
from simcse.text import Tokenizer, pack

BEST_WORDS = 100  # a word is drawn from this many, as nlpaug does
MAX_LENGTH = 128  # tokens of a text; words after them get no prediction


def word_predictor(
    name: str,
) -> Callable[[Sequence[Sequence[str]], np.random.Generator], list[list[str]]]:
    """Return a function from texts, split where words are to be replaced, to new words.

    Each text is given as text, word, text, ..., word, text. All its words are masked at once,
    each by one mask, and drawn by their probability from the `BEST_WORDS` likeliest tokens that
    spell a whole word, but never the word that stood there. The draws do not depend on batches.

    Args:
        name: a masked-language model: one that ``simcse pretrain`` wrote, a folder or a hub id.

    Raises:
        UsageError: the name stands for nothing, or the model has no head or no mask token.
    """
    folder = huggingface.locate(name)
    model = huggingface.read_backbone(folder)
    tokenizer = huggingface.read_tokenizer(folder, model)
    backbone = Backbone(model)
    head, stored = read_mlm_head(backbone, folder)
    if not stored or tokenizer.mask_token_id is None:
        raise UsageError(
            f"{name} cannot predict masked words: it has no "
            f"{'mask token' if stored else 'MLM head'}. `simcse pretrain` trains a model that can"
        )
    limit = min(backbone.max_positions or MAX_LENGTH, MAX_LENGTH)
    return _Predictor(backbone, head.eval(), Tokenizer(tokenizer, max_length=limit)).predict


class _Predictor:
    """A backbone, its MLM head, and which tokens are words by themselves."""

    def __init__(self, backbone: Backbone, head: MlmHead, tokenizer: Tokenizer) -> None:
        self.backbone, self.head, self.tokenizer = backbone, head, tokenizer
        self.table = backbone.model.get_input_embeddings().weight  # (V, E)
        self.spelled, words = _words(tokenizer.hf_tokenizer)
        self.no_word = torch.ones(len(self.table), dtype=torch.bool)
        self.no_word[words] = False
        self.ids: dict[str, list[int]] = {}  # of each word in lower case
        for token in words:
            self.ids.setdefault(self.spelled[token].lower(), []).append(token)

    @torch.inference_mode()
    def predict(
        self, texts: Sequence[Sequence[str]], random: np.random.Generator
    ) -> list[list[str]]:
        """Predict words; see `word_predictor`."""
        mask = self.tokenizer.hf_tokenizer.mask_token
        mask_id = self.tokenizer.hf_tokenizer.mask_token_id
        joined = [mask.join(between.replace(mask, "") for between in text[::2]) for text in texts]
        rows = self.tokenizer.ids(joined) if joined else []
        draws = [random.random(len(text) // 2) for text in texts]
        found: list[list[str]] = [[] for _ in texts]
        for numbers in batches_by_tokens([len(row) for row in rows], BATCH_TOKENS):
            batch = pack([rows[i] for i in numbers])
            order = [numbers[i] for i in batch.original_index.tolist()]
            counts = [rows[i].count(mask_id) for i in order]
            old = [w for i, n in zip(order, counts, strict=True) for w in list(texts[i][1::2])[:n]]
            chances = [c for i, n in zip(order, counts, strict=True) for c in draws[i][:n]]
            hidden = self.backbone(batch)[0][batch.input_ids == mask_id]  # (M, D)
            new = iter(self._draw(self.head(hidden, self.table), old, torch.tensor(chances)))
            for i, count in zip(order, counts, strict=True):
                found[i] = [next(new) for _ in range(count)]
        return found

    def _draw(self, logits: Tensor, old: Sequence[str], chances: Tensor) -> list[str]:
        """Draw a word for each of M masks: logits (M, V), chances (M,) from 0 to 1."""
        logits[:, self.no_word] = -torch.inf
        for row, word in zip(logits, old, strict=True):
            row[self.ids.get(word.lower(), [])] = -torch.inf
        best, tokens = logits.topk(min(BEST_WORDS, logits.shape[1]))  # (M, K)
        reached = best.softmax(1).double().cumsum(1)
        ranks = (reached < chances[:, None] * reached[:, -1:]).sum(1)  # (M,)
        drawn = tokens.gather(1, ranks[:, None])[:, 0].tolist()
        possible = best[:, 0].isfinite().tolist()  # not where the vocabulary has no other word
        return [
            self.spelled[token] if some else word
            for token, some, word in zip(drawn, possible, old, strict=True)
        ]


def _words(tokenizer: Any) -> tuple[list[str], list[int]]:  # noqa: ANN401 - HF has no common type
    """Return the text of each token, and the tokens that alone spell a word after another."""
    spelled = [tokenizer.decode([token]).strip() for token in range(len(tokenizer))]
    split = tokenizer([f"a {text}" for text in spelled], add_special_tokens=False)["input_ids"]
    first = tokenizer("a", add_special_tokens=False)["input_ids"]
    words = [
        token
        for token, (text, ids) in enumerate(zip(spelled, split, strict=True))
        if text.isalnum() and ids == [*first, token]
    ]
    return spelled, words
