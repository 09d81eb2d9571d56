"""Post-processing: what each layer does to vectors, and that model folders keep it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from simcse.errors import ArtifactError, DataError, NumericError, UsageError
from simcse.model.encoder import SentenceEncoder
from simcse.model.settings import ModelSettings
from simcse.postprocess import Flow, fit_all_but_the_top, fit_flow, fit_whitening

TEXTS = ["the dog runs", "a cat", "the man is playing a guitar", "two women eat", "", "a"]


@pytest.fixture
def vectors():
    random = np.random.default_rng(0)
    return random.normal(size=(500, 8)) @ random.normal(size=(8, 8)) + 3


def apply(layer, vectors):
    return layer(torch.tensor(vectors, dtype=torch.float32)).numpy()


def test_whitening_gives_mean_0_and_covariance_identity(vectors):
    white = apply(fit_whitening(vectors), vectors)
    assert np.abs(white.mean(axis=0)).max() < 1e-4
    assert np.abs(np.cov(white, rowvar=False) - np.eye(8)).max() < 1e-4


def test_whitening_is_su_et_als_own_lines(vectors):
    """Their `compute_kernel_bias`: SVD of the covariance, then U diag(1 / sqrt(s))."""
    directions, variances, _ = np.linalg.svd(np.cov(vectors.T))
    expected = (vectors - vectors.mean(axis=0)) @ (directions / np.sqrt(variances))[:, :5]
    found = apply(fit_whitening(vectors, dimensions=5), vectors)
    signs = np.sign((expected * found).sum(axis=0))  # of an eigenvector there are two
    assert found == pytest.approx(expected * signs, abs=1e-4)


def test_whitening_keeps_the_directions_that_layer_normalization_left(vectors):
    normalized = vectors - vectors.mean(axis=1, keepdims=True)  # one of 8 directions is gone
    white = apply(fit_whitening(normalized), normalized)
    assert white.shape == (500, 7)
    assert np.abs(np.cov(white, rowvar=False) - np.eye(7)).max() < 1e-4
    with pytest.raises(DataError, match="span 7 directions, fewer than 8"):
        fit_whitening(normalized, dimensions=8)


def test_all_but_the_top_is_mu_and_viswanaths_algorithm_1(vectors):
    centered = vectors - vectors.mean(axis=0)
    top = np.linalg.svd(centered, full_matrices=False)[2][:2]  # (2, D)
    expected = [row - sum((u @ row) * u for u in top) for row in centered]
    assert apply(fit_all_but_the_top(vectors, directions=2), vectors) == pytest.approx(
        np.array(expected), abs=1e-4
    )


def test_a_flow_is_invertible_and_knows_its_volume(vectors):
    flow = fit_flow(vectors, epochs=2)
    rows = torch.tensor(vectors[:5], dtype=torch.float32)
    assert torch.allclose(flow.inverse(flow(rows)), rows, atol=1e-3)
    jacobian = torch.autograd.functional.jacobian(lambda row: flow(row[None])[0], rows[0])
    expected = torch.linalg.slogdet(jacobian).logabsdet
    assert flow.log_volume().item() == pytest.approx(expected.item(), abs=1e-3)


def test_a_fitted_flow_explains_its_corpus_better_than_a_gaussian():
    """A bent cloud: mean and covariance say nothing of the bend, an additive coupling can."""
    random = np.random.default_rng(1)
    across, jitter = random.normal(size=(2, 4096))
    bent = np.c_[across, across**2 + 0.2 * jitter]
    losses = []
    fit_flow(bent, epochs=12, on_step=lambda step, steps, loss: losses.append(loss))
    determinant = np.linalg.slogdet(np.cov(bent, rowvar=False))[1]
    gaussian = 0.5 * (math.log(2 * math.pi) + 1 + determinant / 2)  # nats a dimension
    assert np.mean(losses[-20:]) < gaussian - 0.2


def test_the_same_seed_gives_the_same_flow(vectors):
    first, second = fit_flow(vectors), fit_flow(vectors)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("fit", "vectors", "error", "message"),
    [
        (fit_whitening, np.ones((1, 3)), DataError, "at least two"),
        (fit_whitening, np.eye(3)[[0, 1, 0]], DataError, "span 1 directions, fewer than 3"),
        (fit_whitening, np.ones((9, 3)), DataError, "span 0 directions"),
        (fit_whitening, np.full((4, 2), np.nan), NumericError, "not finite"),
        (fit_all_but_the_top, np.ones((3, 1)), UsageError, "directions must be"),
        (fit_flow, np.ones((9, 2)), DataError, "at least 256"),
    ],
)
def test_a_corpus_that_cannot_be_fitted_is_refused(fit, vectors, error, message):
    with pytest.raises(error, match=message):
        fit(vectors)


def fitted(kind, width=32):
    vectors = np.random.default_rng(2).normal(size=(300, width))
    if kind == "whitening":
        return fit_whitening(vectors, dimensions=6)
    return fit_all_but_the_top(vectors) if kind == "all_but_the_top" else fit_flow(vectors)


@pytest.fixture(params=["whitening", "all_but_the_top", "flow"])
def kind(request):
    return request.param


@pytest.fixture
def encoder(make_encoder, kind):
    settings = ModelSettings(
        pooling="mean", head="always", max_length=32, normalize=True, postprocess=kind
    )
    made = make_encoder(ModelSettings(pooling="mean"))
    torch.manual_seed(3)
    return SentenceEncoder(made.backbone, made.tokenizer, settings, postprocess=fitted(kind))


def test_a_folder_keeps_the_layer_and_it_can_be_left_out(encoder, kind, tmp_path):
    expected = encoder.encode(TEXTS)
    assert expected.shape[1] == encoder.dimensions == (6 if kind == "whitening" else 32)
    encoder.save(tmp_path / "model", dtype="fp32")
    loaded = SentenceEncoder.load(tmp_path / "model", precision="fp32")
    assert loaded.encode(TEXTS) == pytest.approx(expected, abs=1e-5)
    bare = SentenceEncoder.load(
        tmp_path / "model", precision="fp32", changes={"postprocess": "none"}
    )
    plain = encoder.without_postprocess().encode(TEXTS)
    lengths = np.linalg.norm(plain, axis=1, keepdims=True)
    assert bare.encode(TEXTS) == pytest.approx(plain / lengths, abs=1e-5)
    assert encoder.postprocess_embeddings(plain) == pytest.approx(expected, abs=1e-5)
    bare.save(tmp_path / "bare")
    again = SentenceEncoder.load(tmp_path / "bare", precision="fp32")
    assert again.postprocess is None
    assert again.encode(TEXTS) == pytest.approx(bare.encode(TEXTS), abs=1e-5)


@pytest.mark.slow
def test_sentence_transformers_reads_a_linear_layer_and_refuses_a_flow(encoder, kind, tmp_path):
    from sentence_transformers import SentenceTransformer

    encoder.save(tmp_path / "model")
    folder = str(tmp_path / "model")
    if kind == "flow":
        with pytest.raises((AttributeError, ImportError, TypeError, ValueError)):
            SentenceTransformer(folder, device="cpu")
        return
    theirs = SentenceTransformer(folder, device="cpu")
    texts = [text for text in TEXTS if text]
    assert theirs.encode(texts) == pytest.approx(encoder.encode(texts), abs=1e-5)
    theirs.save(str(tmp_path / "theirs"))
    ours = SentenceEncoder.load(tmp_path / "theirs", precision="fp32")
    assert ours.settings.postprocess == "linear"
    assert ours.encode(texts) == pytest.approx(encoder.encode(texts), abs=1e-5)


def test_a_damaged_or_absent_layer_is_refused(encoder, kind, tmp_path):
    encoder.save(tmp_path / "model")
    other = replace(encoder.settings, postprocess="flow" if kind == "whitening" else "whitening")
    with pytest.raises(UsageError, match=f"no post-processing '{other.postprocess}'"):
        SentenceEncoder.load(tmp_path / "model", settings=other)
    with pytest.raises(UsageError, match="no post-processing"):
        SentenceEncoder.load(tmp_path / "model", changes={"postprocess": other.postprocess})
    name = "Flow" if kind == "flow" else "Affine"
    (weights,) = (tmp_path / "model").glob(f"*_{name}/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="damaged"):
        SentenceEncoder.load(tmp_path / "model")


def test_a_flow_keeps_its_shape():
    assert Flow(7)(torch.zeros(3, 7)).shape == (3, 7)
