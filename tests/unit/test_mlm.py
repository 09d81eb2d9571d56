"""The masked-language-model term: which tokens are masked, and the head that guesses them."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from simcse.model.backbone import Backbone
from simcse.model.mlm import MlmHead, mask_tokens
from simcse.text import pack

SIZES = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 40,
}
DISTIL = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16, "max_position_embeddings": 40}
FAMILIES = {
    "bert": (BertForMaskedLM, BertConfig(**SIZES)),
    "bert, another eps": (BertForMaskedLM, BertConfig(layer_norm_eps=1e-2, **SIZES)),
    "roberta": (RobertaForMaskedLM, RobertaConfig(layer_norm_eps=1e-2, **SIZES)),
    "distilbert": (DistilBertForMaskedLM, DistilBertConfig(vocab_size=60, **DISTIL)),
}
MASK, SPECIAL, VOCABULARY = 4, [0, 1, 2, 3, 4], 1000


def masked_model(family):
    """A Hugging Face model in which every weight counts: none is 0 or 1 as at the start."""
    make, config = FAMILIES[family]
    torch.manual_seed(0)
    model = make(copy.deepcopy(config)).eval()  # `Backbone` changes a model's configuration
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def stored(model):
    """What a checkpoint holds: tied weights once."""
    return {k: v for k, v in model.state_dict().items() if "decoder" not in k}


def masked_batch(tokens=40_000, rate=0.15, seed=0):
    torch.manual_seed(seed)
    rows = [[2, *row, 3] for row in torch.randint(5, VOCABULARY, (tokens // 20, 18)).tolist()]
    batch = pack(rows)
    return batch, *mask_tokens(
        batch, rate=rate, mask_id=MASK, special_ids=SPECIAL, vocabulary=VOCABULARY, key=seed
    )


def near(share, of):
    """Within five standard deviations of a share of ``of`` draws."""
    return lambda count: abs(count - share * of) < 5 * (of * share * (1 - share)) ** 0.5


@pytest.mark.parametrize("rate", [0.15, 0.5])
def test_tokens_are_masked_80_10_10(rate):
    batch, masked, chosen = masked_batch(rate=rate)
    ordinary = ~torch.isin(batch.input_ids, torch.tensor(SPECIAL))
    total = int(chosen.sum())
    assert near(rate, int(ordinary.sum()))(total)
    assert not (chosen & ~ordinary).any()
    assert torch.equal(masked.input_ids[~chosen], batch.input_ids[~chosen])

    before, after = batch.input_ids[chosen], masked.input_ids[chosen]
    to_mask, same = after == MASK, after == before
    assert near(0.8 + 0.1 / VOCABULARY, total)(int(to_mask.sum()))
    assert near(0.1 + 0.1 / VOCABULARY, total)(int(same.sum()))
    noise = after[~to_mask & ~same].double()
    assert near(0.1, total)(len(noise))
    spread = VOCABULARY / 12**0.5 / len(noise) ** 0.5  # of the mean of uniform draws
    assert abs(noise.mean() - VOCABULARY / 2) < 5 * spread
    assert noise.max() < VOCABULARY


def test_the_masked_copy_is_new_and_has_the_same_shape():
    batch, masked, _ = masked_batch(tokens=400)
    assert masked.lengths == batch.lengths
    assert torch.equal(masked.original_index, batch.original_index)
    assert not (batch.input_ids == MASK).any()


def test_masking_follows_the_key_and_nothing_else():
    batch, first, _ = masked_batch(400, seed=0)
    options = {"rate": 0.15, "mask_id": MASK, "special_ids": SPECIAL, "vocabulary": VOCABULARY}
    again, other = (mask_tokens(batch, key=key, **options)[0].input_ids for key in (0, 1))
    assert torch.equal(first.input_ids, again)
    assert not torch.equal(first.input_ids, other)


@pytest.mark.parametrize("share", [slice(0, 16), slice(16, 32), slice(5, 6)])
def test_a_part_of_a_batch_is_masked_as_in_the_whole(share):
    torch.manual_seed(0)
    rows = [[2, *torch.randint(5, VOCABULARY, (4 + i % 7,)).tolist(), 3] for i in range(32)]
    options = {"rate": 0.5, "mask_id": MASK, "special_ids": SPECIAL, "vocabulary": VOCABULARY}

    def masked(numbers):
        batch = pack([rows[i] for i in numbers])
        batch = replace(batch, original_index=torch.tensor(numbers)[batch.original_index])
        found, _ = mask_tokens(batch, key=9, **options)
        ids = torch.split(found.input_ids, list(found.lengths))
        return dict(zip(found.original_index.tolist(), (row.tolist() for row in ids), strict=True))

    whole, part = masked(range(32)), masked(range(32)[share])
    assert part == {number: whole[number] for number in part}
    assert any(part[number] != rows[number] for number in part)


def test_the_decoder_is_the_embedding_table():
    model = masked_model("bert").bert
    head, table = MlmHead(Backbone(model)), model.get_input_embeddings().weight
    assert not any(p.shape == table.shape for p in head.parameters())
    hidden = torch.randn(3, 16)
    head(hidden, table)[:, 7].sum().backward()
    assert torch.count_nonzero(table.grad[7]) == 16
    assert torch.count_nonzero(table.grad) == 16  # the scored word's row and no other
    moved = table.detach().clone()
    moved[7] = 0
    assert torch.allclose(head(hidden, moved)[:, 7], head.bias[7])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stored_head_gives_hugging_faces_logits(family):
    model = masked_model(family)
    backbone = Backbone(model.base_model)
    head = MlmHead(backbone)
    sentences = [[5, 9, 30, 41, 8], [7, 22, 9], [50, 51, 52, 53, 54, 55]]
    batch = pack(sentences)
    with torch.no_grad():
        expected = torch.cat(
            [model(torch.tensor([sentences[i]])).logits[0] for i in batch.original_index.tolist()]
        )
        table = model.get_input_embeddings().weight
        fresh = head(backbone(batch)[0], table)
        assert head.load(stored(model)) is True
        ours = head(backbone(batch)[0], table)
    assert not torch.allclose(fresh, expected, atol=0.1)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


def test_a_head_with_the_old_names_of_layer_norm_is_read():
    """google-bert/bert-base-uncased still says gamma and beta."""
    model = masked_model("bert")
    weights = stored(model)
    for old, new in (("gamma", "weight"), ("beta", "bias")):
        weights[f"cls.predictions.transform.LayerNorm.{old}"] = weights.pop(
            f"cls.predictions.transform.LayerNorm.{new}"
        )
    head = MlmHead(Backbone(model.base_model))
    assert head.load(weights) is True
    assert torch.equal(head.norm.weight, model.cls.predictions.transform.LayerNorm.weight)
    assert torch.equal(head.norm.bias, model.cls.predictions.transform.LayerNorm.bias)


def without_bias(weights):
    return {k: v for k, v in weights.items() if k != "cls.predictions.bias"}


def other_vocabulary(weights):
    return {**weights, "cls.predictions.bias": torch.zeros(61)}


@pytest.mark.parametrize("damage", [without_bias, other_vocabulary, lambda weights: {}])
def test_a_head_that_is_not_whole_is_not_taken(damage):
    model = masked_model("bert")
    head = MlmHead(Backbone(model.base_model))
    before = {name: value.clone() for name, value in head.state_dict().items()}
    assert head.load(damage(stored(model))) is False
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())


def test_a_family_with_another_head_says_so_and_gets_a_new_one():
    torch.manual_seed(0)
    model = ElectraForMaskedLM(ElectraConfig(embedding_size=8, **SIZES)).eval()
    backbone = Backbone(model.base_model)
    head = MlmHead(backbone)
    assert head.load(stored(model)) is False
    table = model.get_input_embeddings().weight  # (60, 8): narrower than the hidden states
    logits = head(backbone(pack([[5, 6, 7]]))[0], table)
    assert logits.shape == (3, 60)


def test_a_new_head_can_learn():
    model = masked_model("bert").bert
    head = MlmHead(Backbone(model))
    hidden, targets = torch.randn(8, 16), torch.arange(10, 18)
    table = model.get_input_embeddings().weight.detach()
    adam = torch.optim.Adam(head.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        loss = nn.functional.cross_entropy(head(hidden, table), targets)
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
