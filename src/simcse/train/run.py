"""A training run from files to a run folder with settings, log, best and last model."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

import tomli_w
import torch

from simcse.errors import ArtifactError, DataError, UsageError
from simcse.io.benchmarks import load_sts_task, read_sts
from simcse.io.files import ReadCounts, write_text
from simcse.io.locks import LOCK, lock_folder
from simcse.io.log import append_log, cut_log, read_log, sync_log
from simcse.io.records import Example, read_examples
from simcse.io.settings import read_toml
from simcse.model.encoder import SentenceEncoder
from simcse.model.mlm import MlmHead, read_mlm_head
from simcse.model.names import locate
from simcse.model.precision import Chosen, Precision, choose_precision
from simcse.train.evaluator import Event, TrainReport
from simcse.train.heldout import heldout_validation, hold_out
from simcse.train.loop import count_steps, fit
from simcse.train.objective import refuse_unfit
from simcse.train.processes import is_first_process, join_processes
from simcse.train.provenance import describe, for_model, refuse_changes, same_run
from simcse.train.settings import RunConfig, TrainConfig
from simcse.train.signals import stop_signals
from simcse.train.state import TrainState, load_state, save_state
from simcse.train.tensorboard import tensorboard
from simcse.train.validation import Validate, first_of, sts_validation

LOG, SETTINGS = "log.jsonl", "settings.toml"
BEST, LAST, LOOKS = "best", "last", "looks"
START = "start"  # a model made for this run


def _ignore(event: Event) -> None:
    """Tell nobody."""


def train_run(
    model: str,
    files: Sequence[Path],
    output: Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    command: str = "",
    precision: Precision = "auto",
    observe: Callable[[Event], None] = _ignore,
) -> TrainReport:
    """Train ``model`` on ``files`` and leave a run folder in ``output``.

    Everything that can be refused is refused before the first step: settings, rows, the dev
    set, the output folder, the model.

    Args:
        model: the start model, a folder, bundled name or hub id.
        files: training files, read in order.
        output: a folder that does not exist yet or is empty, or with ``resume`` holds this run.
        config: all settings.
        resume: go on from the last checkpoint; without one start anew, after the end do nothing.
        command: what was typed, for the model's provenance.
        precision: what ``precision=auto`` is to be; by default it is chosen, and a resumed run
            stays with what was.
        observe: is told of every event that goes into the log, and of what a resumed run does.

    Raises:
        UsageError: ``output`` holds something already.
        ConfigError: the run to resume has other settings.
        DataError: a row is wrong, there are too few, or they are not those of the run to resume.
        ArtifactError: no checkpoint of the run to resume is whole.
        ResourceError: ``output`` cannot be written, or another process trains there.
        NumericError: the loss left the finite numbers, or the embeddings collapsed.
        StoppedError: SIGTERM or Ctrl-C was received; a checkpoint was saved.
    """
    if is_first_process():
        refuse_used(output, resume=resume)
    counts = ReadCounts()
    examples = read_rows(files, config, counts, observe)
    rows, held = len(examples), list[Example]()
    if "heldout" in config.eval.sets:
        examples, held = hold_out(examples, config.eval.heldout, seed=config.seed)
    keep_single = any(example.negatives for example in examples)
    count_steps(len(examples), config.optim, keep_single=keep_single)
    refuse_unfit(examples, config.loss)
    validate = find_validation(config, held)
    with (
        join_processes(config.train.timeout) as processes,
        lock_folder(output) if processes.is_first else contextlib.nullcontext(),
        engine(config.train),
        stop_signals() as stop,
    ):
        folder = _RunFolder(output, observe, save_all=config.eval.save_all)
        at_its_end = partial(folder.finished, model, files, config)
        if resume and (finished := processes.from_first(at_its_end)) is not None:
            return finished
        encoder = load_start(model, config)

        def open_folder() -> tuple[TrainState | None, Chosen]:
            refuse_used(output, resume=resume)
            asked = precision if config.precision == "auto" else config.precision
            chosen = choose_precision(asked, encoder.device, width=encoder.backbone.width)
            described = describe(
                model,
                files,
                rows,
                config,
                command=command,
                world=processes.world,
                precision=chosen,
            )
            return folder.open(described, resume=resume)

        state, chosen = processes.from_first(open_folder)
        first = processes.is_first
        head = find_mlm_head(encoder, model, config, folder.tell_once if first else _ignore)
        told = {"observe": folder.tell, "keep": folder.keep, "save": folder.save}
        writes: dict[str, Any] = told if first else {}
        report = fit(
            encoder,
            examples,
            dataclasses.replace(config, precision=chosen),
            validate=validate,
            mlm_head=head,
            state=state,
            stop=stop,
            processes=processes,
            **writes,
        )
        if first:
            folder.finish(report, counts)
    return report


def refuse_used(output: Path, *, resume: bool) -> None:
    """Refuse a folder that holds something else than the run to resume.

    Raises:
        UsageError: it does.
        ResourceError: a run is going on there.
    """
    names = [path.name for path in output.iterdir()] if output.is_dir() else []
    # the last is what a kill while the start was written leaves behind
    used = any(not (name in (LOCK, START) or name.startswith(f".{START}.")) for name in names)
    known = (output / SETTINGS).exists()
    if used and known and not resume:
        with lock_folder(output):
            raise UsageError(f"{output} holds a run; give another --output, or --resume it")
    if used and not known:
        raise UsageError(f"{output} is not empty; give another --output or remove it")


@contextlib.contextmanager
def engine(config: RunConfig) -> Iterator[None]:
    """Run torch with the threads and the determinism asked for, and leave it as it was."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(config.threads or threads)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch asks for it on CUDA
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


