"""The index against a dictionary and NumPy: any order of calls, crashes and reopening."""

import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from dying import counting
from simcse.errors import ResourceError
from simcse.index import sqlite_writer
from simcse.index.filters import Condition
from simcse.index.postgres import PostgresIndex
from simcse.index.protocol import Commit
from simcse.index.sqlite import SqliteIndex
from simcse.io.fingerprint import ModelFingerprint
from simcse.io.rows import IndexRow

pytest.importorskip("faiss")
psycopg = pytest.importorskip("psycopg")
DIMENSIONS = 3
NAMES = [str(number) for number in range(8)]
MANY = settings(max_examples=15, stateful_step_count=20, deadline=None)
BATCHES = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 10_000)), max_size=5)


class Crash(Exception):
    """The process ends here."""


class IndexMachine(RuleBasedStateMachine):
    """What holds for every index; its crashes come from the subclasses."""

    @initialize()
    def create(self):
        self.index = self.create_empty(ModelFingerprint("m", "f", DIMENSIONS))
        self.durable = {}
        self.staged = {}

    @rule(batch=BATCHES)
    def add(self, batch):
        rows = [IndexRow(name, f"text {seed}", {"odd": seed % 2}) for name, seed in batch]
        vectors = [np.random.default_rng(seed).normal(size=DIMENSIONS) for _, seed in batch]
        self.index.add(rows, np.array(vectors, np.float32).reshape(-1, DIMENSIONS))
        for row, vector in zip(rows, vectors, strict=True):
            self.staged.pop(row.id, None)
            self.staged[row.id] = (row, vector / np.linalg.norm(vector))

    @rule(names=st.lists(st.sampled_from(NAMES), max_size=3))
    def remove(self, names):
        self.index.remove(names)
        self.staged.update(dict.fromkeys(names))

    @rule()
    def commit(self):
        fresh = {name for name, staged in self.staged.items() if staged is not None}
        gone = {name for name, staged in self.staged.items() if staged is None}
        expected = Commit(
            added=len(fresh - set(self.durable)),
            updated=len(fresh & set(self.durable)),
            removed=len(gone & set(self.durable)),
        )
        assert self.index.commit() == expected
        self.settle()

    @rule()
    def reopen(self):
        """What was not committed is gone; a crash leaves all of a commit or nothing."""
        self.index = self.open_again()
        stored = {row.id: row.text for row in self.index.sample(100)[0]}
        before = {name: row.text for name, (row, _) in self.durable.items()}
        if stored != before:
            self.settle()
            assert stored == {name: row.text for name, (row, _) in self.durable.items()}
        self.staged = {}

    @rule()
    def compact(self):
        self.index.rebuild(compact=True)
        assert len(self.index.sample(100)[0]) == len(self.durable)

    @rule()
    def rebuild(self):
        self.index.rebuild()

    def settle(self):
        for name, staged in self.staged.items():
            self.durable.pop(name, None)
            if staged is not None:
                self.durable[name] = staged
        self.staged = {}

    @invariant()
    def it_finds_what_numpy_finds(self):
        if not hasattr(self, "index"):
            return
        assert len(self.index) == len(self.durable)
        query = np.array([[0.3, -0.2, 0.9]], np.float32)
        for where in ([], [Condition("odd", "in", (1,))]):
            if where and not self.index.metadata.read_values(1):
                continue
            kept = [
                (float(vector @ query[0] / np.linalg.norm(query)), row)
                for row, vector in self.durable.values()
                if not where or row.metadata["odd"]
            ]
            hits = self.index.search(query, k=5, where=where)[0]
            best = sorted((score for score, _ in kept), reverse=True)[:5]
            assert np.allclose([hit.score for hit in hits], best, atol=1e-5)
            texts = {row.id: row.text for _, row in kept}
            assert all(texts[hit.id] == hit.text for hit in hits)
        assert self.index.verify() == []


class SqliteMachine(IndexMachine):
    """Chunks of at most four rows, so that merging, splitting and compacting happen often."""

    def create_empty(self, fingerprint):
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # where an fsync costs nothing
        self.home = tempfile.TemporaryDirectory(dir=memory)
        self.folder = Path(self.home.name) / "index"
        self.chunk_rows = mock.patch.object(sqlite_writer, "CHUNK_ROWS", 4)
        self.chunk_rows.start()
        return SqliteIndex.create(self.folder, fingerprint)

    def open_again(self):
        return SqliteIndex.open(self.folder)

    def teardown(self):
        if hasattr(self, "chunk_rows"):
            self.chunk_rows.stop()
            self.home.cleanup()

    @rule(after=st.integers(0, 60), full=st.booleans())
    def crash_in_a_commit(self, after, full):
        """The process dies, or the disk is full, at one of the commit's statements and fsyncs."""
        left = after

        def step(error):
            nonlocal left
            left -= 1
            if left == -1:
                raise error if full else Crash

        connect, fsync = counting(step)
        try:
            with mock.patch("sqlite3.connect", connect), mock.patch("os.fsync", fsync):
                self.index.commit()
        except ResourceError:  # X4: what is staged stays, so that it can be tried again
            assert full
            self.reopen_if_published()
        except Crash:
            self.reopen()
        else:
            self.settle()
        finally:
            left = -1  # connections that were opened meanwhile live on

    def reopen_if_published(self):
        """A commit that fails after its last statement has happened, though it says otherwise."""
        if self.index.refresh():
            self.index.refresh(discard=True)
            self.settle()


class PostgresMachine(IndexMachine):
    """An index in PostgreSQL that searches with a graph from its first rebuilding on."""

    postgres = None

    def create_empty(self, fingerprint):
        self.url = self.postgres.new_index()
        return PostgresIndex.create(self.url, fingerprint, index_type="hnsw", recall=0.0)

    def open_again(self):
        return PostgresIndex.open(self.url)

    @rule(after=st.integers(0, 8), dies=st.booleans())
    def crash_in_a_commit(self, after, dies):
        """The process dies at one of the commit's statements, or the server cuts it off there."""
        left, execute = after, psycopg.Cursor.execute

        def failing(cursor, *arguments, **options):
            nonlocal left
            left -= 1
            if left < 0:
                cursor.connection.close()
                raise Crash if dies else psycopg.OperationalError("cut off")
            return execute(cursor, *arguments, **options)

        try:
            with mock.patch.object(psycopg.Cursor, "execute", failing):
                self.index.commit()
        except (ResourceError, Crash):
            self.reopen()
        else:
            self.settle()


def test_an_index_in_a_folder_is_a_dictionary():
    run_state_machine_as_test(SqliteMachine, settings=MANY)


def test_an_index_in_postgresql_is_a_dictionary(postgres):
    machine = type("Machine", (PostgresMachine,), {"postgres": postgres})
    run_state_machine_as_test(machine, settings=MANY)
