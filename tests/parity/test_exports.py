"""Exports give the original's embeddings in their own tools; what they cannot say is refused."""

import gc
import os
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from simcse.errors import ArtifactError, ResourceError, UsageError
from simcse.model import export as exporting
from simcse.model.encoder import SentenceEncoder
from simcse.model.export import compare_encoders, export_model, foreign_encode
from simcse.model.folder import OWN
from simcse.model.settings import ModelSettings
from simcse.model.token_weights import TokenWeights
from simcse.postprocess import Flow, fit_flow, fit_whitening

MakeEncoder = Callable[..., SentenceEncoder]
LONG = "the woman is eating , " * 20  # over the length limit


def filled(
    encoder: SentenceEncoder, kind: str = "none", *, weighted: bool = False
) -> SentenceEncoder:
    """Give a head a bias and the encoder further parts, so that each step matters."""
    if encoder.head is not None:
        torch.nn.init.normal_(encoder.head.dense.bias)
    if weighted:
        vocabulary = encoder.backbone.model.config.vocab_size
        encoder = encoder.with_token_weights(TokenWeights(torch.rand(vocabulary)))
    if kind == "none":
        return encoder
    vectors = np.random.default_rng(0).normal(size=(300, 32)) + 1
    layer = fit_whitening(vectors, dimensions=8) if kind == "whitening" else fit_flow(vectors)
    return encoder.with_postprocess(kind, layer)


CASES = [
    ("onnx", ModelSettings("cls", "always", 32, normalize=True), "whitening", False),
    ("openvino", ModelSettings("mean_first_last", "always", 32), "flow", True),
    ("onnx", ModelSettings("mean", "none", 32, normalize=True), "none", True),
    ("sentence-transformers", ModelSettings("mean_last_two", "always", 32), "whitening", True),
    ("sentence-transformers", ModelSettings("mean", "none", 32), "none", True),
    ("transformers", ModelSettings("cls", "always", 32, normalize=True), "none", False),
    ("transformers", ModelSettings("mean_first_last", "none", 32), "none", True),
    ("transformers", ModelSettings("mean_embedding_last", "train_only", 32), "none", False),
]


@pytest.mark.parametrize(("to", "settings", "kind", "weighted"), CASES)
def test_an_export_gives_the_same_embeddings_alone(
    tmp_path: Path,
    to: exporting.Format,
    settings: ModelSettings,
    kind: str,
    weighted: bool,
    make_encoder: MakeEncoder,
    sentences: list[str],
) -> None:
    encoder = filled(make_encoder(settings, layers=3), kind, weighted=weighted)
    texts = [*sentences, LONG]
    done = export_model(encoder, tmp_path / "out", to, sentences=texts)
    assert done.agreement.sentences == len(texts)
    assert done.agreement.lowest > 0.99999
    expected = encoder.encode(texts, truncation="truncate")
    np.testing.assert_allclose(done.encode(texts), expected, atol=2e-5)

    # The code its README shows is complete: it runs, in a place of its own.
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "out" / "README.md").read_text(), re.S)
    space: dict[str, object] = {}
    with exporting.quiet():
        exec(code.replace("path/of/this/folder", str(tmp_path / "out")), space)
    vectors = space["vectors"]
    assert isinstance(vectors, np.ndarray)
    np.testing.assert_allclose(vectors, encoder.encode(["A man is playing a guitar."]), atol=2e-5)


def test_signals_are_received_after_openvino_models_in_any_order(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_encoder: MakeEncoder,
    sentences: list[str],
) -> None:
    """A model that is replaced by a newer one ends first, and its signal stack with it."""
    encoder = make_encoder(ModelSettings("mean", max_length=32), layers=1)
    exporting._trace(encoder, tmp_path / "traced.onnx")  # once, for time
    monkeypatch.setattr(
        exporting, "_trace", lambda encoder, path: shutil.copy(tmp_path / "traced.onnx", path)
    )
    for _ in range(2):
        done = export_model(encoder, tmp_path / "out", "openvino", sentences=sentences)
    del done
    gc.collect()
    child = os.fork()  # it inherits the signal stack, and a crash ends only the child
    if child == 0:
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("to", ["sentence-transformers", "transformers"])
def test_fp16_is_smaller_and_close(
    tmp_path: Path, to: exporting.Format, make_encoder: MakeEncoder, sentences: list[str]
) -> None:
    encoder = make_encoder(ModelSettings("mean", max_length=32, normalize=True))
    done = export_model(encoder, tmp_path / "out", to, sentences=sentences, dtype="fp16")
    assert 0.999 < done.agreement.lowest < 1
    weights = sum(p.numel() for p in encoder.parameters())
    largest = max(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert largest < 2.6 * weights


def test_int8_is_a_quarter_and_ranks(
    tmp_path: Path, make_encoder: MakeEncoder, sentences: list[str]
) -> None:
    encoder = make_encoder(ModelSettings("mean", max_length=32, normalize=True))
    done = export_model(encoder, tmp_path / "out", "onnx", sentences=sentences, dtype="int8")
    assert 0.95 < done.agreement.lowest < 0.9999
    assert not list((tmp_path / "out").glob("fp32*"))


def test_an_export_that_lost_something_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_encoder: MakeEncoder,
    sentences: list[str],
) -> None:
    """The comparison itself: another weight, another length, or NaN is no reproduction."""
    encoder = make_encoder(ModelSettings("mean", max_length=32))
    vectors = encoder.encode(sentences)

    def spoilt(change: Callable[[np.ndarray], np.ndarray]) -> exporting.ExportAgreement:
        return compare_encoders(encoder.encode, lambda texts: change(vectors), sentences)

    turned = vectors.copy()
    turned[3, 0] += 0.1 * np.linalg.norm(turned[3])
    assert not spoilt(lambda v: turned).reaches(0.9999)
    assert not spoilt(lambda v: 1.05 * v).reaches(0.9999)
    assert not spoilt(lambda v: v * np.nan).reaches(0.0)
    assert spoilt(lambda v: v).reaches(0.9999)
    with pytest.raises(ArtifactError, match="shape"):
        spoilt(lambda v: v[:, 1:])

    write = exporting._WRITERS["transformers"]

    def damaged(encoder: SentenceEncoder, folder: Path, dtype: exporting.Dtype) -> None:
        write(encoder, folder, dtype)
        tensors = load_file(folder / "model.safetensors")
        tensors["encoder.layer.0.output.dense.weight"].mul_(1.5)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    monkeypatch.setattr(exporting, "_WRITERS", {"transformers": damaged})
    with pytest.raises(ArtifactError, match="Nothing was written"):
        export_model(encoder, tmp_path / "out", "transformers", sentences=sentences)
    assert not list(tmp_path.iterdir())  # nor a temporary folder


