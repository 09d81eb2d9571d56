"""The index in a folder: exact by default, memory-mapped, crash-safe, for one machine."""

import dataclasses
import datetime
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simcse.errors import ArtifactError, SimcseWarning, UsageError
from simcse.index import approximate
from simcse.index.approximate import FILE, RECALL, Kind
from simcse.index.filters import Condition
from simcse.index.protocol import Commit, Hit, check_search, unit_rows
from simcse.index.snapshot import DELETED, SEGMENTS, DerivedDamage, Snapshot, damages, is_derived
from simcse.index.staging import Staged, StagedIndex
from simcse.index.writer import SEGMENT_ROWS, SegmentWriter
from simcse.io import generations
from simcse.io.fingerprint import ModelFingerprint
from simcse.io.rows import Row
from simcse.io.segments import Segment, derive, row_line

FORMAT = 1


class EmbeddedIndex(StagedIndex):
    """Rows with vectors in a folder.

    Additions and removals are staged in memory and become durable and visible together at
    `commit`. Any number of processes read; one at a time commits. A reader goes on with the
    generation it opened until `refresh`.

    Example:
        >>> index = EmbeddedIndex.create("my-index", fingerprint(encoder, "mini"))  # doctest: +SKIP
        >>> index.add([make_row("A man plays the guitar.")], encoder.encode(["A man ..."]))
        >>> index.commit()
        Commit(added=1, updated=0, removed=0)
        >>> index.search(encoder.encode(["someone makes music"]), k=1)
        [[Hit(id='...', score=0.61, text='A man plays the guitar.', metadata={})]]
    """

    def __init__(self, folder: Path, snapshot: Snapshot) -> None:
        super().__init__()
        self.name = str(folder)
        self.folder = folder
        self.snapshot = snapshot

    @classmethod
    def create(
        cls,
        folder: str | Path,
        fingerprint: ModelFingerprint,
        *,
        kind: Kind = "exact",
        recall: float = RECALL,
        progress: Mapping[str, int] | None = None,
    ) -> "EmbeddedIndex":
        """Make an empty index for the embeddings of a model.

        Args:
            folder: a new or empty folder.
            fingerprint: the model whose embeddings it will hold.
            kind: how it searches once `rebuild` has built the structure.
            recall: recall@10 an approximate kind must reach, else its build fails.
            progress: see `commit`.

        Raises:
            UsageError: there is something in the folder, or the kind is unknown.
            ResourceError: the disk is full or read-only.
        """
        folder = Path(folder)
        approximate.check_kind(kind, recall)
        if folder.exists() and (not folder.is_dir() or set(os.listdir(folder)) - {".lock"}):
            raise UsageError(f"{folder} is there already; add to it, or name a new folder")
        facts = {
            "format": FORMAT,
            "fingerprint": dataclasses.asdict(fingerprint),
            "segments": [],
            "next_segment": 0,
            "kind": kind,
            "recall_floor": recall,
            "approximation": None,
            "progress": dict(progress or {}),
            "calibration": None,
        }
        with generations.locked(folder):
            generation = generations.publish(folder, lambda _new: _dated(facts))
        return cls(folder, Snapshot(generation))

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = True) -> "EmbeddedIndex":
        """Open the current generation; damaged derived files are made again, with a warning.

        Args:
            folder: what `create` made.
            verify: compare the SHA-256 of every file, else only sizes.

        Raises:
            ArtifactError: there is no index, or vectors, rows or manifest are damaged.
            ResourceError: derived files are damaged, and another process is writing.
        """
        folder = Path(folder)
        try:
            return cls(folder, _open(folder, verify=verify))
        except DerivedDamage as error:
            warnings.warn(f"{error}; it is made again", SimcseWarning, stacklevel=2)
            return cls(folder, rebuild(folder))

    @property
    def fingerprint(self) -> ModelFingerprint:
        """The model whose vectors these are."""
        return self.snapshot.fingerprint

    @property
    def facts(self) -> dict[str, Any]:
        """What the current generation's writer said of it."""
        return self.snapshot.generation.facts

    @property
    def version(self) -> int:
        """Number of the generation that is searched."""
        return self.snapshot.generation.number

    def __len__(self) -> int:
        return self.snapshot.count

    def refresh(self) -> bool:
        """Go on with the newest generation; say whether there was a newer one.

        Raises:
            ArtifactError: it is damaged; this index then stays with the one it has.
        """
        current = generations.read_current(self.folder).number
        if current == self.snapshot.generation.number:
            return False
        self._go_on(_open(self.folder, verify=False))
        return True

    def search(
        self,
        queries: np.ndarray,
        k: int = 10,
        *,
        threshold: float | None = None,
        where: Sequence[Condition] = (),
    ) -> list[list[Hit]]:
        """Find the ``k`` rows of the highest cosine for each query (Q, D), best first.

        Fewer come back only where the index, the filter or the threshold leave fewer.

        Args:
            queries: vectors of the index's model, of any length but zero.
            k: hits a query.
            threshold: leave out rows of a lower cosine; by default none is left out.
            where: conditions on metadata that a row must all meet.

        Raises:
            UsageError: ``k``, threshold or a filter makes no sense.
            DataError: the queries have another shape, or one is zero or not finite.
        """
        check_search(k, threshold)
        snapshot = self.snapshot
        units = unit_rows(queries, dimensions=self.fingerprint.dimensions)
        scores, positions = snapshot.search(units, k, where)
        least = -np.inf if threshold is None else threshold
        keep = (positions >= 0) & (scores >= least)
        return [
            [
                Hit(row.id, float(score), row.text, row.metadata)
                for score, row in zip(line[kept], snapshot.rows(at[kept]), strict=True)
            ]
            for line, at, kept in zip(scores, positions, keep, strict=True)
        ]

    def commit(self, progress: Mapping[str, int] | None = None) -> Commit:
        """Make what is staged durable and visible, all of it or nothing.

        Small segments at the end are merged with the new rows, so that many small commits do
        not make many segments.

        Args:
            progress: how far a build or addition came, by source; kept with the index beside
                what is there of other sources.

        Raises:
            ResourceError: the disk is full, or another process is writing; what is staged stays.
        """
        with generations.locked(self.folder):
            base = _open(self.folder, verify=False)
            found = base.positions(list(self._staged)).tolist()
            known = dict(zip(self._staged, found, strict=True))
            fresh = [staged for staged in self._staged.values() if staged is not None]
            live = base.live.copy()
            live[[position for position in known.values() if position >= 0]] = False
            if not self._staged and progress is None:
                return Commit()
            self._go_on(self._publish(base, live, fresh, progress))
        replaced = sum(known[row.id] >= 0 for row, _ in fresh)
        there = sum(position >= 0 for position in known.values())
        self.rollback()
        return Commit(len(fresh) - replaced, replaced, there - replaced)

    def compact(self) -> None:
        """Write the rows anew without the deleted ones, in full segments; rebuild the rest.

        Raises:
            ResourceError: the disk is full, or another process is writing.
        """
        with generations.locked(self.folder):
            base = _open(self.folder, verify=True)

            def write(new: Path) -> Mapping[str, Any]:
                number = base.generation.facts["next_segment"]
                writer = SegmentWriter(new, number, size=SEGMENT_ROWS)
                for lines, vectors in base.batches(SEGMENT_ROWS):
                    writer.append(lines, vectors)
                writer.close()
                return _approximated(new, writer.facts(base.generation.facts))

            self.snapshot = Snapshot(generations.publish(self.folder, write, base=base.generation))

    def rebuild(self, *, kind: Kind | None = None, recall: float | None = None) -> None:
        """Make all derived files anew from vectors and rows, which are verified first.

        Args:
            kind: how the index searches from now on; by default as before.
            recall: recall@10 an approximate kind must reach; by default as before.

        Raises:
            ArtifactError: vectors or rows are damaged.
            NumericError: the recall is not reached; the index stays as it was.
            ResourceError: the disk is full, or another process is writing.
        """
        self.snapshot = rebuild(self.folder, kind=kind, recall=recall)

    def annotate(self, **facts: Any) -> None:  # noqa: ANN401 - plain JSON values
        """Keep facts beside the rows, such as a calibration or that a build is done.

        Raises:
            ResourceError: the disk is full, or another process is writing.
        """
        with generations.locked(self.folder):
            base = generations.read_current(self.folder)
            shared = [base.folder / name for name in base.files]
            updated = _dated({**base.facts, **facts})
            generation = generations.publish(
                self.folder, lambda _new: updated, base=base, shared=shared
            )
            self._go_on(Snapshot(generation))

    def verify(self) -> list[str]:
        """Read every file of the current generation; return what is wrong, nothing if all is well.

        Raises:
            ArtifactError: pointer or manifest are damaged.
        """
        return damages(self.folder)

    def sample(self, count: int, *, seed: int = 0) -> tuple[list[Row], np.ndarray]:
        """Draw ``count`` rows, or all if there are fewer, with their vectors (P, D)."""
        live = np.flatnonzero(self.snapshot.live)
        if not len(live):
            return [], np.empty((0, self.fingerprint.dimensions), np.float32)
        if len(live) > count:
            live = np.sort(np.random.default_rng(seed).choice(live, count, replace=False))
        return list(self.snapshot.rows(live.tolist())), self.snapshot.vectors(live)

    def values(self, limit: int) -> dict[str, list[Any]]:
        """Return at least ``limit`` distinct values of each metadata field, or all if fewer."""
        found: dict[str, list[Any]] = {}
        for segment in self.snapshot.segments:
            for name, values in segment.values.items():
                known = found.setdefault(name, [])
                if len(known) < limit:
                    known += [value for value in values[:limit] if value not in known]
        return found

    def describe(self) -> dict[str, Any]:
        """Return what the index is, for people and scripts."""
        snapshot, facts = self.snapshot, self.facts
        return {
            "rows": len(self),
            "deleted": len(snapshot.live) - len(self),
            "segments": len(snapshot.segments),
            "bytes": snapshot.generation.bytes,
            "generation": self.version,
            "written": facts["written"],
            **self._describe_model(),
            "kind": facts["kind"],
            "approximation": facts["approximation"],
            "fields": snapshot.fields(),
            "unfinished": bool(facts["progress"]),
        }

    def _go_on(self, snapshot: Snapshot) -> None:
        snapshot.inherit(self.snapshot)
        self.snapshot = snapshot

    def _publish(
        self,
        base: Snapshot,
        live: np.ndarray,
        fresh: list[Staged],
        progress: Mapping[str, int] | None,
    ) -> Snapshot:
        kept = _kept(base, len(fresh))
        end = base.starts[len(kept)]
        shared = [
            base.path(SEGMENTS, segment.folder.name, name.name)
            for segment in kept
            for name in segment.folder.iterdir()
        ]
        if base.approximation is not None:
            shared.append(base.path(FILE))

        def write(new: Path) -> Mapping[str, Any]:
            number = base.generation.facts["next_segment"]
            writer = SegmentWriter(new, number, size=SEGMENT_ROWS)
            for segment, start in zip(
                base.segments[len(kept) :], base.starts[len(kept) :], strict=False
            ):
                alive = np.flatnonzero(live[start : start + len(segment)])
                writer.append(list(segment.lines(alive)), segment.vectors[alive])
            if fresh:
                writer.append([row_line(row) for row, _ in fresh], np.stack([v for _, v in fresh]))
            writer.close()
            np.save(new / DELETED, np.flatnonzero(~live[:end]))
            facts = writer.facts(base.generation.facts, [segment.folder.name for segment in kept])
            return _dated({**facts, "progress": {**facts["progress"], **(progress or {})}})

        return Snapshot(
            generations.publish(self.folder, write, base=base.generation, shared=shared)
        )


