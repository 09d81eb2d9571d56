"""``simcse`` as a process, forked from one that has imported torch: the import takes seconds."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time

from simcse.cli.main import main

PATIENCE = 600  # seconds: a busy machine is no failure
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["simcse.serve.run", "simcse.bulk", "simcse.index.sqlite"])


class Command:
    """A running ``simcse ARGUMENTS``; its methods are those of `subprocess.Popen`."""

    def __init__(self, arguments, *, stderr, env=None):
        options = ([*map(str, arguments)], str(stderr), {**os.environ, **(env or {})})
        self._process = FORKS.Process(target=_run, args=options)
        self._process.start()

    @property
    def pid(self):
        return self._process.pid

    def poll(self):
        return self._process.exitcode

    def wait(self, timeout=PATIENCE):
        self._process.join(timeout)
        if self._process.exitcode is None:
            self.kill()
            self._process.join()
            raise subprocess.TimeoutExpired("simcse", timeout)
        return self._process.exitcode

    def send_signal(self, number):
        os.kill(self._process.pid, number)

    def kill(self):
        self._process.kill()


def _run(arguments, stderr, environment):
    os.environ.clear()
    os.environ.update(environment)
    with open(stderr, "ab") as written, open(os.devnull, "wb") as nowhere:
        os.dup2(written.fileno(), 2)
        os.dup2(nowhere.fileno(), 1)
    main(arguments)


def run_python(*arguments):
    """Run Python to its end and return the completed process; kill its whole group if it hangs."""
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with ended(process, group=True):
        out, err = process.communicate(timeout=PATIENCE)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@contextlib.contextmanager
def ended(process, *, group=False):
    """Kill a process, or the group that it leads, if it is still running after the block."""
    try:
        yield process
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL) if group else process.kill()
            process.wait()


def wait_for(condition, process=None):
    """Poll until ``condition()`` holds; fail after `PATIENCE` or when ``process`` has ended."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        assert process is None or process.poll() is None, "the process has ended"
        time.sleep(0.01)
