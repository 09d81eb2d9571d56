"""`train`: from files or rows to a run folder with settings, log, best and last model."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import tomli_w
import torch

from simcse.config import build, nest
from simcse.errors import ArtifactError, UsageError
from simcse.io.files import write_text
from simcse.io.locks import LOCK, lock_folder
from simcse.io.log import read_log
from simcse.io.settings import read_toml
from simcse.losses import check_loss
from simcse.model.encoder import SentenceEncoder
from simcse.model.huggingface import locate
from simcse.model.mlm import read_mlm_head
from simcse.model.precision import Chosen, Precision, choose_precision
from simcse.train.callbacks import (
    LOG,
    SETTINGS,
    Checkpoints,
    LogFile,
    ModelSaver,
    ReportPage,
    TensorBoard,
)
from simcse.train.events import Callback, Noted, TrainResult
from simcse.train.processes import is_first_process, join_processes
from simcse.train.provenance import describe_run, for_model, refuse_changes, refuse_other_run
from simcse.train.runtime import torch_runtime
from simcse.train.settings import TrainConfig
from simcse.train.trainer import Trainer
from simcse.train.training_data import DataSource, TrainingData, load_training_data

START = "start"  # folder of a start model that was made for the run


def train(
    data: DataSource,
    *,
    model: str = "mini",
    output: str | Path,
    config: TrainConfig | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    precision: Precision = "auto",
    command: str = "",
    report: str | None = "Training run",
    **settings: Any,  # noqa: ANN401 - sections of settings, or single ones
) -> TrainResult:
    """Train ``model`` and leave a run folder in ``output``.

    The run folder holds ``best/`` and ``last/``, each a complete model folder, ``checkpoints/``,
    ``log.jsonl``, ``settings.toml`` and ``report.html``. Everything that can be refused is refused
    before the first step: settings, rows, the dev set, the output folder, the model.

    Args:
        data: a file (string or `pathlib.Path`), a list of `pathlib.Path`, or rows in memory: a
            list of sentences, of tuples (anchor, positive, hard negatives ...; with
            ``loss.type="classifier"`` label, premise, hypothesis), or of `Example`.
        model: the start model, a folder, bundled name or hub id.
        output: a folder that does not exist yet or is empty; with ``resume``, that of the run.
        config: complete settings, instead of ``settings``.
        resume: continue from the last checkpoint; start if there is none; do nothing if the run
            is finished.
        callbacks: functions that are called with every `Event`.
        precision: number format for ``precision="auto"``; a resumed run keeps its own.
        command: the command line, for the provenance of the model.
        report: title of ``report.html``; ``None`` writes no page.
        **settings: sections as dictionaries (``optim={"lr": 2e-5}``), single settings (``seed=1``)
            or dotted names (``**{"loss.temperature": 0.1}``).

    Raises:
        UsageError: ``output`` holds something else.
        ConfigError: a setting is wrong, or the run to resume has other settings.
        DataError: a row is wrong, there are too few, or they are not those of the run to resume.
        ArtifactError: all checkpoints of the run to resume are damaged.
        ResourceError: ``output`` cannot be written, or another process trains there.
        NumericError: the loss was not finite, or the embeddings collapsed.
        StoppedError: SIGTERM or SIGINT was received; a checkpoint was saved.

    Example:
        >>> result = train(["A man eats.", "A dog runs."], output="run", eval={"dev": "none"})
        ... # doctest: +SKIP
        >>> SentenceEncoder.load("run/best").encode(["A cat sleeps."])  # doctest: +SKIP
    """
    output, config = Path(output), _make_config(config, settings)
    if is_first_process():
        refuse_used(output, resume=resume)
    data = load_training_data(data, config, note=partial(emit_note, callbacks))
    with (
        join_processes(config.train.timeout) as processes,
        lock_folder(output) if processes.is_first else contextlib.nullcontext(),
        torch_runtime(config.train),
    ):
        run = _Run(output, model, data, config, callbacks)
        if resume and (finished := processes.from_first(run.finished_result)) is not None:
            return finished
        encoder = load_start(model, config)
        world = processes.world
        chosen = processes.from_first(
            lambda: run.open(encoder, precision, resume=resume, command=command, world=world)
        )
        if config.loss.mlm_weight > 0:
            run.add_mlm_head(encoder)
        trainer = Trainer(
            encoder,
            data,
            dataclasses.replace(config, precision=chosen),
            callbacks=run.callbacks(report) if processes.is_first else (run.checkpoints,),
        )
        return trainer.resume() if resume else trainer.fit()


def _make_config(config: TrainConfig | None, settings: Mapping[str, Any]) -> TrainConfig:
    if config is None:
        return build(TrainConfig, nest(settings))
    if settings:
        raise UsageError(f"pass either config or settings, found both: {', '.join(settings)}")
    return config


def refuse_used(output: Path, *, resume: bool) -> None:
    """Refuse a folder that holds something other than the run to resume.

    Raises:
        UsageError: it does.
        ResourceError: a run is in progress there.
    """
    names = [path.name for path in output.iterdir()] if output.is_dir() else []
    # A hidden start folder remains if a process is killed while it is written.
    used = any(not (name in (LOCK, START) or name.startswith(f".{START}.")) for name in names)
    known = (output / SETTINGS).exists()
    if used and known and not resume:
        with lock_folder(output):
            raise UsageError(f"{output} holds a run; pass another --output, or --resume")
    if used and not known:
        raise UsageError(f"{output} is not empty; pass another --output or remove it")


class _Run:
    """The run folder of one call of `train`."""

    def __init__(
        self,
        folder: Path,
        model: str,
        data: TrainingData,
        config: TrainConfig,
        callbacks: Sequence[Callback],
    ) -> None:
        self.folder, self.model, self.data, self.config = folder, model, data, config
        self.user_callbacks = tuple(callbacks) if is_first_process() else ()
        self.checkpoints = Checkpoints(folder, callbacks=self.user_callbacks)
        self.provenance: dict[str, Any] = {}

    def finished_result(self) -> TrainResult | None:
        """Return the result of the run if it is finished and has these settings and data."""
        log = self.folder / LOG
        result = read_result(log) if log.exists() else None
        if result is not None:
            stored = read_toml(self.folder / SETTINGS)
            refuse_other_run(stored, self.model, self.data, self.config)
            self._note(f"{self.folder} is finished, nothing is left to do")
        return result

    def open(
        self,
        encoder: SentenceEncoder,
        precision: Precision,
        *,
        resume: bool,
        command: str,
        world: int,
    ) -> Chosen:
        """Write the settings of a new run, or compare those of a run to resume.

        Returns:
            The number format of the run.
        """
        refuse_used(self.folder, resume=resume)
        asked = precision if self.config.precision == "auto" else self.config.precision
        chosen = choose_precision(asked, encoder.device, width=encoder.backbone.width)
        described = describe_run(
            self.model, self.data, self.config, command=command, world=world, precision=chosen
        )
        settings = self.folder / SETTINGS
        if resume and self.checkpoints.find() is not None:
            stored = read_toml(settings)
            for difference in refuse_changes(stored, described):
                self._note(f"{difference}: the last bits of the result may differ")
            described = stored
        else:
            if resume:
                self._note(f"no checkpoint in {self.folder}: training starts from the beginning")
            (self.folder / LOG).unlink(missing_ok=True)
            write_text(settings, tomli_w.dumps(described))
        self.provenance = for_model(described)
        found: Chosen = described["run"]["precision"]
        return found

    def add_mlm_head(self, encoder: SentenceEncoder) -> None:
        """Give the encoder the stored MLM head, or a new one with a note."""
        encoder.mlm_head, stored = read_mlm_head(encoder.backbone, locate(self.model))
        if not stored:
            self._note(
                f"{self.model} has no MLM head; a new one is made, tied to the input embeddings"
            )

    def callbacks(self, report: str | None) -> list[Callback]:
        """Return the callbacks that write the run folder, then the user's."""
        save_all = self.config.eval.save_all
        pages = [] if report is None else [ReportPage(self.folder, title=report)]
        return [
            LogFile(self.folder / LOG),
            TensorBoard(self.folder),
            *self.user_callbacks,
            ModelSaver(self.folder, provenance=self.provenance, save_all=save_all),
            self.checkpoints,
            *pages,
        ]

    def _note(self, text: str) -> None:
        emit_note(self.user_callbacks, text)


