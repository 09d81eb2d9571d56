"""Stored weights: damaged, unsafe and hostile files (RELIABILITY T5-T8, T15)."""

import json
import os
import time
import tracemalloc
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simcse.errors import ArtifactError, ResourceError
from simcse.io.checkpoints import (
    INDEX,
    WEIGHTS,
    atomic_folder,
    check_checksums,
    checksums,
    current_folder,
    read_json,
    read_json_list,
    read_safetensors,
    refuse_unsafe,
    write_safetensors,
)

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / WEIGHTS
    write_safetensors(path, TENSORS)
    return path


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("stored") / WEIGHTS
    write_safetensors(path, TENSORS)
    return path.read_bytes()


def test_tensors_come_back(weights: Path) -> None:
    read = read_safetensors(weights)
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in TENSORS.items())
    assert [path.name for path in weights.parent.iterdir()] == [WEIGHTS]


def test_a_transposed_view_is_stored_as_it_looks(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "x", {"t": TENSORS["a"].T})
    assert torch.equal(read_safetensors(tmp_path / "x")["t"], TENSORS["a"].T)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nowhere is missing") as caught:
        read_safetensors(tmp_path / "nowhere")
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 10**12, 17 << 20, 200, 1, 0])
def test_header_bomb_is_refused_without_allocation(tmp_path: Path, length: int) -> None:
    path = tmp_path / WEIGHTS
    path.write_bytes(length.to_bytes(8, "little") + b"{}" + bytes(20))
    tracemalloc.start()
    with pytest.raises(ArtifactError, match="damaged"):
        read_safetensors(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_shape_larger_than_the_file_is_refused(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}
    header = json.dumps({"bomb": entry}).encode()
    (tmp_path / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    with pytest.raises(ArtifactError, match="expected 4,398,046,5"):
        read_safetensors(tmp_path / WEIGHTS)


@pytest.mark.parametrize("header", [b"[1, 2]", b'{"a": 1}', b'{"a": {}}', b"{nope", b"\xff\xfe{}"])
def test_headers_that_are_no_headers(tmp_path: Path, header: bytes) -> None:
    (tmp_path / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ArtifactError, match=r"model\.safetensors is damaged"):
        read_safetensors(tmp_path / WEIGHTS)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated_anywhere(tmp_path: Path, stored: bytes, share: float) -> None:
    path = tmp_path / WEIGHTS
    path.write_bytes(stored[: int(len(stored) * share)])
    with pytest.raises(ArtifactError, match=r"model\.safetensors is damaged"):
        read_safetensors(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 7 + 150), bit=st.integers(0, 7))
def test_a_flipped_header_bit_never_escapes_as_another_error(
    tmp_path: Path, stored: bytes, position: int, bit: int
) -> None:
    path = tmp_path / WEIGHTS
    data = bytearray(stored)
    data[position] ^= 1 << bit
    path.write_bytes(data)
    try:
        read = read_safetensors(path)
    except ArtifactError as error:
        assert str(path) in str(error)  # noqa: PT017 - not every flip can be seen in the header
    else:
        assert len(read) == 2


def test_json_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(ArtifactError, match=r"x\.json is missing"):
        read_json(path)
    for content in (b'{"a": ', b"\xff\x00", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match=r"x\.json is damaged: not JSON"):
            read_json(path)
    path.write_text("[1]")
    with pytest.raises(ArtifactError, match="expected a JSON object, found list"):
        read_json(path)
    with pytest.raises(ArtifactError, match="expected a JSON list of objects"):
        read_json_list(path)


def test_pickle_only_is_refused_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ArtifactError, match=r"pytorch_model\.bin.*save_pretrained"):
        refuse_unsafe(tmp_path)
    write_safetensors(tmp_path / WEIGHTS, TENSORS)
    refuse_unsafe(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_named_by_a_folder_is_refused(weights: Path, name: str) -> None:
    (weights.parent / "config.json").write_text("{}")
    (weights.parent / name).write_text('{"auto_map": {"AutoModel": "evil.Model"}}')
    with pytest.raises(ArtifactError, match=f"{name} names code of its own"):
        refuse_unsafe(weights.parent)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"no weights: expected model\.safetensors"):
        refuse_unsafe(tmp_path)


