"""``simcse pretrain``: from raw text to a backbone that goes on to sentence embeddings."""

import contextlib
import hashlib
import io
import json
import re
import signal

import pytest

from commands import Command, ended, wait_for
from simcse import SentenceEncoder
from simcse.cli.main import main
from simcse.io.log import read_log
from simcse.io.settings import read_toml

WORDS = ["man", "woman", "dog", "cat", "guitar", "run", "eat", "play"]
SHAPE = ("--layers", 2, "--width", 32, "--heads", 2, "--vocabulary", 300)
FEW = ("optim.batch_size=16", "optim.epochs=3", "optim.lr=3e-3", "eval.every=9", "precision=fp32")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "sentences.txt"
    lines = [f"the {a} and the {b} {c}" for a in WORDS for b in WORDS[:4] for c in WORDS[5:]]
    path.write_text("\n".join(lines) + "\n")
    return path


def outcome(run):
    """What two runs must have in common: weights, and the log but for times."""
    weights = (run / "best" / "model.safetensors").read_bytes()
    log = re.sub(r'"seconds": [^,}]+', "", (run / "log.jsonl").read_text())
    return hashlib.sha256(weights).hexdigest(), log


@pytest.fixture(scope="module")
def pretrained(text, tmp_path_factory):
    """A run folder, and what the command printed."""
    run = tmp_path_factory.mktemp("pretrained") / "run"
    arguments = ("pretrain", "--train", text, "--output", run, *SHAPE, *FEW)
    with contextlib.redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit) as left:
        main(list(map(str, arguments)))
    assert left.value.code == 0
    return run, out.getvalue()


def evaluations(run):
    return [event for event in read_log(run / "log.jsonl") if event["event"] == "eval"]


def test_a_new_model_learns_to_predict_words_and_its_run_is_recorded(pretrained):
    run, out = pretrained
    assert re.search(r"[\d,]+ tokens, [\d,]+ a second", out)
    assert evaluations(run)[-1]["heldout_mlm_loss"] < 0.8 * evaluations(run)[0]["heldout_mlm_loss"]
    steps = [event for event in read_log(run / "log.jsonl") if event["event"] == "step"]
    assert all(step["tokens"] >= 8 * step["sentences"] for step in steps)  # six words, two more
    assert sum(step["sentences"] for step in steps) == 3 * (96 - 9)  # a tenth is held out
    assert "perplexity of masked tokens" in (run / "report.html").read_text()
    provenance = json.loads((run / "best" / "simcse.json").read_text())["provenance"]
    assert provenance["settings"]["loss"]["contrastive_weight"] == 0
    made = json.loads((run / "start" / "simcse.json").read_text())["provenance"]["new"]
    assert (made["layers"], made["vocabulary"], made["subwords"]) == (2, 300, "wordpiece")


def test_training_goes_on_from_it_and_its_head_predicts_words(simcse, pretrained, text, tmp_path):
    trained, pairs = tmp_path / "simcse", tmp_path / "pairs.tsv"
    done = simcse(
        *("train", "--model", pretrained[0] / "best", "--train", text, "--output", trained),
        *("eval.dev=heldout", "optim.max_steps=3", "loss.mlm_weight=0.1"),
    )
    assert done.code == 0, done.err
    assert "no MLM head" not in done.err
    assert SentenceEncoder.load(trained / "best").encode(["the dog"]).shape == (1, 32)
    done = simcse(
        *("data", "augment", text, "--how", "mlm", "--rate", "0.2", "--output", pairs),
        *("--model", trained / "best"),  # its MLM term kept the head
    )
    assert done.code == 0, done.err
    changed = [line.split("\t") for line in pairs.read_text().splitlines()]
    assert all(before != after for before, after in changed)


def test_a_model_that_is_there_is_trained_further(simcse, pretrained, text, tmp_path):
    run, again = pretrained[0], tmp_path / "again"
    more = ("--model", run / "best", "optim.max_steps=2")
    done = simcse("pretrain", "--train", text, "--output", again, *more)
    assert done.code == 0, done.err
    assert "no MLM head" not in done.err
    best = min(each["heldout_mlm_loss"] for each in evaluations(run))
    # the rows are those held out before, in other batches under other masks
    assert evaluations(again)[0]["heldout_mlm_loss"] == pytest.approx(best, rel=0.3)
    assert read_toml(again / "settings.toml")["optim"]["lr"] == 1e-4
    assert not (again / "start").exists()


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(simcse, text, tmp_path):
    settings = (*SHAPE, *FEW, "train.checkpoint_every=2", "train.threads=1")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert simcse("pretrain", "--train", text, "--output", whole, *settings).code == 0
    command = ["pretrain", "--train", text, "--output", killed, *settings]
    child = Command(command, stderr=tmp_path / "stderr")
    log = killed / "log.jsonl"
    with ended(child):
        wait_for(lambda: log.exists() and '"step": 4' in log.read_text(), child)
        child.send_signal(signal.SIGKILL)
        child.wait()
    start = (killed / "start" / "model.safetensors").read_bytes()
    other = simcse("pretrain", "--output", killed, "--resume", "--layers", 3)
    assert other.code == 2
    assert "the run began with a new model" in other.err
    done = simcse("pretrain", "--output", killed, "--resume")
    assert done.code == 0, done.err
    assert outcome(killed) == outcome(whole)
    assert (killed / "start" / "model.safetensors").read_bytes() == start


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "Missing option '--train'"),
        (("--train", "TEXT", "loss.contrastive_weight=1"), 2, "no contrastive loss"),
        (("--train", "TEXT", "--model", "mini", "--layers", "2"), 2, "leave out layers"),
        (("--train", "TEXT", "--width", "30", "--heads", "4"), 2, "multiple of the heads"),
        (("--train", "TEXT", "--resume", "--model", "none/such/model"), 2, "no model"),
        (("--train", "nothing.txt"), 3, "nothing.txt"),
    ],
)
def test_mistakes_have_exit_codes(simcse, text, tmp_path, arguments, code, message):
    arguments = [text if word == "TEXT" else word for word in arguments]
    done = simcse("pretrain", *arguments, "--output", tmp_path / "run")
    assert done.code == code, done.err
    assert message in done.err


def test_a_folder_with_something_else_is_refused_before_a_model_is_made(simcse, text, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    done = simcse("pretrain", "--train", text, "--output", tmp_path, *SHAPE)
    assert done.code == 2
    assert "not empty" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) in (
        ["notes.txt"],
        ["cache", "notes.txt"],
    )
