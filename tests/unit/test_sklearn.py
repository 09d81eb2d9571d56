"""`SimcseEmbedder` is what scikit-learn calls a transformer."""

import pickle

import numpy as np
import pandas
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

from simcse import SentenceEncoder
from simcse.errors import UsageError
from simcse.model.settings import ModelSettings
from simcse.sklearn import SimcseEmbedder

TEXTS = ["the dog runs", "a dog eats", "dog", "the man plays guitar", "guitar", "a guitar plays"]
LABELS = [0, 0, 0, 1, 1, 1]


@pytest.fixture
def embedder(tiny_model_folder):
    return SimcseEmbedder(str(tiny_model_folder), precision="fp32")


# Those that give no table of numbers: `check_estimator` leaves out all of an estimator of text.
CHECKS = [
    estimator_checks.check_estimator_cloneable,
    estimator_checks.check_estimator_tags_renamed,
    estimator_checks.check_valid_tag_types,
    estimator_checks.check_estimator_repr,
    estimator_checks.check_no_attributes_set_in_init,
    estimator_checks.check_mixin_order,
    estimator_checks.check_parameters_default_constructible,
    estimator_checks.check_get_params_invariance,
    estimator_checks.check_set_params,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_scikit_learns_own_checks(embedder, check):
    check("SimcseEmbedder", embedder)


def test_what_the_other_checks_ask_for_holds_for_text(embedder):
    """As check_dict_unchanged, check_methods_subset_invariance, check_fit_idempotent and others."""
    vectors = embedder.fit(TEXTS).transform(TEXTS)
    parameters = embedder.get_params()
    np.testing.assert_array_equal(embedder.fit(TEXTS, LABELS).transform(TEXTS), vectors)
    np.testing.assert_allclose(embedder.transform(TEXTS[::-1])[::-1], vectors, atol=1e-6)
    for text, vector in zip(TEXTS, vectors, strict=True):
        np.testing.assert_allclose(embedder.transform([text])[0], vector, atol=1e-6)
    assert embedder.get_params() == parameters


def test_it_gives_the_encoders_embeddings(embedder, tiny_model_folder):
    expected = SentenceEncoder.load(tiny_model_folder, precision="fp32").encode(TEXTS)
    for given in (TEXTS, tuple(TEXTS), np.array(TEXTS), pandas.Series(TEXTS, index=range(6, 12))):
        np.testing.assert_array_equal(embedder.transform(given), expected)
    np.testing.assert_array_equal(embedder.fit_transform(TEXTS, LABELS), expected)


def test_it_works_in_a_pipeline_and_a_search(embedder):
    pipeline = make_pipeline(embedder, LogisticRegression(C=100))
    assert pipeline.fit(TEXTS, LABELS).predict(["the dog eats", "guitar plays"]).tolist() == [0, 1]
    assert cross_val_score(pipeline, TEXTS, LABELS, cv=2).shape == (2,)
    search = GridSearchCV(pipeline, {"logisticregression__C": [1, 10]}, cv=2).fit(TEXTS, LABELS)
    assert search.best_score_ >= 0.5


def test_output_has_names_and_may_be_a_data_frame(embedder):
    frame = embedder.set_output(transform="pandas").fit_transform(TEXTS)
    assert list(frame.columns[:2]) == ["simcseembedder0", "simcseembedder1"]
    assert frame.shape == (6, 32)


def test_pickles_and_clones_carry_the_name_only(embedder):
    vectors = embedder.transform(TEXTS)
    stored = pickle.dumps(embedder)
    assert len(stored) < 1000
    np.testing.assert_array_equal(pickle.loads(stored).transform(TEXTS), vectors)
    assert "_loaded" not in vars(clone(embedder))


def test_dimensions_and_a_changed_model_are_followed(embedder, make_encoder, tmp_path):
    whole = embedder.transform(TEXTS)
    make_encoder(ModelSettings("cls", max_length=32, matryoshka=(8,))).save(tmp_path / "other")
    embedder.set_params(model=str(tmp_path / "other"), dimensions=8)
    assert embedder.transform(TEXTS).shape == (6, 8)
    assert len(embedder.get_feature_names_out()) == 8
    assert not np.allclose(embedder.transform(TEXTS), whole[:, :8])
    with pytest.raises(UsageError, match="not 9"):
        embedder.set_params(dimensions=9).transform(TEXTS)


@pytest.mark.parametrize("given", ["one sentence", [1, 2], [["a"]], ["a", None]])
def test_what_is_no_list_of_sentences_is_refused(embedder, given):
    for method in (embedder.fit, embedder.transform):
        with pytest.raises(ValueError, match="expected"):
            method(given)
