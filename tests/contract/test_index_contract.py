"""One suite over every kind of index: what it finds is what NumPy finds."""

import dataclasses
import uuid

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from filters import holds
from simcse.errors import ArtifactError, DataError, UsageError
from simcse.index.filters import Condition
from simcse.index.protocol import Commit
from simcse.index.uri import create_index, open_index
from simcse.io.rows import IndexRow

COUNT = 600


@pytest.fixture(params=["exact", "hnsw", "ivf", "int8", "binary", "postgres", "postgres hnsw"])
def backend(request, tmp_path):
    """Where an index is kept, and how it searches: a fresh place for each call, and a kind."""
    home, _, kind = request.param.rpartition(" ")
    if "postgres" in (home, kind):
        postgres = request.getfixturevalue("postgres")
        return postgres.new_index, "exact" if kind == "postgres" else kind
    return lambda: tmp_path / uuid.uuid4().hex, kind


@pytest.fixture
def place(backend):
    """Where the index under test is."""
    return backend[0]()


@pytest.fixture
def index(backend, place, fingerprint, make_rows):
    """An index of 600 rows in three commits, the last of them after the structure was built."""
    opened = create_index(place, fingerprint, index_type=backend[1], recall=0.9)
    rows, vectors = make_rows(COUNT)
    for part in (slice(0, 100), slice(100, 500)):
        opened.add(rows[part], vectors[part])
        opened.commit()
    opened.rebuild()
    opened.add(rows[500:], vectors[500:])
    assert opened.commit() == Commit(added=100)
    return opened


def cosines(vectors, query):
    return vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)


def test_the_best_are_found_with_their_exact_cosine(index, make_rows):
    rows, vectors = make_rows(COUNT)
    _, queries = make_rows(20, seed=1)
    found = index.search(queries * 3, k=10)
    shares = []
    for query, hits in zip(queries, found, strict=True):
        truth = cosines(vectors, query)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        for hit in hits:
            row = rows[int(hit.id)]
            assert (hit.text, hit.metadata) == (row.text, row.metadata)
            assert hit.score == pytest.approx(truth[int(hit.id)], abs=1e-5)
        best = set(map(str, np.argsort(-truth)[:10]))
        shares.append(len(best & {hit.id for hit in hits}) / 10)
    approximation = index.metadata.approximation
    assert np.mean(shares) >= (1.0 if approximation is None else 0.85)
    if approximation is not None:
        assert approximation.recall >= 0.9
        assert approximation.rows == 500


def test_nothing_is_hidden_and_a_threshold_is_what_it_says(index, make_rows):
    _, vectors = make_rows(COUNT)
    query = vectors[:1]
    everything = index.search(query, k=10 * COUNT)[0]
    assert sorted(int(hit.id) for hit in everything) == list(range(COUNT))  # X8: k > N
    assert everything[-1].score < 0
    above = index.search(query, k=COUNT, threshold=0.2)[0]
    assert [hit.id for hit in above] == [hit.id for hit in everything if hit.score >= 0.2]


def test_x11_a_filter_gives_all_k_and_equals_exact(index, make_rows):
    _, vectors = make_rows(COUNT)
    query = -vectors[3:4]  # the German rows are not near it in particular
    german = [Condition("lang", "in", ("de",))]
    hits = index.search(query, k=20, where=german)[0]
    truth = cosines(vectors, query[0])
    expected = sorted(range(3, COUNT, 10), key=lambda at: -truth[at])[:20]
    assert [int(hit.id) for hit in hits] == expected
    one = index.search(query, k=5, where=[*german, Condition("n", "in", (13,))])[0]
    assert [hit.id for hit in one] == ["13"]
    with pytest.raises(UsageError, match="did you mean 'lang'"):
        index.search(query, where=[Condition("lnag", "in", ("de",))])


