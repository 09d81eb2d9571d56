"""``simcse calibrate``."""

import json

import pytest

pytest.importorskip("faiss")


def test_an_index_learns_what_its_cosines_mean(simcse, tiny_model_folder, tmp_path):
    words = ["dog", "cat", "man", "woman", "guitar", "run", "eat", "play"]
    (tmp_path / "a.txt").write_text("".join(f"the {a} is {b}\n" for a in words for b in words))
    folder = tmp_path / "index"
    simcse("index", "build", folder, tmp_path / "a.txt", "--model", tiny_model_folder)
    outcome = simcse("calibrate", folder)
    assert outcome.code == 0, outcome.err
    assert "99.9 % of random pairs are below" in outcome.out
    pairs = [(1, f"the {a}", f"the {a}s") for a in words * 2]
    pairs += [(0, f"the {a}", f"2021, {b}!") for a, b in zip(words, words[::-1], strict=True)] * 2
    lines = (f"{label}\t{first}\t{second}\n" for label, first, second in pairs)
    (tmp_path / "pairs.tsv").write_text("".join(lines))
    outcome = simcse("calibrate", folder, "--pairs", tmp_path / "pairs.tsv")
    assert outcome.code == 0, outcome.err
    assert "32 pairs, 5-fold" in outcome.out
    assert simcse("index", "verify", folder).code == 0
    assert json.loads(simcse("index", "info", folder, "--json").out)["rows"] == 64
    assert simcse("calibrate", folder, "--pairs", tmp_path / "none.tsv").code == 3
    assert simcse("calibrate", tmp_path / "none").code == 4