def emit_note(callbacks: Sequence[Callback], text: str) -> None:
    """Give callbacks a note from the first process."""
    for callback in callbacks if is_first_process() else ():
        callback(Noted(text))


def read_result(log: Path) -> TrainResult | None:
    """Return the result of a finished run from its log; ``None`` if the run is not finished.

    Raises:
        ArtifactError: the log is damaged, or of another version.
    """
    events = read_log(log)
    if not events or events[-1]["event"] != "finish":
        return None
    names = [field.name for field in dataclasses.fields(TrainResult)]
    try:
        return TrainResult(**{name: events[-1][name] for name in names})
    except KeyError as error:
        raise ArtifactError(f"{log}: the last line has no value for {error}") from error


def load_start(model: str, config: TrainConfig) -> SentenceEncoder:
    """Load the start model in fp32 with the changes of ``config.model`` applied.

    Raises:
        UsageError: the folder does not name its pooling and ``model.pooling`` is not set, or the
            model ends in a post-processing layer.
        ConfigError: a loss of the user's own cannot be used.
    """
    names = ("pooling", "head", "max_length", "normalize")
    changes = {name: getattr(config.model, name) for name in names}
    changes = {name: value for name, value in changes.items() if value is not None}
    # Dimensions of an earlier training are dropped: they do not survive this one.
    changes["matryoshka"] = config.loss.matryoshka or ()
    torch.manual_seed(config.seed)  # a new projection head is drawn here
    encoder = SentenceEncoder.load(model, precision="fp32", changes=changes)
    if encoder.postprocess is not None:
        raise UsageError(
            f"{model} ends in post-processing that was fitted to its present weights; train from "
            f"the output of `simcse postprocess {model} --remove --output FOLDER`"
        )
    if config.model.layers is not None:
        encoder.backbone.keep_layers(config.model.layers)
    check_loss(config.loss.type, config.loss.arguments, dimensions=encoder.dimensions)
    return encoder
