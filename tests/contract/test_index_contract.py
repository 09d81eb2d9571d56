"""One suite over every kind of index: what it finds is what NumPy finds."""

import numpy as np
import pytest

from simcse.errors import DataError, UsageError
from simcse.index.embedded import EmbeddedIndex
from simcse.index.filters import Condition
from simcse.index.protocol import Commit

pytest.importorskip("faiss")
COUNT = 600


@pytest.fixture(params=["exact", "hnsw", "ivf", "int8", "binary"])
def index(request, tmp_path, stamp, make_rows):
    """An index of 600 rows in three commits, the last of them after the structure was built."""
    opened = EmbeddedIndex.create(tmp_path / "index", stamp, kind=request.param, recall=0.9)
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
    approximation = index.facts["approximation"]
    assert np.mean(shares) >= (1.0 if approximation is None else 0.85)
    if approximation is not None:
        assert approximation["recall"] >= 0.9
        assert approximation["rows"] == 500


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
    index.compact()
    assert len(index) == len(index.snapshot.live) == 299
    assert {hit.id for hit in index.search(vectors[5:6], k=COUNT)[0]} == {hit.id for hit in hits}
    assert index.verify() == []


def test_x8_an_empty_index_finds_nothing(index, make_rows, tmp_path, stamp):
    _, vectors = make_rows(1)
    empty = EmbeddedIndex.create(tmp_path / "empty", stamp)
    assert empty.search(vectors) == [[]]
    assert empty.search(vectors, where=[Condition("lang", "in", ("de",))]) == [[]]
    assert len(empty) == 0
    index.remove(str(at) for at in range(COUNT))
    index.commit()
    assert index.search(vectors, k=3) == [[]]


@pytest.mark.parametrize("k", [0, -1, True, 2.0, None])
def test_x8_k_is_a_whole_number_above_0(index, make_rows, k):
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


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_x9_a_vector_without_a_cosine_is_refused(index, make_rows, bad):
    rows, vectors = make_rows(2)
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


def test_it_is_the_same_after_opening_again(index, make_rows):
    _, queries = make_rows(5, seed=2)
    again = EmbeddedIndex.open(index.folder)
    assert again.search(queries, k=7) == index.search(queries, k=7)
    assert again.stamp == index.stamp
