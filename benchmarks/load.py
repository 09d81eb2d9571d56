"""`simcse serve` under load, in turns with infinity-emb 0.0.78; and alone for as long as wanted.

    python -m venv PEER
    PEER/bin/pip install 'infinity-emb[server,torch]==0.0.78' 'click<8.2' torch==2.13.0
    python benchmarks/load.py race MODEL --peer PEER --output benchmarks/results/load.json
    python benchmarks/load.py soak MODEL --minutes 30 --output benchmarks/results/soak.json

Both servers stay up; of each load they get a turn of some seconds, round by round, from the same
generator (Debian's `hey`). What counts is the ratio of medians over the rounds.
"""

import argparse
import contextlib
import csv
import http.client
import io
import json
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from without_server import SENTENCE, Library, spread

WORDS = ("harbour", "teacher", "glacier", "violin", "market", "engine", "garden", "library")
BATCH = [
    f"The {WORDS[at % 8]} near the {WORDS[at // 4]} was closed on day {at}." for at in range(32)
]
NAME = "model"
INDEX_ROWS = 100_000


@dataclass(frozen=True)
class Load:
    """So many clients, each sending the next request when it has its answer."""

    name: str
    clients: int
    inputs: Sequence[str]
    encoding: str = "float"


LOADS = (
    Load("c=1", 1, [SENTENCE]),
    Load("c=8", 8, [SENTENCE]),
    Load("c=32", 32, [SENTENCE]),
    Load("2x32", 2, BATCH),
    Load("2x32 base64", 2, BATCH, "base64"),
    Load("c=512", 512, [SENTENCE]),
)


