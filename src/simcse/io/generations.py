"""Generations of a folder: each complete, hashed and never changed; a pointer names the current.

``CURRENT`` names a folder of ``generations/`` and the SHA-256 of its ``manifest.json``, which
holds size and SHA-256 of every other file in it. A new generation is written beside the others,
brought to the disk, renamed into place, and only then named by the pointer: a crash at any moment
leaves the old or the new one. Files that two generations share are hard links. A reader holds a
shared lock on its generation's manifest, and a generation so held is not removed.
"""

import fcntl
import json
import os
import shutil
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from simcse.errors import ArtifactError, ResourceError
from simcse.io.checkpoints import atomic_folder, check_checksums, read_json
from simcse.io.files import sha256_file, write_text
from simcse.io.locks import lock_folder

POINTER = "CURRENT"
MANIFEST = "manifest.json"
WRITING = "another process is writing {folder}; try again when it is done"
LOCK_SECONDS = 10.0  # a commit takes less; after this somebody else's write is an error
T = TypeVar("T")


@dataclass(frozen=True)
class Generation:
    """A complete generation on disk.

    Attributes:
        folder: where its files are.
        number: counts up from 1.
        facts: what its writer said of it.
        files: size in bytes and SHA-256 of each file, by its path below ``folder``.
    """

    folder: Path
    number: int
    facts: dict[str, Any]
    files: dict[str, tuple[int, str]]

    @property
    def bytes(self) -> int:
        """Size of all its files."""
        return sum(size for size, _ in self.files.values())

    def damaged(self, *, deep: bool) -> Iterator[tuple[str, str]]:
        """Yield each file that is not as written and why; without ``deep`` only sizes are read."""
        for name, (size, checksum) in sorted(self.files.items()):
            path = self.folder / name
            if not path.is_file():
                yield name, "is missing"
            elif (found := path.stat().st_size) != size:
                yield name, f"is damaged: expected {size:,} bytes, got {found:,}"
            elif deep and sha256_file(path) != checksum:
                yield name, "is damaged: its SHA-256 is not the one noted"


def read_current(root: Path) -> Generation:
    """Return the current generation; its manifest is checked, its files are not.

    It stays on the disk as long as what is returned here is kept.

    Raises:
        ArtifactError: there is none, or pointer or manifest are damaged.
    """
    if not root.is_dir():
        raise ArtifactError(f"no index at {root}; make one: simcse index build {root} FILE")
    pointer = read_json(root / POINTER)
    name, checksum = pointer.get("generation"), pointer.get("manifest_sha256")
    if not (isinstance(name, str) and name.isdecimal() and isinstance(checksum, str)):
        raise ArtifactError(f"{root / POINTER} is damaged: it names no generation")
    folder = _folder(root, int(name))
    hold = _lock_shared(folder / MANIFEST)
    try:
        generation = _read(folder, int(name), checksum)
    except ArtifactError:
        os.close(hold)
        raise
    weakref.finalize(generation, os.close, hold)
    return generation


