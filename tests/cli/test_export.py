"""``simcse export``: what it prints, what it refuses."""

import shutil
from pathlib import Path

import pytest

SENTENCES = "A man is playing a guitar.\nThe dog runs.\nThe woman eats.\n"


@pytest.fixture(autouse=True)
def _no_data(monkeypatch, tmp_path):
    monkeypatch.setenv("SIMCSE_DATA", str(tmp_path / "no-data"))


def test_the_users_sentences_are_compared(simcse, tmp_path, tiny_model_folder):
    mine = tmp_path / "mine.txt"
    mine.write_text(SENTENCES)
    out = tmp_path / "out"
    words = ("export", tiny_model_folder, "--to", "transformers", "--output", out)
    done = simcse(*words, "--sentences", mine)
    assert done.code == 0, done.err
    assert "on 3 sentences: cosine 1.000000 at least, 1.000000 on average" in done.out
    assert "STS-B dev was not found" in done.err
    assert (out / "model.safetensors").exists()
    done = simcse(*words, "--sentences", mine)
    assert (done.code, "is not empty" in done.err) == (2, True)


def test_a_dev_set_is_compared_on_where_it_is(simcse, tmp_path, monkeypatch, tiny_model_folder):
    row = "main\t{}\tThe dog runs {}\tThe cat eats {}\n"
    (tmp_path / "data" / "sts").mkdir(parents=True)
    dev = tmp_path / "data" / "sts" / "stsb-dev.tsv"
    dev.write_text("".join(row.format(i % 6, "so " * (i % 7), i) for i in range(1500)))
    monkeypatch.setenv("SIMCSE_DATA", str(tmp_path / "data"))
    words = ("export", tiny_model_folder, "--to", "transformers", "--output", tmp_path / "out")
    done = simcse(*words)
    assert done.code == 0, done.err
    assert "on 1,000 sentences" in done.out  # those that Python carries
    assert "(+0.00)" in done.out.splitlines()[-1]


def test_a_misread_folder_is_refused(simcse, tmp_path, tiny_model_folder, monkeypatch):
    """The source is compared with its own tool before anything is exported."""
    from simcse.model import export as exporting

    mine = tmp_path / "mine.txt"
    mine.write_text(SENTENCES)
    plain = tmp_path / "plain"
    shutil.copytree(tiny_model_folder, plain)
    for name in ("simcse.json", "modules.json"):
        (plain / name).unlink()
    words = ("export", plain, "--pooling", "mean", "--to", "transformers", "--sentences", mine)
    done = simcse(*words, "--output", tmp_path / "out")
    assert done.code == 0, done.err
    assert "as read here, agrees with its original" in done.err

    original = exporting._loader

    def other(encoder, to):
        code, options = original(encoder, to)
        return code, {**options, "pooling": "cls"}

    monkeypatch.setattr(exporting, "_loader", other)
    done = simcse(*words, "--output", tmp_path / "other")
    assert (done.code, "expected at least 0.9999" in done.err) == (4, True)
    assert not Path(tmp_path / "other").exists()
