"""``simcse`` as a process, forked from one that has imported torch: the import takes seconds."""

import multiprocessing
import os
import subprocess

from simcse.cli.main import main

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["simcse.serve.run", "simcse.engine.run", "simcse.index.sqlite"])


class Command:
    """A running ``simcse ARGUMENTS``; its methods are those of `subprocess.Popen`."""

    def __init__(self, arguments, *, stderr, env=None):
        told = ([*map(str, arguments)], str(stderr), {**os.environ, **(env or {})})
        self._process = FORKS.Process(target=_run, args=told)
        self._process.start()

    def poll(self):
        return self._process.exitcode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("simcse", timeout)
        return self._process.exitcode

    def send_signal(self, number):
        os.kill(self._process.pid, number)

    def kill(self):
        self._process.kill()


def _run(arguments, stderr, environment):
    os.environ.clear()
    os.environ.update(environment)
    with open(stderr, "ab") as told, open(os.devnull, "wb") as nowhere:
        os.dup2(told.fileno(), 2)
        os.dup2(nowhere.fileno(), 1)
    main(arguments)
