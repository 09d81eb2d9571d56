"""The original SimCSE code's class: its shapes, defaults and file paths (princeton-nlp/SimCSE)."""

import numpy as np
import pytest
import torch

from simcse import SimCSE
from simcse.errors import ArtifactError, UsageError

pytest.importorskip("faiss")
TEXTS = ["A man plays the guitar.", "The dog runs.", "The cat eats.", "The dog runs."]


def load(folder):
    """Load in fp32, where a sentence alone is that sentence in a batch."""
    model = SimCSE(str(folder), device="cpu")
    model.encoder.set_precision("fp32")
    return model


@pytest.fixture
def model(tiny_model_folder):
    return load(tiny_model_folder)


def close(hits):
    return [(text, pytest.approx(score, abs=1e-6)) for text, score in hits]


def test_one_sentence_and_many(model):
    one = model.encode(TEXTS[0])
    assert isinstance(one, torch.Tensor)
    assert one.shape == (32,)
    assert float(one.norm()) == pytest.approx(1, abs=1e-6)
    assert model.encode(TEXTS[0], keepdim=True).shape == (1, 32)
    many = model.encode(TEXTS, return_numpy=True)
    assert isinstance(many, np.ndarray)
    assert many.shape == (4, 32)
    np.testing.assert_allclose(many[0], one, atol=1e-6)
    raw = model.encode(TEXTS[0], normalize_to_unit=False)
    assert float(raw.norm()) != pytest.approx(1, abs=1e-2)
    np.testing.assert_allclose(raw / raw.norm(), one, atol=1e-6)


def test_max_length_truncates_and_is_forgotten(model):
    long = "dog " * 60
    short = model.encode(long, max_length=8)
    np.testing.assert_allclose(short, model.encode("dog " * 6), atol=1e-6)
    assert not np.allclose(model.encode(long), short, atol=1e-4)
    assert model.encoder.tokenizer.max_length == 32


def test_similarities_have_the_shape_of_what_is_compared(model):
    vectors = model.encode(TEXTS, return_numpy=True)
    cosines = vectors @ vectors.T
    single = model.similarity(TEXTS[0], TEXTS[1])
    assert isinstance(single, float)
    assert single == pytest.approx(cosines[0, 1], abs=1e-6)
    np.testing.assert_allclose(model.similarity(TEXTS[0], TEXTS), cosines[0], atol=1e-6)
    np.testing.assert_allclose(model.similarity(TEXTS, TEXTS[1]), cosines[:, 1], atol=1e-6)
    np.testing.assert_allclose(model.similarity(TEXTS, TEXTS), cosines, atol=1e-6)
    np.testing.assert_allclose(model.similarity(TEXTS, vectors), cosines, atol=1e-6)


def test_search_gives_sentences_and_hides_what_is_below_0_6(model):
    model.build_index(TEXTS)
    hits = model.search(TEXTS[1], top_k=2)
    assert hits == [(TEXTS[1], pytest.approx(1)), (TEXTS[3], pytest.approx(1))]
    cosines = model.similarity(TEXTS[0], TEXTS)
    assert len(model.search(TEXTS[0])) == int((cosines >= 0.6).sum())
    assert len(model.search(TEXTS[0], threshold=-1)) == 4
    assert model.search(TEXTS[0], threshold=1.5) == []
    several = model.search(TEXTS[:2], threshold=-1, top_k=3)
    assert [len(found) for found in several] == [3, 3]
    assert close(several[0]) == model.search(TEXTS[0], threshold=-1, top_k=3)


def test_a_string_is_a_path_and_the_callers_list_is_not_changed(model, tmp_path):
    (tmp_path / "a.txt").write_text("The dog runs.\n\nThe cat eats.\n")
    model.build_index(str(tmp_path / "a.txt"))
    more = ["A man plays the guitar."]
    model.add_to_index(more)
    model.add_to_index(str(tmp_path / "a.txt"))
    assert more == ["A man plays the guitar."]
    assert len(model.search("x", threshold=-1, top_k=99)) == 5


def test_an_index_is_saved_and_loaded_and_another_models_refused(model, tmp_path):
    model.build_index(TEXTS, use_faiss=True, faiss_fast=True)
    model.save_index(tmp_path / "index")
    expected = model.search(TEXTS[0], threshold=-1)
    again = load(model.name)
    again.load_index(tmp_path / "index")
    assert close(again.search(TEXTS[0], threshold=-1)) == expected
    other = SimCSE(model.name, pooler="cls_before_pooler")
    with pytest.raises(ArtifactError, match="pooling 'mean' there, 'cls' here"):
        other.load_index(tmp_path / "index")
    with pytest.raises(UsageError, match="is there already"):
        model.save_index(tmp_path / "index")


def test_poolers_have_the_original_names(tiny_model_folder):
    settings = SimCSE(str(tiny_model_folder), pooler="avg_first_last").encoder.settings
    assert (settings.pooling, settings.head) == ("mean_first_last", "none")
    with pytest.raises(UsageError, match="pooler must be one of cls, cls_before_pooler"):
        SimCSE(str(tiny_model_folder), pooler="max")


def test_without_an_index_there_is_nothing_to_search(model, tmp_path):
    for call in (model.search, model.add_to_index, model.save_index):
        with pytest.raises(UsageError, match="call build_index or load_index first"):
            call(["a"] if call != model.save_index else tmp_path / "x")
