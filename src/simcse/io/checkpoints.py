"""Stored weights and model folders: safetensors and JSON only, checked before they are used."""

import contextlib
import glob
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from simcse.errors import ArtifactError, ResourceError
from simcse.io.files import atomic_path, fsync, sha256_file
from simcse.io.locks import lock_open_file

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"  # of weights in several files
CONFIG = "config.json"
MAX_HEADER_BYTES = 16 << 20  # about 100,000 tensors
_OWN: set[Path] = set()  # temporary folders of this process
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ArtifactError: the file is missing, not JSON or not an object.
    """
    value = _parse_json(path)
    if not isinstance(value, dict):
        raise ArtifactError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def read_json_list(path: Path) -> list[dict[str, Any]]:
    """Read a JSON list of objects.

    Raises:
        ArtifactError: the file is missing, not JSON or not a list of objects.
    """
    value = _parse_json(path)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ArtifactError(f"{path}: expected a JSON list of objects")
    return value


def _parse_json(path: Path) -> object:
    try:
        value: object = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing") from error
    except OSError as error:
        raise ResourceError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged: not JSON ({error})") from error
    return value


def read_safetensors(path: Path, *, prefix: str = "") -> dict[str, "Tensor"]:
    """Read the tensors whose names have a prefix, by the rest of their names.

    Raises:
        ArtifactError: the file is missing, truncated or damaged.
    """
    from safetensors import safe_open

    check_safetensors(path)
    try:
        with safe_open(path, framework="pt") as stored:
            names = [name for name in stored.keys() if name.startswith(prefix)]  # noqa: SIM118
            return {name.removeprefix(prefix): stored.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ArtifactError(f"{path} is damaged: {error}") from error


def write_safetensors(path: Path, tensors: Mapping[str, "Tensor"]) -> None:
    """Write tensors by name, atomically.

    Raises:
        ResourceError: the disk is full or read-only.
    """
    from safetensors.torch import save_file

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(contiguous, temporary, metadata={"format": "pt"})  # needed by transformers
        except SafetensorError as error:  # raised for a full disk
            raise ResourceError(f"cannot write {path}: {error}") from error


def check_safetensors(path: Path) -> None:
    """Compare the size that the header announces with that of the file, before allocating it.

    Raises:
        ArtifactError: the file is missing or has another size.
    """
    if not path.is_file():
        raise ArtifactError(f"{path} is missing")
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise ArtifactError(
                f"{path} is damaged: a header of {length:,} bytes in a file of {size:,} bytes"
            )
        header = stream.read(length)
    try:
        entries = json.loads(header)
        entries.pop("__metadata__", None)
        end = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    except (ValueError, RecursionError, AttributeError, KeyError, IndexError, TypeError) as error:
        raise ArtifactError(f"{path} is damaged: its header cannot be read ({error})") from error
    if 8 + length + end != size:
        raise ArtifactError(
            f"{path} is damaged: expected {8 + length + end:,} bytes, found {size:,}"
        )


def refuse_unsafe(folder: Path) -> None:
    """Refuse a model folder that names code, or whose weights cannot be read safely.

    Raises:
        ArtifactError: the configuration names code, weights are pickled, missing or damaged.
    """
    for name in (CONFIG, "tokenizer_config.json"):
        path = folder / name
        if (name == CONFIG or path.exists()) and "auto_map" in read_json(path):
            raise ArtifactError(f"{path} names code of its own (auto_map), which is never run")
    for path in _weight_files(folder):
        check_safetensors(path)


def _weight_files(folder: Path) -> list[Path]:
    """Return the files with the backbone's weights."""
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if (folder / INDEX).exists():
        names = set(read_json(folder / INDEX).get("weight_map", {}).values())
        if any(Path(name).name != name for name in names):
            raise ArtifactError(f"{folder / INDEX} names files outside its folder")
        return [folder / name for name in sorted(names)]
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise ArtifactError(
            f"{folder} has weights as pickle only ({', '.join(pickles)}), which can run code when "
            "read. Convert them on a machine where you trust them: "
            f"AutoModel.from_pretrained({str(folder)!r}).save_pretrained(NEW_FOLDER); "
            "docs/ecosystem.md shows this for a checkpoint of the original SimCSE code with a head"
        )
    raise ArtifactError(f"{folder} has no weights: expected {WEIGHTS} or {INDEX}")


def checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below ``folder`` by its relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


def check_checksums(folder: Path, expected: Mapping[str, str]) -> None:
    """Compare files with the checksums stored when they were written.

    Raises:
        ArtifactError: a file is missing or has other bytes.
    """
    for name, checksum in expected.items():
        path = folder / name
        if not path.is_file():
            raise ArtifactError(f"{path} is missing")
        if sha256_file(path) != checksum:
            raise ArtifactError(f"{path} is damaged: its checksum differs from the stored one")


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``folder``, and on success rename it to ``folder``.

    An earlier folder is first renamed to a name that `current_folder` knows, so that a complete
    folder can be found at any moment, also after a kill between the two renames. On an error the
    temporary folder is removed and ``folder`` is unchanged. Several writers at once have
    temporary folders of their own, and the last one wins. Within the temporary folder this
    function can be used again.

    Raises:
        ResourceError: the disk is full, read-only, or ``folder`` is a file.
    """
    previous, parent = _previous(folder), folder.parent
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.new")
    try:
        with contextlib.ExitStack() as cleanup:
            parent.mkdir(parents=True, exist_ok=True)
            with _only_writer(parent):
                _clear_dead(parent, f".{glob.escape(folder.name)}.*.new")
                cleanup.callback(shutil.rmtree, temporary, ignore_errors=True)
                temporary.mkdir()
                cleanup.enter_context(_locked(temporary))
                _OWN.add(temporary)
                cleanup.callback(_OWN.discard, temporary)
            yield temporary
            for path in (*temporary.rglob("*"), temporary):
                fsync(path)
            with _only_writer(parent):
                if folder.exists():
                    shutil.rmtree(previous, ignore_errors=True)
                    folder.rename(previous)
                temporary.rename(folder)
                fsync(parent)
                shutil.rmtree(previous, ignore_errors=True)
    except OSError as error:
        raise ResourceError(f"cannot write {folder}: {error.strerror or error}") from error


def current_folder(folder: Path) -> Path:
    """Return ``folder``, or the earlier one if a kill left only that."""
    return folder if folder.exists() or not _previous(folder).exists() else _previous(folder)


def _previous(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


@contextlib.contextmanager
def _locked(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Lock a folder without a lock file; give whether this process holds the lock.

    Windows and NFS cannot lock folders.
    """
    if os.name == "nt":
        yield False
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield lock_open_file(descriptor, wait=wait)
    finally:
        os.close(descriptor)


def _only_writer(parent: Path) -> contextlib.AbstractContextManager[bool | None]:
    """Keep other processes from renaming folders there, unless it is our own temporary folder."""
    return contextlib.nullcontext() if parent in _OWN else _locked(parent)


def _clear_dead(parent: Path, pattern: str) -> None:
    """Remove the temporary folders of killed writers: nobody holds their locks."""
    for path in parent.glob(pattern):
        with contextlib.suppress(FileNotFoundError), _locked(path, wait=False) as locked:
            if locked:
                shutil.rmtree(path, ignore_errors=True)