@pytest.mark.parametrize(
    ("to", "settings", "layer", "named"),
    [
        ("transformers", ModelSettings("mean", "always", 32), None, "BERT's pooler"),
        ("transformers", ModelSettings("mean", max_length=32), "flow", "post-processing"),
        ("sentence-transformers", ModelSettings("mean", max_length=32), "flow", "flow"),
    ],
)
def test_what_a_format_cannot_say_is_refused(
    tmp_path: Path,
    to: exporting.Format,
    settings: ModelSettings,
    layer: str | None,
    named: str,
    make_encoder: MakeEncoder,
) -> None:
    encoder = make_encoder(settings)
    if layer:
        encoder = SentenceEncoder(
            encoder.backbone,
            encoder.tokenizer,
            replace(settings, postprocess="flow"),
            postprocess=Flow(32),
        )
    with pytest.raises(UsageError, match=named):
        export_model(encoder, tmp_path / "out", to, sentences=["a"])
    with pytest.raises(UsageError, match="not int8"):
        export_model(encoder, tmp_path / "out", "openvino", sentences=["a"], dtype="int8")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_encoder: SentenceEncoder
) -> None:
    monkeypatch.setattr(exporting, "NEEDS", {"onnx": ("surely_not_installed",)})
    with pytest.raises(ResourceError, match=r"simcse-next\[onnx\]"):
        export_model(tiny_encoder, tmp_path / "out", "onnx", sentences=["a"])


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_checkpoint_of_the_original_code_is_read_with_its_head(
    tmp_path: Path, pooling: str, make_encoder: MakeEncoder, sentences: list[str]
) -> None:
    """Its layout: `bert.` before the backbone's names, the head as `mlp.dense` beside it."""
    encoder = filled(make_encoder(ModelSettings("cls", "always", 32)))
    encoder.save(tmp_path / "ours")
    export_model(encoder, tmp_path / "old", "transformers", sentences=sentences)
    tensors = load_file(tmp_path / "old" / "model.safetensors")
    renamed = {
        f"mlp.{name.removeprefix('pooler.')}" if name.startswith("pooler.") else f"bert.{name}": t
        for name, t in tensors.items()
    }
    save_file(renamed, tmp_path / "old" / "model.safetensors", {"format": "pt"})

    with pytest.raises(UsageError, match="does not say"):
        SentenceEncoder.load(tmp_path / "old")
    changes = {"pooling": pooling, "head": "always", "max_length": 32}
    again = SentenceEncoder.load(tmp_path / "old", changes=changes, precision="fp32")
    plain = AutoModel.from_pretrained(tmp_path / "old", add_pooling_layer=False).eval()
    assert encoder.head is not None
    for text in sentences:
        ids = encoder.tokenizer.hf_tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            hidden = plain(**ids).last_hidden_state[0]
            pooled = hidden[0] if pooling == "cls" else hidden.mean(0)
            dense = encoder.head.dense
            expected = torch.tanh(dense.weight @ pooled + dense.bias)
        np.testing.assert_allclose(again.encode([text])[0], expected.numpy(), atol=1e-5)
    assert foreign_encode(again, str(tmp_path / "old")) is None


def test_a_foreign_folder_is_also_read_by_its_own_tool(
    tmp_path: Path, make_encoder: MakeEncoder, sentences: list[str]
) -> None:
    encoder = filled(make_encoder(ModelSettings("mean", "always", 32)))
    encoder.save(tmp_path / "model")
    assert foreign_encode(encoder, str(tmp_path / "model")) is None
    (tmp_path / "model" / OWN).unlink()
    theirs = foreign_encode(SentenceEncoder.load(tmp_path / "model"), str(tmp_path / "model"))
    assert theirs is not None
    assert compare_encoders(encoder.encode, theirs, sentences).reaches(0.99999)

    plain = tmp_path / "plain"
    (tmp_path / "model" / "modules.json").unlink()
    (tmp_path / "model").rename(plain)
    plain_encoder = SentenceEncoder.load(plain, changes={"pooling": "cls"}, precision="fp32")
    theirs = foreign_encode(plain_encoder, str(plain))
    assert theirs is not None
    assert compare_encoders(plain_encoder.encode, theirs, sentences).reaches(0.99999)
    # ... and a wrong reading does not go through
    assert not compare_encoders(encoder.encode, theirs, sentences).reaches(0.99)