def _lock_shared(manifest: Path) -> int:
    try:
        descriptor = os.open(manifest, os.O_RDONLY)
    except FileNotFoundError as error:
        raise ArtifactError(f"{manifest} is missing") from error
    except OSError as error:
        raise ResourceError(f"cannot read {manifest}: {error.strerror}") from error
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def _read(folder: Path, number: int, checksum: str) -> Generation:
    check_checksums(folder, {MANIFEST: checksum})
    manifest = read_json(folder / MANIFEST)
    try:
        files = {path: (int(size), str(sha)) for path, (size, sha) in manifest["files"].items()}
        facts = dict(manifest["facts"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{folder / MANIFEST} is damaged: {error!r}") from error
    return Generation(folder, number, facts, files)


def with_current(root: Path, use: Callable[[Generation], T]) -> T:
    """Return what ``use`` makes of the current generation, again if a newer one replaced it.

    Raises:
        ArtifactError: there is none, or it is damaged.
    """
    while True:
        seen = _pointer(root)
        try:
            return use(read_current(root))
        except ArtifactError:
            if _pointer(root) == seen:
                raise


def locked(root: Path) -> AbstractContextManager[None]:
    """Hold the writers' lock; it ends with the process, however that ends.

    Raises:
        ResourceError: another process held it for `LOCK_SECONDS`, or the folder is read-only.
    """
    return lock_folder(root, wait=LOCK_SECONDS, busy=WRITING)


def publish(
    root: Path,
    write: Callable[[Path], Mapping[str, Any]],
    *,
    base: Generation | None = None,
    shared: Iterable[Path] = (),
) -> Generation:
    """Make a new generation the current one; the caller holds the lock.

    Args:
        root: the folder of generations.
        write: fills a new folder with files and returns the generation's facts.
        base: the generation it follows, which is kept; ``None`` if it follows none.
        shared: files of ``base`` to take over as they are.

    Raises:
        ResourceError: the disk is full or read-only; the current generation stays.
    """
    number = 1 + max(_numbers(root), default=0)
    folder = _folder(root, number)
    with atomic_folder(folder) as new:
        files = _link(base, new, shared)
        facts = write(new)
        for path in sorted(new.rglob("*")):
            name = path.relative_to(new).as_posix()
            if path.is_file() and name not in files:
                files[name] = (path.stat().st_size, sha256_file(path))
        manifest = json.dumps({"facts": facts, "files": files}, indent=1, allow_nan=False)
        write_text(new / MANIFEST, manifest)
    pointer = {"generation": f"{number:06d}", "manifest_sha256": sha256_file(folder / MANIFEST)}
    write_text(root / POINTER, json.dumps(pointer) + "\n")
    _collect(root, keep={folder, base.folder if base else folder})
    return read_current(root)


def copy_current(source: Path, target: Path) -> Generation:
    """Make the current generation of ``source`` that of ``target``, verified on the way.

    Raises:
        ArtifactError: a file of ``source`` is damaged.
        ResourceError: the disk is full, or another process writes ``target``.
    """

    def copy(generation: Generation) -> Generation:
        def write(new: Path) -> Mapping[str, Any]:
            for name in generation.files:
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(generation.folder / name, new / name)
            copied = Generation(new, 0, generation.facts, generation.files)
            for name, problem in copied.damaged(deep=True):
                raise ArtifactError(f"{generation.folder / name} {problem}")
            return generation.facts

        with locked(target):
            return publish(target, write)

    return with_current(source, copy)


def _link(base: Generation | None, new: Path, shared: Iterable[Path]) -> dict[str, tuple[int, str]]:
    """Hard-link files of the base generation, or copy them where links are not possible."""
    files: dict[str, tuple[int, str]] = {}
    for path in shared if base else ():
        name = path.relative_to(base.folder).as_posix()  # type: ignore[union-attr]
        target = new / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, target)
        except OSError:
            shutil.copyfile(path, target)
        files[name] = base.files[name]  # type: ignore[union-attr]
    return files


def _collect(root: Path, *, keep: set[Path]) -> None:
    """Remove generations that nobody reads, and what killed writers left."""
    for folder in (root / "generations").iterdir():
        if folder not in keep and not _is_read(folder / MANIFEST):
            shutil.rmtree(folder, ignore_errors=True)


def _is_read(manifest: Path) -> bool:
    try:
        descriptor = os.open(manifest, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _pointer(root: Path) -> bytes:
    try:
        return (root / POINTER).read_bytes()
    except OSError:
        return b""


def _numbers(root: Path) -> list[int]:
    """Return the numbers of all generations there, also one a killed writer did not publish."""
    folder = root / "generations"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return [int(name) for name in names if name.isdecimal()]


def _folder(root: Path, number: int) -> Path:
    return root / "generations" / f"{number:06d}"