def test_x10_a_row_replaces_the_one_of_its_id(index, make_rows):
    rows, vectors = make_rows(COUNT)
    index.add([rows[7]], -vectors[7:8])
    index.add(rows[7:9], vectors[100:102])  # within a commit the last word counts
    assert len(index) == COUNT  # not before the commit
    assert index.commit() == Commit(updated=2)
    assert len(index) == COUNT
    assert {hit.id for hit in index.search(vectors[100:101], k=2)[0]} == {"7", "100"}


def test_removed_rows_are_gone_and_the_rest_is_found(index, make_rows):
    _, vectors = make_rows(COUNT)
    index.remove(["5", "no such row"])
    index.remove(str(at) for at in range(0, COUNT, 2))
    assert index.commit() == Commit(removed=301)
    assert len(index) == 299
    hits = index.search(vectors[5:6], k=COUNT)[0]
    assert {int(hit.id) for hit in hits} == set(range(1, COUNT, 2)) - {5}
    index.rebuild(compact=True)
    assert len(index) == len(index.sample(COUNT)[0]) == 299
    assert {hit.id for hit in index.search(vectors[5:6], k=COUNT)[0]} == {hit.id for hit in hits}
    assert index.verify() == []


def test_x8_an_empty_index_finds_nothing(index, backend, make_rows, fingerprint):
    _, vectors = make_rows(1)
    empty = create_index(backend[0](), fingerprint, index_type=backend[1])
    empty.rebuild()
    assert empty.search(vectors) == [[]]
    assert empty.search(vectors, where=[Condition("lang", "in", ("de",))]) == [[]]
    assert len(empty) == 0
    index.remove(str(at) for at in range(COUNT))
    index.commit()
    assert index.search(vectors, k=3) == [[]]


def test_x8_k_is_a_whole_number_above_0(index, make_rows):
    for k in (0, -1, True, 2.0, None):
        with pytest.raises(UsageError, match="k must be a whole number"):
            index.search(make_rows(1)[1], k=k)


def test_x7_another_dimension_is_refused(index, make_rows):
    rows, vectors = make_rows(2)
    for wrong in (vectors[:, :8], vectors[0]):
        with pytest.raises(DataError, match=r"expected vectors of shape \(N, 16\)"):
            index.search(wrong)
        with pytest.raises(DataError, match=r"expected vectors of shape \(N, 16\)"):
            index.add(rows, wrong)
    with pytest.raises(DataError, match="a vector for each of 2 rows, got 1"):
        index.add(rows, vectors[:1])


def test_x9_a_vector_without_a_cosine_is_refused(index, make_rows):
    rows, vectors = make_rows(2)
    for bad in (np.nan, np.inf, 0.0):
        vectors[1] = bad
        with pytest.raises(DataError, match="row 1 has a vector that is zero or not finite"):
            index.add(rows, vectors)
        with pytest.raises(DataError, match="row 1"):
            index.search(vectors)
    assert index.commit() == Commit()


def test_a_threshold_out_of_range_and_ids_that_are_a_string_are_refused(index, make_rows):
    with pytest.raises(UsageError, match="threshold"):
        index.search(make_rows(1)[1], threshold=60)
    with pytest.raises(TypeError, match="list of ids"):
        index.remove("17")


def test_it_is_the_same_after_opening_again(index, place, make_rows):
    _, queries = make_rows(5, seed=2)
    again = open_index(place)
    assert again.search(queries, k=7) == index.search(queries, k=7)
    assert (again.metadata, len(again)) == (index.metadata, COUNT)
    with pytest.raises(UsageError, match=r"is there already|already exists"):
        create_index(place, index.metadata.fingerprint)


def test_what_another_wrote_is_taken_up(index, place, make_rows):
    rows, vectors = make_rows(COUNT + 2)
    other = open_index(place)
    other.add(rows[COUNT:], vectors[COUNT:])
    other.remove(["0"])
    assert other.commit() == Commit(added=2, removed=1)
    other.commit(calibration={"pairs": 3})
    assert index.refresh()
    assert not index.refresh()
    assert (len(index), index.metadata.version) == (COUNT + 1, other.metadata.version)
    assert index.metadata.calibration == {"pairs": 3}
    assert index.search(vectors[COUNT:][:1], k=1)[0][0].id == str(COUNT)
    index.add(rows[:1], vectors[:1])
    index.refresh(discard=True)
    assert index.commit() == Commit()


