"""The tables of an index in PostgreSQL, and the statements that write and search them.

========= =====================================================================================
``rows``  ``id`` (primary key), ``text``, ``metadata`` (jsonb), ``vector`` (unit length)
``info``  one line: format, fingerprint of the model, state as JSON, number of rows, version
========= =====================================================================================
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier
from psycopg.types.json import Jsonb

from simcse.index.approximate import (
    RECALL_AT,
    RECALL_QUERIES,
    Approximation,
    recall_error,
    recall_of,
)
from simcse.index.filters import Condition, check_fields
from simcse.index.postgres_filters import where_sql
from simcse.index.protocol import SearchHit, StagedRow
from simcse.io.fingerprint import ModelFingerprint

Connection = psycopg.Connection[tuple[Any, ...]]
FORMAT = 1
INSERT_ROWS = 1000  # a statement
SEARCH_EFFORTS = (64, 128, 256, 512, 1000)  # pgvector allows no more
INLINE_DIMENSIONS = 1900  # vectors that fit a page are kept in it, where exact search reads them

_CREATE = """
CREATE SCHEMA {schema};
CREATE TABLE {rows} (
    id text COLLATE "C" PRIMARY KEY,
    text text NOT NULL,
    metadata jsonb NOT NULL,
    vector vector({dimensions}) NOT NULL
);
CREATE INDEX rows_metadata ON {rows} USING gin (metadata jsonb_path_ops);
CREATE TABLE {info} (
    format integer NOT NULL,
    fingerprint jsonb NOT NULL,
    state jsonb NOT NULL,
    rows bigint NOT NULL DEFAULT 0,
    version bigint NOT NULL DEFAULT 1
);
"""
# xmax is 0 in a row that was not there before.
_UPSERT = """
WITH done AS (
    INSERT INTO {rows}
    SELECT * FROM unnest(%s::text[], %s::text[], %s::text[]::jsonb[], %b::vector[])
    ON CONFLICT (id) DO UPDATE
    SET text = excluded.text, metadata = excluded.metadata, vector = excluded.vector
    RETURNING xmax = 0 AS fresh
) SELECT count(*) FILTER (WHERE fresh) FROM done
"""
_SEARCH = """
SELECT id, score, text, metadata FROM (
    SELECT id, -(vector <#> %s) AS score, text, metadata FROM {rows} WHERE {where}
    ORDER BY vector <#> %s LIMIT %s
) AS best ORDER BY score DESC, id
"""
_FIELDS_ARE_THERE = """
SELECT bool_and(EXISTS (SELECT FROM {rows} WHERE metadata ? field)) FROM unnest(%s::text[]) AS field
"""
_BUILD = """
CREATE INDEX rows_hnsw_new ON {rows} USING hnsw (vector vector_ip_ops) WITH (ef_construction = 128)
"""


class Tables:
    """The tables in one schema."""

    def __init__(self, schema: str) -> None:
        self.names = {
            "schema": Identifier(schema),
            "rows": Identifier(schema, "rows"),
            "info": Identifier(schema, "info"),
        }

    def sql(self, text: str, **fragments: Composable) -> Composed:
        """Put the names into a statement, which is a constant of the program."""
        return SQL(text).format(**self.names, **fragments)

    def create(
        self, connection: Connection, fingerprint: ModelFingerprint, state: Mapping[str, Any]
    ) -> None:
        """Make the schema and its tables."""
        size = SQL(str(int(fingerprint.dimensions)))
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute(self.sql(_CREATE, dimensions=size))
        if fingerprint.dimensions <= INLINE_DIMENSIONS:
            inline = "ALTER TABLE {rows} ALTER COLUMN vector SET STORAGE plain"
            connection.execute(self.sql(inline))
        connection.execute(
            self.sql("INSERT INTO {info} (format, fingerprint, state) VALUES (%s, %s, %s)"),
            [FORMAT, Jsonb(dataclasses.asdict(fingerprint)), Jsonb(dict(state))],
        )

    def lock(self, connection: Connection, ids: Sequence[str]) -> None:
        """Hold the rows there are of some ids, in one order for all, so that writers queue up."""
        query = self.sql("SELECT FROM {rows} WHERE id = ANY(%s) ORDER BY id FOR UPDATE")
        connection.execute(query, [list(ids)])

    def delete(self, connection: Connection, ids: Sequence[str]) -> int:
        """Remove rows; return how many there were."""
        query = self.sql("DELETE FROM {rows} WHERE id = ANY(%s)")
        return connection.execute(query, [list(ids)]).rowcount

    def upsert(self, connection: Connection, fresh: Sequence[StagedRow]) -> int:
        """Write rows; return how many were not there before."""
        added = 0
        for start in range(0, len(fresh), INSERT_ROWS):
            part = fresh[start : start + INSERT_ROWS]
            values = [
                [staged.row.id for staged in part],
                [staged.row.text for staged in part],
                [staged.metadata for staged in part],
                [staged.vector for staged in part],
            ]
            (count,) = connection.execute(self.sql(_UPSERT), values).fetchone() or (0,)
            added += int(count)
        return added

    def best(
        self, connection: Connection, unit: np.ndarray, k: int, where: Sequence[Condition] = ()
    ) -> list[SearchHit]:
        """Find the ``k`` best rows for a unit vector (D,), as `set_search_effort` set."""
        condition, values = where_sql(where)
        query = self.sql(_SEARCH, where=condition)
        found = connection.execute(query, [unit, *values, unit, k])
        return [
            SearchHit(row_id, max(-1.0, min(1.0, score)), text, metadata)  # rounding passes 1
            for row_id, score, text, metadata in found
        ]

    def check_fields(self, connection: Connection, where: Sequence[Condition]) -> None:
        """Refuse a filter on a field that no row has; only then are all rows read for those known.

        Raises:
            UsageError: with the nearest field there is.
        """
        fields = [condition.field for condition in where]
        if connection.execute(self.sql(_FIELDS_ARE_THERE), [fields]).fetchone() != (True,):
            known = self.sql("SELECT DISTINCT jsonb_object_keys(metadata) FROM {rows} ORDER BY 1")
            check_fields(where, [name for (name,) in connection.execute(known)])

    def sample(
        self, connection: Connection, count: int, seed: int
    ) -> list[tuple[str, str, dict[str, Any], Any]]:
        """Draw rows: id, text, metadata and vector."""
        query = "SELECT * FROM {rows} ORDER BY hashtextextended(id, %s), id LIMIT %s"
        return connection.execute(self.sql(query), [seed, count], binary=True).fetchall()

    def build(self, connection: Connection, rows: int, floor: float) -> Approximation:
        """Build the graph and measure it; a failure undoes it with the transaction.

        Raises:
            NumericError: the floor is not reached at the highest effort.
        """
        drawn = self.sample(connection, RECALL_QUERIES, 0)
        queries = np.array([vector.to_numpy() for *_, vector in drawn], np.float32)
        truth = np.array(self._scores(connection, queries, 0))
        connection.execute(self.sql(_BUILD))
        # From here on searches wait: the old graph goes, and the new one is measured alone.
        self.drop_graph(connection)
        connection.execute(self.sql("ALTER INDEX {schema}.rows_hnsw_new RENAME TO rows_hnsw"))
        connection.execute("SET LOCAL enable_seqscan = off")
        recall = 0.0
        for search_effort in SEARCH_EFFORTS:
            recall = recall_of(truth, self._scores(connection, queries, search_effort))
            if recall >= floor:
                return Approximation(
                    "hnsw", rows, search_effort, round(recall, 4), floor, len(queries)
                )
        raise recall_error("hnsw", recall, SEARCH_EFFORTS[-1], floor)

    def drop_graph(self, connection: Connection) -> None:
        """Drop the graph; searches are exact from now on."""
        connection.execute(self.sql("DROP INDEX IF EXISTS {schema}.rows_hnsw"))

    def _scores(
        self, connection: Connection, queries: np.ndarray, search_effort: int
    ) -> list[np.ndarray]:
        """Return each query's best scores, without its own row's."""
        set_search_effort(connection, search_effort)
        found = [self.best(connection, query, RECALL_AT + 1) for query in queries]
        return [np.array([hit.score for hit in hits[1:]]) for hits in found]


def set_search_effort(connection: Connection, search_effort: int) -> None:
    """Search with that many candidates of the graph in this transaction; 0 means exactly."""
    settings = {
        "enable_indexscan": "on" if search_effort else "off",
        "hnsw.ef_search": str(search_effort or SEARCH_EFFORTS[0]),
        "hnsw.iterative_scan": "strict_order",  # goes on where candidates were deleted meanwhile
    }
    for name, value in settings.items():
        connection.execute("SELECT set_config(%s, %s, true)", [name, value])
