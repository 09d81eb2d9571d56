"""``simcse train`` from files to a run folder."""

import json
import re

import pytest

from simcse import SentenceEncoder
from simcse.io.checkpoints import read_safetensors
from simcse.io.log import read_log
from simcse.io.settings import read_toml

WORDS = ["man", "woman", "dog", "cat", "guitar", "run", "eat", "play"]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "sentences.txt"
    lines = [f"the {a} and the {b} {c}" for a in WORDS for b in WORDS[:4] for c in WORDS[5:]]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def dev(tmp_path):
    path = tmp_path / "dev.tsv"
    rows = [
        f"dev\t{5 - i % 6}\tthe {a} runs\tthe {b} runs" for i, a in enumerate(WORDS) for b in WORDS
    ]
    path.write_text("\n".join(rows) + "\n")
    return path


def test_truncation_in_every_evaluation_is_reported_once(
    simcse, tiny_model_folder, text, dev, tmp_path
):
    dev.write_text(dev.read_text() + "dev\t2\t" + "the dog " * 40 + "\tthe cat\n")
    outcome = simcse(
        *("train", "--model", tiny_model_folder, "--train", text, "--output", tmp_path / "run"),
        *("optim.batch_size=16", f"eval.dev={dev}", "eval.every=2"),
    )
    assert outcome.code == 0, outcome.err
    evaluations = [
        event for event in read_log(tmp_path / "run" / "log.jsonl") if event["event"] == "eval"
    ]
    assert len(evaluations) == 4
    reports = [line for line in outcome.err.splitlines() if "were truncated" in line]
    assert len(reports) == 1
    assert re.fullmatch(
        r"warning: 1 of \d+ sentences were truncated to 32 tokens", reports[0].strip()
    )
    assert "TruncationWarning" not in outcome.err


def test_a_text_file_trains_unsupervised_and_leaves_a_whole_run_folder(
    simcse, tiny_model_folder, text, dev, tmp_path
):
    run = tmp_path / "run"
    outcome = simcse(
        *("train", "--model", tiny_model_folder, "--train", text, "--output", run),
        *("optim.batch_size=16", "optim.lr=1e-3", f"eval.dev={dev}", "eval.every=2"),
    )
    assert outcome.code == 0, outcome.err
    assert "6 steps" in outcome.out
    assert "dev: " in outcome.out
    events = [event["event"] for event in read_log(run / "log.jsonl")]
    assert events[:2] == ["start", "eval"]
    assert events[-1] == "finish"
    assert events.count("step") == 6
    assert events.count("eval") == 4
    for name in ("best", "last"):
        assert (run / name / "model.safetensors").is_file()
        assert SentenceEncoder.load(run / name).encode(["the dog"]).shape == (1, 32)
    provenance = json.loads((run / "last" / "simcse.json").read_text())["provenance"]
    assert provenance["rows"] == 96
    assert provenance["train"] == ["sentences.txt"]
    assert "<!doctype html>" in (run / "report.html").read_text().lower()
    settings = read_toml(run / "settings.toml")
    assert settings["optim"]["batch_size"] == 16
    assert settings["run"]["train"] == [str(text)]


def test_a_run_chooses_by_one_set_records_another_and_saves_every_evaluation(
    simcse, tiny_model_folder, text, dev, tmp_path
):
    run = tmp_path / "run"
    outcome = simcse(
        *("train", "--model", tiny_model_folder, "--train", text, "--output", run),
        *("optim.batch_size=16", "optim.lr=1e-3", f"eval.dev=heldout,{dev}", "eval.every=2"),
        "eval.save_all=true",
    )
    assert outcome.code == 0, outcome.err
    evaluations = [event for event in read_log(run / "log.jsonl") if event["event"] == "eval"]
    assert all({"heldout_loss", "dev"} <= each.keys() for each in evaluations)
    best = min(evaluations, key=lambda each: each["heldout_loss"])["step"]
    saved = {path.name: path / "model.safetensors" for path in (run / "evaluations").iterdir()}
    assert set(saved) == {f"step-{each['step']:08}" for each in evaluations}
    assert len({path.read_bytes() for path in saved.values()}) == len(evaluations) == 4
    for name, step in (("best", best), ("last", evaluations[-1]["step"])):
        model = run / name / "model.safetensors"
        assert model.read_bytes() == saved[f"step-{step:08}"].read_bytes()


def test_saved_settings_repeat_a_run(simcse, tiny_model_folder, text, tmp_path):
    common = ("train", "--model", tiny_model_folder, "--train", text)
    first, second = tmp_path / "first", tmp_path / "second"
    chosen = ("eval.dev=none", "optim.max_steps=2", "optim.batch_size=8", "seed=3")
    assert simcse(*common, "--output", first, *chosen).code == 0
    assert simcse(*common, "--output", second, "--config", first / "settings.toml").code == 0
    weights = [(run / "last" / "model.safetensors").read_bytes() for run in (first, second)]
    assert weights[0] == weights[1]