def test_progress_is_kept_by_source_until_it_is_cleared(index, place, make_rows):
    rows, vectors = make_rows(2)
    index.add(rows[:1], vectors[:1])
    index.commit(progress={"a": 1})
    index.commit(progress={"b": 2})
    index.add(rows, vectors)
    index.commit()
    assert open_index(place).metadata.progress == {"a": 1, "b": 2}
    assert index.metadata.describe()["unfinished"]
    index.commit(progress=None)
    index.commit(progress={"c": 3})
    assert open_index(place).metadata.progress == {"c": 3}


def test_what_is_in_it_can_be_seen(index, make_rows):
    rows, vectors = make_rows(COUNT)
    drawn, found = index.sample(50, seed=1)
    assert len({row.id for row in drawn}) == 50
    for row, vector in zip(drawn, found, strict=True):
        at = int(row.id)
        assert (row.text, dict(row.metadata)) == (rows[at].text, rows[at].metadata)
        np.testing.assert_allclose(vector, vectors[at] / np.linalg.norm(vectors[at]), atol=1e-6)
    assert index.sample(50, seed=1)[0] == drawn
    assert index.sample(50, seed=2)[0] != drawn
    assert {row.id for row in index.sample(10 * COUNT)[0]} == set(map(str, range(COUNT)))
    values = index.metadata.read_values(5)
    assert sorted(values["lang"]) == ["de", "en"]
    assert len(values["n"]) >= 5
    described = index.metadata.describe()
    assert (described["rows"], described["fields"], described["unfinished"]) == (
        COUNT,
        ["lang", "n"],
        False,
    )
    assert described["fingerprint"] == "a" * 64
    assert described["bytes"] > COUNT * 16 * 4


def test_x6_another_models_vectors_are_refused(index):
    with pytest.raises(ArtifactError, match="pooling 'mean' there, 'cls' here"):
        index.metadata.require_model(
            dataclasses.replace(
                index.metadata.fingerprint, sha256="b" * 64, settings={"pooling": "cls"}
            )
        )


VALUES = st.one_of(
    *(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.5, 2.0, 1e30, -1e-9])),
    st.sampled_from(["", "a", "B", "ä", "1", "true", '"', "%s", "'; DROP TABLE rows; --", "\\"]),
)
HELD = st.one_of(VALUES, st.lists(VALUES, max_size=3))
CONDITIONS = st.one_of(
    st.builds(
        Condition, st.just("f"), st.sampled_from(["in", "not_in"]), st.lists(HELD).map(tuple)
    ),
    st.builds(
        Condition,
        st.just("f"),
        st.sampled_from(["gt", "gte", "lt", "lte"]),
        st.tuples(HELD),
    ),
)


@pytest.mark.parametrize("backend", ["exact", "postgres"], indirect=True)
def test_filters_mean_the_same_everywhere(backend, fingerprint, make_rows):
    @settings(max_examples=20, deadline=None)
    @given(held=st.lists(HELD, min_size=1, max_size=6), conditions=st.lists(CONDITIONS, max_size=8))
    @example(held=[[1]], conditions=[Condition("f", "in", (1,)), Condition("f", "in", ([1],))])
    @example(held=[True, 1], conditions=[Condition("f", "in", (1,)), Condition("f", "gt", (0,))])
    def check(held, conditions):
        index = create_index(backend[0](), fingerprint)
        _, vectors = make_rows(len(held) + 1)
        rows = [IndexRow(str(at), "x", {"f": value}) for at, value in enumerate(held)]
        index.add([*rows, IndexRow("without", "x")], vectors)
        index.commit()
        for condition in conditions:
            hits = index.search(vectors[:1], k=10, where=[condition])[0]
            expected = {row.id for row in rows if holds(condition, row.metadata["f"])}
            expected |= {"without"} if condition.operator == "not_in" else set()
            assert {hit.id for hit in hits} == expected, condition

    check()
