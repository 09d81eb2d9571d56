"""The index in PostgreSQL with pgvector: many writers, filters in SQL, its replicas and backups."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from psycopg.types.json import Jsonb

from simcse.errors import ArtifactError, UsageError
from simcse.index.approximate import RECALL, Approximation, IndexType, check_index_type
from simcse.index.filters import Condition
from simcse.index.postgres_database import Address, Database
from simcse.index.postgres_tables import (
    FORMAT,
    SEARCH_EFFORTS,
    Connection,
    Tables,
    set_search_effort,
)
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
from simcse.io.fingerprint import ModelFingerprint
from simcse.io.rows import IndexRow

_STATE = "format, fingerprint, state, rows, version"
_VALUES = """
SELECT field, value FROM (
    SELECT field, value, row_number() OVER (PARTITION BY field ORDER BY value) AS number
    FROM (SELECT DISTINCT field, value FROM {rows}, jsonb_each(metadata) AS pair(field, value))
        AS known
) AS numbered WHERE number <= %s ORDER BY field, number
"""
_CHECK = """
SELECT count(*), count(*) FILTER (WHERE abs(vector_norm(vector) - 1) > 1e-3),
    count(*) FILTER (WHERE text = '' OR jsonb_typeof(metadata) <> 'object'),
    (SELECT rows FROM {info})