@dataclass
class Server:
    """A server that runs; `pid` is its process."""

    pid: int
    port: int

    def rss_mb(self) -> float:
        """Memory of the process and its children, in MB."""
        pids = [self.pid]
        for pid in pids:
            pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        lines = (Path(f"/proc/{pid}/status").read_text() for pid in pids)
        return sum(int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) for text in lines) / 1000

    def get(self, path: str) -> int:
        """Return the status of a GET."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", path)
            return connection.getresponse().status


@contextlib.contextmanager
def running(command: Sequence[str], port: int, log: Path) -> Iterator[Server]:
    """Start a server and wait until it answers."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ)
    server = Server(process.pid, port)
    try:
        until = time.monotonic() + 300
        while True:
            with contextlib.suppress(OSError):
                if server.get("/health") == 200:
                    break
            if process.poll() is not None or time.monotonic() > until:
                sys.exit(f"{command[0]} did not start: {log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield server
    finally:
        process.terminate()
        process.wait(60)


def ours(model: str, port: int, *more: str) -> list[str]:
    """Command of our server."""
    told = ["--model", model, "--name", NAME, "--port", str(port), *more]
    return [sys.executable, "-m", "simcse", "serve", *told]


def theirs(peer: Path, model: str, port: int) -> list[str]:
    """Command of the peer's server; its requests are not logged, as ours are not printed."""
    told = ["--model-id", model, "--served-model-name", NAME, "--port", str(port)]
    fixed = [
        "--url-prefix",
        "/v1",
        "--engine",
        "torch",
        "--device",
        "cpu",
        "--no-bettertransformer",
    ]
    return [str(peer / "bin" / "infinity_emb"), "v2", *told, *fixed, "--log-level", "error"]


def shoot(port: int, load: Load, seconds: float, rate: float | None = None) -> dict[str, Any]:
    """Send a load for some seconds, or so many requests a second; return what came back."""
    body = {"model": NAME, "input": list(load.inputs), "encoding_format": load.encoding}
    return hey(f"http://127.0.0.1:{port}/v1/embeddings", body, load.clients, seconds, rate)


def hey(
    url: str, body: dict[str, Any], clients: int, seconds: float, rate: float | None = None
) -> dict[str, Any]:
    """Run the generator; latencies in ms."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(body, file)
        file.flush()
        told = ["-z", f"{seconds}s", "-c", str(clients), "-m", "POST", "-T", "application/json"]
        paced = [] if rate is None else ["-q", str(rate / clients)]
        command = ["hey", *told, *paced, "-D", file.name, "-o", "csv", url]
        started = time.monotonic()
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        elapsed = time.monotonic() - started
    rows = list(csv.DictReader(io.StringIO(lines)))
    by_status: dict[str, list[float]] = {}
    for row in rows:
        by_status.setdefault(row["status-code"], []).append(1e3 * float(row["response-time"]))
    good = by_status.get("200", [])
    return {
        "rate": len(good) / elapsed,
        "ms": spread(good),
        "statuses": {status: len(times) for status, times in by_status.items()},
        "refused_ms": spread(by_status.get("429", [])),
    }


class HealthWatch(threading.Thread):
    """Asks `/health` all the while."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server, self.times, self.stopped = server, list[float](), threading.Event()

    def run(self) -> None:
        """Ask until stopped."""
        while not self.stopped.wait(0.1):
            started = time.monotonic()
            self.server.get("/health")
            self.times.append(1e3 * (time.monotonic() - started))


def race(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run every load on both servers in turns."""
    found: dict[str, Any] = {load.name: {"ours": [], "theirs": []} for load in LOADS}
    home = Path(tempfile.mkdtemp(prefix="simcse-load-"))
    index = make_index(arguments.model, home / "index")
    in_process, overload = [], []
    search: dict[str, list[Any]] = {"served": [], "in_process": []}
    first, second = free_ports(2)
    with (
        running(ours(arguments.model, first), first, home / "a") as own,
        running(theirs(arguments.peer, arguments.model, second), second, home / "b") as peer,
        Library(arguments.model, index) as library,
    ):
        for load in LOADS:  # warm up
            for server in (own, peer):
                shoot(server.port, load, 2)
        for _ in range(arguments.rounds):
            for load in LOADS:
                found[load.name]["ours"].append(shoot(own.port, load, arguments.seconds))
                found[load.name]["theirs"].append(shoot(peer.port, load, arguments.seconds))
            overload.append(overloaded(own, found["c=32"]["ours"][-1]["rate"], arguments.seconds))
            in_process.append(library.time("encode"))
        memory = {"ours": own.rss_mb(), "theirs": peer.rss_mb()}
    with (
        running(ours(arguments.model, first, "--index", str(index)), first, home / "c") as own,
        Library(arguments.model, index) as library,
    ):
        for _ in range(arguments.rounds):
            search["in_process"].append(library.time("search"))
            url = f"http://127.0.0.1:{own.port}/v1/search"
            search["served"].append(hey(url, {"query": SENTENCE}, 1, arguments.seconds)["ms"])
    shutil.rmtree(home)
    report = {
        "loads": found,
        "overload": overload,
        "in_process_ms": in_process,
        "search_ms": search,
        "rss_mb": memory,
    }
    return {"goals": goals(report), **report}


def overloaded(server: Server, capacity: float, seconds: float) -> dict[str, Any]:
    """Send five times what the server can do in a second, and ask for its health meanwhile."""
    health = HealthWatch(server)
    health.start()
    measured = shoot(server.port, Load("", 256, [SENTENCE]), seconds, 5 * capacity)
    health.stopped.set()
    health.join()
    return {**measured, "health_ms": spread(health.times)}


def goals(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Compare with RELIABILITY.md's load goals; each is a ratio or a time, and its limit."""

    def median(load: str, side: str, *keys: str) -> float:
        values: list[float] = []
        for measured in report["loads"][load][side]:
            for key in keys:
                measured = measured[key]
            values.append(measured)
        return statistics.median(values)

    def ratio(load: str, *keys: str) -> float:
        return median(load, "ours", *keys) / median(load, "theirs", *keys)

    in_process = statistics.median(times["p10"] for times in report["in_process_ms"])
    medians = {
        side: statistics.median(times["p50"] for times in report["search_ms"][side])
        for side in ("served", "in_process")
    }
    own32 = median("c=32", "ours", "rate")
    flood, overload = report["loads"]["c=512"]["ours"], report["overload"]
    other = {status for measured in flood for status in measured["statuses"]} - {"200", "429"}

    def over(what: str) -> float:
        return statistics.median(m[what]["p99"] if m[what] else 0.0 for m in overload)

    rows = {
        "c=1 p10 / in process": (median("c=1", "ours", "ms", "p10") / in_process, "<=", 1.25),
        "c=8 rate": (ratio("c=8", "rate"), ">=", 1.5),
        "c=8 p99": (ratio("c=8", "ms", "p99"), "<=", 0.7),
        "c=32 rate": (ratio("c=32", "rate"), ">=", 1.2),
        "c=32 p99": (ratio("c=32", "ms", "p99"), "<=", 0.8),
        "2x32 rate": (ratio("2x32", "rate"), ">=", 1.0),
        "2x32 base64 / float": (
            median("2x32 base64", "ours", "rate") / median("2x32", "ours", "rate"),
            ">=",
            1.0,
        ),
        "c=512 rate / own c=32": (median("c=512", "ours", "rate") / own32, ">=", 0.9),
        "c=512 p99 of accepted, ms": (median("c=512", "ours", "ms", "p99"), "<=", 1000.0),
        "c=512 other statuses than 200 and 429": (len(other), "<=", 0),
        "5x p99 of refusals, ms": (over("refused_ms"), "<=", 50.0),
        "5x p99 of accepted, ms": (over("ms"), "<=", 1000.0),
        "5x p99 of /health, ms": (over("health_ms"), "<=", 1000.0),
        "memory": (report["rss_mb"]["ours"] / report["rss_mb"]["theirs"], "<=", 1.0),
        "search p50 / encode and FAISS": (medians["served"] / medians["in_process"], "<=", 1.3),
    }
    return {
        name: {"found": round(value, 3), "goal": f"{sign} {limit}", "met": met(value, sign, limit)}
        for name, (value, sign, limit) in rows.items()
    }


def met(value: float, sign: str, limit: float) -> bool:
    """Say whether a goal is met."""
    return value <= limit if sign == "<=" else value >= limit


def soak(arguments: argparse.Namespace) -> dict[str, Any]:
    """Serve mixed requests for a while; memory at each minute, and what went wrong."""
    home = Path(tempfile.mkdtemp(prefix="simcse-soak-"))
    index = make_index(arguments.model, home / "index", rows=10_000)
    (port,) = free_ports(1)
    memory, statuses = [], dict[str, int]()
    with running(ours(arguments.model, port, "--index", str(index)), port, home / "log") as server:
        until = time.monotonic() + 60 * arguments.minutes
        while time.monotonic() < until:
            for load in LOADS:
                for status, count in shoot(port, load, 5)["statuses"].items():
                    statuses[status] = statuses.get(status, 0) + count
            url = f"http://127.0.0.1:{port}/v1/search"
            for status, count in hey(url, {"query": SENTENCE}, 8, 5)["statuses"].items():
                statuses[status] = statuses.get(status, 0) + count
            memory.append({"at": time.monotonic() - until, "rss_mb": server.rss_mb()})
    shutil.rmtree(home)
    settled = memory[len(memory) // 10 :]  # what is loaded on first use is there
    growth = settled[-1]["rss_mb"] / settled[0]["rss_mb"] - 1
    errors = sum(count for status, count in statuses.items() if status.startswith("5"))
    rows = {"memory growth": (growth, "<=", 0.05), "5xx": (errors, "<=", 0)}
    return {
        "goals": {
            name: {
                "found": round(value, 4),
                "goal": f"{sign} {limit}",
                "met": met(value, sign, limit),
            }
            for name, (value, sign, limit) in rows.items()
        },
        "minutes": arguments.minutes,
        "statuses": statuses,
        "memory": memory,
    }


def make_index(model: str, folder: Path, rows: int = INDEX_ROWS) -> Path:
    """Make an index of random vectors for a model."""
    import numpy as np

    from simcse.index.uri import create_index
    from simcse.io.rows import IndexRow
    from simcse.model.encoder import SentenceEncoder
    from simcse.model.fingerprint import model_fingerprint

    encoder = SentenceEncoder.load(model)
    index = create_index(folder, model_fingerprint(encoder, model))
    random = np.random.default_rng(0)
    for start in range(0, rows, 20_000):
        names = range(start, min(rows, start + 20_000))
        vectors = random.normal(size=(len(names), encoder.dimensions)).astype(np.float32)
        index.add([IndexRow(str(at), f"row {at}") for at in names], vectors)
        index.commit()
    return folder


def free_ports(count: int) -> list[int]:
    """Return ports nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def main() -> None:
    """Run what is asked for and write it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for name, function in (("race", race), ("soak", soak)):
        command = commands.add_parser(name)
        command.set_defaults(run=function)
        command.add_argument("model")
        command.add_argument("--output", type=Path, required=True)
    racing, soaking = commands.choices["race"], commands.choices["soak"]
    racing.add_argument("--peer", type=Path, required=True, help="venv with infinity-emb")
    racing.add_argument("--rounds", type=int, default=5)
    racing.add_argument("--seconds", type=float, default=10)
    soaking.add_argument("--minutes", type=float, default=30)
    arguments = parser.parse_args()
    report = arguments.run(arguments)
    versions = {"python": platform.python_version(), "cores": os.cpu_count(), "peer": "0.0.78"}
    arguments.output.write_text(json.dumps({**versions, **report}, indent=1) + "\n")
    for name, goal in report["goals"].items():
        print(
            f"{'met   ' if goal['met'] else 'MISSED'} {name}: {goal['found']} (goal {goal['goal']})"
        )


if __name__ == "__main__":
    main()
