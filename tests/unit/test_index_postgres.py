"""What befalls an index in PostgreSQL: restarts, a lost primary, many writers, wrong addresses."""

import concurrent.futures
import threading
import time
import uuid

import numpy as np
import pytest

from postgres import Postgres, servers
from simcse.errors import ArtifactError, DataError, NumericError, ResourceError, UsageError
from simcse.index.protocol import Commit
from simcse.index.uri import create_index, has_index, index_folder, open_index
from simcse.io.fingerprint import ModelFingerprint
from simcse.io.rows import IndexRow

pytest.importorskip("psycopg")
pytest.importorskip("pgvector")

from simcse.index.postgres_database import Address, Database

DIMENSIONS = 8
FINGERPRINT = ModelFingerprint("m", "f" * 64, DIMENSIONS)


def rows_of(first, last):
    rows = [IndexRow(str(at), f"text {at}", {"n": at}) for at in range(first, last)]
    vectors = [np.random.default_rng(at).normal(size=DIMENSIONS) for at in range(first, last)]
    return rows, np.array(vectors, np.float32)


def ids_in(place):
    return sorted(int(row.id) for row in open_index(place).sample(100_000)[0])


@pytest.fixture
def home():
    with servers() as folder:
        yield folder


def add_one_by_one(place, acknowledged, refused, stop):
    """Add rows as fast as may be; go on where the server was away."""
    index, at = open_index(place), 0
    while not stop.is_set():
        index.add(*rows_of(at, at + 1))
        try:
            index.commit()
        except ResourceError as error:
            refused.append(error.exit_code)
            time.sleep(0.02)
        else:
            acknowledged.append(at)
            at += 1


def until(condition, seconds=600):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.slow
def test_x14_a_restart_costs_refusals_and_neither_loses_nor_doubles_a_row(home):
    server = Postgres(home).create().start(fsync="on")
    place = server.new_index()
    create_index(place, FINGERPRINT)
    acknowledged, refused, stop = [], [], threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(add_one_by_one, place, acknowledged, refused, stop)
        try:
            for end in (server.stop, server.kill):
                before = len(acknowledged)
                until(lambda before=before: len(acknowledged) > before + 5 or running.done())
                end()
                before = len(refused)
                until(lambda before=before: len(refused) > before or running.done())
                server.start()
            before = len(acknowledged)
            until(lambda: len(acknowledged) > before + 5 or running.done())
        finally:
            stop.set()
        running.result()
    assert set(refused) == {5}
    assert ids_in(place) == list(range(len(acknowledged)))
    assert len(open_index(place)) == len(acknowledged)
    assert open_index(place).verify() == []


def test_x14_idle_connections_that_were_cut_off_are_made_anew(postgres):
    place = postgres.new_index()
    index = create_index(place, FINGERPRINT)
    index.add(*rows_of(0, 3))
    index.commit()
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    Database(Address.parse(postgres.url)).run(lambda c: c.execute(query).fetchall(), vectors=False)
    assert [hit.id for hit in index.search(rows_of(1, 2)[1], k=1)[0]] == ["1"]


@pytest.mark.slow
def test_x15_the_standby_has_every_acknowledged_row_and_the_index_goes_on_there(home):
    primary = Postgres(home, "primary").create().start()
    standby = Postgres(home, "standby").copy_of(primary).start()
    primary.configure(synchronous_standby_names="'*'")
    until(lambda: primary.is_synchronous())
    # libpq goes to whichever of the two takes writes.
    sockets = f"{primary.socket},{standby.socket}"
    place = (
        f"postgresql://postgres@/postgres?host={sockets}&target_session_attrs=read-write"
        f"#{uuid.uuid4().hex}"
    )
    create_index(place, FINGERPRINT)
    acknowledged, refused, stop = [], [], threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(add_one_by_one, place, acknowledged, refused, stop)
        try:
            until(lambda: len(acknowledged) > 30 or running.done())
            primary.kill()
            until(lambda: refused or running.done())
            kept = len(acknowledged)
            standby.configure(synchronous_standby_names="''")
            standby.promote()
            until(lambda: len(acknowledged) > kept + 5 or running.done())
        finally:
            stop.set()
        running.result()
    assert ids_in(place) == list(range(len(acknowledged)))
    assert open_index(place).verify() == []


def test_a_standby_is_searched_and_not_written(home):
    primary = Postgres(home, "primary").create().start(synchronous_commit="remote_apply")
    standby = Postgres(home, "standby").copy_of(primary).start()
    primary.configure(synchronous_standby_names="'*'")
    until(lambda: primary.is_synchronous())
    place = primary.new_index()
    index = create_index(place, FINGERPRINT)
    index.add(*rows_of(0, 5))
    index.commit()
    replica = open_index(place.replace(str(primary.socket), str(standby.socket)))
    assert replica.search(rows_of(2, 3)[1], k=3) == index.search(rows_of(2, 3)[1], k=3)
    replica.add(*rows_of(5, 6))
    with pytest.raises(ResourceError, match="read-only transaction"):
        replica.commit()


