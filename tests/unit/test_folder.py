"""Model folders and names: what is recognized, what is refused, and with which words."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertModel, RobertaConfig, RobertaModel

from simcse.errors import ArtifactError, ConfigError, ResourceError, UsageError
from simcse.model import folder as folder_module
from simcse.model.backbone import Backbone
from simcse.model.encoder import SentenceEncoder
from simcse.model.folder import HEAD, OWN, read_model
from simcse.model.huggingface import REFERENCE
from simcse.model.settings import ModelSettings

MakeEncoder = Callable[..., SentenceEncoder]
MEAN = ModelSettings("mean", max_length=32)


@pytest.fixture
def saved(tmp_path: Path, tiny_encoder: SentenceEncoder) -> Path:
    """A model folder to be spoilt."""
    tiny_encoder.save(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def plain(saved: Path) -> Path:
    """The same as a plain Hugging Face folder, which does not say how it embeds."""
    (saved / OWN).unlink()
    (saved / "modules.json").unlink()
    return saved


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_folder_left_by_a_kill_between_renames_is_found(saved: Path) -> None:
    saved.rename(saved.with_name(".model.previous"))
    assert SentenceEncoder.load(saved).dimensions == 32


# Settings


def test_a_plain_folder_must_be_told_how_it_embeds(plain: Path) -> None:
    with pytest.raises(UsageError, match=r"model\.pooling=mean.*settings=ModelSettings"):
        SentenceEncoder.load(plain)
    encoder = SentenceEncoder.load(plain, settings=ModelSettings("cls"))
    assert encoder.settings == ModelSettings("cls", head="none", max_length=128)
    assert encoder.provenance == {"source": str(plain)}


def test_told_settings_replace_the_folders(saved: Path, sentences: list[str]) -> None:
    cls = SentenceEncoder.load(saved, settings=ModelSettings("cls"), precision="fp32")
    mean = SentenceEncoder.load(saved, precision="fp32")
    assert (cls.settings.pooling, mean.settings.pooling) == ("cls", "mean")
    assert np.abs(cls.encode(sentences) - mean.encode(sentences)).max() > 0.1


@pytest.mark.parametrize("policy", ["train_only", "always"])
def test_a_stored_head_is_used_under_another_policy(
    tmp_path: Path, make_encoder: MakeEncoder, policy: str
) -> None:
    encoder = make_encoder(ModelSettings("cls", policy, 32))
    encoder.save(tmp_path / "model")
    assert (tmp_path / "model" / HEAD).exists() == (policy == "train_only")
    for other in ("train_only", "always"):
        again = SentenceEncoder.load(tmp_path / "model", settings=ModelSettings("cls", other, 32))
        assert torch.equal(again.head.dense.weight, encoder.head.dense.weight)
    assert SentenceEncoder.load(tmp_path / "model", settings=ModelSettings("cls")).head is None


def test_max_length_above_the_positions(plain: Path) -> None:
    with pytest.raises(ConfigError, match="max_length is 129, the backbone has 128 positions"):
        SentenceEncoder.load(plain, settings=ModelSettings("mean", max_length=129))


def test_roberta_positions_start_after_the_padding_index(
    tmp_path: Path, tiny_encoder: SentenceEncoder
) -> None:
    tokenizer = tiny_encoder.tokenizer.hf_tokenizer
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=34,
    )
    RobertaModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    encoder = SentenceEncoder.load(tmp_path, settings=ModelSettings("mean", max_length=32))
    assert encoder.encode(["dog " * 50], truncation="truncate").shape == (1, 16)
    with pytest.raises(ConfigError, match="max_length is 33, the backbone has 32 positions"):
        SentenceEncoder.load(tmp_path, settings=ModelSettings("mean", max_length=33))


# Released SimCSE models


def test_reference_table() -> None:
    assert len(REFERENCE) == 8
    for name, settings in REFERENCE.items():
        owner, _, model = name.partition("/")
        assert owner == "princeton-nlp"
        head = "none" if model.startswith("unsup-simcse-") else "always"
        assert settings == ModelSettings("cls", head, 128)
    assert "princeton-nlp/sup-simcse-roberta-large" in REFERENCE


def released(folder: Path, tiny_encoder: SentenceEncoder) -> BertModel:
    """Write a folder as the reference project's: the head is stored as BERT's pooler."""
    torch.manual_seed(1)
    model = BertModel(tiny_encoder.backbone.model.config).eval()
    model.save_pretrained(folder)
    tiny_encoder.tokenizer.hf_tokenizer.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", ["sup", "unsup"])
def test_a_released_model_takes_its_head_from_the_pooler(
    tmp_path: Path,
    tiny_encoder: SentenceEncoder,
    monkeypatch: pytest.MonkeyPatch,
    sentences: list[str],
    kind: str,
) -> None:
    model = released(tmp_path, tiny_encoder)
    name = f"princeton-nlp/{kind}-simcse-bert-base-uncased"
    monkeypatch.setattr(folder_module, "locate", lambda _: tmp_path)
    encoder = SentenceEncoder.load(name, precision="fp32")
    assert encoder.settings == REFERENCE[name]
    for i, row in enumerate(encoder.tokenizer.ids(sentences)):
        with torch.no_grad():
            output = model(torch.tensor([row]))
        theirs = output.pooler_output if kind == "sup" else output.last_hidden_state[:, 0]
        ours = encoder.encode([sentences[i]])
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)


def test_a_released_model_without_its_head_is_refused(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (saved / OWN).unlink()
    monkeypatch.setattr(folder_module, "locate", lambda _: saved)
    with pytest.raises(ArtifactError, match=r"2 weights are missing or misshapen: pooler\.dense"):
        SentenceEncoder.load("princeton-nlp/sup-simcse-bert-base-uncased")


# Damage


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "1_Pooling/config.json"]
)
def test_a_flipped_byte_is_noticed_in_any_file(saved: Path, name: str) -> None:  # T5
    data = bytearray((saved / name).read_bytes())
    data[len(data) // 2] ^= 1
    (saved / name).write_bytes(data)
    with pytest.raises(ArtifactError, match=name) as caught:
        SentenceEncoder.load(saved)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("position", [0, 7, 8, 12])
def test_a_flipped_header_byte_in_a_foreign_folder(plain: Path, position: int) -> None:  # T5
    data = bytearray((plain / "model.safetensors").read_bytes())
    data[position] ^= 0x40
    (plain / "model.safetensors").write_bytes(data)
    with pytest.raises(ArtifactError, match=r"model\.safetensors is damaged"):
        SentenceEncoder.load(plain, settings=MEAN)


@pytest.mark.parametrize("name", ["model.safetensors", OWN, "tokenizer.json"])
def test_a_truncated_file(saved: Path, name: str) -> None:  # T6
    (saved / name).write_bytes((saved / name).read_bytes()[:-9])
    with pytest.raises(ArtifactError, match=name):
        SentenceEncoder.load(saved)


def test_pickled_weights(plain: Path) -> None:  # T7
    (plain / "model.safetensors").unlink()
    (plain / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ArtifactError, match="pickle only"):
        SentenceEncoder.load(plain, settings=MEAN)


def test_code_in_the_folder(plain: Path) -> None:  # T8
    edit(plain / "config.json", auto_map={"AutoModel": "evil.Model"})
    with pytest.raises(ArtifactError, match="auto_map"):
        SentenceEncoder.load(plain, settings=MEAN)


def test_a_vocabulary_larger_than_the_table(plain: Path, tiny_encoder: SentenceEncoder) -> None:
    tokenizer = tiny_encoder.tokenizer.hf_tokenizer  # T14
    tokenizer.add_tokens(["one", "more"])
    tokenizer.save_pretrained(plain)
    rows = tiny_encoder.backbone.model.get_input_embeddings().num_embeddings
    with pytest.raises(ArtifactError, match=f"{rows + 2} tokens, the model only {rows} embedding"):
        SentenceEncoder.load(plain, settings=MEAN)


def test_missing_weights_are_never_random(plain: Path) -> None:
    tensors = load_file(plain / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    tensors["encoder.layer.0.output.dense.bias"] = torch.zeros(7)
    save_file(tensors, plain / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"2 weights are missing or misshapen: encoder\.layer"):
        SentenceEncoder.load(plain, settings=MEAN)


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "nonesuch"},
        {"hidden_size": "wide"},
        {"hidden_size": 31},
        {"num_hidden_layers": 3},
        {"vocab_size": 7},
    ],
)
def test_a_configuration_that_does_not_fit(plain: Path, change: dict[str, object]) -> None:
    edit(plain / "config.json", **change)
    with pytest.raises(ArtifactError):
        SentenceEncoder.load(plain, settings=MEAN)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "expected format 1, got 2"),
        ({"settings": {"pooling": "max"}}, "simcse.json is damaged.*pooling"),
        ({"settings": None}, "simcse.json is damaged"),
        ({"sha256": 3}, "simcse.json is damaged"),
    ],
)
def test_our_own_file_damaged(saved: Path, change: dict[str, object], words: str) -> None:
    edit(saved / OWN, **change)
    with pytest.raises(ArtifactError, match=words):
        SentenceEncoder.load(saved)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "model_type"),
        ("config_sentence_transformers.json", {"truncate_dim": 8}, "truncate_dim is 8"),
        (
            "config_sentence_transformers.json",
            {"prompts": {"q": "query: "}, "default_prompt_name": "q"},
            "default prompt 'q'",
        ),
        ("sentence_bert_config.json", {"transformer_task": "retrieval"}, "transformer_task"),
        ("sentence_bert_config.json", {"query_length": 8}, "not supported: query_length"),
    ],
)
def test_what_sentence_transformers_can_say_and_we_cannot(
    saved: Path, name: str, change: dict[str, object], words: str
) -> None:
    (saved / OWN).unlink()
    edit(saved / name, **change)
    with pytest.raises(ArtifactError, match=words):
        SentenceEncoder.load(saved)


def test_modules_outside_the_folder_or_the_library(saved: Path) -> None:
    (saved / OWN).unlink()
    modules = json.loads((saved / "modules.json").read_text())
    for key, value in (("path", "../other"), ("type", "evil.models.Pooling")):
        spoilt = [modules[0], {**modules[1], key: value}]
        (saved / "modules.json").write_text(json.dumps(spoilt))
        with pytest.raises(ArtifactError, match="outside the folder|not supported here"):
            SentenceEncoder.load(saved)


# Writing and use


def test_provenance_and_no_stderr(
    saved: Path, capfd: pytest.CaptureFixture[str], make_encoder: MakeEncoder
) -> None:
    parts = read_model(saved, precision="fp32")
    assert parts.provenance == {"made by": "tests/conftest.py"}
    SentenceEncoder.load(saved).save(saved)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_a_head_that_always_applies_cannot_be_left_out(
    tmp_path: Path, tiny_encoder: SentenceEncoder
) -> None:
    tiny_encoder.settings = ModelSettings("mean", "always", 32)
    with pytest.raises(UsageError, match="there is none to write"):
        tiny_encoder.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_devices(saved: Path) -> None:
    with pytest.raises(UsageError, match="device 'gpu'"):
        SentenceEncoder.load(saved, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ResourceError, match="no CUDA device"):
            SentenceEncoder.load(saved, device="cuda")
    assert SentenceEncoder.load(saved, device="cpu").device.type == "cpu"


def test_a_folder_can_be_read_while_it_is_replaced(
    saved: Path, tiny_encoder: SentenceEncoder, sentences: list[str]
) -> None:
    stop = threading.Event()

    def keep_saving() -> None:
        while not stop.is_set():
            tiny_encoder.save(saved)

    expected = tiny_encoder.encode(sentences)
    writer = threading.Thread(target=keep_saving)
    writer.start()
    try:
        for _ in range(10):
            vectors = SentenceEncoder.load(saved, precision="fp32").encode(sentences)
            np.testing.assert_array_equal(vectors, expected)
    finally:
        stop.set()
        writer.join()


@pytest.mark.parametrize("failure", [FileNotFoundError, UsageError, ArtifactError, None])
def test_a_folder_replaced_halfway_is_read_again(
    failure: type[Exception] | None,
    saved: Path,
    tiny_encoder: SentenceEncoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, times = folder_module._open, []

    def replaced(folder: Path, *, with_pooler: bool = False) -> tuple[Backbone, Any]:
        times.append(folder)
        if len(times) == 1:
            tiny_encoder.provenance["note"] = "the newer one"
            tiny_encoder.save(saved)
            if failure is not None:
                raise failure("gone")
        return read(folder, with_pooler=with_pooler)

    monkeypatch.setattr(folder_module, "_open", replaced)
    assert SentenceEncoder.load(saved).provenance["note"] == "the newer one"
    assert len(times) == 2
