"""``simcse paper`` and ``simcse sweep``, from a grid to its pages."""

import gzip
import json
import signal
import subprocess
import sys

import pytest

from commands import PATIENCE, ended, wait_for
from simcse.io.locks import lock_folder
from simcse.paper.progress import GridProgress, GridStarted
from simcse.train.run import train

WORDS = ["man", "woman", "dog", "cat", "guitar", "run", "eat", "play"]
GRID = """
title = "Dropout rate"
corpus = "{text}"
backbone = "{model}"
settings.precision = "fp32"
settings.optim = {{ batch_size = 16, lr = 1e-3 }}
settings.eval.dev = "{dev}"

[[row]]
name = "p 0.1"
published = 82.5
baseline = true

[[row]]
name = "p 0"
published = 71.1
settings.model.dropout = 0.0

[[row]]
name = "crop"
published = 77.8
data = {{ make = "crop", rate = 0.3 }}
"""
MORE = """
[[row]]
name = "crop, no dropout"
data = { make = "crop", rate = 0.3 }
settings.model.dropout = 0.0

[[row]]
name = "untrained"
start = true

[[row]]
name = "elsewhere"
missing = "it is not part of this tool"
"""


@pytest.fixture
def files(tmp_path, tiny_model_folder):
    text, dev = tmp_path / "sentences.txt", tmp_path / "rated.tsv"
    lines = [f"the {a} and the {b} {c}" for a in WORDS for b in WORDS[:4] for c in WORDS[5:]]
    text.write_text("\n".join(lines) + "\n")
    rated = [
        f"dev\t{5 - i % 6}\tthe {a} runs\tthe {b} runs" for i, a in enumerate(WORDS) for b in WORDS
    ]
    dev.write_text("\n".join(rated) + "\n")
    return {"text": text, "dev": dev, "model": tiny_model_folder}


@pytest.fixture
def grid(tmp_path, files):
    path = tmp_path / "mine.toml"
    path.write_text(GRID.format(**files))
    return path


@pytest.fixture
def trained(monkeypatch):
    """The run folders that training was begun in."""
    begun = []

    def counted(data, **options):
        begun.append(options["output"])
        return train(data, **options)

    monkeypatch.setattr("simcse.paper.runner.train", counted)
    return begun


def results(folder):
    return {path.stem: path.read_text() for path in (folder / "results").glob("*.json")}


def test_a_grid_becomes_results_and_pages_and_is_not_run_twice(simcse, grid, tmp_path, trained):
    output = tmp_path / "out"
    first = simcse("sweep", grid, "--output", output, "--seeds", 2, "--sentences", 40)
    assert first.code == 0, first.err
    assert "rated (eval.dev): not enough seeds for a verdict (2 of 3)" in first.out
    assert "p =" not in first.out
    assert "6 runs to do, 0 are there already" in first.err
    kept = results(output)
    assert len(kept) == len(trained) == 6
    one = json.loads(next(iter(kept.values())))
    assert one["steps"] == 3
    assert one["data"]["corpus"] == "sentences.txt"
    assert str(tmp_path) not in "".join(kept.values())
    assert max(map(len, kept.values())) < 5000
    assert list((output / ".work" / "runs").iterdir()) == []  # models are not kept
    for page in ("mine.html", "mine.md", "mine-1.png", "index.html", "index.md"):
        assert (output / page).is_file()

    again = simcse("sweep", grid, "--output", output, "--seeds", 3, "--sentences", 40)
    assert "3 runs to do, 6 are there already" in again.err
    assert len(trained) == 9
    assert {key: kept[key] for key in kept} == {key: results(output)[key] for key in kept}
    assert "p = " in again.out
    text = (output / "mine.md").read_text()
    assert str(tmp_path) not in text
    assert "| p 0.1 (baseline) |" in text
    assert "Seed 2" in text
    assert "40 rows" in text

    (output / "mine.md").unlink()
    assert simcse("paper", "report", output).code == 0
    assert (output / "mine.md").read_text() == text
    assert len(trained) == 9