def test_triplets_train_supervised_with_a_preset_and_overrides(simcse, tiny_model_folder, tmp_path):
    rows = tmp_path / "nli.csv"
    rows.write_text("sent0,sent1,hard_neg\n" + "the dog runs,a dog runs,the cat eats\n" * 4)
    run = tmp_path / "run"
    outcome = simcse(
        *("train", "--model", tiny_model_folder, "--preset", "sup-bert-base"),
        *("--train", rows, "--output", run, "data.columns=sent0,sent1,hard_neg"),
        *("eval.dev=none", "optim.max_steps=1"),
    )
    assert outcome.code == 0, outcome.err
    settings = SentenceEncoder.load(run / "best").settings
    assert (settings.pooling, settings.head, settings.max_length) == ("cls", "always", 32)
    assert read_log(run / "log.jsonl")[2]["sentences"] == 12


def test_labeled_pairs_train_the_classifier_which_is_not_saved(simcse, tiny_model_folder, tmp_path):
    labeled, run = tmp_path / "nli.tsv", tmp_path / "run"
    labels = ("entailment", "neutral", "contradiction")
    rows = [f"{labels[i % 3]}\tthe {a}\ta {b}" for i, a in enumerate(WORDS) for b in WORDS]
    labeled.write_text("\n".join(rows))
    arguments = ("train", "--model", tiny_model_folder, "--train", labeled, "--output", run)
    settings = ("optim.batch_size=16", "eval.dev=none", "train.checkpoint_every=2")
    refused = simcse(*arguments, *settings)
    assert refused.code == 3
    assert "`simcse data nli` makes pairs or triplets of labeled rows" in refused.err
    refused = simcse(*arguments, *settings, "data.columns=1,2")
    assert refused.code == 2
    assert "`simcse data nli` makes pairs or triplets of such rows" in refused.err
    outcome = simcse(*arguments, *settings, "loss.type=classifier")
    assert outcome.code == 0, outcome.err
    assert "4 steps" in outcome.out
    start, saved, stored = (
        read_safetensors(path)
        for path in (
            tiny_model_folder / "model.safetensors",
            run / "last" / "model.safetensors",
            run / "checkpoints" / "step-00000004" / "state.safetensors",
        )
    )
    assert start.keys() == saved.keys()
    shapes = [tuple(tensor.shape) for name, tensor in stored.items() if name.startswith("weight.")]
    assert len(shapes) == len(saved) + 2
    assert (3, 96) in shapes  # [u; v; |u - v|] -> labels


def test_several_seeds_are_summarized_and_compared_with_a_baseline(
    simcse, tiny_model_folder, text, dev, tmp_path
):
    outcome = simcse(
        *("train", "--model", tiny_model_folder, "--train", text, "--output", tmp_path / "runs"),
        *("--seeds", "2", "optim.max_steps=1", f"eval.dev={dev}"),
    )
    assert outcome.code == 0, outcome.err
    assert "2 seeds" in outcome.out
    assert "±" in outcome.out
    assert set(json.loads((tmp_path / "runs" / "seeds.json").read_text())) == {"0", "1"}
    arguments = ("train", "--model", tiny_model_folder, "--train", text, "optim.max_steps=1")
    baseline = ("--baseline", tmp_path / "runs", f"eval.dev={dev}", "optim.lr=1e-3")
    other = simcse(*arguments, "--output", tmp_path / "other", "--seeds", "2", *baseline)
    assert other.code == 0, other.err
    assert "Difference" in other.out
    refused = simcse(*arguments, "--output", tmp_path / "third", *baseline)
    assert refused.code == 2
    assert "--baseline compares seeds" in refused.err


def test_a_plain_backbone_must_be_told_its_pooling(simcse, models_folder, text, tmp_path):
    plain = models_folder / "minilm-l6-h384"
    outcome = simcse(
        "train", "--model", plain, "--train", text, "--output", tmp_path / "run", "eval.dev=none"
    )
    assert outcome.code == 2
    assert "model.pooling=mean" in outcome.err


def test_d8_no_usable_rows_fails_before_the_model_is_loaded(simcse, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("\n\n")
    outcome = simcse(
        *("train", "--model", "no-such-model", "--train", empty, "--output", tmp_path / "run"),
        "eval.dev=none",
    )
    assert outcome.code == 3
    assert "no usable rows" in outcome.err
    assert not (tmp_path / "run").exists()


def test_t12_an_output_that_cannot_be_written_fails_before_the_model_is_loaded(
    simcse, text, tmp_path
):
    (tmp_path / "file").touch()
    outcome = simcse(
        *("train", "--model", "no-such-model", "--train", text, "--output", tmp_path / "file/run"),
        "eval.dev=none",
    )
    assert outcome.code == 5
    assert "cannot write" in outcome.err


def test_an_output_that_holds_something_is_left_alone(simcse, text, tmp_path):
    (tmp_path / "precious").touch()
    outcome = simcse("train", "--train", text, "--output", tmp_path, "eval.dev=none")
    assert outcome.code == 2
    assert "not empty" in outcome.err
