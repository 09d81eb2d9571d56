"""Masked-language-model training of a new backbone, or of one that is there, on a user's text."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from simcse.errors import ConfigError
from simcse.io.checkpoints import read_json
from simcse.io.files import ReadCounts
from simcse.io.locks import lock_folder
from simcse.model.folder import OWN
from simcse.model.from_scratch import NewModel, new_model
from simcse.train.evaluator import Event, TrainReport
from simcse.train.processes import join_processes
from simcse.train.run import SETTINGS as RUN_SETTINGS
from simcse.train.run import START, read_rows, refuse_used, train_run
from simcse.train.settings import TrainConfig

# The loop of `simcse train`, with the MLM term alone.
SETTINGS: dict[str, Any] = {
    "loss": {"contrastive_weight": 0.0, "mlm_weight": 1.0},
    "optim": {"lr": 1e-4, "weight_decay": 0.01, "warmup": 0.06},  # Liu et al. 2019, RoBERTa
    "eval": {"dev": "heldout"},
}
NEW_SETTINGS: dict[str, Any] = {"optim": {"lr": 5e-4}}  # random weights bear more


def pretrain(
    model: str | NewModel | None,
    files: Sequence[Path],
    output: Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    command: str = "",
    observe: Callable[[Event], None] = lambda event: None,
) -> TrainReport:
    """Train a masked-language model on ``files`` and leave a run folder in ``output``.

    It is `train_run` with the MLM term alone: rows, checkpoints, log, guard and resume are its.
    The checkpoint is chosen by the loss on held-out rows. ``best/`` keeps the MLM head.

    Args:
        model: the start model; the shape of a new one, which is made in ``output/start``; or
            with ``resume`` ``None`` for the new one that is there.
        files: training files; of a table the anchors are trained on.
        output: the run folder.
        config: all settings; see `SETTINGS` and `NEW_SETTINGS`.
        resume: go on from the last checkpoint.
        command: what was typed, for the model's provenance.
        observe: is told of every event.

    Raises:
        ConfigError: another loss than the MLM term is set, or the new model to resume has
            another shape. Besides, what `train_run` raises.
    """
    if config.loss.contrastive_weight != 0:
        raise ConfigError("pretraining has no contrastive loss; simcse train has it")
    if not isinstance(model, str):
        with join_processes(config.train.timeout) as processes:
            shape = model
            processes.from_first(
                lambda: _make_start(shape, files, output, config, resume=resume, observe=observe)
            )
        model = str(output / START)
    return train_run(model, files, output, config, resume=resume, command=command, observe=observe)


def _make_start(
    shape: NewModel | None,
    files: Sequence[Path],
    output: Path,
    config: TrainConfig,
    *,
    resume: bool,
    observe: Callable[[Event], None],
) -> None:
    """Make the new model, unless the run to resume has begun with it."""
    refuse_used(output, resume=resume)
    if (output / RUN_SETTINGS).exists():
        begun = read_json(output / START / OWN)["provenance"].get("new")
        if shape is not None and begun != asdict(shape):
            raise ConfigError(f"the run began with a new model of {begun}, not {asdict(shape)}")
        return
    if shape is None:
        raise ConfigError(f"no run in {output} to resume with its new model; say its size")
    rows = read_rows(files, config, ReadCounts())
    with lock_folder(output):
        encoder = new_model(shape, (row.anchor for row in rows), seed=config.seed)
        encoder.save(output / START)
    tokens = len(encoder.tokenizer.hf_tokenizer)
    text = (
        f"new model: {tokens:,} tokens, {shape.layers} layers of width "
        f"{shape.width}, {sum(p.numel() for p in encoder.parameters()):,} weights"
    )
    observe({"event": "note", "text": text})
