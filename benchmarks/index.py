"""The index in a folder against that of an older checkout: the same rows, interleaved rounds.

    python benchmarks/index.py --old ../older-checkout --rows 100000 1000000

Both search, filter, commit one row and open in turn, in a process each; the medians of the rounds
are written to benchmarks/results/index.json. Rows are random unit vectors of 384 dimensions with an
id, a short text and two metadata fields, one of which has ten values.
"""

import argparse
import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

DIMENSIONS = 384
COMMIT_ROWS = 32_768
QUERIES = 20  # in a round of searches
ROOT = Path(__file__).resolve().parents[1]


class Worker:
    """A process that runs one checkout's index; it measures what it is asked for by name."""

    def __init__(self, checkout: Path, folder: Path, rows: int) -> None:
        command = [sys.executable, __file__, "--worker", str(folder), "--rows", str(rows)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(checkout / "src")},
        )

    def ask(self, name: str) -> float:
        """Return a figure: milliseconds, or megabytes for ``disk``."""
        self.process.stdin.write(f"{name}\n")  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]
        return float(self.process.stdout.readline())  # type: ignore[union-attr]

    def end(self) -> None:
        """End the process."""
        self.process.communicate()


class Subject:
    """The index of the checkout that is on the path; each method is one thing to measure."""

    def __init__(self, folder: Path, count: int) -> None:
        from simcse.index.filters import Condition
        from simcse.io.rows import make_row

        folder_index, fingerprint = _classes()
        self.folder, self.count, self.make_row = folder, count, make_row
        self.random = np.random.default_rng(0)
        self.open_folder = folder_index.open
        self.index = folder_index.create(folder, fingerprint("m", "f" * 64, DIMENSIONS))
        self.queries = self._vectors(QUERIES)
        self.group = [Condition("group", "in", (3,))]

    def build(self) -> None:
        """Add all rows, a commit for some ten thousand."""
        for start in range(0, self.count, COMMIT_ROWS):
            end = min(self.count, start + COMMIT_ROWS)
            rows = [self._row(at) for at in range(start, end)]
            self.index.add(rows, self._vectors(end - start))
            self.index.commit()

    def search(self) -> None:
        """Search query by query."""
        for query in self.queries:
            self.index.search(query[None], k=10)

    def filtered(self) -> None:
        """Search query by query among a tenth of the rows."""
        for query in self.queries:
            self.index.search(query[None], k=10, where=self.group)

    def commit(self) -> None:
        """Add or replace one row."""
        self.index.add([self._row(int(self.random.integers(2 * self.count)))], self._vectors(1))
        self.index.commit()

    def open(self) -> None:
        """Open the index as a caller does without options."""
        self.open_folder(self.folder)

    def open_unverified(self) -> None:
        """Open the index without comparing SHA-256."""
        self.open_folder(self.folder, verify=False)

    def disk(self) -> float:
        """Return the megabytes of all files; hard links count once."""
        files = [path.stat() for path in self.folder.rglob("*") if path.is_file()]
        return sum({stat.st_ino: stat.st_size for stat in files}.values()) / 1e6

    def _vectors(self, number: int) -> np.ndarray:
        drawn: np.ndarray = self.random.standard_normal((number, DIMENSIONS), np.float32)
        return drawn

    def _row(self, at: int) -> Any:  # noqa: ANN401 - the class of either checkout
        return self.make_row(f"A short text, number {at}.", at, {"group": at % 10, "year": at % 97})


def _classes() -> tuple[Any, Any]:
    """Return the classes of an index in a folder and of a model's fingerprint."""
    for index, fingerprint in (
        ("sqlite.SqliteIndex", "fingerprint.ModelFingerprint"),
        ("embedded.EmbeddedIndex", "fingerprint.ModelFingerprint"),  # older checkouts
        ("embedded.EmbeddedIndex", "stamp.ModelStamp"),
    ):
        try:
            return _named(f"simcse.index.{index}"), _named(f"simcse.io.{fingerprint}")
        except ImportError:
            continue
    raise SystemExit("this checkout has no index that is known here")


def _named(name: str) -> Any:  # noqa: ANN401 - a class of either checkout
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def answer(folder: Path, count: int) -> None:
    """Answer the names on standard input with figures."""
    subject = Subject(folder, count)
    for line in sys.stdin:
        name = line.strip()
        started = time.perf_counter()
        size = getattr(subject, name)()
        spent = 1e3 * (time.perf_counter() - started)
        times = QUERIES if name in ("search", "filtered") else 1
        print(spent / times if size is None else size, flush=True)


def race(old: Path, rows: int, rounds: int, home: Path | None) -> dict[str, Any]:
    """Return the medians of both checkouts for one number of rows."""
    names = ("search", "filtered", "commit", "open", "open_unverified")
    found: dict[str, dict[str, list[float]]] = {"old": {}, "new": {}}
    folder = Path(tempfile.mkdtemp(prefix="simcse-index-", dir=home))
    try:
        checkouts = {"old": old, "new": ROOT}
        workers = {name: Worker(path, folder / name, rows) for name, path in checkouts.items()}
        for label, worker in workers.items():
            found[label]["build"] = [worker.ask("build")]
            found[label]["disk_mb"] = [worker.ask("disk")]
        for number in range(rounds + 1):  # the first one warms up
            for name in names:
                for label, worker in workers.items():
                    figure = worker.ask(name)
                    if number:
                        found[label].setdefault(name, []).append(figure)
        for worker in workers.values():
            worker.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    medians = {
        label: {name: round(statistics.median(all_of), 2) for name, all_of in figures.items()}
        for label, figures in found.items()
    }
    ratios = {name: round(medians["new"][name] / medians["old"][name], 3) for name in names}
    return {"rows": rows, "rounds": rounds, **medians, "new_over_old": ratios}


def main() -> None:
    """Race both checkouts, and write JSON."""
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--old", type=Path, help="the older checkout")
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the indexes are made; default: /tmp")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/index.json")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        answer(arguments.worker, arguments.rows[0])
        return
    report = []
    for rows in arguments.rows:
        print(f"{rows:,} rows ...", file=sys.stderr)
        report.append(race(arguments.old, rows, arguments.rounds, arguments.folder))
        arguments.output.write_text(json.dumps(report, indent=1) + "\n")
        print(json.dumps(report[-1], indent=1))


if __name__ == "__main__":
    main()
