"""A training run from files to a run folder with settings, log, best and last model."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomli_w
import torch

from simcse.config import to_dict
from simcse.errors import DataError, UsageError
from simcse.io.datasets import load_sts_task
from simcse.io.examples import Example, read_examples
from simcse.io.files import ReadCounts, sha256_file, write_text
from simcse.io.log import append_log
from simcse.io.sts import read_sts
from simcse.model.encoder import SentenceEncoder
from simcse.model.mlm import MlmHead, read_mlm_head
from simcse.model.names import locate
from simcse.train.loop import Event, TrainReport, count_steps, fit
from simcse.train.settings import DataConfig, TrainConfig
from simcse.train.tensorboard import tensorboard
from simcse.train.validation import Validate, no_validation, sts_validation

LOG, SETTINGS = "log.jsonl", "settings.toml"
BEST, LAST = "best", "last"


def train_run(
    model: str,
    files: Sequence[Path],
    output: Path,
    config: TrainConfig,
    *,
    observe: Callable[[Event], None] = lambda event: None,
) -> TrainReport:
    """Train ``model`` on ``files`` and leave a run folder in ``output``.

    Everything that can be refused is refused before the first step: settings, rows, the dev
    set, the output folder, the model.

    Args:
        model: the start model, a folder, bundled name or hub id.
        files: training files, read in order.
        output: a folder that does not exist yet or is empty.
        config: all settings.
        observe: is told of every event that goes into the log.

    Raises:
        UsageError: ``output`` holds something already.
        DataError: a row is wrong, or there are too few.
        ResourceError: ``output`` cannot be written.
        NumericError: the loss left the finite numbers.
    """
    if output.is_dir() and any(output.iterdir()):
        raise UsageError(f"{output} is not empty; give another --output or remove it")
    counts = ReadCounts()
    examples = read_rows(files, config.data, counts)
    keep_single = any(example.negatives for example in examples)
    count_steps(len(examples), config.optim, keep_single=keep_single)
    validate = find_validation(config.eval.dev)
    write_text(output / SETTINGS, _toml(model, files, config))
    encoder = load_start(model, config)
    provenance = _provenance(model, files, len(examples), config)

    boards = tensorboard(output)

    def tell(event: Event) -> None:
        append_log(output / LOG, event)
        boards(event)
        observe(event)

    def keep(encoder: SentenceEncoder, best: bool) -> None:
        encoder.provenance = provenance
        encoder.save(output / LAST)
        if best:
            encoder.save(output / BEST)

    report = fit(
        encoder,
        examples,
        config,
        validate=validate,
        observe=tell,
        keep=keep,
        mlm_head=find_mlm_head(encoder, model, config, tell),
    )
    tell({"event": "finish", "skipped": counts.skipped, "blank": counts.blank, **asdict(report)})
    return report


def find_mlm_head(
    encoder: SentenceEncoder, model: str, config: TrainConfig, observe: Callable[[Event], None]
) -> MlmHead | None:
    """Return the MLM head the run needs, saying so where the start model has none stored."""
    if config.loss.mlm_weight == 0:
        return None
    head, stored = read_mlm_head(encoder.backbone, locate(model))
    if not stored:
        text = f"{model} has no MLM head; a new one starts, tied to its input embeddings"
        observe({"event": "note", "text": text})
    return head


def read_rows(files: Sequence[Path], config: DataConfig, counts: ReadCounts) -> list[Example]:
    """Read the training rows of all files."""
    columns = config.columns.split(",") if config.columns else ()
    examples = read_examples(files, columns=columns, bad_lines=config.bad_lines, counts=counts)
    return examples[: config.limit]


def find_validation(dev: str) -> Validate:
    """Return what watches the run: STS-B dev, a file in its format, or nothing.

    Raises:
        DataError: the set is not there; the message names the way out.
    """
    if dev == "none":
        return no_validation
    try:
        if dev == "stsb":
            return sts_validation(load_sts_task("stsb-dev"))
        return sts_validation(read_sts(dev), name="dev")
    except DataError as error:
        raise DataError(f"{error}. To train without a dev set: eval.dev=none") from error


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


def _toml(model: str, files: Sequence[Path], config: TrainConfig) -> str:
    run = {"model": model, "train": [str(file) for file in files]}
    return tomli_w.dumps({**to_dict(config), "run": run})


def _provenance(
    model: str, files: Sequence[Path], rows: int, config: TrainConfig
) -> dict[str, Any]:
    return {
        "trained": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "start": Path(model).name,
        "files": {file.name: sha256_file(file) for file in files},
        "rows": rows,
        "settings": to_dict(config),
        "versions": {name: version(name) for name in ("simcse-next", "torch", "transformers")},
    }