def test_two_grids_share_runs_training_files_and_what_cannot_run_is_said(
    simcse, grid, tmp_path, trained
):
    output, wider = tmp_path / "out", tmp_path / "wider.toml"
    wider.write_text(grid.read_text() + MORE)
    asked = ("--output", output, "--seeds", 1, "--sentences", 40)
    assert simcse("sweep", grid, *asked).code == 0
    second = simcse("sweep", wider, *asked)
    assert second.code == 0, second.err
    assert "2 runs to do, 3 are there already" in second.err
    assert len(trained) == 4  # one row is not trained
    assert len(list((output / ".work" / "data").glob("*.tsv"))) == 1
    text = (output / "wider.md").read_text()
    assert "of which already existed: 3 of 5 runs, by mine" in text
    assert "| elsewhere | it is not part of this tool" in text
    untrained = [line for line in text.splitlines() if line.startswith("| untrained")]
    assert "±" not in "".join(untrained)
    assert "wider" in (output / "index.md").read_text()


def test_only_some_rows_and_kept_models(simcse, grid, tmp_path):
    output = tmp_path / "out"
    asked = (
        "--output",
        output,
        "--seeds",
        1,
        "--rows",
        "p 0",
        "--save-models",
        "optim.max_steps=1",
    )
    assert simcse("sweep", grid, *asked).code == 0
    (run,) = (output / ".work" / "runs").iterdir()
    assert (run / "best" / "model.safetensors").is_file()
    assert "| crop  | left out by --rows" in (output / "mine.md").read_text()
    assert json.loads(next(iter(results(output).values())))["steps"] == 1


def test_a_training_that_breaks_off_is_a_result(simcse, grid, tmp_path, trained):
    output = tmp_path / "out"
    asked = ("--output", output, "--seeds", 1, "--rows", "p 0.1")
    outcome = simcse("sweep", grid, *asked, "optim.lr=1e30", "optim.clip_norm=1e30")
    assert outcome.code == 0, outcome.err
    text = (output / "mine.md").read_text()
    assert "| p 0.1 | seed 0: step" in text
    assert len(trained) == 1
    simcse("sweep", grid, *asked, "optim.lr=1e30", "optim.clip_norm=1e30")
    assert len(trained) == 1


def test_an_interrupted_grid_goes_on_from_its_checkpoint(grid, tmp_path, simcse, trained):
    output = tmp_path / "out"
    asked = ["sweep", grid, "--output", output, "--seeds", 1, "--rows", "p 0.1", "optim.epochs=12"]
    command = [sys.executable, "-m", "simcse", *map(str, asked)]
    going = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    with ended(going):
        wait_for(lambda: list((output / ".work" / "runs").glob("*/best/simcse.json")), going)
        going.send_signal(signal.SIGINT)
        _, said = going.communicate(timeout=PATIENCE)
    assert going.returncode == 130, said
    assert "the same command continues here" in said
    assert (output / "mine.md").is_file()
    begun = next((output / ".work" / "runs").iterdir())
    done = simcse(*asked)
    assert done.code == 0, done.err
    assert begun in trained
    fresh = tmp_path / "fresh"
    assert simcse(*asked[:3], fresh, *asked[4:]).code == 0
    (resumed,), (straight,) = (
        [(key, json.loads(text)["evaluations"]) for key, text in results(folder).items()]
        for folder in (output, fresh)
    )
    assert resumed == straight


def test_one_grid_at_a_time_in_a_folder(simcse, grid, tmp_path):
    output = tmp_path / "out"
    with lock_folder(output / ".work"):
        outcome = simcse("sweep", grid, "--output", output)
    assert outcome.code == 5
    assert "runs a grid there" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("paper", "run", "11"), 2, "no table '11'"),
        (("paper", "report", "nowhere"), 4, "nowhere holds no grid"),
        (("sweep", "nowhere.toml"), 2, "nowhere.toml"),
        (("sweep", "GRID", "--rows", "q"), 2, "no row 'q'"),
        (("sweep", "GRID", "--corpus", "nowhere.txt"), 3, "nowhere.txt: no such file"),
        (("sweep", "GRID", "--backbone", "nowhere"), 2, "no model 'nowhere'"),
        (("sweep", "GRID", "loss.temprature=1"), 2, "did you mean 'loss.temperature'"),
        (("sweep", "GRID", "eval.dev=none"), 2, "ranks its rows by a rated set"),
    ],
)
def test_what_cannot_be_run_is_refused(
    simcse, grid, tmp_path, monkeypatch, arguments, code, message
):
    monkeypatch.chdir(tmp_path)
    outcome = simcse(*(grid if word == "GRID" else word for word in arguments))
    assert outcome.code == code, outcome.err
    assert message in outcome.err
    assert not (tmp_path / "sweep" / "results").exists()


