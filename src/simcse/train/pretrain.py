"""Masked-language-model training of a new backbone, or of an existing one, on a user's text."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from simcse.errors import ConfigError
from simcse.io.checkpoints import read_json
from simcse.io.locks import lock_folder
from simcse.model.folder import OWN
from simcse.model.from_scratch import NewModel, new_model
from simcse.train.callbacks import SETTINGS as RUN_SETTINGS
from simcse.train.events import Callback, TrainResult
from simcse.train.processes import join_processes
from simcse.train.run import START, emit_note, refuse_used, train
from simcse.train.settings import TrainConfig
from simcse.train.training_data import DataSource, TrainingData, load_training_data

# The settings of `train` with the MLM term alone.
SETTINGS: dict[str, Any] = {
    "loss": {"contrastive_weight": 0.0, "mlm_weight": 1.0},
    "optim": {"lr": 1e-4, "weight_decay": 0.01, "warmup": 0.06},  # Liu et al. 2019, RoBERTa
    "eval": {"dev": "heldout"},
}
NEW_MODEL_SETTINGS: dict[str, Any] = {"optim": {"lr": 5e-4}}  # random weights allow more


def pretrain(
    model: str | NewModel | None,
    data: DataSource,
    output: Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    command: str = "",
    callbacks: Sequence[Callback] = (),
) -> TrainResult:
    """Train a masked-language model and leave a run folder in ``output``.

    It is `simcse.train.run.train` with the MLM term alone. The checkpoint is chosen by the loss
    on held-out rows. ``best/`` includes the MLM head.

    Args as those of `simcse.train.run.train`, except for ``model``: the start model; the shape of
    a new one, which is made in ``output/start``; or with ``resume`` ``None`` for the new one of
    the run. Of rows with positives the anchors are trained on.

    Raises:
        ConfigError: another loss than the MLM term is set, or the new model to resume has
            another shape. `simcse.train.run.train` lists further errors.
    """
    if config.loss.contrastive_weight != 0:
        raise ConfigError("pretraining has no contrastive loss; use simcse train for that")
    with join_processes(config.train.timeout) as processes:
        if not isinstance(model, str):
            if processes.is_first:
                refuse_used(output, resume=resume)
            data = load_training_data(data, config, note=partial(emit_note, callbacks))
            shape, rows = model, data
            text = processes.from_first(lambda: _make_start(shape, rows, output, config))
            if text:
                emit_note(callbacks, text)
            model = str(output / START)
        return train(
            data,
            model=model,
            output=output,
            config=config,
            resume=resume,
            command=command,
            callbacks=callbacks,
            report="Pretraining",
        )


def _make_start(
    shape: NewModel | None, data: TrainingData, output: Path, config: TrainConfig
) -> str:
    """Make the new model, unless the run to resume began with it; return a note."""
    if (output / RUN_SETTINGS).exists():
        begun = read_json(output / START / OWN)["provenance"].get("new")
        if shape is not None and begun != asdict(shape):
            raise ConfigError(f"the run began with a new model of {begun}, not {asdict(shape)}")
        return ""
    if shape is None:
        raise ConfigError(f"{output} holds no run to resume with its new model; pass its size")
    with lock_folder(output):
        encoder = new_model(shape, (row.anchor for row in data.all_rows), seed=config.seed)
        encoder.save(output / START)
    tokens = len(encoder.tokenizer.hf_tokenizer)
    weights = sum(p.numel() for p in encoder.parameters())
    return (
        f"new model: {tokens:,} tokens, {shape.layers} layers of width {shape.width}, "
        f"{weights:,} weights"
    )
