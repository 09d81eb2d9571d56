"""``simcse average``."""

from simcse import SentenceEncoder


def test_models_are_averaged_into_a_folder(simcse, tiny_model_folder, tmp_path):
    output = tmp_path / "mean"
    outcome = simcse("average", tiny_model_folder, tiny_model_folder, "--output", output)
    assert outcome.code == 0, outcome.err
    assert "mean of 2 models" in outcome.err
    assert SentenceEncoder.load(output).settings == SentenceEncoder.load(tiny_model_folder).settings
    assert "the mean of 2 models; --json" in simcse("info", output).out
    outcome = simcse("average", tiny_model_folder, "--output", tmp_path / "one")
    assert (outcome.code, "at least two" in outcome.err) == (2, True)
    assert not (tmp_path / "one").exists()
