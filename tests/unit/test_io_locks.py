"""Locks between processes, and a Python without fcntl and fork, as on Windows."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from simcse.errors import ResourceError
from simcse.io.locks import LOCK, lock_folder, lock_open_file

NOT_YET = ("generations.py",)  # goes with the segments
WITHOUT_POSIX = """
import os, sys, warnings
for name in ("fcntl", "termios"):
    sys.modules[name] = None  # importing it fails
for name in ("fork", "forkpty", "O_DIRECTORY", "getuid", "mkfifo", "pread", "pwrite"):
    if hasattr(os, name):
        delattr(os, name)
warnings.filterwarnings("ignore", "only soft file lock")
from pathlib import Path
import simcse
from simcse.cli.main import main
from simcse.io.locks import lock_folder
model, source, output = sys.argv[1:]
with lock_folder(Path(output).parent / "locked"):
    pass
assert simcse.SentenceEncoder.load(model).encode(["A cat.", "A dog."]).shape == (2, 32)
main(["encode", source, "--model", model, "--output", output])
"""


def test_importing_and_encoding_work_without_fcntl_and_fork(
    tiny_model_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("a cat\na dog\n")
    arguments = [tiny_model_folder, tmp_path / "a.txt", tmp_path / "out" / "a.npy"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_POSIX, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "a.npy: 2 rows" in done.stderr
    assert (tmp_path / "out" / "a.npy").exists()


def test_no_module_imports_fcntl() -> None:
    import simcse

    for path in Path(simcse.__file__).parent.rglob("*.py"):
        if path.name not in NOT_YET:
            assert "fcntl" not in re.findall(r"import (\w+)", path.read_text("utf-8")), path


def test_a_lock_names_its_holder_and_ends_with_the_block(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with lock_folder(folder):
        with (
            pytest.raises(ResourceError, match=f"run is busy: process {os.getpid()} on "),
            lock_folder(folder, busy="{folder} is busy: {holder}"),
        ):
            pytest.fail("both hold the lock")
        assert (folder / LOCK).is_file()
    with lock_folder(folder):
        pass


def test_a_lock_is_waited_for_and_ends_with_its_holder(tmp_path: Path) -> None:
    ready, child = os.pipe(), os.fork()
    if child == 0:
        with lock_folder(tmp_path):
            os.write(ready[1], b"!")
            signal.pause()
        os._exit(0)
    os.read(ready[0], 1)
    with pytest.raises(ResourceError, match=f"process {child}"), lock_folder(tmp_path, wait=0.1):
        pytest.fail("both hold the lock")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with lock_folder(tmp_path, wait=10):
        pass


def test_a_folder_that_cannot_be_made_is_a_resource_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ResourceError, match="cannot write .*run: Not a directory"),
        lock_folder(tmp_path / "file" / "run"),
    ):
        pytest.fail("there is no folder")


def test_an_open_folder_is_locked_until_it_is_closed(tmp_path: Path) -> None:
    first, second = (os.open(tmp_path, os.O_RDONLY) for _ in range(2))
    assert lock_open_file(first)
    assert not lock_open_file(second, wait=False)
    os.close(first)
    assert lock_open_file(second, wait=False)
    os.close(second)
