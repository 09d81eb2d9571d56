"""``simcse adapt``: a model for the user's text, handed over only if it is no worse."""

from itertools import product

import pytest

from commands import run_python
from simcse import SentenceEncoder
from simcse.io.checkpoints import read_safetensors

WORDS = ["man", "woman", "dog", "cat", "guitar", "run", "eat", "play"]
QUICK = [
    *("optim.batch_size=8", "eval.every=3", "optim.lr=1e-3"),
    *("optim.max_steps=9", "precision=fp32"),
]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("".join(f"the {a} and the {b}\n" for a in WORDS for b in WORDS))
    return path


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"the {word} is\ta {word} runs\n" for word in WORDS))
    return path


@pytest.fixture
def adapt(simcse, corpus, tiny_model_folder, tmp_path):
    def run(*words):
        command = ("adapt", corpus, "--model", tiny_model_folder, "--output", tmp_path / "run")
        return simcse(*command, *QUICK, *words)

    return run


def test_a_better_model_is_saved_with_a_report(adapt, tmp_path, tiny_model_folder):
    outcome = adapt()
    assert outcome.code == 0, outcome.err
    assert "held-out loss" in outcome.out
    name = "model.safetensors"
    before, after = (
        read_safetensors(folder / name) for folder in (tiny_model_folder, tmp_path / "run" / "best")
    )
    assert any(not before[key].equal(after[key]) for key in before)
    assert "<html" in (tmp_path / "run" / "report.html").read_text()
    again = adapt("--resume")
    assert again.code == 0, again.err


def test_pairs_are_compared_before_and_after(adapt, pairs, monkeypatch, tmp_path):
    """What was measured is printed, and decides."""
    from simcse.train import adapt as adapting

    ranks = iter([[0.5, 0.5, 1.0], [1.0, 0.5, 1.0]])
    monkeypatch.setattr(adapting, "reciprocal_ranks", lambda encode, pairs: next(ranks))
    outcome = adapt("--pairs", pairs)
    assert outcome.code == 0, outcome.err
    for shown in ("pairs.tsv", "66.67", "83.33", "16.67"):
        assert shown in outcome.out
    assert "83.33" in (tmp_path / "run" / "report.html").read_text()


def test_a_model_that_ranks_the_pairs_worse_is_rejected(adapt, pairs, monkeypatch, tmp_path):
    from simcse.train import adapt as adapting

    worse = [[1.0, 0.5, 1.0], [0.5, 0.5, 1.0]]
    ranks = iter(worse * 2)
    monkeypatch.setattr(adapting, "reciprocal_ranks", lambda encode, pairs: next(ranks))
    for words in ((), ("--resume",)):  # resumed, it is rejected again
        outcome = adapt("--pairs", pairs, *words)
        assert outcome.code == 6
        assert "is rejected" in outcome.err
        assert "83.3 before, 66.7 after" in outcome.err
        assert not (tmp_path / "run" / "best").exists()
        assert SentenceEncoder.load(tmp_path / "run" / "rejected").encode(["a"]).shape == (1, 32)
    assert "83.33" in (tmp_path / "run" / "report.html").read_text()


def test_token_weights_are_counted_again_on_the_corpus(
    simcse, tiny_model_folder, tmp_path, monkeypatch
):
    from simcse.train import adapt as adapting

    monkeypatch.setattr(adapting, "MIN_COUNTED", 64)
    corpus, other = tmp_path / "corpus.txt", tmp_path / "other.txt"
    corpus.write_text("".join(f"the {a} and the {b}\n" for a in WORDS for b in WORDS))
    other.write_text("dog dog dog cat\n")
    weighed, run = tmp_path / "weighed", tmp_path / "run"
    assert simcse("sif", tiny_model_folder, "--fit", other, "--output", weighed).code == 0
    command = ("adapt", corpus, "--model", weighed, "--output", run, *QUICK)
    outcome = simcse(*command)
    assert outcome.code == 0, outcome.err
    assert "counted again on 64 sentences" in outcome.err
    counted = SentenceEncoder.load(run / "best")
    (dog,) = counted.tokenizer.hf_tokenizer("dog")["input_ids"][1:-1]
    tokens = counted.tokenizer.ids(corpus.read_text().splitlines())
    share = 16 / sum(map(len, tokens))  # eight sentences begin with it, eight end
    assert counted.token_weights.weight[dog].item() == pytest.approx(0.003 / (0.003 + share))
    assert simcse(*command, "--resume").code == 0
    again = SentenceEncoder.load(run / "best")
    assert again.token_weights.weight.equal(counted.token_weights.weight)
    monkeypatch.setattr(adapting, "MIN_COUNTED", 65)  # too few rows: they stay
    outcome = simcse(*command, "--output", tmp_path / "few")
    assert outcome.code == 0, outcome.err
    kept = SentenceEncoder.load(tmp_path / "few" / "best").token_weights
    assert kept.weight.equal(SentenceEncoder.load(weighed).token_weights.weight)