def test_many_writers_of_the_same_rows_lose_and_double_nothing(postgres):
    place = postgres.new_index()
    create_index(place, FINGERPRINT)

    def write(seed):
        random, index, done = np.random.default_rng(seed), open_index(place), Commit()
        for _ in range(15):
            first = int(random.integers(0, 40))
            index.add(*rows_of(first, first + 10))
            index.remove(str(at) for at in random.integers(0, 20, 3))
            done += index.commit(progress={f"source {seed}": first})
        return done

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        done = sum(pool.map(write, range(4)), Commit())
    index = open_index(place)
    there = ids_in(place)
    assert len(there) == len(set(there)) == len(index) == done.added - done.removed
    assert sorted(index.metadata.progress) == [f"source {seed}" for seed in range(4)]
    assert index.verify() == []


def test_x13_a_recall_below_the_floor_leaves_the_index_as_it_was(postgres, monkeypatch):
    place = postgres.new_index()
    index = create_index(place, FINGERPRINT)
    index.add(*rows_of(0, 50))
    index.commit()
    before = index.metadata
    with monkeypatch.context() as patched:
        patched.setattr("simcse.index.postgres_tables.recall_of", lambda truth, found: 0.5)
        with pytest.raises(NumericError, match=r"hnsw: recall@10 is 0\.5000 with 1000 candidates"):
            index.rebuild(index_type="hnsw", recall=0.6)
    assert open_index(place).metadata == before
    assert graphs_of(index) == []
    index.rebuild(index_type="hnsw", recall=0.6)
    assert graphs_of(index) == [("rows_hnsw",)]
    assert index.metadata.approximation.recall >= 0.6


def graphs_of(index):
    query = "SELECT indexname FROM pg_indexes WHERE indexdef LIKE '%% hnsw %%' AND schemaname = %s"
    schema = index.metadata.name.rpartition("#")[2]
    return index._database.run(lambda c: c.execute(query, [schema]).fetchall())


def test_what_was_changed_behind_its_back_is_seen_by_verify(postgres):
    place = postgres.new_index()
    index = create_index(place, FINGERPRINT)
    index.add(*rows_of(0, 5))
    index.commit()
    for change, problem in (
        ("UPDATE {rows} SET vector = vector + vector WHERE id = '1'", "1 vectors do not have"),
        ("UPDATE {rows} SET metadata = '[]' WHERE id = '2'", "1 rows have no text, or"),
        ("DELETE FROM {rows} WHERE id = '3'", "expected 5 rows, found 4"),
    ):
        index._database.run(lambda c, change=change: c.execute(index._tables.sql(change)))
        assert any(problem in found for found in index.verify()), problem


def test_what_postgresql_does_not_store_is_refused(postgres):
    index = create_index(postgres.new_index(), FINGERPRINT)
    for row in (IndexRow("a", "x\0"), IndexRow("a", "x", {"f": "\0"})):
        index.add([row], rows_of(0, 1)[1])
        with pytest.raises(DataError):
            index.commit()
        index.refresh(discard=True)
    assert index.commit(progress={"a": 1}) == Commit()


def test_an_address_names_a_database_and_an_index():
    address = Address.parse("postgresql://me:secret@db.example:5433/texts#my%20news")
    assert (address.schema, address.settings["port"]) == ("my news", "5433")
    assert str(address) == "postgresql://db.example/texts#my news"
    assert Address.parse("postgres:///texts").schema == "simcse"
    for wrong in ("postgresql://x/y#" + "n" * 64, "postgresql://x/y#pg_catalog", "postgresql://[x"):
        with pytest.raises(UsageError):
            Address.parse(wrong)
    with pytest.raises(UsageError, match="no folder; do that"):
        index_folder("postgresql://x/y", instead="do that")


def test_what_is_not_there_is_said_without_the_password(postgres):
    place = postgres.new_index()
    assert not has_index(place)
    with pytest.raises(ArtifactError, match="simcse index build URL FILE"):
        open_index(place)
    with pytest.raises(UsageError, match="is exact or hnsw"):
        create_index(place, FINGERPRINT, index_type="ivf")
    assert not has_index(place)
    create_index(place, FINGERPRINT)
    assert has_index(place)
    with pytest.raises(ResourceError) as caught:
        open_index("postgresql://me:secret@127.0.0.1:9/texts")
    assert "secret" not in str(caught.value)