class _RunFolder:
    """The files of one run: settings, log, checkpoints, best and last model.

    Attributes:
        state: the checkpoint the run goes on from; ``None`` where it starts anew.
        look: the step of a look whose model is still to be kept.
    """

    def __init__(
        self, folder: Path, observe: Callable[[Event], None], *, save_all: bool = False
    ) -> None:
        self.folder, self.observe, self.save_all = folder, observe, save_all
        self.state: TrainState | None = None
        self.look: int | None = None
        self.boards: Callable[[Event], None] = _ignore

    def finished(
        self, model: str, files: Sequence[Path], config: TrainConfig
    ) -> TrainReport | None:
        """Return what the run here came to, if it is at its end and the one asked for."""
        log = self.folder / LOG
        report = finished_report(log) if log.exists() else None
        if report is not None:
            same_run(read_toml(self.folder / SETTINGS), model, files, config)
            self._note(f"{self.folder} is finished, nothing is left to do")
        return report

    def open(
        self, described: Mapping[str, Any], *, resume: bool
    ) -> tuple[TrainState | None, Chosen]:
        """Make the folder ready for a run, or take it up.

        Returns:
            The checkpoint to go on from, and the precision.
        """
        log, settings = self.folder / LOG, self.folder / SETTINGS
        if resume:
            self.state = load_state(self.folder, self._note)
        if self.state is None:
            if resume:
                self._note(f"no checkpoint in {self.folder}: training starts anew")
            log.unlink(missing_ok=True)
            write_text(settings, tomli_w.dumps(described))
        else:
            stored = read_toml(settings)
            for difference in refuse_changes(stored, described):
                self._note(f"{difference}: the last bits of the result may differ")
            described = stored
            cut_log(log, self.state.progress["log_bytes"])
        self.provenance = for_model(described)
        after = (self.state.step if self.state else 0) if resume else None
        self.boards = tensorboard(self.folder, after=after)
        return self.state, described["run"]["precision"]

    def tell(self, event: Event) -> None:
        """Log an event and pass it on; that the run was resumed is no event of the run."""
        if event["event"] == "eval":
            self.look = event["step"]
        if event["event"] != "resume":
            append_log(self.folder / LOG, event)
            self.boards(event)
        self.observe(event)

    def tell_once(self, event: Event) -> None:
        """Log an event from before the first step, unless a resumed run's log has it."""
        (self.observe if self.state else self.tell)(event)

    def keep(self, encoder: SentenceEncoder, best: bool) -> None:
        """Save the model."""
        encoder.provenance = self.provenance
        encoder.save(self.folder / LAST)
        if best:
            encoder.save(self.folder / BEST)
        if self.save_all and self.look is not None:  # and not what a signal leaves behind it
            encoder.save(self.folder / LOOKS / f"step-{self.look:08}")
        self.look = None

    def save(self, state: TrainState) -> None:
        """Save a checkpoint, which knows how long the log is."""
        progress = {**state.progress, "log_bytes": sync_log(self.folder / LOG)}
        save_state(self.folder, TrainState(state.step, state.tensors, progress))

    def finish(self, report: TrainReport, counts: ReadCounts) -> None:
        """Log the end, which says that nothing is left to resume."""
        if report.worse:
            name = next(iter(report.start))
            text = (
                f"training made the model worse: {name} was {report.start[name]:.4g} before and is "
                f"{report.last[name]:.4g} now; {BEST}/ holds step {report.best_step}, the best one"
            )
            self.tell({"event": "warning", "text": text})
        found = {"skipped": counts.skipped, "blank": counts.blank}
        self.tell({"event": "finish", **found, **asdict(report)})

    def _note(self, text: str) -> None:
        self.observe({"event": "note", "text": text})


