"""The index in a folder: rows in SQLite, vectors in chunks beside it; exact by default."""

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simcse.errors import ArtifactError, SimcseWarning, UsageError
from simcse.index.approximate import (
    RECALL,
    IndexType,
    check_index_type,
    import_faiss,
)
from simcse.index.chunks import sync_folder, writing
from simcse.index.filters import Condition
from simcse.index.protocol import (
    Commit,
    IndexMetadata,
    SearchHit,
    Staging,
    check_changes,
    check_search,
    merge_metadata,
    now,
    unit_rows,
)
from simcse.index.sqlite_schema import (
    DATABASE,
    NEW_DATABASE,
    create_tables,
    database_errors,
    database_files,
    open_new,
)
from simcse.index.sqlite_verify import derived_damage, metadata_damage, row_damage
from simcse.index.sqlite_view import View, newest_version
from simcse.index.sqlite_writer import BUSY, free_space, transaction
from simcse.io.fingerprint import ModelFingerprint
from simcse.io.locks import LOCK, lock_folder
from simcse.io.rows import IndexRow


class SqliteIndex(Staging):
    """Rows with vectors in a folder.

    ``index.db`` (SQLite) holds rows, ids, metadata and which chunks there are;
    ``vectors-NNNNNN.npy`` are the chunks: immutable, hashed, memory-mapped. Changes are staged in
    memory and become durable and visible together at `commit`. Any number of processes read, one
    at a time commits. A reader goes on with the commit it opened until `refresh`.

    Damage: `open` compares names, sizes and headers of all files, and the checksums of what says
    which rows there are; a search compares the checksums of the rows it returns, their vectors
    included; a commit, `rebuild` and ``rebuild(compact=True)`` compare those of everything they
    read and write again. Only `verify`, ``open(verify=True)`` and `rebuild` read everything: at a
    million rows that takes half a minute, too long for each ``simcse index search``.

    Example:
        >>> index = SqliteIndex.create("my-index", model_fingerprint(encoder))  # doctest: +SKIP
        >>> index.add([make_row("A man plays the guitar.")], encoder.encode(["A man ..."]))
        >>> index.commit()
        Commit(added=1, updated=0, removed=0)
        >>> index.search(encoder.encode(["someone makes music"]), k=1)
        [[SearchHit(id='...', score=0.61, text='A man plays the guitar.', metadata={})]]
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = Path(folder)
        self._view = View.open(self.folder)

    @classmethod
    def create(
        cls,
        folder: str | Path,
        fingerprint: ModelFingerprint,
        *,
        index_type: IndexType = "exact",
        recall: float = RECALL,
        progress: Mapping[str, int] | None = None,
    ) -> "SqliteIndex":
        """Make an empty index for the embeddings of a model.

        Args:
            folder: a new or empty folder.
            fingerprint: the model whose embeddings it will hold.
            index_type: how it searches once `rebuild` has built the structure.
            recall: recall@10 that an approximate type must reach, else its build fails.
            progress: see `commit`.

        Raises:
            UsageError: the folder is not empty, or the type is unknown.
            ResourceError: the disk is full or read-only, or the type needs an extra.
        """
        folder = Path(folder)
        check_index_type(index_type, recall)
        if index_type != "exact":
            import_faiss()
        unfinished = {LOCK, *(path.name for path in database_files(folder / NEW_DATABASE))}
        if folder.exists() and (not folder.is_dir() or set(os.listdir(folder)) - unfinished):
            raise UsageError(f"{folder} is there already; add to it, or name a new folder")
        state = {
            "fingerprint": dataclasses.asdict(fingerprint),
            "index_type": index_type,
            "recall_floor": recall,
            "approximation": None,
            "structure": None,
            "progress": dict(progress or {}),
            "calibration": None,
            "written": now(),
            "next_number": 1,
        }
        path = folder / NEW_DATABASE
        with lock_folder(folder, busy=BUSY), writing(folder), database_errors(path):
            with contextlib.closing(open_new(path)) as connection:
                create_tables(connection, state)
            path.replace(folder / DATABASE)
            sync_folder(folder)
        return cls(folder)

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = False) -> "SqliteIndex":
        """Open the newest commit; a damaged derived file is made again, with a warning.

        Args:
            folder: folder made by `create`.
            verify: read everything and compare checksums, else only what is said above.

        Raises:
            ArtifactError: there is no index, or rows or vectors are damaged.
            ResourceError: a derived file is damaged, and another process is writing.
        """
        index = cls(Path(folder))
        view = index._view
        if verify and (problems := row_damage(view)):
            raise ArtifactError("\n".join(problems))
        derived = derived_damage(view) if verify else [view.structure_problem]
        for problem in filter(None, derived):
            warnings.warn(f"{problem}; it is made again", SimcseWarning, stacklevel=2)
        if any(derived):
            index.rebuild()
        return index

    @property
    def metadata(self) -> IndexMetadata:
        """The state beside the rows, as of the commit that is searched."""
        return self._view.metadata()

    def __len__(self) -> int:
        return len(self._view)

    def refresh(self, *, discard: bool = False) -> bool:
        """Go on with the newest commit; return whether there was a newer one.

        Args:
            discard: forget the staged changes.

        Raises:
            ArtifactError: it is damaged; this index then stays with the one it has.
        """
        if discard:
            self._staged.clear()
        if newest_version(self.folder) == self._view.version:
            return False
        self._view = View.open(self.folder, self._view)
        return True

    def search(
        self,
        queries: np.ndarray,
        k: int = 10,
        *,
        threshold: float | None = None,
        where: Sequence[Condition] = (),
    ) -> list[list[SearchHit]]:
        """Find the ``k`` rows of the highest cosine for each query (Q, D), best first.

        Fewer come back only where the index, the filter or the threshold leave fewer.

        Args:
            queries: vectors of the index's model, of any length but zero.
            k: number of hits for each query.
            threshold: leave out rows of a lower cosine; by default none is left out.
            where: conditions on metadata that a row must all meet.

        Raises:
            UsageError: ``k``, threshold or a filter makes no sense.
            DataError: the queries have another shape, or one is zero or not finite.
            ArtifactError: something that the search read is damaged.
            ResourceError: an approximate search needs an extra that is not installed.
        """
        check_search(k, threshold)
        view = self._view
        units = unit_rows(queries, dimensions=view.fingerprint.dimensions)
        scores, positions = view.search(units, k, where)
        least = -np.inf if threshold is None else threshold
        chosen = (positions >= 0) & (scores >= least)
        return [
            [
                SearchHit(row.id, float(score), row.text, row.metadata)
                for score, row in zip(line[mine], view.rows(at[mine]), strict=True)
            ]
            for line, at, mine in zip(scores, positions, chosen, strict=True)
        ]

    def sample(self, count: int, *, seed: int = 0) -> tuple[list[IndexRow], np.ndarray]:
        """Draw ``count`` rows, or return all if there are fewer, with their vectors (P, D).

        The rows are in the order in which they were added.
        """
        view = self._view
        positions = np.flatnonzero(view.live)
        if not len(positions):
            return [], np.empty((0, view.fingerprint.dimensions), np.float32)
        if len(positions) > count:
            chosen = np.random.default_rng(seed).choice(positions, count, replace=False)
            positions = np.sort(chosen)
        return list(view.rows(positions)), view.vectors(positions)

    def commit(self, **metadata: Any) -> Commit:  # noqa: ANN401 - plain JSON values
        """Make staged changes and metadata durable and visible, all of them or nothing.

        Args:
            metadata: ``calibration=...``, or ``progress=...``: a mapping is merged with the stored
                progress of other sources, ``None`` clears it.

        Raises:
            ArtifactError: a row or chunk that is replaced or merged is damaged.
            ResourceError: the disk is full, or another process is writing; what is staged stays.
        """
        check_changes(metadata)
        if not self._staged and not metadata:
            return Commit()
        fresh = [staged for staged in self._staged.values() if staged is not None]
        with transaction(self.folder) as writer:
            found = {name: writer.base.find(name) for name in self._staged}
            there = {name: row for name, row in found.items() if row is not None}
            writer.remove(list(there.values()))
            writer.append(fresh)
            writer.state = merge_metadata(writer.state, metadata)
        self._staged.clear()
        self._view = View.open(self.folder, self._view)
        replaced = sum(staged.row.id in there for staged in fresh)
        return Commit(len(fresh) - replaced, replaced, len(there) - replaced)

    def rebuild(
        self,
        *,
        index_type: IndexType | None = None,
        recall: float | None = None,
        compact: bool = False,
    ) -> None:
        """Make everything derived from rows and vectors anew, after reading all of them.

        Args:
            index_type: how the index searches from now on; by default as before.
            recall: recall@10 an approximate type must reach; by default as before.
            compact: also free the space of removed and replaced rows.

        Raises:
            ArtifactError: vectors or rows are damaged.
            NumericError: the recall is not reached; the index stays as it was.
            ResourceError: the disk is full, another process is writing, or the type needs an extra.
        """
        stored = self._view.state
        wanted, floor = index_type or stored["index_type"], stored["recall_floor"]
        floor = floor if recall is None else recall
        check_index_type(wanted, floor)
        if wanted != "exact":
            import_faiss()
        with transaction(self.folder) as writer:
            if compact:
                writer.compact()
            elif problems := row_damage(writer.base):
                raise ArtifactError("\n".join(problems))
            elif metadata_damage(writer.base):
                writer.rebuild_metadata()
            writer.state = merge_metadata(writer.state, {})
            writer.build(wanted, floor)
        if compact:
            free_space(self.folder)
        self._view = View.open(self.folder)

    def verify(self) -> list[str]:
        """Read everything that the newest commit stored; return a message for each damage."""
        try:
            view = View.open(self.folder)  # with nothing that an earlier reading left in memory
        except ArtifactError as error:
            return [str(error)]
        return [*row_damage(view), *derived_damage(view)]
