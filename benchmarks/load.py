"""Measure `simcse serve` under load, in turns with infinity-emb or with earlier code, or alone.

    python -m venv PEER
    PEER/bin/pip install 'infinity-emb[server,torch]==0.0.78' 'click<8.2' torch==2.13.0
    python benchmarks/load.py race MODEL --peer PEER --output benchmarks/results/load.json
    git worktree add BASE COMMIT
    python benchmarks/load.py compare MODEL --base BASE/src --output load-servers.json
    python benchmarks/load.py soak MODEL --minutes 30 --output benchmarks/results/soak.json

Both servers stay up; each load is sent to them in turns of some seconds, round by round, by the
same generator (Debian's `hey`). The result is the ratio of medians over the rounds.
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

WORDS = ("harbor", "teacher", "glacier", "violin", "market", "engine", "garden", "library")
BATCH = [
    f"The {WORDS[at % 8]} near the {WORDS[at // 4]} was closed on day {at}." for at in range(32)
]
NAME = "model"
INDEX_ROWS = 100_000


@dataclass(frozen=True)
class Load:
    """Clients that each send the next request when they have the answer to the last one."""

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
    """A running server; `pid` is its process."""

    pid: int
    port: int

    def rss_mb(self) -> float:
        """Memory of the process and its children, in MB."""
        pids = [self.pid]
        for pid in pids:
            pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        lines = (Path(f"/proc/{pid}/status").read_text() for pid in pids)
        return sum(int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) for text in lines) / 1000

    def cpu_seconds(self) -> float:
        """CPU time of the process so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def get(self, path: str) -> int:
        """Return the status of a GET."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", path)
            return connection.getresponse().status


@contextlib.contextmanager
def running(
    command: Sequence[str], port: int, log: Path, source: Path | None = None
) -> Iterator[Server]:
    """Start a server, of another source tree if one is given, and wait until it answers."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=path_to(source))
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


def path_to(source: Path | None) -> dict[str, str]:
    """Return the environment in which Python imports another source tree, if one is given."""
    return dict(os.environ) if source is None else {**os.environ, "PYTHONPATH": str(source)}


def ours(model: str, port: int, *more: str) -> list[str]:
    """Command of our server."""
    options = ["--model", model, "--name", NAME, "--port", str(port), *more]
    return [sys.executable, "-m", "simcse", "serve", *options]


def theirs(peer: Path, model: str, port: int) -> list[str]:
    """Command of the peer's server; its requests are not logged, as ours are not printed."""
    options = ["--model-id", model, "--served-model-name", NAME, "--port", str(port)]
    fixed = [
        "--url-prefix",
        "/v1",
        "--engine",
        "torch",
        "--device",
        "cpu",
        "--no-bettertransformer",
    ]
    return [str(peer / "bin" / "infinity_emb"), "v2", *options, *fixed, "--log-level", "error"]


def shoot(port: int, load: Load, seconds: float, rate: float | None = None) -> dict[str, Any]:
    """Send a load for some seconds, or at a rate of requests a second; return the result."""
    body = {"model": NAME, "input": list(load.inputs), "encoding_format": load.encoding}
    return hey(f"http://127.0.0.1:{port}/v1/embeddings", body, load.clients, seconds, rate)


def hey(
    url: str, body: dict[str, Any], clients: int, seconds: float, rate: float | None = None
) -> dict[str, Any]:
    """Run the generator; latencies in ms."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(body, file)
        file.flush()
        options = ["-z", f"{seconds}s", "-c", str(clients), "-m", "POST", "-T", "application/json"]
        paced = [] if rate is None else ["-q", str(rate / clients)]
        command = ["hey", *options, *paced, "-D", file.name, "-o", "csv", url]
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
        "rejected_ms": spread(by_status.get("429", [])),
    }


class HealthWatch(threading.Thread):
    """Asks `/health` ten times a second until it is stopped."""

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


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run every load on this code and on an earlier source tree in turns."""
    home = Path(tempfile.mkdtemp(prefix="simcse-load-"))
    sources = {"ours": None, "base": arguments.base}
    found: dict[str, dict[str, list[Any]]] = {}
    with contextlib.ExitStack() as stack:
        servers = {}
        for (side, source), port in zip(sources.items(), free_ports(2), strict=True):
            index = build_index(arguments.model, home / f"index-{side}", source)
            command = ours(arguments.model, port, "--index", str(index))
            servers[side] = stack.enter_context(running(command, port, home / side, source))
        for load in LOADS:  # warm up
            for server in servers.values():
                shoot(server.port, load, 1)
        for _ in range(arguments.rounds):
            for side, server in servers.items():
                for name, result in one_round(server, arguments.seconds):
                    found.setdefault(name, {}).setdefault(side, []).append(result)
        memory = {side: server.rss_mb() for side, server in servers.items()}
    shutil.rmtree(home)
    return {"goals": ratios(found), "loads": found, "rss_mb": memory}


