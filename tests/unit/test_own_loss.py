"""A user's own loss, by ``loss.type=package.module:Class``."""

import math
import shutil
import sys
from pathlib import Path

import pytest
import torch

from simcse.config import build, parse_overrides, to_dict
from simcse.errors import ConfigError
from simcse.io.records import Example
from simcse.losses import check_loss, loss_provenance
from simcse.losses.settings import LossConfig
from simcse.paper.results import Recipe
from simcse.train.objective import Objective
from simcse.train.run import train
from simcse.train.settings import EvalConfig, TrainConfig
from simcse.train.validation import heldout_validation

FILE = Path(__file__).parents[1] / "faults" / "own_loss.py"
ROWS = [Example(text) for text in ("the man is eating", "a dog runs", "two cats", "a dog runs")]
TYPE = "loss.type=my_own_loss:LearnedTemperature"
SETTINGS = (
    *("optim.batch_size=3", "optim.max_steps=4", "eval.dev=none", "precision=fp32"),
    *("train.threads=1", "train.checkpoint_every=2"),
)


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    """A working directory with the module ``my_own_loss``."""
    shutil.copy(FILE, tmp_path / "my_own_loss.py")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("my_own_loss", None)


def loss_config(*overrides):
    return build(TrainConfig, parse_overrides(overrides)).loss


def test_options_are_converted_and_saved_with_the_defaults_of_the_others():
    config = loss_config(TYPE, "loss.options.start=1")
    assert config.arguments == {"start": 1.0, "mask": True}
    assert LossConfig(**to_dict(config)) == config
    assert str(Path.cwd()) not in sys.path


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["loss.type=my_own_los:Any"], r"cannot be imported: ModuleNotFoundError.*working dir"),
        (["loss.type=:"], "cannot be imported"),
        (["loss.type=my_own_loss:LearntTemperature"], "did you mean 'LearnedTemperature'"),
        (["loss.type=my_own_loss:some_number"], "must be a class, found int"),
        ([TYPE, "loss.options.strat=1"], "did you mean 'loss.options.start'"),
        ([TYPE, "loss.options.start=x"], "loss.options.start must be float, got 'x'"),
        (["loss.type=my_own_loss:Refuses"], "setting loss.options.margin is missing"),
        ([TYPE, "loss.temperature=1"], "does not use loss.temperature=1.0; .* loss.options.temp"),
        ([TYPE, "loss.dropout_free_negatives=true"], "does not use loss.dropout_free_negatives"),
    ],
)
def test_a_mistake_in_the_settings_is_named(overrides, message):
    with pytest.raises(ConfigError, match=message):
        loss_config(*overrides)


def test_a_module_that_fails_is_named(working_directory):
    (working_directory / "broken_loss.py").write_text("1 / 0\n")
    with pytest.raises(ConfigError, match=r"cannot be imported: ZeroDivisionError"):
        loss_config("loss.type=broken_loss:Any")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoScalar", r"without dimensions, .* found Tensor of shape \(8,\)"),
        ("Number", r"without dimensions, .* found float"),
        ("Detached", "depends on the embeddings"),
        ("WrongArguments", r"called as loss\(anchors, .* raised TypeError"),
        ("NotCallable", "define its __call__"),
        ("Refuses", "margin must be >= 0"),
    ],
)
def test_a_mistake_in_the_class_is_found_before_training(name, message, tiny_model_folder):
    options = {"margin": -1.0} if name == "Refuses" else {}
    config = LossConfig(type=f"my_own_loss:{name}", options=options)
    with pytest.raises(ConfigError, match=message):
        check_loss(config.type, config.arguments, dimensions=32)
    output, text = Path("run"), Path("text.txt")
    text.write_text("a man\na dog\n")
    with pytest.raises(ConfigError, match=message):
        train(
            text,
            model=str(tiny_model_folder),
            output=output,
            config=TrainConfig(loss=config, eval=EvalConfig(dev="none")),
        )
    assert not (output / "settings.toml").exists()


def test_it_is_called_with_what_the_built_in_loss_is(tiny_encoder):
    """The same loss and gradient as ours at the same temperature, and its parameter's own."""
    config = LossConfig(type="my_own_loss:LearnedTemperature", matryoshka=(8,))
    rows = [*ROWS, Example("the woman", "a woman", ("a man", "a dog"))]
    found = []
    for each in (config, LossConfig(matryoshka=(8,))):
        objective = Objective(tiny_encoder.eval(), each, seed=3, micro_batch_tokens=12)
        objective.zero_grad()
        total = objective.backward(rows, 1).total.item()
        found.append((total, torch.cat([p.grad.flatten() for p in tiny_encoder.parameters()])))
        if objective.loss_parameters:
            (parameter,) = objective.loss_parameters
            assert parameter.grad.item() != 0
            assert parameter.item() == pytest.approx(-math.log(0.05))
    (ours, gradient), (expected, wanted) = found
    assert ours == pytest.approx(expected, rel=1e-5)
    assert (gradient - wanted).norm() <= 1e-5 * wanted.norm()


def test_parameters_of_a_loss_cannot_be_evaluated_on_held_out_rows(tiny_encoder):
    validate = heldout_validation(ROWS, loss_config(TYPE), batch_size=2)
    with pytest.raises(ConfigError, match="parameters of its own; set eval.dev=none"):
        validate(tiny_encoder)


def test_a_changed_loss_is_not_resumed(tiny_model_folder, working_directory):
    text = Path("text.txt")
    text.write_text("".join(f"the {a}\n" for a in ("man", "dog", "cat", "woman", "guitar")))
    config = build(TrainConfig, parse_overrides([*SETTINGS, TYPE]))
    options = {"model": str(tiny_model_folder), "output": Path("run"), "config": config}
    train(text, **options)
    train(text, **options, resume=True)  # finished: nothing is left to do
    assert loss_provenance(config.loss.type)["class"] == "my_own_loss:LearnedTemperature"
    before = Recipe("", "", (), config).key
    module = working_directory / "my_own_loss.py"
    module.write_text(module.read_text() + "\n# changed\n")
    with pytest.raises(ConfigError, match=r"run\.loss\.sha256: \w{64} at its start, \w{64} now"):
        train(text, **options, resume=True)
    assert Recipe("", "", (), config).key != before  # nor is its result found again


def test_the_example_of_the_guide_works(tiny_encoder, working_directory):
    page = (FILE.parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    example = page.partition("### A loss of your own")[2].partition("```python")[2]
    (working_directory / "my_losses.py").write_text(example.partition("```")[0])
    config = loss_config("loss.type=my_losses:MarginLoss", "loss.options.margin=0")
    check_loss(config.type, config.arguments, dimensions=32)
    rows = [*ROWS, Example("the woman", "a woman", ("a man", "a dog"))]
    losses = [
        Objective(tiny_encoder.eval(), each).backward(rows, 1).total.item()
        for each in (config, LossConfig())
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    sys.modules.pop("my_losses")
