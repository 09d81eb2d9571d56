"""``simcse evaluate isotropy``: models and the saved evaluations of a training."""

import json

import pytest
import torch

from simcse import SentenceEncoder


@pytest.fixture
def run(tiny_model_folder, tmp_path):
    """A run folder whose evaluations are the tiny model, which collapses and recovers."""
    folder = tmp_path / "run"
    encoder = SentenceEncoder.load(tiny_model_folder, precision="fp32")
    norm = next(
        m
        for n, m in encoder.backbone.model.named_modules()
        if n == "encoder.layer.1.output.LayerNorm"
    )
    for step, shift in ((0, 0.0), (10, 3.0), (200, 0.5)):
        with torch.no_grad():
            norm.bias.fill_(shift)
            norm.bias[0] = 2 * shift
        encoder.save(folder / "evaluations" / f"step-{step:08}")
    (folder / "settings.toml").write_text("[loss]\ntemperature = 0.5\n")
    return folder


def test_each_step_of_the_bound_is_printed_for_models(simcse, small_data, tiny_model_folder):
    done = simcse(
        "evaluate", "isotropy", tiny_model_folder, "--data", small_data, "--format", "json"
    )
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)
    assert row["Log-mean-exp"] >= row["Mean / τ"]
    assert row["Largest eigenvalue"] >= row["m x mean"]
    assert (row["Jensen holds"], row["At least m x mean"]) == ("yes", "yes")
    assert row["m"] == 5  # distinct sentences


def test_a_training_is_followed_by_its_evaluations(simcse, small_data, run, tmp_path):
    output = tmp_path / "isotropy"
    done = simcse(
        *("evaluate", "isotropy", "--run", run, "--data", small_data, "--format", "json"),
        *("--output", output),
    )
    assert done.code == 0, done.err
    tables = json.loads(done.out)
    names = [row["Model"] for row in tables["The bound on the largest eigenvalue"]]
    assert names == ["run step 0", "run step 10", "run step 200"]
    (training,) = tables["Along training"]
    assert training["Evaluations"] == 3
    assert training["Decreases"] == "1 of 2"
    assert training["Falls overall"] == "no"
    stored = json.loads((output / "results.json").read_text())["runs"]["run"]
    assert {found["temperature"] for found in stored.values()} == {0.5}
    assert list(stored) == ["0", "10", "200"]
    page = (output / "report.html").read_text()
    assert page.count("<img") == 2
    assert "By step of run: largest eigenvalue from" in page


def test_a_run_without_saved_evaluations_names_the_setting(simcse, small_data, tmp_path):
    done = simcse("evaluate", "isotropy", "--run", tmp_path, "--data", small_data)
    assert done.code == 2
    assert "eval.save_all=true" in done.err
