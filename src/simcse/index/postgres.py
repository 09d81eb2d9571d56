"""The index in PostgreSQL with pgvector: many writers, filters in SQL, its replicas and backups."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from psycopg.types.json import Jsonb

from simcse.errors import ArtifactError, UsageError
from simcse.index import approximate
from simcse.index.approximate import RECALL, Kind
from simcse.index.database import Address, Database
from simcse.index.filters import Condition
from simcse.index.protocol import Commit, Hit, check_search, unit_rows
from simcse.index.staging import StagedIndex
from simcse.index.tables import EFFORTS, FORMAT, Connection, Tables, set_effort
from simcse.io.fingerprint import ModelFingerprint
from simcse.io.rows import Row

_STATE = "format, fingerprint, facts, rows, version"
_VALUES = """
SELECT field, value FROM (
    SELECT field, value, row_number() OVER (PARTITION BY field ORDER BY value) AS place
    FROM (SELECT DISTINCT field, value FROM {rows}, jsonb_each(metadata) AS pair(field, value))
        AS known
) AS numbered WHERE place <= %s ORDER BY field, place
"""
_CHECK = """
SELECT count(*), count(*) FILTER (WHERE abs(vector_norm(vector) - 1) > 1e-3),
    count(*) FILTER (WHERE text = '' OR jsonb_typeof(metadata) <> 'object'),
    (SELECT rows FROM {facts})
