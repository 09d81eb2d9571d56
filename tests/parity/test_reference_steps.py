"""40 training steps against the original SimCSE code, step by step (princeton-nlp/SimCSE 49fa580).

Its losses and gradient norms were recorded in fp32 without dropout, on batches of 16 in file order,
at a learning rate of 3e-5 (1 - step / 40), clipped to norm 1: see ``reference_steps/README.md``
beside the data folder.
"""

import json

import pytest
import torch
from safetensors.torch import load_file

from simcse.io.records import Example
from simcse.losses.settings import LossConfig
from simcse.train.optim import OptimConfig
from simcse.train.run import load_start
from simcse.train.settings import ModelConfig, TrainConfig
from simcse.train.trainer import Trainer
from simcse.train.training_data import TrainingData

STEPS, BATCH = 40, 16


@pytest.fixture
def reference_folder(data_folder):
    folder = data_folder.parent / "reference_steps"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    return folder


def read_rows(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [Example(row[0], row[1] if len(row) > 1 else None, tuple(row[2:])) for row in rows]


@pytest.mark.data
@pytest.mark.parametrize(
    ("run", "rows", "loss"),
    [
        ("unsupervised", "unsupervised", LossConfig(mask_duplicates=False)),
        ("supervised", "supervised", LossConfig(mask_duplicates=False)),
        (
            "supervised-weight-2",
            "supervised",
            LossConfig(mask_duplicates=False, hard_negative_weight=2.0),
        ),
    ],
)
def test_40_steps_are_those_of_the_original_code(reference_folder, models_folder, run, rows, loss):
    expected = json.loads((reference_folder / f"{run}.json").read_text())
    examples = read_rows(reference_folder / f"{rows}.jsonl")
    assert (len(expected), len(examples)) == (STEPS, STEPS * BATCH)
    config = TrainConfig(
        precision="fp32",
        model=ModelConfig(pooling="cls", head="always", max_length=32, dropout=0.0),
        loss=loss,
        optim=OptimConfig(lr=3e-5, batch_size=BATCH, weight_decay=0.0, clip_norm=1.0),
    )
    encoder = load_start(str(models_folder / "minilm-l6-h384"), config)
    head = load_file(reference_folder / "head.safetensors")
    with torch.no_grad():
        encoder.head.dense.weight.copy_(head["w"])
        encoder.head.dense.bias.copy_(head["b"])
    trainer = Trainer(encoder, TrainingData(examples), config)
    trainer.setup()
    assert trainer.steps == STEPS
    for step, (loss_then, norm_then) in enumerate(expected):
        batch = examples[step * BATCH : (step + 1) * BATCH]
        event = trainer.training_step(step + 1, batch)
        assert event.lr == pytest.approx(3e-5 * (1 - step / STEPS), rel=1e-12)
        assert event.loss == pytest.approx(loss_then, abs=1e-5), step
        assert event.gradient_norm == pytest.approx(norm_then, rel=1e-4), step
