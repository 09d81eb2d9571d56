"""New models: a tokenizer made of the text, and random weights of the asked shape."""

import pytest
import torch

from simcse.errors import ConfigError, DataError
from simcse.model.encoder import SentenceEncoder
from simcse.model.from_scratch import SHAPES, NewModel, new_model, train_tokenizer
from simcse.model.mlm import read_mlm_head

TEXTS = ["Der Äquator teilt die Erde.", "die Erde ist rund, die Äcker sind grün"] * 30


def shape(**changes):
    return NewModel(**{"layers": 2, "width": 16, "heads": 2, "vocabulary": 400, **changes})


@pytest.mark.parametrize("subwords", ["wordpiece", "bpe"])
def test_a_tokenizer_spells_its_text_and_is_the_same_again(subwords):
    tokenizer = train_tokenizer(shape(subwords=subwords), TEXTS)
    for _ in range(3):
        again = train_tokenizer(shape(subwords=subwords), TEXTS)
        assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    ids = tokenizer(TEXTS[1])["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert tokenizer.unk_token_id not in ids
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert text.strip().replace(" ,", ",") == TEXTS[1].lower()
    assert len(tokenizer.tokenize("die Erde")) == 2  # common words are one token
    assert tokenizer.convert_tokens_to_ids(["[PAD]", "[MASK]"]) == [
        tokenizer.pad_token_id,
        tokenizer.mask_token_id,
    ]


@pytest.mark.parametrize("subwords", ["wordpiece", "bpe"])
def test_case_is_kept_if_asked_and_accents_always(subwords):
    def ids(text, *, cased):
        return train_tokenizer(shape(subwords=subwords, cased=cased), TEXTS)(text)["input_ids"]

    assert ids("Erde", cased=False) == ids("erde", cased=False)
    assert ids("Erde", cased=True) != ids("erde", cased=True)
    assert ids("Äcker", cased=False) != ids("Acker", cased=False)


def test_the_vocabulary_is_at_most_as_large_as_asked():
    many = [f"{word}{i % 97} {word[::-1]}" for i in range(400) for word in ("lemon", "pear", "fig")]
    assert len(train_tokenizer(shape(vocabulary=300), many)) == 300
    assert len(train_tokenizer(shape(vocabulary=5000), TEXTS)) < 400


def test_a_new_model_has_the_shape_and_follows_its_seed(tmp_path):
    encoder = new_model(shape(layers=3, width=32, heads=4, positions=64), TEXTS, seed=1)
    config = encoder.backbone.model.config
    assert (encoder.backbone.layer_count, encoder.backbone.width) == (3, 32)
    assert (config.num_attention_heads, config.intermediate_size) == (4, 128)
    assert config.vocab_size == len(encoder.tokenizer.hf_tokenizer)
    assert encoder.tokenizer.max_length == encoder.backbone.max_positions == 64
    vectors = encoder.encode(TEXTS[:2])
    encoder.save(tmp_path)
    again = SentenceEncoder.load(tmp_path, precision="fp32")
    assert again.provenance["new"]["layers"] == 3
    assert read_mlm_head(again.backbone, tmp_path)[1]
    assert torch.equal(torch.from_numpy(again.encode(TEXTS[:2])), torch.from_numpy(vectors))
    weights = [
        torch.cat([p.flatten() for p in new_model(shape(), TEXTS, seed=seed).parameters()])
        for seed in (1, 1, 2)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_sizes_are_shapes():
    for layers, width, heads in SHAPES.values():
        NewModel(layers, width, heads)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 0}, "at least 1"),
        ({"width": 30, "heads": 4}, "multiple of the heads, got 2, 30 and 4"),
        ({"vocabulary": 100}, "at least 300"),
        ({"positions": 2}, "at least 8"),
    ],
)
def test_impossible_shapes_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        shape(**changes)


def test_nothing_to_train_a_tokenizer_on():
    with pytest.raises(DataError, match="no words"):
        train_tokenizer(shape(), ["", " "])
