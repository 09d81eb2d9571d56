"""``simcse encode``, ``similarity`` and ``info``."""

import io
import json
import sys

import numpy as np
import pytest

from simcse import SentenceEncoder
from simcse.evaluate.vectors import cosine
from simcse.io.vectors import read_vectors
from simcse.model.kernels import has_int8_linear
from simcse.model.settings import ModelSettings

LINES = ["A man plays the guitar.", "", "The dog runs.", "the woman is eating " * 20]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "sentences.txt"
    path.write_text("\n".join(LINES) + "\n")
    return path


@pytest.mark.parametrize("ending", ["npy", "safetensors", "parquet"])
def test_a_file_becomes_vectors_and_what_was_cut_is_said(
    simcse, tiny_model_folder, text, tmp_path, ending
):
    output = tmp_path / f"vectors.{ending}"
    outcome = simcse(
        *("encode", text, "--model", tiny_model_folder, "--output", output),
        *("--precision", "fp32"),
    )
    assert outcome.code == 0, outcome.err
    assert outcome.out == ""
    assert "3 rows, 1 blank" in outcome.err
    assert "1 sentences were truncated to 32 tokens" in outcome.err
    encoder = SentenceEncoder.load(tiny_model_folder, precision="fp32")
    expected = encoder.encode([line for line in LINES if line], truncation="truncate")
    np.testing.assert_allclose(read_vectors(output), expected, atol=1e-5)


@pytest.mark.skipif(not has_int8_linear(), reason="needs VNNI instructions")
def test_int8_says_what_it_costs(simcse, tiny_model_folder, text, tmp_path):
    output = tmp_path / "v.npy"
    outcome = simcse(
        *("encode", text, "--model", tiny_model_folder, "--output", output),
        *("--precision", "int8"),
    )
    assert outcome.code == 0, outcome.err
    assert "int8 agrees with its original on 100 sentences: cosine 0.9" in outcome.err
    assert "1 sentences were truncated to 32 tokens" in outcome.err  # those 100 are not the user's
    exact = SentenceEncoder.load(tiny_model_folder, precision="fp32")
    lines = [line for line in LINES if line]
    assert cosine(read_vectors(output), exact.encode(lines, truncation="truncate")).min() > 0.99


def test_standard_input_is_read(simcse, tiny_model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\ntwo\n")))
    outcome = simcse("encode", "-", "--model", tiny_model_folder, "--output", tmp_path / "v.npy")
    assert outcome.code == 0, outcome.err
    assert read_vectors(tmp_path / "v.npy").shape == (2, 32)


def test_truncation_error_stops_and_leaves_no_file(simcse, tiny_model_folder, text, tmp_path):
    output = tmp_path / "v.npy"
    outcome = simcse(
        *("encode", text, "--model", tiny_model_folder, "--output", output),
        *("--truncation", "error"),
    )
    assert outcome.code == 3
    assert "the limit is 32" in outcome.err
    assert list(tmp_path.iterdir()) == [text]


def test_dimensions_are_kept_where_the_model_was_trained_for_them(
    simcse, make_encoder, text, tmp_path
):
    encoder = make_encoder(ModelSettings("mean", max_length=32, normalize=True, matryoshka=(8,)))
    encoder.save(tmp_path / "model")
    words = ("encode", text, "--model", tmp_path / "model", "--precision", "fp32")
    outcome = simcse(*words, "--output", tmp_path / "v.npy", "--dimensions", 8)
    assert outcome.code == 0, outcome.err
    expected = encoder.encode([line for line in LINES if line], truncation="truncate", dimensions=8)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(read_vectors(tmp_path / "v.npy"), expected, atol=1e-5)
    outcome = simcse(*words, "--output", tmp_path / "w.npy", "--dimensions", 9)
    assert outcome.code == 2
    assert "dimensions 8, 32, not 9" in outcome.err
    assert not (tmp_path / "w.npy").exists()


def test_similarity_is_the_cosine(simcse, tiny_model_folder):
    long = simcse("similarity", "the dog " * 40, "the dog", "--model", tiny_model_folder)
    assert (long.code, long.err) == (0, "warning: 1 of 2 sentences were truncated to 32 tokens\n")
    same = simcse("similarity", "the dog", "the dog", "--model", tiny_model_folder)
    other = simcse("similarity", "the dog", "a cat eats", "--model", tiny_model_folder)
    assert same.out == "1.0000\n"
    first, second = SentenceEncoder.load(tiny_model_folder, precision="fp32").encode(
        ["the dog", "a cat eats"]
    )
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert float(other.out) == pytest.approx(cosine, abs=1e-4)


def test_info_says_what_a_model_is(simcse, tiny_model_folder):
    outcome = simcse("info", tiny_model_folder, "--json")
    facts = json.loads(outcome.out)
    assert facts["pooling"] == "mean"
    assert facts["dimensions"] == 32
    assert facts["architecture"] == "BertModel"
    assert facts["execution"] == "packed"
    assert facts["provenance"] == {"made by": "tests/conftest.py"}
    assert "BertModel" in simcse("info", tiny_model_folder).out


def test_several_files_and_other_columns_go_into_one_file(simcse, tiny_model_folder, tmp_path):
    (tmp_path / "a.csv").write_text("q,n\nthe dog,1\n\n")
    (tmp_path / "b.jsonl").write_text('{"q": "the cat"}\n{"q": 1}\n{"q": "the man"}\n')
    words = ("encode", tmp_path / "a.csv", tmp_path / "b.jsonl", "--model", tiny_model_folder)
    output = tmp_path / "v.npy"
    outcome = simcse(*words, "--output", output, "--columns", "q", "--bad-lines", "skip")
    assert outcome.code == 0, outcome.err
    assert "3 rows, 1 blank, 1 bad lines skipped" in outcome.err
    encoder = SentenceEncoder.load(tiny_model_folder, precision="fp32")
    expected = encoder.encode(["the dog", "the cat", "the man"])
    np.testing.assert_allclose(read_vectors(output), expected, atol=2e-2)
    outcome = simcse(*words, "--output", tmp_path / "w.npy", "--columns", "q")
    assert outcome.code == 3
    assert "b.jsonl:2: expected text, found {'q': 1}" in outcome.err
    assert not (tmp_path / "w.npy").exists()
