"""Words that a masked-language model predicts, against transformers' own logits."""

from collections import Counter

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from simcse.data.augment import augmentation
from simcse.errors import UsageError
from simcse.model.fill_mask import word_predictor
from simcse.model.settings import ModelSettings

TEXT = ["the ", "Man", " is playing, the ", "dog", "."]


@pytest.fixture(scope="module")
def masked_model(tmp_path_factory, make_encoder):
    """A tiny BERT whose masked-language-model head says something."""
    folder, encoder = tmp_path_factory.mktemp("mlm"), make_encoder(ModelSettings("mean"))
    tokenizer, config = encoder.tokenizer.hf_tokenizer, encoder.backbone.model.config
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig.from_dict(config.to_dict())).eval()
    with torch.no_grad():
        for parameter in model.cls.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, model, tokenizer


def words_of(tokenizer):
    """Every token but special ones, continuations and punctuation."""
    return [token for token in tokenizer.get_vocab() if token.isalnum()]


def test_words_are_drawn_as_transformers_says(masked_model):
    folder, model, tokenizer = masked_model
    count = 4000
    drawn = word_predictor(str(folder))([TEXT] * count, np.random.default_rng(0))
    with torch.no_grad():
        ids = tokenizer("the [MASK] is playing, the [MASK].", return_tensors="pt")["input_ids"]
        logits = model(ids).logits[0][ids[0] == tokenizer.mask_token_id]
    for number, old in enumerate(["man", "dog"]):
        words = [word for word in words_of(tokenizer) if word != old]
        scores = logits[number][torch.tensor(tokenizer.convert_tokens_to_ids(words))].double()
        found = Counter(each[number] for each in drawn)
        assert set(found) <= set(words)
        for word, chance in zip(words, scores.softmax(0).tolist(), strict=True):
            assert abs(found[word] - count * chance) < 5 * (count * chance + 1) ** 0.5, word


def test_draws_do_not_depend_on_the_batch(masked_model, monkeypatch):
    folder = masked_model[0]
    texts = [TEXT, ["", "a", ""], ["dog " * 5, "cat", " run"], TEXT] * 5
    predict = word_predictor(str(folder))
    whole = predict(texts, np.random.default_rng(3))
    monkeypatch.setattr("simcse.model.fill_mask.BATCH_TOKENS", 20)
    assert predict(texts, np.random.default_rng(3)) == whole
    assert predict(texts, np.random.default_rng(4)) != whole
    assert predict([], np.random.default_rng(3)) == []


def test_what_is_behind_the_length_limit_keeps_its_words(masked_model):
    long = ["dog " * 300, "cat", ""]
    predict = word_predictor(str(masked_model[0]))
    assert predict([TEXT, long], np.random.default_rng(0))[1] == []


def test_a_mask_in_the_text_is_nothing_to_fill(masked_model):
    predict = word_predictor(str(masked_model[0]))
    assert len(predict([["the [MASK] ", "dog", " [MASK]"]], np.random.default_rng(0))[0]) == 1


def test_a_corpus_is_augmented_by_the_rate(masked_model):
    augment = augmentation("mlm", 0.25, model=str(masked_model[0]))
    texts = ["the man is playing the guitar, run dog!"] * 400
    changed = augment(texts, np.random.default_rng(0))
    assert changed == augment(texts, np.random.default_rng(0))
    for before, after in zip(texts, changed, strict=True):
        assert sum(a != b for a, b in zip(before.split(), after.split(), strict=True)) == 2
        assert after.endswith("!")


def test_a_model_without_the_head_is_refused(tiny_model_folder):
    with pytest.raises(UsageError, match="cannot predict masked words: it has no MLM head"):
        word_predictor(str(tiny_model_folder))