def test_token_weights_alone_are_saved_if_training_makes_them_worse(
    simcse, tiny_model_folder, corpus, pairs, tmp_path, monkeypatch
):
    from simcse.train import adapt as adapting

    monkeypatch.setattr(adapting, "MIN_COUNTED", 64)
    before, trained, alone = [0.5, 0.5, 0.5], [0.5, 0.5, 0.6], [0.5, 0.5, 0.7]
    ranks = iter([before, trained, alone, before, alone, alone, before, alone, alone])
    monkeypatch.setattr(adapting, "reciprocal_ranks", lambda encode, pairs: next(ranks))
    weighed, run = tmp_path / "weighed", tmp_path / "run"
    assert simcse("sif", tiny_model_folder, "--fit", corpus, "--output", weighed).code == 0
    command = ("adapt", corpus, "--model", weighed, "--output", run, "--pairs", pairs, *QUICK)
    name = "model.safetensors"
    for words in ((), ("--resume",)):
        outcome = simcse(*command, *words)
        assert outcome.code == 0, outcome.err
        assert "token weights alone rank the pairs as well" in outcome.out
        assert "56.67" in outcome.out
        start, best, last = (
            read_safetensors(run / folder / name) for folder in ("start", "best", "last")
        )
        assert all(start[key].equal(best[key]) for key in start)
        assert not all(start[key].equal(last[key]) for key in start)
    outcome = simcse(*command, "optim.lr=1e-30", "--output", tmp_path / "other")
    assert outcome.code == 0, outcome.err  # training did nothing, the weights did
    assert "token weights alone rank the pairs as well" in outcome.out


@pytest.mark.slow
def test_several_processes_adapt_one_model(tiny_model_folder, simcse, pairs, tmp_path):
    corpus, weighed, run = tmp_path / "corpus.txt", tmp_path / "weighed", tmp_path / "run"
    rows = [f"{x} {a} and the {b} {c}\n" for x in ("a", "the") for a, b, c in product(*[WORDS] * 3)]
    corpus.write_text("".join(rows))
    assert simcse("sif", tiny_model_folder, "--fit", corpus, "--output", weighed).code == 0
    command = ("adapt", corpus, "--model", weighed, "--output", run, "--pairs", pairs, *QUICK)
    launch = ("-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "-m", "simcse")
    ended = run_python(*launch, *command)
    assert (run / "start").exists(), ended.stderr[-2000:]
    if "is rejected" in ended.stderr:  # how a tiny model turns out is no matter here
        assert (run / "rejected").exists() is not (run / "best").exists()
    else:
        assert (ended.returncode, ended.stdout.count("report.html")) == (0, 1), ended.stderr[-2000:]
        assert (run / "best").exists()


def test_a_model_that_no_evaluation_found_better_is_rejected(adapt, tmp_path):
    outcome = adapt("optim.lr=1e-30")
    assert outcome.code == 6
    assert "no evaluation was better" in outcome.err
    assert not (tmp_path / "run" / "best").exists()


def test_reciprocal_ranks_are_the_plain_ones(tiny_encoder):
    from simcse.evaluate.retrieval import evaluate_retrieval, pairs_set
    from simcse.train.adapt import reciprocal_ranks

    asked = pairs_set("x", [("the dog", "a dog"), ("the cat", "cat"), ("guitar", "the man")])
    ranks = []
    documents = tiny_encoder.encode(asked.documents)
    for number, query in enumerate(tiny_encoder.encode(asked.queries)):
        cosines = [query @ d / (query @ query * (d @ d)) ** 0.5 for d in documents]
        own = cosines[asked.relevant[number][0]]
        ranks.append(1 / sum(cosine >= own for cosine in cosines))
    found = reciprocal_ranks(tiny_encoder.encode, asked)
    assert found == pytest.approx(ranks)
    mean = sum(found) / 3
    assert evaluate_retrieval(tiny_encoder.encode, asked).mrr == pytest.approx(mean)


def test_what_cannot_be_is_refused(adapt, pairs, tmp_path):
    outcome = adapt("--pairs", pairs, "--groups", pairs)
    assert (outcome.code, "not both" in outcome.err) == (2, True)
    outcome = adapt("loss.temperatur=1")
    assert (outcome.code, "did you mean" in outcome.err) == (2, True)
    outcome = adapt("--pairs", tmp_path / "none.tsv")
    assert outcome.code == 3
    assert not (tmp_path / "run").exists()
