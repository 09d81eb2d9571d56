"""Masked-language models: what training leaves is what transformers opens, with equal logits."""

import warnings

import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    MPNetConfig,
    RobertaConfig,
)

from simcse.io.records import Example
from simcse.loss import LossConfig
from simcse.model.dropout import dropout_key
from simcse.model.encoder import SentenceEncoder
from simcse.model.fingerprint import fingerprint_sha256
from simcse.model.from_scratch import NewModel, new_model
from simcse.model.mlm import mask_tokens, read_mlm_head
from simcse.model.settings import ModelSettings
from simcse.train.heldout import heldout_validation

TEXTS = ["the man is playing a guitar", "a dog runs", "the woman eats 12 cats"]
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 40,
    "initializer_range": 0.3,
}
CONFIGS = {
    "bert": BertConfig(**SIZES),
    "bert, relu": BertConfig(hidden_act="relu", **SIZES),
    "roberta": RobertaConfig(pad_token_id=0, **SIZES),
    "mpnet": MPNetConfig(pad_token_id=0, **SIZES),
    "distilbert": DistilBertConfig(
        dim=16, n_layers=2, n_heads=2, hidden_dim=16, max_position_embeddings=40
    ),
    "electra": ElectraConfig(embedding_size=8, **SIZES),
}
OPENED = ("bert", "roberta", "mpnet", "distilbert")  # the others have another head


@pytest.fixture(params=CONFIGS)
def trained(request, tmp_path, make_encoder):
    """An encoder with an MLM head as training leaves it, its folder, and its architecture."""
    torch.manual_seed(0)
    tokenizer = make_encoder(ModelSettings("mean")).tokenizer.hf_tokenizer
    config = CONFIGS[request.param]
    config.vocab_size = len(tokenizer)
    AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    settings = ModelSettings(pooling="mean", max_length=32)
    encoder = SentenceEncoder.load(tmp_path / "theirs", settings=settings, precision="fp32")
    encoder.mlm_head, stored = read_mlm_head(encoder.backbone, tmp_path / "theirs")
    assert stored is (request.param in OPENED)
    with torch.no_grad():
        for parameter in encoder.mlm_head.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    encoder.save(tmp_path / "ours")
    return encoder, tmp_path / "ours", request.param


def logits(encoder, head, batch):
    table = encoder.backbone.model.get_input_embeddings().weight
    return head(encoder.backbone(batch)[0], table)


@torch.no_grad()
def test_transformers_opens_the_folder_with_equal_logits(trained):
    encoder, folder, family = trained
    model, report = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    if family not in OPENED:
        assert report["missing_keys"]
        return
    assert not any(report.values()), report
    batch = encoder.tokenizer(TEXTS)
    expected = torch.cat(
        [
            model(torch.tensor([encoder.tokenizer.ids([TEXTS[i]])[0]])).logits[0]
            for i in batch.original_index.tolist()
        ]
    )
    torch.testing.assert_close(
        logits(encoder, encoder.mlm_head, batch), expected, rtol=0, atol=1e-5
    )


@torch.no_grad()
def test_the_head_and_the_embeddings_come_back(trained):
    encoder, folder, _ = trained
    again = SentenceEncoder.load(folder, precision="fp32")
    head, stored = read_mlm_head(again.backbone, folder)
    assert stored
    assert again.mlm_head is None
    for name, weight in encoder.mlm_head.state_dict().items():
        assert torch.equal(head.state_dict()[name], weight), name
    assert fingerprint_sha256(again) == fingerprint_sha256(encoder)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Importing from 'sentence_transformers.models")
        theirs = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    torch.testing.assert_close(
        torch.from_numpy(theirs), torch.from_numpy(again.encode(TEXTS)), rtol=0, atol=1e-5
    )


@torch.no_grad()
def test_the_held_out_loss_is_that_of_transformers(tmp_path):
    """Summed over the masked tokens of all batches, one sentence at a time, without dropout."""
    encoder = new_model(NewModel(2, 16, 2, vocabulary=300), TEXTS, seed=0)
    encoder.save(tmp_path / "model")
    rows, config = (
        [Example(text) for text in TEXTS],
        LossConfig(contrastive_weight=0, mlm_weight=1, mlm_rate=0.4),
    )
    found = heldout_validation(rows, config, batch_size=2)(encoder)
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "model")
    inner, losses = encoder.tokenizer.hf_tokenizer, []
    for step, texts in enumerate([TEXTS[:2], TEXTS[2:]]):
        batch = encoder.tokenizer(texts)
        masked, chosen = mask_tokens(
            batch,
            rate=0.4,
            mask_id=inner.mask_token_id,
            special_ids=inner.all_special_ids,
            vocabulary=len(inner),
            key=dropout_key(0, step, 1),
        )
        parts = (masked.input_ids, batch.input_ids, chosen)
        for ids, truth, guessed in zip(*(part.split(batch.lengths) for part in parts), strict=True):
            scores = model(ids[None]).logits[0][guessed].log_softmax(1)
            losses += scores.gather(1, truth[guessed][:, None])[:, 0].neg().tolist()
    assert len(losses) > 3
    mean = sum(losses) / len(losses)
    assert found.metrics["heldout_mlm_loss"] == pytest.approx(mean, abs=1e-5)
    assert found.metrics["perplexity"] == pytest.approx(torch.tensor(mean).exp().item(), rel=1e-5)
    assert found.score == -found.metrics["heldout_mlm_loss"]
