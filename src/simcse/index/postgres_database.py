"""Connections to PostgreSQL: opened when needed, and made anew after the server was away."""

import weakref
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import unquote

import psycopg
from pgvector.psycopg import register_vector
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus

from simcse.errors import ArtifactError, DataError, ResourceError, SimcseError, UsageError
from simcse.index.postgres_tables import Connection

T = TypeVar("T")
SCHEMA = "simcse"  # an index without a name of its own
ATTEMPTS = 10
DEFAULTS = {  # of libpq; what the URL says comes first
    "application_name": "simcse",
    "connect_timeout": "10",
    "tcp_user_timeout": "10000",  # ms until a server that stopped answering counts as gone
    "keepalives_idle": "10",
}
CONFLICTS = (errors.DeadlockDetected, errors.SerializationFailure)
NO_INDEX = "no index at {}; make one: simcse index build URL FILE"
EXPLAINED: dict[tuple[type[psycopg.Error], ...], Callable[[str], SimcseError]] = {
    (errors.DuplicateSchema, errors.UniqueViolation): (
        lambda what: UsageError(f"{what}; add to it, or name another")
    ),
    (errors.UndefinedTable, errors.InvalidSchemaName): (
        lambda what: ArtifactError(NO_INDEX.format(what))
    ),
    (errors.DataCorrupted, errors.IndexCorrupted): ArtifactError,
    (psycopg.DataError,): DataError,
}


@dataclass(frozen=True)
class Address:
    """Address of an index: a database, and the schema of the index in it."""

    settings: dict[str, Any]  # libpq's parameters
    schema: str  # holds the index's tables

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Read ``postgresql://user@host/database#index``.

        Raises:
            UsageError: libpq does not understand it, or the name is too long for a schema.

        Example:
            >>> str(Address.parse("postgresql://me:secret@db.example/texts#news"))
            'postgresql://db.example/texts#news'
        """
        database, _, fragment = url.partition("#")
        schema = unquote(fragment) or SCHEMA
        if len(schema.encode()) > 63 or "\0" in schema or schema.startswith("pg_"):
            raise UsageError(f"an index in PostgreSQL has a name of at most 63 bytes, got {schema}")
        try:
            return cls({**DEFAULTS, **conninfo_to_dict(database)}, schema)
        except psycopg.ProgrammingError as error:
            raise UsageError(f"not an address of a PostgreSQL database: {error}") from error

    def __str__(self) -> str:
        host, name = self.settings.get("host", ""), self.settings.get("dbname", "")
        return f"postgresql://{host}/{name}#{self.schema}"


class Database:
    """One PostgreSQL database, for any number of threads."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._idle: deque[Connection] = deque()
        weakref.finalize(self, _close_all, self._idle)

    def run(
        self,
        work: Callable[[Connection], T],
        *,
        transaction: bool = True,
        vectors: bool = True,
    ) -> T:
        """Return the result of ``work`` with a connection, in one transaction, all or nothing.

        It is called again, on a new connection, when the server went away meanwhile, and when
        another transaction stood in its way; so it must be harmless to do twice.

        Args:
            work: function of a connection.
            transaction: ``False`` for what PostgreSQL does outside of one only.
            vectors: whether the connection must know pgvector's type.

        Raises:
            ResourceError: the server cannot be reached or refuses.
            ArtifactError: there is no index, or what is stored is damaged.
            DataError: a value cannot be stored.
        """
        left = ATTEMPTS
        while True:
            left -= 1
            connection = self._take(vectors)
            try:
                with connection.transaction() if transaction else nullcontext():
                    return work(connection)
            except psycopg.Error as error:
                if connection.broken:
                    _close_all(self._idle)  # the same event ended them
                if not left or not (connection.broken or isinstance(error, CONFLICTS)):
                    raise self._explain(error) from error
            finally:
                self._give_back(connection, vectors)

    def _take(self, vectors: bool) -> Connection:
        with suppress(IndexError):
            if vectors:
                return self._idle.pop()
        return self._connect(vectors)

    def _connect(self, vectors: bool) -> Connection:
        try:
            # Plans are made with the values: one for any k would not use the approximate index.
            connection = psycopg.connect(
                **self.address.settings, autocommit=True, prepare_threshold=None
            )
        except psycopg.Error as error:
            raise self._explain(error) from error
        try:
            connection.execute("SET jit = off")  # compiling takes longer than a search
            if vectors:
                _know_vectors(connection)
        except psycopg.Error as error:  # above all: there is no such type
            connection.close()
            raise self._explain(error) from error
        return connection

    def _give_back(self, connection: Connection, vectors: bool) -> None:
        if vectors and connection.info.transaction_status == TransactionStatus.IDLE:
            self._idle.append(connection)
        else:
            connection.close()

    def _explain(self, error: psycopg.Error) -> SimcseError:
        what = f"{self.address}: {str(error).strip() or type(error).__name__}"
        for classes, explained in EXPLAINED.items():
            if isinstance(error, classes):
                return explained(what)
        return ResourceError(what)


def _know_vectors(connection: Connection) -> None:
    try:
        register_vector(connection)
    except psycopg.ProgrammingError as error:
        raise errors.UndefinedTable("the database has no pgvector") from error


def _close_all(connections: deque[Connection]) -> None:
    while connections:
        connections.pop().close()