def one_round(server: Server, seconds: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Send each load to one server; the five-fold load follows the measured capacity."""
    capacity = 0.0
    for load in LOADS:
        result = shoot(server.port, load, seconds)
        capacity = result["rate"] if load.name == "c=32" else capacity
        yield load.name, result
    yield "5x", overloaded(server, capacity, seconds)
    yield (
        "search",
        hey(f"http://127.0.0.1:{server.port}/v1/search", {"query": SENTENCE}, 1, seconds),
    )


def ratios(found: dict[str, dict[str, list[Any]]]) -> dict[str, dict[str, Any]]:
    """Compare medians of rate and latency, this code's divided by the earlier code's."""
    rows: dict[str, dict[str, Any]] = {}
    for name, sides in found.items():
        for what, sign, limit in (("rate", ">=", 0.9), ("p50", "<=", 1.1), ("p99", "<=", 1.1)):
            medians = {
                side: statistics.median(
                    result["rate"] if what == "rate" else result["ms"][what] for result in results
                )
                for side, results in sides.items()
            }
            value = medians["ours"] / medians["base"]
            goal = {"goal": f"{sign} {limit}", "met": met(value, sign, limit)}
            rows[f"{name} {what}"] = {"found": round(value, 3), **medians, **goal}
    return rows


def overloaded(server: Server, capacity: float, seconds: float) -> dict[str, Any]:
    """Send five times the server's capacity in requests a second, and ask for its health."""
    health = HealthWatch(server)
    health.start()
    before = server.cpu_seconds()
    result = shoot(server.port, Load("", 256, [SENTENCE]), seconds, 5 * capacity)
    health.stopped.set()
    health.join()
    used = server.cpu_seconds() - before
    return {**result, "health_ms": spread(health.times), "cpu_seconds": used}


def goals(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Compare with RELIABILITY.md's load goals; each is a ratio or a time, and its limit."""

    def median(load: str, side: str, *keys: str) -> float:
        values: list[float] = []
        for result in report["loads"][load][side]:
            for key in keys:
                result = result[key]
            values.append(result)
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
    other = {status for result in flood for status in result["statuses"]} - {"200", "429"}

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
        "5x p99 of rejections, ms": (over("rejected_ms"), "<=", 50.0),
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
    """Return whether a goal is met."""
    return value <= limit if sign == "<=" else value >= limit


def soak(arguments: argparse.Namespace) -> dict[str, Any]:
    """Serve mixed requests for a while; return memory at each minute, and the failures."""
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
    settled = memory[len(memory) // 10 :]  # after everything was loaded that is loaded on first use
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
    """Create an index of random vectors for a model."""
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


def build_index(model: str, folder: Path, source: Path | None, rows: int = 3000) -> Path:
    """Build an index by the command line of a source tree, whose format may be another one."""
    text = folder.with_suffix(".txt")
    text.write_text("".join(f"Day {at} at the {WORDS[at % 8]}.\n" for at in range(rows)))
    command = [sys.executable, "-m", "simcse", "index", "build", str(folder), str(text)]
    subprocess.run([*command, "--model", model], check=True, env=path_to(source))
    return folder


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def processor() -> str:
    """Name the processor as `lscpu` does."""
    lines = subprocess.run(["lscpu"], check=True, capture_output=True, text=True).stdout
    found = dict(re.findall(r"^(Model name|CPU family|Model):\s+(.+)$", lines, re.MULTILINE))
    return f"{found['Model name']}, family {found['CPU family']} model {found['Model']}"


def main() -> None:
    """Run one measurement and write it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for name, function in (("race", race), ("compare", compare), ("soak", soak)):
        command = commands.add_parser(name)
        command.set_defaults(run=function)
        command.add_argument("model")
        command.add_argument("--output", type=Path, required=True)
    racing, soaking = commands.choices["race"], commands.choices["soak"]
    racing.add_argument("--peer", type=Path, required=True, help="venv with infinity-emb")
    comparing = commands.choices["compare"]
    comparing.add_argument("--base", type=Path, required=True, help="src folder of earlier code")
    for parser_with_rounds in (racing, comparing):
        parser_with_rounds.add_argument("--rounds", type=int, default=5)
        parser_with_rounds.add_argument("--seconds", type=float, default=10)
    soaking.add_argument("--minutes", type=float, default=30)
    arguments = parser.parse_args()
    report = arguments.run(arguments)
    machine = {"python": platform.python_version(), "cores": os.cpu_count(), "cpu": processor()}
    arguments.output.write_text(json.dumps({**machine, **report}, indent=1) + "\n")
    for name, goal in report["goals"].items():
        print(
            f"{'met   ' if goal['met'] else 'MISSED'} {name}: {goal['found']} (goal {goal['goal']})"
        )


if __name__ == "__main__":
    main()
