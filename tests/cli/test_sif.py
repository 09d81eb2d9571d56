"""``simcse sif``."""

import json

import pytest
import torch

from simcse import SentenceEncoder


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("The man eats.\nThe dog runs.\nThe cat is playing.\n")
    return path


def test_a_model_gets_token_weights_is_trained_from_and_made_plain_again(
    simcse, tiny_model_folder, corpus, tmp_path
):
    weighted = tmp_path / "weighted"
    outcome = simcse("sif", tiny_model_folder, "--fit", corpus, "--output", weighted)
    assert outcome.code == 0, outcome.err
    properties = json.loads(simcse("info", weighted, "--json").out)
    source = properties["provenance"]["token_weights"]
    assert (source["corpus"], source["sentences"], source["smoothing"]) == ("corpus.txt", 3, 0.003)
    assert "token weights" in simcse("info", weighted).out
    encoder = SentenceEncoder.load(weighted)
    the, dog = (encoder.tokenizer.hf_tokenizer(word)["input_ids"][1] for word in ("the", "dog"))
    shares = 3 / 22, 1 / 22  # of the tokens, special ones and full stops among them
    expected = [0.003 / (0.003 + share) for share in shares]
    torch.testing.assert_close(encoder.token_weights.weight[[the, dog]], torch.tensor(expected))

    run = tmp_path / "run"
    outcome = simcse(
        *("train", "--model", weighted, "--train", corpus, "--output", run),
        *("optim.batch_size=3", "optim.lr=0.01", "eval.dev=none"),
    )
    assert outcome.code == 0, outcome.err
    trained = SentenceEncoder.load(run / "last", precision="fp32")
    torch.testing.assert_close(trained.token_weights.weight, encoder.token_weights.weight)

    outcome = simcse("sif", weighted, "--remove", "--output", tmp_path / "plain")
    assert outcome.code == 0, outcome.err
    plain = SentenceEncoder.load(tmp_path / "plain")
    assert plain.token_weights is None
    assert "token_weights" not in plain.provenance


def test_what_makes_no_sense_is_refused(simcse, tiny_model_folder, corpus, tmp_path):
    output = ("--output", tmp_path / "out")
    for arguments, words in (
        ((), "give --fit"),
        (("--fit", corpus, "--remove"), "give --fit"),
        (("--remove",), "has no token weights to remove"),
        (("--fit", corpus, "--smoothing", 0), "above 0"),
        (("--fit", corpus, "--pooling", "cls"), "pooling cls"),
        (("--fit", tmp_path / "none.txt"), "none.txt"),
    ):
        outcome = simcse("sif", tiny_model_folder, *arguments, *output)
        assert outcome.code == 2 or outcome.code == 3, (arguments, outcome.err)
        assert words in outcome.err
    assert not (tmp_path / "out").exists()
    white = tmp_path / "white"
    texts = tmp_path / "many.txt"
    texts.write_text("\n".join(f"dog {i} runs" for i in range(200)))
    fitted = simcse(
        *("postprocess", tiny_model_folder, "--fit", texts, "--type", "whitening"),
        *("--dimensions", 2, "--output", white),
    )
    assert fitted.code == 0, fitted.err
    outcome = simcse("sif", white, "--fit", corpus, *output)
    assert (outcome.code, "post-processing whitening" in outcome.err) == (2, True)
