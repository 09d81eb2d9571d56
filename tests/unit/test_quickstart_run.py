"""The quickstart from end to end on made-up documentation, and its conclusions."""

import json
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from simcse import SentenceEncoder
from simcse.errors import DataError, ResourceError, UsageError
from simcse.io.log import read_log
from simcse.io.results import read_results
from simcse.io.settings import read_toml
from simcse.io.vectors import read_vectors
from simcse.quickstart import run
from simcse.quickstart.prose import Document
from simcse.quickstart.report import (
    conclusions,
    metrics_table,
    named_models,
    next_commands,
    quickstart_report,
)
from simcse.quickstart.run import (
    QUESTIONS,
    WRITTEN,
    DocstringMetrics,
    check_output,
    quickstart,
)

AFTER = "compared with the start model:"
WORDS = ["the man", "the woman", "the dog", "the cat", "the guitar"]
VERBS = ["eats", "runs", "plays", "is"]


def documents():
    """Three hundred docstrings in words that the tiny tokenizer knows."""
    return [
        Document(
            f"things.{i}",
            f"The {i} is where {a} {verb} {b}.\n\n"
            f"There {a} and {b} are seen in a play that {verb} on. It is the {i} of the day.",
        )
        for i, (a, verb, b, _) in enumerate(product(WORDS, VERBS, WORDS, "abc"))
    ]


@pytest.fixture(scope="module", autouse=True)
def small_documentation():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "read_docstrings", documents)
        patch.setattr(run, "read_topics", lambda: [])
        yield


@pytest.fixture(scope="module")
def finished(tiny_model_folder, tmp_path_factory):
    """Where a quickstart wrote, and what it found; neither is to be changed."""
    folder = tmp_path_factory.mktemp("quickstart") / "out"
    return folder, quickstart(folder, model=str(tiny_model_folder), sentences=150)


@pytest.fixture
def folder(finished):
    return finished[0]


@pytest.fixture
def outcome(finished):
    return finished[1]


@pytest.fixture
def earlier(folder, tmp_path):
    """A copy of an earlier quickstart's folder."""
    return shutil.copytree(folder, tmp_path / "out")


def test_the_folder_holds_everything_and_it_agrees(outcome, folder):
    names = {path.name for path in folder.iterdir()}
    assert names <= WRITTEN
    assert WRITTEN - names <= {"checkpoints", "tensorboard"}  # of longer runs; an extra
    texts = (folder / "sentences.txt").read_text(encoding="utf-8").splitlines()
    assert texts == [sentence.text for sentence in outcome.corpus.sentences]
    encoder = SentenceEncoder.load(folder / "best")
    vectors = read_vectors(folder / "embeddings.npy")
    np.testing.assert_allclose(encoder.encode(texts, truncation="truncate"), vectors, atol=1e-5)
    assert read_toml(folder / "settings.toml")["run"]["command"] == "simcse quickstart"
    results = read_results(folder / "results.json")
    assert results["test"]["best"] == pytest.approx(outcome.best.scores)
    assert results["training"]["steps"] == outcome.training.steps == 3
    assert results["answers"].keys() == set(QUESTIONS)
    assert [len(hits) for hits in results["answers"].values()] == [3, 3, 3]
    logged = [event for event in read_log(folder / "log.jsonl") if event["event"] == "step"]
    assert [event["step"] for event in logged] == [1, 2, 3]


def test_best_is_chosen_by_the_development_part(outcome, folder):
    evaluations = [event for event in outcome.log if event["event"] == "eval"]
    best = max(evaluations, key=lambda event: event["mrr"])  # the first of equals
    assert outcome.training.best_step == best["step"]
    assert SentenceEncoder.load(folder / "best").provenance["step"] == best["step"]
    assert SentenceEncoder.load(folder / "last").provenance["step"] == 3
    by_step = {0: outcome.start, outcome.training.steps: outcome.last}
    assert outcome.best is by_step.get(best["step"], outcome.best)