def finished_report(log: Path) -> TrainReport | None:
    """Return what a finished run came to; ``None`` if its log does not end with the end.

    Raises:
        ArtifactError: the log is damaged, or of another version.
    """
    events = read_log(log)
    if not events or events[-1]["event"] != "finish":
        return None
    try:
        return TrainReport(**{field.name: events[-1][field.name] for field in fields(TrainReport)})
    except KeyError as error:
        raise ArtifactError(f"{log}: its last line says nothing of {error}") from error


def find_mlm_head(
    encoder: SentenceEncoder, model: str, config: TrainConfig, observe: Callable[[Event], None]
) -> MlmHead | None:
    """Give the encoder the MLM head the run needs, saying so where none was stored; return it."""
    if config.loss.mlm_weight == 0:
        return None
    head, stored = read_mlm_head(encoder.backbone, locate(model))
    encoder.mlm_head = head
    if not stored:
        text = f"{model} has no MLM head; a new one starts, tied to its input embeddings"
        observe({"event": "note", "text": text})
    return head


def read_rows(
    files: Sequence[Path],
    config: TrainConfig,
    counts: ReadCounts,
    observe: Callable[[Event], None] = _ignore,
) -> list[Example]:
    """Read the training rows of all files, with an event about the columns of each table."""

    def note(text: str) -> None:
        if is_first_process():
            observe({"event": "note", "text": text})

    data = config.data
    return read_examples(
        files,
        columns=data.columns or "",
        labeled=config.loss.form == "classifier",
        bad_lines=data.bad_lines,
        counts=counts,
        limit=data.limit,
        note=note,
    )


def find_validation(config: TrainConfig, held: Sequence[Example]) -> Validate | None:
    """Return what watches the run: STS-B dev, a file in its format, held-out rows, or none.

    Raises:
        DataError: a set is not there; the message names the way out.
    """
    found = [_validation(dev, config, held) for dev in config.eval.sets]
    return first_of(found) if found else None


def _validation(dev: str, config: TrainConfig, held: Sequence[Example]) -> Validate:
    if dev == "heldout":
        return heldout_validation(held, config.loss, batch_size=config.optim.batch_size)
    try:
        if dev == "stsb":
            return sts_validation(load_sts_task("stsb-dev"))
        return sts_validation(read_sts(dev), name=Path(dev).stem)
    except DataError as error:
        ways = "eval.dev=heldout holds out training rows instead, eval.dev=none does without"
        raise DataError(f"{error}. {ways}") from error


def load_start(model: str, config: TrainConfig) -> SentenceEncoder:
    """Load the start model in fp32 with the changes of ``config.model`` applied.

    Raises:
        UsageError: the folder does not say its pooling and ``model.pooling`` is not set.
    """
    changes = config.model
    told = {
        name: value
        for name in ("pooling", "head", "max_length", "normalize")
        if (value := getattr(changes, name)) is not None
    }
    told["matryoshka"] = config.loss.matryoshka or ()  # other sizes do not survive this training
    torch.manual_seed(config.seed)  # a new projection head is drawn here
    encoder = SentenceEncoder.load(model, precision="fp32", changes=told)
    if encoder.postprocess is not None:
        raise UsageError(
            f"{model} ends in post-processing fitted to its present weights; train from what "
            f"`simcse postprocess {model} --remove --output FOLDER` gives"
        )
    if changes.layers is not None:
        encoder.backbone.keep_layers(changes.layers)
    return encoder