def test_weights_in_several_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    parts = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    for name, file in parts.items():
        write_safetensors(tmp_path / file, {name: TENSORS[name]})
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": parts}))
    refuse_unsafe(tmp_path)
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"model-2\.safetensors is missing"):
        refuse_unsafe(tmp_path)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": "../model-1.safetensors"}}))
    with pytest.raises(ArtifactError, match="outside its folder"):
        refuse_unsafe(tmp_path)


def test_checksums_notice_any_byte(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "x").write_bytes(b"abc")
    noted = checksums(tmp_path)
    check_checksums(tmp_path, noted)
    (tmp_path / "below" / "x").write_bytes(b"abd")
    with pytest.raises(ArtifactError, match=r"below/x is damaged"):
        check_checksums(tmp_path, noted)
    (tmp_path / "below" / "x").unlink()
    with pytest.raises(ArtifactError, match=r"below/x is missing"):
        check_checksums(tmp_path, noted)


def put(folder: Path, text: str | None) -> None:
    with atomic_folder(folder) as new:
        (new / "x").write_text(text)


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "best"
    put(folder, "1")
    (folder / "stale").touch()
    put(folder, "2")
    assert [path.name for path in folder.parent.iterdir()] == ["best"]
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("x", "2")]


def test_an_error_leaves_the_old_folder(tmp_path: Path) -> None:
    put(tmp_path / "best", "1")
    with pytest.raises(TypeError):
        put(tmp_path / "best", None)
    assert (tmp_path / "best" / "x").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_kill_between_the_renames_leaves_the_old_folder_to_be_found(tmp_path: Path) -> None:
    put(tmp_path / "best", "1")
    (tmp_path / "best").rename(tmp_path / ".best.previous")
    assert (current_folder(tmp_path / "best") / "x").read_text() == "1"
    put(tmp_path / "best", "2")
    assert current_folder(tmp_path / "best") == tmp_path / "best"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_two_writers_of_one_folder_never_mix(tmp_path: Path) -> None:
    """Both save many times, each its own two files; the folder always is one writer's."""
    folder, writers, saves = tmp_path / "best", 2, 40

    def save_often(writer: int) -> int:
        for _ in range(saves):
            with atomic_folder(folder) as new:
                for name in ("x", "y"):
                    (new / name).write_text(str(writer))
                    time.sleep(0.0005)
        return 0

    put(folder, "start")
    children = []
    for writer in range(writers):
        child = os.fork()
        if child == 0:
            try:
                os._exit(save_often(writer))
            finally:
                os._exit(1)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0, 0]
    assert {path.name for path in tmp_path.iterdir()} == {"best"}
    assert (folder / "x").read_text() == (folder / "y").read_text()


def test_what_a_killed_writer_left_is_cleared_and_a_living_ones_is_not(tmp_path: Path) -> None:
    dead = tmp_path / ".best.0123abcd.new"
    dead.mkdir()
    with atomic_folder(tmp_path / "best") as mine:
        assert not dead.exists()
        put(tmp_path / "best", "other")
        (mine / "x").write_text("mine")
    assert (tmp_path / "best" / "x").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="cannot write"), atomic_folder(tmp_path / "file" / "m"):
        pass


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        Path("/dev/full").write_bytes(bytes(1 << 16))

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(ResourceError, match="No space left"):
        write_safetensors(tmp_path / WEIGHTS, TENSORS)
    assert not list(tmp_path.iterdir())


@pytest.mark.timeout(60)
def test_folders_are_replaced_within_one_that_is_being_filled(tmp_path: Path) -> None:
    for number in range(2):
        with atomic_folder(tmp_path / "outer") as outer:
            for text in ("first", "second"):
                with atomic_folder(outer / "inner") as inner:
                    (inner / "text").write_text(f"{text} {number}")
        assert (tmp_path / "outer" / "inner" / "text").read_text() == f"second {number}"
        assert [path.name for path in tmp_path.iterdir()] == ["outer"]
        assert [path.name for path in (tmp_path / "outer").iterdir()] == ["inner"]
