"""The engines: what encodes the shards that are missing."""

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from simcse.engine.shards import Manifest, Shard, encode_shard
from simcse.errors import ResourceError, SimcseError, TruncationWarning
from simcse.model.encoder import SentenceEncoder

Engine = Literal["local", "ray"]


@dataclasses.dataclass(frozen=True)
class Loading:
    """How a worker loads the model; plain values, so that they travel.

    Attributes:
        name: a folder that every worker can read, a bundled name or a hub id.
        device: where it runs.
        precision: number format; resolved, so that all workers take the same.
        changes: settings that were told.
    """

    name: str
    device: str | None
    precision: Literal["fp32", "bf16", "int8"]
    changes: dict[str, Any]

    @classmethod
    def of(cls, encoder: SentenceEncoder, name: str, told: Mapping[str, Any]) -> "Loading":
        """Say how to load again what was loaded by the loading options ``told``."""
        folder = Path(name).expanduser()
        changes = {key: told.get(key) for key in ("pooling", "max_length")}
        return cls(
            str(folder.resolve()) if folder.is_dir() else name,
            told.get("device"),
            encoder.backbone.precision,
            {key: value for key, value in changes.items() if value is not None},
        )

    def load(self) -> SentenceEncoder:
        """Load the model."""
        return SentenceEncoder.load(
            self.name, device=self.device, precision=self.precision, changes=self.changes
        )


def encode_missing(
    engine: Engine,
    folder: Path,
    manifest: Manifest,
    loading: Loading,
    *,
    encoder: SentenceEncoder,
    workers: int | None = None,
    observe: Callable[[int], None] = lambda rows: None,
) -> int:
    """Encode the shards whose parts are missing; return how many sentences were cut for it.

    Args:
        engine: ``local`` in this process, ``ray`` on a Ray cluster or as many processes here.
        folder: where the parts go; on a cluster one that all machines share.
        manifest: the job.
        loading: for workers elsewhere.
        encoder: for this process.
        workers: of Ray; by default one for each processor core of the cluster.
        observe: told the rows of each shard that is done.

    Raises:
        DataError: a sentence is too long, or a file changed.
        ResourceError: the disk is full, or the extra is not installed.
    """
    missing = manifest.missing(folder)
    observe(manifest.rows - sum(shard.rows for shard in missing))
    if engine == "ray" and missing:
        done = _on_ray(missing, folder, manifest, loading, workers)
    else:
        work = Worker(folder, manifest.reading, manifest.truncation, encoder)
        done = (work(dataclasses.asdict(shard)) for shard in missing)
    truncated = 0
    for outcome in done:
        observe(outcome["rows"])
        truncated += outcome["truncated"]
    return truncated


class Worker:
    """Encodes shards; on Ray each worker process makes one and keeps its model."""

    def __init__(
        self,
        folder: Path,
        reading: dict[str, str],
        truncation: str,
        model: SentenceEncoder | Loading,
    ) -> None:
        self.folder, self.reading, self.truncation = folder, reading, truncation
        self.encoder = model.load() if isinstance(model, Loading) else model

    def __call__(self, shard: dict[str, Any]) -> dict[str, int]:
        """Encode a shard; return its rows, and how many sentences were cut."""
        before = self.encoder.tokenizer.truncated

        def encode(texts: Sequence[str]) -> np.ndarray:
            return self.encoder.encode(texts, truncation=self.truncation)  # type: ignore[arg-type]

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)  # summed up by the caller
            rows = encode_shard(Shard(**shard), encode, self.folder, self.reading)
        return {"rows": rows, "truncated": self.encoder.tokenizer.truncated - before}


def _on_ray(
    missing: Sequence[Shard],
    folder: Path,
    manifest: Manifest,
    loading: Loading,
    workers: int | None,
) -> Iterator[dict[str, int]]:
    try:
        import ray
    except ImportError as error:
        message = "the engine ray needs an extra: pip install 'simcse-next[ray]'"
        raise ResourceError(message) from error
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster it starts reports home
        ray.init(log_to_driver=False, configure_logging=False, include_dashboard=False)
    count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # A worker that dies is started again and its shard given out again; an error of the data is
    # not tried again and ends the job.
    shards = ray.data.from_items(
        [dataclasses.asdict(shard) for shard in missing], override_num_blocks=len(missing)
    )
    done = shards.map(
        Worker,
        fn_constructor_args=(folder.resolve(), manifest.reading, manifest.truncation, loading),
        concurrency=min(count, len(missing)),
        num_cpus=1,
        max_restarts=-1,
        max_task_retries=-1,
    )
    try:
        yield from done.iter_rows()
    except ray.exceptions.RayError as error:
        raise _cause(error) from error


def _cause(error: BaseException) -> BaseException:
    """Return our own error below Ray's, if there is one."""
    inner = getattr(error, "cause", None) or error.__cause__
    if isinstance(inner, SimcseError):
        return inner
    return error if inner is None else _cause(inner)
