"""Vectors on disk: round trips in every format, other libraries' readers, damage, memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simcse.errors import ArtifactError, DataError, ResourceError, UsageError
from simcse.io.vectors import read_vectors, vector_writer

SUFFIXES = [".npy", ".safetensors", ".parquet"]


def write(path, chunks):
    with vector_writer(path) as append:
        for vectors in chunks:
            append([f"text {row}" for row in range(len(vectors))], vectors)


def random_vectors(rows, dimensions):
    return np.random.default_rng(0).normal(size=(rows, dimensions)).astype(np.float32)


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(deadline=None)  # importing pyarrow takes seconds on a busy machine
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4), dimensions=st.integers(1, 9))
def test_round_trip(tmp_path_factory, suffix, sizes, dimensions):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path_factory.mktemp("vectors") / f"a{suffix}"
    vectors = random_vectors(sum(sizes), dimensions)
    write(path, np.split(vectors, np.cumsum(sizes)[:-1]))
    stored = read_vectors(path)
    np.testing.assert_array_equal(stored, vectors)
    assert stored.dtype == np.float32
    assert not stored.flags.writeable


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_flat_formats_are_mapped_into_memory(tmp_path, suffix):
    write(tmp_path / f"a{suffix}", [random_vectors(3, 4)])
    assert isinstance(read_vectors(tmp_path / f"a{suffix}"), np.memmap)


def test_other_readers_agree(tmp_path):
    vectors = random_vectors(5, 3)
    for suffix in (".npy", ".safetensors"):
        write(tmp_path / f"a{suffix}", [vectors[:2], vectors[2:]])
    load_file = pytest.importorskip("safetensors.numpy").load_file
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), vectors)
    np.testing.assert_array_equal(load_file(tmp_path / "a.safetensors")["embeddings"], vectors)


def test_parquet_holds_text_and_vector(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write(tmp_path / "a.parquet", [np.eye(2, dtype=np.float32)])
    assert parquet.read_table(tmp_path / "a.parquet").to_pylist() == [
        {"text": "text 0", "vector": [1.0, 0.0]},
        {"text": "text 1", "vector": [0.0, 1.0]},
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_error_leaves_the_old_file(tmp_path, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"a{suffix}"
    write(path, [random_vectors(1, 2)])
    before = path.read_bytes()

    def failing():
        yield random_vectors(4, 2)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write(path, failing())
    with pytest.raises(DataError, match="no vectors to write"):
        write(path, [])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        (np.zeros((2, 3)), "expected D = 2, got 3"),
        (np.zeros(2), r"expected vectors \(2, D\) for 2 texts, got \(2,\)"),
        (np.zeros((2, 0)), r"got \(2, 0\)"),
    ],
)
def test_a_chunk_of_another_shape_is_refused(tmp_path, second, problem):
    with pytest.raises(DataError, match=problem):
        write(tmp_path / "a.npy", [np.zeros((1, 2)), second])


def test_an_unwritable_place_is_a_resource_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="cannot write"):
        write(tmp_path / "file" / "a.npy", [])


def test_unknown_ending(tmp_path):
    with pytest.raises(UsageError, match=r"\.npy, \.safetensors, \.parquet, got .*a\.pkl"):
        write(tmp_path / "a.pkl", [])
    with pytest.raises(UsageError, match=r"got .*a\.pkl"):
        read_vectors(tmp_path / "a.pkl")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(tmp_path, suffix, keep):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"a{suffix}"
    write(path, [random_vectors(3, 2)])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ArtifactError, match=f"cannot read vectors from .*a{suffix}"):
        read_vectors(path)


def test_a_missing_or_foreign_file_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="No such file"):
        read_vectors(tmp_path / "none.npy")
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(ArtifactError, match=r"float32 vectors, got float64 \(3,\)"):
        read_vectors(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.array([{}], dtype=object))
    with pytest.raises(ArtifactError, match="Python objects"):
        read_vectors(tmp_path / "b.npy")


def test_t15_a_safetensors_header_bomb_allocates_nothing(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"\xff" * 8 + b'{"embeddings": {"shape": [1000000000, 1000000]}}'.ljust(248))
    tracemalloc.start()
    with pytest.raises(ArtifactError, match="header and size disagree"):
        read_vectors(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_memory_stays_constant(tmp_path, suffix):
    chunk, texts = random_vectors(64, 256), [""] * 64
    tracemalloc.start()
    with vector_writer(tmp_path / f"a{suffix}") as append:
        for _ in range(200):  # 13 MB
            append(texts, chunk)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert read_vectors(tmp_path / f"a{suffix}").shape == (12_800, 256)