def rebuild(folder: Path, *, kind: Kind | None = None, recall: float | None = None) -> Snapshot:
    """Make all derived files of an index anew; unlike its method, also where they are damaged."""
    with generations.locked(folder):
        base = generations.read_current(folder)
        for name, problem in base.damaged(deep=True):
            if not is_derived(name):
                raise ArtifactError(f"{base.folder / name} {problem}")
        facts = {**base.facts}
        facts["kind"] = kind or facts["kind"]
        facts["recall_floor"] = facts["recall_floor"] if recall is None else recall
        approximate.check_kind(facts["kind"], facts["recall_floor"])
        shared = [base.folder / name for name in base.files if not is_derived(name)]

        def write(new: Path) -> Mapping[str, Any]:
            for name in facts["segments"]:
                derive(new / SEGMENTS / name)
            return _approximated(new, facts)

        return Snapshot(generations.publish(folder, write, base=base, shared=shared))


def _open(folder: Path, *, verify: bool) -> Snapshot:
    return generations.with_current(folder, lambda found: Snapshot.open(found, verify=verify))


def _kept(base: Snapshot, count: int) -> list[Segment]:
    """Return the segments that stay; the small ones behind them are merged with ``count`` rows.

    A segment goes if it is no larger than what is behind it: each row is rewritten about log N
    times, and there are about log N small segments. What the approximate structure covers stays.
    """
    covered = 0 if base.approximation is None else base.approximation.rows
    at = len(base.segments)
    while at and base.starts[at - 1] >= covered:
        size = len(base.segments[at - 1])
        if size > count or size + count > SEGMENT_ROWS:
            break
        count += size
        at -= 1
    return base.segments[:at]


def _approximated(new: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Build the approximate structure that the facts ask for; return them with what it is."""
    built = None
    if facts["kind"] != "exact" and facts["segments"]:
        blocks = [Segment(new / SEGMENTS / name).vectors for name in facts["segments"]]
        floor = facts["recall_floor"]
        built = approximate.build(blocks, facts["kind"], floor=floor, path=new / FILE)
    return _dated({**facts, "approximation": None if built is None else built.to_json()})


def _dated(facts: dict[str, Any]) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.timezone.utc)
    return {**facts, "written": now.isoformat(timespec="seconds")}
