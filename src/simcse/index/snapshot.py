"""One generation of an index, opened for reading; it never changes."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from simcse.errors import ArtifactError
from simcse.index.approximate import FILE, Approximation, Candidates, exact_top, gather
from simcse.index.filters import Condition, check_fields, segment_mask
from simcse.io.fingerprint import ModelFingerprint
from simcse.io.generations import Generation, with_current
from simcse.io.rows import Row
from simcse.io.segments import DERIVED, Segment, key

DELETED = "deleted.npy"
SEGMENTS = "segments"


class DerivedDamage(ArtifactError):
    """A file is damaged that can be made again from vectors and rows."""


class Snapshot:
    """Rows are addressed by position: the segments one after another, deleted rows counted."""

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        facts = generation.facts
        try:
            self.fingerprint = ModelFingerprint(**facts["fingerprint"])
            self.segments = [Segment(self.path(SEGMENTS, name)) for name in facts["segments"]]
            stored = facts["approximation"]
            self.approximation = None if stored is None else Approximation(**stored)
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"{generation.folder}: manifest is damaged: {error!r}") from error
        self.starts = np.cumsum([0, *map(len, self.segments)])
        self.live = np.ones(self.starts[-1], bool)
        if self.path(DELETED).exists():
            self.live[np.load(self.path(DELETED), allow_pickle=False)] = False
        self.count = int(self.live.sum())

    @classmethod
    def open(cls, generation: Generation, *, verify: bool = True) -> "Snapshot":
        """Check a generation's files, their bytes or with ``verify=False`` their sizes, and open.

        Raises:
            DerivedDamage: only files are damaged that can be made again.
            ArtifactError: another file is damaged; the message names it.
        """
        bad = list(generation.damaged(deep=verify))
        for name, problem in sorted(bad, key=lambda item: is_derived(item[0])):
            kind = DerivedDamage if is_derived(name) else ArtifactError
            raise kind(f"{generation.folder / name} {problem}")
        return cls(generation)

    def path(self, *parts: str) -> Path:
        """Return the path of a file of the generation."""
        return self.generation.folder.joinpath(*parts)

    @cached_property
    def blocks(self) -> list[np.ndarray]:
        """The segments' vectors."""
        return [segment.vectors for segment in self.segments]

    @cached_property
    def candidates(self) -> Candidates | None:
        """The approximate structure, if the index has one."""
        if self.approximation is None:
            return None
        checksum = self.generation.files[FILE][1]
        return Candidates.read(self.path(FILE), checksum, self.approximation.effort)

    def inherit(self, before: "Snapshot") -> None:
        """Take over the open approximate structure of an earlier generation, if it is the same."""
        same = before.generation.files.get(FILE) == self.generation.files.get(FILE)
        if same and "candidates" in vars(before):
            vars(self)["candidates"] = before.candidates

    def fields(self) -> list[str]:
        """Return the names of all metadata fields."""
        return sorted({name for segment in self.segments for name in segment.values})

    def positions(self, ids: Sequence[str]) -> np.ndarray:
        """Return the position of each id's row, or -1: (K,) int64."""
        keys = np.array([key(row_id) for row_id in ids], "S16")
        found = np.full(len(keys), -1)
        for segment, start in zip(self.segments, self.starts, strict=False):
            rows = segment.find(keys)
            here = np.flatnonzero(rows >= 0)
            at = start + rows[here]
            found[here[self.live[at]]] = at[self.live[at]]
        return found

    def rows(self, positions: Sequence[int]) -> Iterator[Row]:
        """Yield the rows at some positions."""
        for position in positions:
            which = int(np.searchsorted(self.starts, position, side="right")) - 1
            yield from self.segments[which].rows([int(position - self.starts[which])])

    def vectors(self, positions: np.ndarray) -> np.ndarray:
        """Return the unit vectors at some positions: (P,) -> (P, D) float32."""
        return gather(self.blocks, positions)

    def batches(self, size: int) -> Iterator[tuple[list[str], np.ndarray]]:
        """Yield the live rows' stored lines and vectors, at most ``size`` together, in order."""
        for segment, start in zip(self.segments, self.starts, strict=False):
            alive = np.flatnonzero(self.live[start : start + len(segment)])
            for part in (alive[at : at + size] for at in range(0, len(alive), size)):
                yield list(segment.lines(part)), segment.vectors[part]

    def search(
        self, queries: np.ndarray, k: int, where: Sequence[Condition] = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the ``k`` best positions of each query: unit (Q, D) -> scores, positions (Q, <=k).

        A filtered search is exact whatever the index's kind: an approximate structure that is
        asked for one row in a thousand returns too few.
        """
        k = min(k, self.count)
        if not k:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        if where:
            check_fields(where, self.fields())
        if self.candidates is None or where:
            return self._exact(queries, k, where)
        return self._approximate(self.candidates, queries, k)

    def _exact(
        self, queries: np.ndarray, k: int, where: Sequence[Condition] = (), first: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Search segments from the one that begins at position ``first`` on."""
        found = []
        for segment, start in zip(self.segments, self.starts, strict=False):
            if start < first:
                continue
            allowed = self.live[start : start + len(segment)]
            if where:
                allowed = allowed & segment_mask(segment, where)
            mask = None if allowed.all() else allowed
            scores, rows = exact_top(segment.vectors, queries, min(k, len(segment)), mask)
            found.append((scores, np.where(rows < 0, -1, rows + start)))
        return _merge(found, k)

    def _approximate(
        self, candidates: Candidates, queries: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        proposed = candidates(queries, k)  # (Q, C)
        proposed = np.where((proposed >= 0) & self.live[proposed], proposed, -1)
        covered = self.starts[-1] if self.approximation is None else self.approximation.rows
        if ((proposed >= 0).sum(axis=1) < min(k, self.live[:covered].sum())).any():
            return self._exact(queries, k)  # too many candidates were deleted since the build
        scores = np.empty(proposed.shape, np.float32)
        for at, (query, row) in enumerate(zip(queries, proposed, strict=True)):
            scores[at] = self.vectors(np.maximum(row, 0)) @ query
        found = [(scores, proposed)]
        if covered < self.starts[-1]:
            found.append(self._exact(queries, k, first=covered))
        return _merge(found, k)


def damages(folder: Path) -> list[str]:
    """Read every file of the current generation; return what is wrong, nothing if all is well.

    Raises:
        ArtifactError: there is no index, or pointer or manifest are damaged.
    """

    def check(generation: Generation) -> list[str]:
        bad = generation.damaged(deep=True)
        return [f"{generation.folder / name} {problem}" for name, problem in bad]

    return with_current(folder, check)


def is_derived(name: str) -> bool:
    """Say whether a file of a generation can be made again from its vectors and rows."""
    return name == FILE or Path(name).name in DERIVED


def _merge(found: list[tuple[np.ndarray, np.ndarray]], k: int) -> tuple[np.ndarray, np.ndarray]:
    """Keep the ``k`` best of several results, best first; ties in the order of the rows."""
    scores = np.concatenate([part for part, _ in found], axis=1)
    positions = np.concatenate([part for _, part in found], axis=1)
    scores = np.where(positions < 0, -np.inf, np.minimum(scores, 1))  # rounding passes 1
    order = np.lexsort((positions, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)
