"""Our vectors against a plain Hugging Face forward pass, one sentence at a time."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from simcse.errors import UsageError
from simcse.model.backbone import Backbone
from simcse.model.encoder import SentenceEncoder
from simcse.model.huggingface import read_backbone, write_backbone
from simcse.model.pooling import POOLINGS
from simcse.model.settings import ModelSettings
from simcse.text import Tokenizer, pack
from transformers_models import SIZES, make_model, plain_states

SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
CONFIGS = {
    "bert": BertConfig(**SIZES),
    "roberta": RobertaConfig(**SIZES),
    "xlm-roberta": XLMRobertaConfig(**SIZES),
    "distilbert": DistilBertConfig(
        vocab_size=90,
        dim=32,
        n_layers=3,
        n_heads=2,
        hidden_dim=48,
        max_position_embeddings=64,
        initializer_range=0.2,
    ),
    "electra": ElectraConfig(embedding_size=16, **SIZES),
    "mpnet": MPNetConfig(**SIZES),
    "modernbert": ModernBertConfig(
        local_attention=8,  # far below the longest sentence here
        global_attn_every_n_layers=3,
        cls_token_id=1,
        sep_token_id=2,
        **SPECIAL,
        **SIZES,
    ),
    "deberta-v2": DebertaV2Config(
        relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8, **SIZES
    ),
}
PADDED = {"mpnet", "deberta-v2"}  # relative positions: not the attention interface's business
LENGTHS = (7, 3, 30, 3, 12, 30, 1, 5)


def to_ids(text: str) -> list[int]:
    return [int(word) for word in text.split()]


class IdsTokenizer:
    """Stands in for a Hugging Face tokenizer: texts are token ids already, as words."""

    def __call__(self, texts: list[str], **_: object) -> dict[str, list[list[int]]]:
        return {"input_ids": [to_ids(text) for text in texts]}


def make_encoder(name: str, **settings: object) -> SentenceEncoder:
    tokenizer = Tokenizer(IdsTokenizer(), max_length=64)
    return SentenceEncoder(
        Backbone(make_model(CONFIGS[name])), tokenizer, ModelSettings(**settings)
    )


def make_texts() -> list[str]:
    generator = random.Random(0)
    return [" ".join(str(generator.randrange(5, 90)) for _ in range(n)) for n in LENGTHS]


def plain_pool(states: list[Tensor], pooling: str) -> Tensor:
    if pooling == "cls":
        return states[-1][0]
    two = {"mean_last_two": -2, "mean_first_last": 1, "mean_embedding_last": 0}
    layers = [-1] if pooling == "mean" else [two[pooling], -1]
    return sum(states[layer].mean(0) for layer in layers) / len(layers)


@pytest.fixture(scope="module", params=CONFIGS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_which_architectures_run_packed(name: str) -> None:
    assert Backbone(make_model(CONFIGS[name])).packed is (name not in PADDED)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_vectors_equal_a_plain_forward(name: str, pooling: str) -> None:
    texts, model = make_texts(), make_model(CONFIGS[name])
    expected = [plain_pool(plain_states(model, to_ids(text)), pooling).numpy() for text in texts]
    vectors = make_encoder(name, pooling=pooling).encode(texts)
    np.testing.assert_allclose(vectors, np.stack(expected), atol=1e-5)
    assert np.abs(vectors).mean() > 0.05


def test_a_vector_depends_on_its_sentence_alone(name: str) -> None:
    encoder, texts = make_encoder(name, pooling="mean"), make_texts()
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    for seed in range(3):
        order = random.Random(seed).sample(range(len(texts)), len(texts))
        shuffled = encoder.encode([texts[i] for i in order], batch_tokens=40)
        np.testing.assert_allclose(shuffled, alone[order], atol=1e-5)


def test_dropout_of_a_sentence_depends_on_key_and_sentence_alone(name: str) -> None:
    encoder, texts = make_encoder(name, pooling="mean"), make_texts()
    plain = torch.as_tensor(encoder.encode(texts))
    encoder.backbone.set_dropout(0.3)
    encoder.train()
    batch = encoder.tokenizer([*texts, *texts])  # both of SimCSE's passes

    def embed(key: int, tokens: int) -> Tensor:
        encoder.backbone.dropout_rng.key = key
        pieces = [encoder.embed(piece) for piece in batch.split(tokens)]
        return batch.unsort(torch.cat(pieces)).detach()

    whole, pieces = embed(7, 10**6), embed(7, 20)
    torch.testing.assert_close(pieces, whole, atol=1e-5, rtol=0)
    first, second = whole.split(len(texts))
    for other in (first, second, embed(8, 10**6)[: len(texts)]):  # each mask is another one
        assert (other - plain).abs().amax(1).min() > 1e-2
    assert (first - second).abs().amax(1).min() > 1e-2


def test_bf16_keeps_the_direction(name: str) -> None:
    encoder, texts = make_encoder(name, pooling="mean", normalize=True), make_texts()
    exact = encoder.encode(texts)
    encoder.set_precision("bf16")
    rounded = encoder.encode(texts)
    assert rounded.dtype == np.float32
    assert (exact * rounded).sum(1).min() >= 0.999


def test_bf16_leaves_rotary_frequencies_alone() -> None:
    backbone = Backbone(make_model(CONFIGS["modernbert"]))
    before = {name: buffer.clone() for name, buffer in backbone.model.named_buffers()}
    backbone.set_compute(torch.bfloat16)
    assert before
    for name, buffer in backbone.model.named_buffers():
        assert torch.equal(buffer, before[name])


def test_fp32_comes_back_after_bf16() -> None:
    encoder = make_encoder("bert", pooling="mean")
    encoder.set_precision("bf16")
    encoder.set_precision("fp32")
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    assert encoder.encode(make_texts()).dtype == np.float32


@pytest.mark.parametrize("count", [1, 2, 3])
def test_kept_layers_give_that_hidden_state(name: str, count: int) -> None:
    text, model = make_texts()[4], make_model(CONFIGS[name])
    backbone = Backbone(make_model(CONFIGS[name]))
    backbone.keep_layers(count)
    batch = pack([to_ids(text)])
    with torch.no_grad():
        (state,) = backbone(batch)
    assert backbone.layer_count == count
    expected = plain_states(model, to_ids(text))[count]
    if name == "modernbert" and count < 3:  # its last layer is followed by one more norm
        expected = model.final_norm(expected).detach()
    torch.testing.assert_close(state, expected, atol=1e-5, rtol=0)


def test_a_cut_model_is_saved_and_read(name: str, tmp_path: Path) -> None:
    model, text = make_model(CONFIGS[name]), make_texts()[4]
    backbone = Backbone(model)
    backbone.keep_layers(2)
    write_backbone(model, tmp_path, dtype=torch.float32, all_layers=False)
    again = Backbone(read_backbone(tmp_path))
    batch = pack([to_ids(text)])
    with torch.no_grad():
        torch.testing.assert_close(again(batch), backbone(batch), atol=1e-5, rtol=0)
    assert again.layer_count == 2


def test_layers_that_are_not_there_are_refused() -> None:
    backbone = Backbone(make_model(CONFIGS["bert"]))
    with pytest.raises(UsageError, match="layers must be 1 to 3, got 4"):
        backbone.keep_layers(4)


def test_positions() -> None:
    limits = {name: Backbone(make_model(CONFIGS[name])).max_positions for name in CONFIGS}
    assert limits["bert"] == 64
    assert limits["roberta"] == limits["mpnet"] == 62  # two rows are below the first position
    assert limits["modernbert"] is None