FROM {rows}
"""


class _State(NamedTuple):
    fingerprint: ModelFingerprint
    state: dict[str, Any]  # index type, recall floor, approximation, calibration, progress, time
    rows: int
    version: int


class PostgresIndex(Staging):
    """Rows with vectors in a PostgreSQL database, for any number of readers and writers.

    Changes are staged in memory and become durable and visible together at `commit`. A search
    finds what others committed at once; `refresh` reads the number of rows and the metadata.
    Several threads may search, one at a time may write.

    Example:
        >>> url = "postgresql://localhost/texts#articles"
        >>> index = PostgresIndex.create(url, model_fingerprint(encoder))  # doctest: +SKIP
        >>> index.add([make_row("A man plays the guitar.")], encoder.encode(["A man ..."]))
        >>> index.commit()
        Commit(added=1, updated=0, removed=0)
    """

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database
        self._tables = Tables(database.address.schema)
        self._state = database.run(self._read)
        self._seen_values: tuple[int, int, dict[str, list[Any]]] = (0, 0, {})

    @classmethod
    def create(
        cls,
        url: str,
        fingerprint: ModelFingerprint,
        *,
        index_type: IndexType = "exact",
        recall: float = RECALL,
        progress: Mapping[str, int] | None = None,
    ) -> "PostgresIndex":
        """Make an empty index for the embeddings of a model.

        Args:
            url: ``postgresql://user@host/database#index``; the password is better left to
                ``PGPASSWORD`` or ``~/.pgpass``.
            fingerprint: the model whose embeddings it will hold.
            index_type: ``exact`` or ``hnsw``: how it searches once `rebuild` has built the graph.
            recall: recall@10 that ``hnsw`` must reach, else its build fails.
            progress: see `commit`.

        Raises:
            UsageError: there is an index, or the type is unknown.
            ResourceError: the server cannot be reached or refuses, or it has no pgvector.
        """
        _check_type(index_type, recall)
        address = Address.parse(url)
        database, tables = Database(address), Tables(address.schema)
        state = {
            "index_type": index_type,
            "recall_floor": recall,
            "approximation": None,
            "progress": dict(progress or {}),
            "calibration": None,
            "written": now(),
        }
        database.run(lambda found: tables.create(found, fingerprint, state), vectors=False)
        return cls(database)

    @classmethod
    def exists(cls, url: str) -> bool:
        """Return whether there is an index.

        Raises:
            ResourceError: the server cannot be reached.
        """
        database = Database(Address.parse(url))
        name = Tables(database.address.schema).sql("{info}").as_string()
        query = "SELECT to_regclass(%s) IS NOT NULL"
        found = database.run(lambda c: c.execute(query, [name]).fetchone(), vectors=False)
        return found == (True,)

    @classmethod
    def open(cls, url: str) -> "PostgresIndex":
        """Open an index.

        Raises:
            ArtifactError: there is none.
            ResourceError: the server cannot be reached.
        """
        return cls(Database(Address.parse(url)))

    @property
    def metadata(self) -> IndexMetadata:
        """The state beside the rows when it was last read."""
        stored = self._state.state
        return IndexMetadata(
            name=str(self._database.address),
            fingerprint=self._state.fingerprint,
            version=self._state.version,
            rows=self._state.rows,
            index_type=stored["index_type"],
            recall_floor=stored["recall_floor"],
            approximation=Approximation.from_json(stored["approximation"]),
            calibration=stored["calibration"],
            progress=stored["progress"],
            written=stored["written"],
            read_values=self._values,
            read_storage=self._storage,
        )

    def __len__(self) -> int:
        return self._state.rows

    def refresh(self, *, discard: bool = False) -> bool:
        """Read what others changed; return whether there was anything.

        Args:
            discard: forget the staged changes.

        Raises:
            ResourceError: the server cannot be reached.
        """
        if discard:
            self._staged.clear()
        before, self._state = self._state.version, self._database.run(self._read)
        return self._state.version != before

    def commit(self, **metadata: Any) -> Commit:  # noqa: ANN401 - plain JSON values
        """Make staged changes and metadata durable and visible, all of them or nothing.

        Args:
            metadata: ``calibration=...``, or ``progress=...``: a mapping is merged with the stored
                progress of other sources, ``None`` clears it.

        Raises:
            DataError: PostgreSQL cannot store a value, such as a NUL character.
            ResourceError: the server cannot be reached or refuses; what is staged stays, and
                committing it again duplicates nothing.
        """
        check_changes(metadata)
        if not self._staged and not metadata:
            return Commit()
        # In the order of the ids, so that two writers do not wait for each other for ever.
        ids = sorted(self._staged)
        gone = [row_id for row_id in ids if self._staged[row_id] is None]
        rows = [staged for row_id in ids if (staged := self._staged[row_id]) is not None]

        def write(connection: Connection) -> tuple[Commit, _State]:
            self._tables.lock(connection, ids)
            removed = self._tables.delete(connection, gone)
            added = self._tables.upsert(connection, rows)
            # Last, because from here to the end of the transaction other writers wait.
            state = self._change(connection, metadata, rows=added - removed)
            return Commit(added, len(rows) - added, removed), state

        done, self._state = self._database.run(write)
        self._staged.clear()
        return done

    def search(
        self,
        queries: np.ndarray,
        k: int = 10,
        *,
        threshold: float | None = None,
        where: Sequence[Condition] = (),
    ) -> list[list[SearchHit]]:
        """Find the ``k`` rows of the highest cosine for each query (Q, D), best first.

        Arguments, results and errors are those of `SqliteIndex.search`; a filtered search is exact
        whatever the index type.

        Raises:
            ResourceError: the server cannot be reached.
        """
        check_search(k, threshold)
        units = unit_rows(queries, dimensions=self._state.fingerprint.dimensions)
        least = -1.0 if threshold is None else threshold
        found = self._database.run(lambda connection: self._find(connection, units, k, where))
        return [[hit for hit in hits if hit.score >= least] for hits in found]

    def sample(self, count: int, *, seed: int = 0) -> tuple[list[IndexRow], np.ndarray]:
        """Draw ``count`` rows, or return all if there are fewer, with their vectors (P, D)."""
        found = self._database.run(lambda c: self._tables.sample(c, count, seed))
        vectors = [vector.to_numpy() for *_, vector in found]
        shape = (len(found), self._state.fingerprint.dimensions)
        rows = [IndexRow(row_id, text, metadata) for row_id, text, metadata, _ in found]
        return rows, np.array(vectors, np.float32).reshape(shape)

    def rebuild(
        self,
        *,
        index_type: IndexType | None = None,
        recall: float | None = None,
        compact: bool = False,
    ) -> None:
        """Build the approximate structure anew, or drop it for ``exact``; readers go on meanwhile.

        It is built quickly while it fits the server's ``maintenance_work_mem``.

        Args:
            index_type: how the index searches from now on; by default as before.
            recall: recall@10 that ``hnsw`` must reach; by default as before.
            compact: free the space of removed and replaced rows and gather statistics, first.

        Raises:
            NumericError: the recall is not reached; the index stays as it was.
            ResourceError: the server cannot be reached or refuses.
        """
        stored = self._state.state
        wanted = index_type or stored["index_type"]
        floor = stored["recall_floor"] if recall is None else recall
        _check_type(wanted, floor)
        if compact:
            query = self._tables.sql("VACUUM (ANALYZE) {rows}")
            self._database.run(lambda connection: connection.execute(query), transaction=False)

        def build(connection: Connection) -> _State:
            built, rows = None, self._read(connection).rows
            if wanted == "hnsw" and rows:
                built = self._tables.build(connection, rows, floor).to_json()
            else:
                self._tables.drop_graph(connection)
            changes = {"index_type": wanted, "recall_floor": floor, "approximation": built}
            return self._change(connection, changes)

        self._state = self._database.run(build)

    def verify(self) -> list[str]:
        """Read every row; return a message for each damage found.

        PostgreSQL compares the bytes it reads with their checksums, where these are on.
        """
        query = self._tables.sql(_CHECK)
        try:
            found = self._database.run(lambda c: c.execute(query).fetchone())
        except ArtifactError as error:
            return [str(error)]
        rows, long, odd, counted = found or (0, 0, 0, 0)
        problems = {
            f"expected {counted:,} rows, found {rows:,}": rows != counted,
            f"{long:,} vectors do not have the length 1": bool(long),
            f"{odd:,} rows have no text, or metadata that is no object": bool(odd),
        }
        name = self._database.address
        return [f"{name}: {problem}" for problem, is_there in problems.items() if is_there]

    def _values(self, limit: int) -> dict[str, list[Any]]:
        version = self._state.version
        if self._seen_values[:2] != (version, limit):  # it reads all rows
            query = self._tables.sql(_VALUES)
            values: dict[str, list[Any]] = {}
            for field, value in self._database.run(lambda c: c.execute(query, [limit])):
                values.setdefault(field, []).append(value)
            self._seen_values = (version, limit, values)
        return self._seen_values[2]

    def _storage(self) -> dict[str, int]:
        query = "SELECT pg_total_relation_size(%s::regclass)"
        table = self._tables.sql("{rows}").as_string()
        found = self._database.run(lambda c: c.execute(query, [table]).fetchone())
        return {"bytes": found[0] if found else 0}

    def _read(self, connection: Connection, *, lock: bool = False) -> _State:
        query = self._tables.sql(f"SELECT {_STATE} FROM {{info}}{' FOR UPDATE' if lock else ''}")
        line = connection.execute(query).fetchone()
        if line is None or line[0] != FORMAT:
            name = self._database.address
            raise ArtifactError(f"{name}: expected an index of format {FORMAT}, got {line}")
        _, stored, state, rows, version = line
        return _State(ModelFingerprint(**stored), state, rows, version)

    def _change(
        self, connection: Connection, changes: Mapping[str, Any], *, rows: int = 0
    ) -> _State:
        before = self._read(connection, lock=True)
        state = merge_metadata(before.state, changes)
        after = before._replace(state=state, rows=before.rows + rows, version=before.version + 1)
        query = self._tables.sql("UPDATE {info} SET state = %s, rows = %s, version = %s")
        connection.execute(query, [Jsonb(state), after.rows, after.version])
        return after

    def _find(
        self, connection: Connection, units: np.ndarray, k: int, where: Sequence[Condition]
    ) -> list[list[SearchHit]]:
        if where and len(self):
            self._tables.check_fields(connection, where)
        stored = self._state.state["approximation"]
        is_exact = stored is None or bool(where) or k > SEARCH_EFFORTS[-1]
        set_search_effort(connection, 0 if is_exact else max(k, stored["search_effort"]))
        found = [self._tables.best(connection, unit, k, where) for unit in units]
        if not is_exact and any(len(hits) < min(k, len(self)) for hits in found):
            set_search_effort(connection, 0)  # the graph ended before all k were found
            found = [self._tables.best(connection, unit, k) for unit in units]
        return found


def _check_type(index_type: str, recall: float) -> None:
    check_index_type(index_type, recall)
    if index_type not in ("exact", "hnsw"):
        raise UsageError(f"an index in PostgreSQL is exact or hnsw, got {index_type!r}")