def test_tables_of_the_paper_are_listed_and_run_on_any_backbone(
    simcse, files, small_data, monkeypatch, tmp_path
):
    monkeypatch.setenv("SIMCSE_DATA", str(small_data))
    listed = simcse("paper", "list")
    assert "Dropout rate" in listed.out
    output = tmp_path / "out"
    asked = ("--backbone", files["model"], "--corpus", files["text"], "--output", output)
    run = ("paper", "run", "3", *asked, "--sentences", 20, "--seeds", 1, "--rows", "p = 0")
    outcome = simcse(*run, "model.pooling=mean", "model.head=none")
    assert outcome.code == 0, outcome.err
    assert "Table 3: Dropout rate. STS-B dev" in outcome.out
    (result,) = (json.loads(text) for text in results(output).values())
    assert result["recipe"]["settings"]["model.dropout"] == 0.0
    assert result["recipe"]["settings"]["model.pooling"] == "mean"
    refused = simcse(*run, "model.dropout=0.3")
    assert refused.code == 0  # only some rows set it
    nothing = simcse("paper", "run", "batch", *asked, "optim.lr=1e-3")
    assert (nothing.code, "every row of batch sets " in nothing.err) == (2, True)


def test_a_figure_is_measured_on_the_test_sets(simcse, files, small_data, monkeypatch, tmp_path):
    monkeypatch.setenv("SIMCSE_DATA", str(small_data))
    (small_data / "nli").mkdir()
    lines = [f"the {a} is {b}\tthe {a} and {b}\tthe {b}" for a in WORDS for b in WORDS]
    (small_data / "nli" / "triplets.tsv").write_text("\n".join(lines) + "\n")
    output = tmp_path / "out"
    asked = ("--backbone", files["model"], "--corpus", files["text"], "--output", output)
    for name, heading in (("density", "Density: Cosines by rating"), ("spectrum", "Spectrum")):
        outcome = simcse(
            *("paper", "run", name, *asked, "--seeds", 1, "--sentences", 60),
            *("--rows", "first-last average, untrained", "--rows", "whitening, fitted on NLI"),
        )
        assert outcome.code == 0, outcome.err
        text = (output / f"{name}.md").read_text()
        assert text.startswith(f"# {heading}\n")
        assert "The figure shows the first seed of each row." in text
        assert "first-last average, untrained" in text
    kept = [json.loads(text) for text in results(output).values()]
    assert len(kept) == 2  # both figures are drawn of the same two results
    assert all({"cosines", "singular_values"} <= result.keys() for result in kept)
    ranks = {each["recipe"]["postprocess"]: each["scores"]["effective_rank"] for each in kept}
    assert ranks["whitening"] > 0
    assert ranks["none"] > 0


def test_nearest_sentences_are_named_by_line_and_quoted_only_if_asked(
    simcse, files, small_data, monkeypatch, tmp_path
):
    monkeypatch.setenv("SIMCSE_DATA", str(small_data))
    (small_data / "pairs").mkdir()
    captions = "".join(f"the {a} is out\tone {a} goes out\n" for a in WORDS)
    with gzip.open(small_data / "pairs" / "flickr30k_captions.tsv.gz", "wt") as packed:
        packed.write(captions)
    output = tmp_path / "out"
    asked = ("--backbone", files["model"], "--output", output, "--seeds", 1)
    outcome = simcse("paper", "run", "retrieval", *asked, "--rows", "first-last average, untrained")
    assert outcome.code == 0, outcome.err
    (result,) = (json.loads(text) for text in results(output).values())
    assert 0 < result["scores"]["mrr"] <= 100
    boat = result["neighbors"]["A man riding a small boat in a harbor."]
    assert [cosine for _, _, cosine in boat] == sorted((c for _, _, c in boat), reverse=True)
    line, column, _ = boat[0]
    found = captions.splitlines()[int(line) - 1].split("\t")[int(column) - 1]
    page = output / "retrieval.md"
    assert f"line {int(line)}, column {int(column)}" in page.read_text()
    assert found not in page.read_text()
    assert simcse("paper", "report", output, "--quote").code == 0
    assert found in page.read_text()


@pytest.mark.parametrize(("sizes", "shown"), [([], 100.0), ([(3.0, 1.0), (3.0, 1.0)], 0.0)])
def test_the_bar_of_a_grid_is_full_where_nothing_is_to_do(
    sizes: list[tuple[float, float]], shown: float
) -> None:
    progress = GridProgress("table-1")
    progress(GridStarted(2 - len(sizes), sizes))
    (task,) = progress.bar.tasks
    assert task.percentage == shown
