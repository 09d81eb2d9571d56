"""BERT-like backbones encoded past transformers' modules against transformers' own forward."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    CamembertConfig,
    DistilBertConfig,
    ElectraConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from simcse.model import backbone as backbones
from simcse.model.backbone import Backbone
from simcse.text import pack
from transformers_models import SIZES, make_model, plain_states

CONFIGS = {
    "bert": BertConfig(**SIZES),
    "bert with relu": BertConfig(**SIZES, hidden_act="relu"),
    "camembert": CamembertConfig(**SIZES),
    "electra": ElectraConfig(**SIZES, embedding_size=16),
    "roberta": RobertaConfig(**SIZES),
    "xlm-roberta": XLMRobertaConfig(**SIZES),
}
SENTENCES = [[5 + i % 80 for i in range(n)] for n in (7, 3, 30, 3, 17, 1)]
EVERY_STATE = (0, 1, 2, -1)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grow by one entry whenever `run_directly` is used."""
    seen: list[int] = []
    original = backbones.run_directly

    def counted(model: Any, ids: Tensor, *others: Any) -> Iterator[Tensor]:
        seen.append(len(ids))
        return original(model, ids, *others)

    monkeypatch.setattr(backbones, "run_directly", counted)
    return seen


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    "sentences", [SENTENCES, *([sentence] for sentence in SENTENCES)], ids=lambda s: str(len(s))
)
def test_every_hidden_state_is_that_of_transformers(
    name: str, sentences: list[list[int]], runs: list[int]
) -> None:
    backbone = Backbone(make_model(CONFIGS[name]))
    runs.clear()
    batch = pack(sentences)
    with torch.inference_mode():
        states = backbone(batch, EVERY_STATE)
    assert len(runs) == 1
    plain = make_model(CONFIGS[name])
    expected = [plain_states(plain, sentences[i]) for i in batch.original_index.tolist()]
    for number, state in zip(EVERY_STATE, states, strict=True):
        joined = torch.cat([sentence[number] for sentence in expected])
        torch.testing.assert_close(state, joined, atol=1e-5, rtol=0)


def test_bf16_stays_close_and_notices_new_weights() -> None:
    backbone = Backbone(make_model(CONFIGS["bert"]))
    batch = pack(SENTENCES)

    def both() -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            (by_transformers,) = backbone(batch)
        with torch.inference_mode():
            (directly,) = backbone(batch)
        return directly.float(), by_transformers.float()

    backbone.set_compute(torch.bfloat16)
    before, expected = both()
    assert nn.functional.cosine_similarity(before, expected).min() > 0.999
    with torch.no_grad():
        for layer in backbone.model.encoder.layer:
            layer.attention.self.value.weight.mul_(-1)  # the last of those in one product
    after, expected = both()
    assert nn.functional.cosine_similarity(after, expected).min() > 0.999
    assert nn.functional.cosine_similarity(after, before).min() < 0.99


def test_gradients_dropout_and_autocast_go_through_transformers(runs: list[int]) -> None:
    backbone = Backbone(make_model(CONFIGS["bert"]))
    runs.clear()
    batch = pack(SENTENCES)
    backbone(batch)[0].sum().backward()
    assert backbone.model.embeddings.word_embeddings.weight.grad is not None
    with torch.no_grad():  # exporters trace like this
        backbone(batch)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        backbone(batch)
    backbone.train()
    with torch.inference_mode():
        backbone(batch)
    assert not runs


@pytest.mark.parametrize(
    "config",
    [
        DistilBertConfig(vocab_size=90, dim=32, n_layers=1, n_heads=2, hidden_dim=48),
        BertConfig(**{**SIZES, "num_hidden_layers": 0}),
    ],
)
def test_other_architectures_go_through_transformers(config: Any, runs: list[int]) -> None:
    backbone = Backbone(make_model(config))
    with torch.inference_mode():
        backbone(pack(SENTENCES))
    assert not runs


def test_projections_of_another_class_go_through_transformers(runs: list[int]) -> None:
    class Quantized(nn.Linear):
        pass

    model = make_model(CONFIGS["bert"])
    model.encoder.layer[2].attention.self.key.__class__ = Quantized
    backbone = Backbone(model)
    with torch.inference_mode():
        backbone(pack(SENTENCES))
    assert not runs


@pytest.mark.parametrize("part", ["attention.self", "output"])
def test_a_layer_that_only_resembles_berts_goes_through_transformers(
    part: str, runs: list[int]
) -> None:
    model = make_model(CONFIGS["bert"])
    module = model.encoder.layer[1].get_submodule(part)
    original = module.forward

    def otherwise(*values: Any, **named: Any) -> Any:
        result = original(*values, **named)
        return (1.1 * result[0], *result[1:]) if isinstance(result, tuple) else 1.1 * result

    module.forward = otherwise
    backbone = Backbone(model)
    assert runs  # tried
    runs.clear()
    with torch.inference_mode():
        backbone(pack(SENTENCES))
    assert not runs