FROM {rows}
"""


class _State(NamedTuple):
    fingerprint: ModelFingerprint
    facts: dict[str, Any]
    rows: int
    version: int


class PostgresIndex(StagedIndex):
    """Rows with vectors in a PostgreSQL database, for any number of readers and writers.

    Additions and removals are staged in memory and become durable and visible together at
    `commit`. What others committed is found at once; `refresh` takes up their number and facts.
    Several threads may search, one at a time may write.

    Example:
        >>> url = "postgresql://localhost/texts#articles"
        >>> index = PostgresIndex.create(url, fingerprint(encoder, "mini"))  # doctest: +SKIP
        >>> index.add([make_row("A man plays the guitar.")], encoder.encode(["A man ..."]))
        >>> index.commit()
        Commit(added=1, updated=0, removed=0)
    """

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.name = str(database.address)
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
        kind: Kind = "exact",
        recall: float = RECALL,
        progress: Mapping[str, int] | None = None,
    ) -> "PostgresIndex":
        """Make an empty index for the embeddings of a model.

        Args:
            url: ``postgresql://user@host/database#index``; the password is better left to
                ``PGPASSWORD`` or ``~/.pgpass``.
            fingerprint: the model whose embeddings it will hold.
            kind: ``exact`` or ``hnsw``: how it searches once `rebuild` has built the structure.
            recall: recall@10 that ``hnsw`` must reach, else its build fails.
            progress: see `commit`.

        Raises:
            UsageError: there is an index, or the kind is unknown.
            ResourceError: the server cannot be reached or refuses, or it has no pgvector.
        """
        _check_kind(kind, recall)
        address = Address.parse(url)
        database, tables = Database(address), Tables(address.schema)
        facts = {
            "kind": kind,
            "recall_floor": recall,
            "approximation": None,
            "progress": dict(progress or {}),
            "calibration": None,
            "written": _now(),
        }
        database.run(lambda found: tables.create(found, fingerprint, facts), vectors=False)
        return cls(database)

    @classmethod
    def exists(cls, url: str) -> bool:
        """Say whether there is an index.

        Raises:
            ResourceError: the server cannot be reached.
        """
        database = Database(Address.parse(url))
        name = Tables(database.address.schema).sql("{facts}").as_string()
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
    def fingerprint(self) -> ModelFingerprint:
        """The model whose vectors these are."""
        return self._state.fingerprint

    @property
    def facts(self) -> dict[str, Any]:
        """What was kept beside the rows when they were last looked at."""
        return self._state.facts

    @property
    def version(self) -> int:
        """Number of the change that was last seen."""
        return self._state.version

    def __len__(self) -> int:
        return self._state.rows

    def refresh(self) -> bool:
        """Take up what others changed; say whether there was anything.

        Raises:
            ResourceError: the server cannot be reached.
        """
        before, self._state = self.version, self._database.run(self._read)
        return self.version != before

    def commit(self, progress: Mapping[str, int] | None = None) -> Commit:
        """Make what is staged durable and visible, all of it or nothing.

        Args:
            progress: how far a build or addition came, by source; kept with the index beside
                what is there of other sources.

        Raises:
            DataError: PostgreSQL cannot store a value, such as a NUL character.
            ResourceError: the server cannot be reached or refuses; what is staged stays, and
                committing it again doubles nothing.
        """
        if not self._staged and progress is None:
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
            state = self._note(connection, {}, progress=progress, rows=added - removed)
            return Commit(added, len(rows) - added, removed), state

        done, self._state = self._database.run(write)
        self.rollback()
        return done

    def search(
        self,
        queries: np.ndarray,
        k: int = 10,
        *,
        threshold: float | None = None,
        where: Sequence[Condition] = (),
    ) -> list[list[Hit]]:
        """Find the ``k`` rows of the highest cosine for each query (Q, D), best first.

        Arguments, what comes back and errors are those of `EmbeddedIndex.search`; a filtered
        search is exact whatever the index's kind.

        Raises:
            ResourceError: the server cannot be reached.
        """
        check_search(k, threshold)
        units = unit_rows(queries, dimensions=self.fingerprint.dimensions)
        least = -1.0 if threshold is None else threshold
        found = self._database.run(lambda connection: self._find(connection, units, k, where))
        return [[hit for hit in hits if hit.score >= least] for hits in found]

    def annotate(self, **facts: Any) -> None:  # noqa: ANN401 - plain JSON values
        """Keep facts beside the rows, such as a calibration or that a build is done.

        Raises:
            ResourceError: the server cannot be reached or refuses.
        """
        self._state = self._database.run(lambda connection: self._note(connection, facts))

    def sample(self, count: int, *, seed: int = 0) -> tuple[list[Row], np.ndarray]:
        """Draw ``count`` rows, or all if there are fewer, with their vectors (P, D)."""
        found = self._database.run(lambda c: self._tables.sample(c, count, seed))
        vectors = [vector.to_numpy() for *_, vector in found]
        shape = (len(found), self.fingerprint.dimensions)
        rows = [Row(row_id, text, metadata) for row_id, text, metadata, _ in found]
        return rows, np.array(vectors, np.float32).reshape(shape)

    def values(self, limit: int) -> dict[str, list[Any]]:
        """Return ``limit`` distinct values of each metadata field, or all if there are fewer."""
        if self._seen_values[:2] != (self.version, limit):  # it reads all rows
            query = self._tables.sql(_VALUES)
            values: dict[str, list[Any]] = {}
            for field, value in self._database.run(lambda c: c.execute(query, [limit])):
                values.setdefault(field, []).append(value)
            self._seen_values = (self.version, limit, values)
        return self._seen_values[2]

    def describe(self) -> dict[str, Any]:
        """Return what the index is, for people and scripts."""
        query = "SELECT pg_total_relation_size(%s::regclass)"
        table = self._tables.sql("{rows}").as_string()
        found = self._database.run(lambda c: c.execute(query, [table]).fetchone())
        return {
            "rows": len(self),
            "bytes": found[0] if found else 0,
            "generation": self.version,
            "written": self.facts["written"],
            **self._describe_model(),
            "kind": self.facts["kind"],
            "approximation": self.facts["approximation"],
            "fields": sorted(self.values(1)),
            "unfinished": bool(self.facts["progress"]),
        }

    def compact(self) -> None:
        """Free the space of removed and replaced rows, and gather statistics anew.

        Raises:
            ResourceError: the server cannot be reached or refuses.
        """
        query = self._tables.sql("VACUUM (ANALYZE) {rows}")
        self._database.run(lambda connection: connection.execute(query), transaction=False)

    def rebuild(self, *, kind: Kind | None = None, recall: float | None = None) -> None:
        """Build the approximate structure anew, or drop it for ``exact``; readers go on meanwhile.

        It is built quickly while it fits the server's ``maintenance_work_mem``.

        Args:
            kind: how the index searches from now on; by default as before.
            recall: recall@10 that ``hnsw`` must reach; by default as before.

        Raises:
            NumericError: the recall is not reached; the index stays as it was.
            ResourceError: the server cannot be reached or refuses.
        """
        wanted = kind or self.facts["kind"]
        floor = self.facts["recall_floor"] if recall is None else recall
        _check_kind(wanted, floor)

        def build(connection: Connection) -> _State:
            built, rows = None, self._read(connection).rows
            if wanted == "hnsw" and rows:
                built = self._tables.build(connection, rows, floor).to_json()
            else:
                self._tables.drop_graph(connection)
            facts = {"kind": wanted, "recall_floor": floor, "approximation": built}
            return self._note(connection, facts)

        self._state = self._database.run(build)

    def verify(self) -> list[str]:
        """Read every row; return what is wrong with them.

        PostgreSQL compares the bytes it reads with their checksums, where these are on.
        """
        query = self._tables.sql(_CHECK)
        try:
            found = self._database.run(lambda c: c.execute(query).fetchone())
        except ArtifactError as error:
            return [str(error)]
        rows, long, odd, counted = found or (0, 0, 0, 0)
        problems = {
            f"{rows:,} rows are there, {counted:,} were counted": rows != counted,
            f"{long:,} vectors do not have the length 1": bool(long),
            f"{odd:,} rows have no text, or metadata that is no object": bool(odd),
        }
        return [f"{self.name}: {problem}" for problem, is_there in problems.items() if is_there]

    def _read(self, connection: Connection) -> _State:
        query = self._tables.sql(f"SELECT {_STATE} FROM {{facts}}")
        return self._parse(connection.execute(query).fetchone())

    def _note(
        self,
        connection: Connection,
        facts: Mapping[str, Any],
        *,
        progress: Mapping[str, int] | None = None,
        rows: int = 0,
    ) -> _State:
        query = self._tables.sql(
            "UPDATE {facts} SET facts = facts || %s ||"
            " jsonb_build_object('progress', coalesce(%s, facts -> 'progress') || %s),"
            f" rows = rows + %s, version = version + 1 RETURNING {_STATE}"
        )
        cleared = Jsonb(facts["progress"]) if "progress" in facts else None
        values = [Jsonb({**facts, "written": _now()}), cleared, Jsonb(dict(progress or {})), rows]
        return self._parse(connection.execute(query, values).fetchone())

    def _parse(self, line: tuple[Any, ...] | None) -> _State:
        if line is None or line[0] != FORMAT:
            raise ArtifactError(f"{self.name}: expected an index of format {FORMAT}, got {line}")
        _, stored, facts, rows, version = line
        return _State(ModelFingerprint(**stored), facts, rows, version)

    def _find(
        self, connection: Connection, units: np.ndarray, k: int, where: Sequence[Condition]
    ) -> list[list[Hit]]:
        if where and len(self):
            self._tables.check_fields(connection, where)
        stored = self.facts["approximation"]
        is_exact = stored is None or bool(where) or k > EFFORTS[-1]
        set_effort(connection, 0 if is_exact else max(k, stored["effort"]))
        found = [self._tables.best(connection, unit, k, where) for unit in units]
        if not is_exact and any(len(hits) < min(k, len(self)) for hits in found):
            set_effort(connection, 0)  # the graph ended before all k were found
            found = [self._tables.best(connection, unit, k) for unit in units]
        return found


def _check_kind(kind: str, recall: float) -> None:
    approximate.check_kind(kind, recall)
    if kind not in ("exact", "hnsw"):
        raise UsageError(f"an index in PostgreSQL is exact or hnsw, got {kind!r}")


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