def test_the_same_seed_gives_the_same_numbers_and_replaces_the_folder(
    outcome, earlier, tiny_model_folder
):
    again = quickstart(earlier, model=str(tiny_model_folder), sentences=150)
    assert again.last.scores == outcome.last.scores
    assert conclusions(again) == conclusions(outcome)
    assert again.answers == outcome.answers
    other = quickstart(earlier, model=str(tiny_model_folder), sentences=150, seed=1)
    assert other.last.scores != outcome.last.scores
    assert [path.name for path in earlier.parent.iterdir()] == ["out"]


def test_a_failure_leaves_the_earlier_folder_as_it_was(earlier, tiny_model_folder):
    before = read_results(earlier / "results.json")
    with pytest.raises(DataError, match="at least 2 rows"):
        quickstart(earlier, model=str(tiny_model_folder), sentences=1)
    assert read_results(earlier / "results.json") == before
    assert [path.name for path in earlier.parent.iterdir()] == ["out"]


def test_a_folder_with_anything_else_in_it_is_refused(earlier):
    (earlier / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt.*pass another folder as --output"):
        quickstart(earlier, model="never loaded")
    assert (earlier / "notes.txt").read_text() == "mine"


def test_a_training_run_a_file_and_the_current_folder_are_refused(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match="files that no quickstart wrote: log.jsonl"):
        check_output(tmp_path / "run")
    (tmp_path / "run" / "results.json").write_text(json.dumps({"command": "simcse evaluate"}))
    with pytest.raises(UsageError, match=r"log\.jsonl, results\.json"):
        check_output(tmp_path / "run")
    with pytest.raises(UsageError, match="cannot be replaced"):
        check_output(tmp_path / "run" / "log.jsonl")
    (tmp_path / "empty").mkdir()
    check_output(tmp_path / "empty")
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(UsageError, match="cannot be replaced"):
        check_output(tmp_path / "empty")


def test_an_output_that_cannot_be_written_fails_before_anything_is_read(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(run, "read_topics", lambda: pytest.fail("came too far"))
    with pytest.raises(ResourceError, match="cannot write"):
        quickstart(tmp_path / "file" / "out", model="never loaded")


def metrics(*reciprocal_ranks):
    """Made-up metrics of 20 queries for each reciprocal rank."""
    ranks = np.repeat(np.array(reciprocal_ranks, float), 20)
    return DocstringMetrics(
        ranks, 0.5, 0.4, -2.0, np.linspace(0, 1, len(ranks)), np.zeros(len(ranks))
    )


@pytest.mark.parametrize(
    ("best_step", "best", "last", "said"),
    [
        (3, metrics(0.9, 1.0), metrics(0.9, 1.0), [f"best/ {AFTER} better"]),
        (
            2,
            metrics(0.8, 0.9),
            metrics(0.1, 0.2),
            [
                f"best/ {AFTER} better",
                f"last/ {AFTER} worse",
            ],
        ),
        (
            0,
            metrics(0.5, 0.6),
            metrics(0.1, 0.2),
            [
                "best/ is the start model: no step was better",
                f"last/ {AFTER} worse",
            ],
        ),
        (
            3,
            metrics(0.7, 0.4),
            metrics(0.7, 0.4),
            [f"best/ {AFTER} no clear"],
        ),
    ],
)
def test_conclusions_and_table_say_what_happened(outcome, best_step, best, last, said):
    training = replace(outcome.training, best_step=best_step)
    start = metrics(0.5, 0.6)
    found = replace(outcome, training=training, start=start, best=best, last=last)
    for line, beginning in zip(conclusions(found), said, strict=True):
        assert line.startswith(beginning)
    assert [row[1] for row in metrics_table(found).rows] == pytest.approx(
        list(dict.fromkeys([start.mrr, best.mrr, last.mrr]))
    )
    page = quickstart_report(found)
    assert all(line in page for line in conclusions(found))


def test_the_page_stands_alone_and_holds_the_answers(outcome, folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("<img ") == 4 + 1 + len(named_models(outcome))
    for question in QUESTIONS:
        assert question in page


def test_next_commands_name_the_folder_and_quote_it_where_they_must():
    assert "simcse similarity" in next_commands(Path("quickstart"))[0]
    assert next_commands(Path("quickstart"))[0].endswith(f"--model {Path('quickstart/best')}")
    assert next_commands(Path("my folder"))[0].endswith(f'--model "{Path("my folder/best")}"')
