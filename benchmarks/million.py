"""A million sentences in both kinds of index: time, disk, memory, latency and recall, as JSON.

    python benchmarks/million.py wiki1m.txt.gz --folder BIG --output benchmarks/results/million.json
    python benchmarks/with_postgres.py python benchmarks/million.py ... --postgres POSTGRES

Encoding happens once, into BIG/vectors.safetensors; the indexes are built from that, each in a
process of its own. Without --postgres the folder alone is measured.
"""

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from simcse.index.approximate import IndexType
from simcse.index.protocol import VectorIndex
from simcse.index.uri import create_index, is_postgres, open_index
from simcse.io.files import sha256_file
from simcse.io.records import read_index_rows
from simcse.io.vectors import read_vectors, vector_writer
from simcse.model.encoder import SentenceEncoder
from simcse.model.fingerprint import model_fingerprint

COMMIT_ROWS = 32_768
QUERIES = 200
TYPES: dict[str, tuple[IndexType, ...]] = {
    "folder": ("exact", "hnsw"),
    "postgres": ("exact", "hnsw"),
}


def encode(arguments: argparse.Namespace) -> dict[str, Any]:
    """Encode all sentences once; what it took stands beside the vectors."""
    vectors, note = arguments.folder / "vectors.safetensors", arguments.folder / "encoding.json"
    if not note.exists():
        arguments.folder.mkdir(parents=True, exist_ok=True)
        encoder = SentenceEncoder.load(arguments.model, precision=arguments.precision)
        started, cpu = time.monotonic(), time.process_time()
        rows = (row.text for row in read_index_rows(arguments.text))
        with vector_writer(vectors) as append:
            while chunk := list(itertools.islice(rows, 4096)):
                append(chunk, encoder.encode(chunk, truncation="truncate"))
        found = {
            "seconds": time.monotonic() - started,
            "cpu_seconds": time.process_time() - cpu,
            "rows": len(read_vectors(vectors)),
            "sha256": sha256_file(arguments.text),
            "model": arguments.model,
            "precision": arguments.precision,
            "peak_rss_mb": memory("VmHWM"),
        }
        note.write_text(json.dumps(found))
    return json.loads(note.read_text())  # type: ignore[no-any-return]


def measure_index(arguments: argparse.Namespace) -> dict[str, Any]:
    """Build one index from the vectors and search it; runs in a process of its own."""
    uri, types = arguments.uri, TYPES["postgres" if is_postgres(arguments.uri) else "folder"]
    vectors = read_vectors(arguments.folder / "vectors.safetensors")
    encoder = SentenceEncoder.load(arguments.model, precision=arguments.precision)
    index = create_index(uri, model_fingerprint(encoder, arguments.model))
    del encoder
    started, cpu = time.monotonic(), time.process_time()
    fill(index, arguments.text, vectors)
    found: dict[str, Any] = {
        "indexing_seconds": time.monotonic() - started,
        "client_cpu_seconds": time.process_time() - cpu,
        "rows": len(index),
    }
    queries = perturbed(vectors)
    truth = None
    for index_type in types:
        started = time.monotonic()
        if index_type != "exact":
            index.rebuild(index_type=index_type)
        built = time.monotonic() - started
        searched, hits = search(index, queries)
        truth = truth or hits
        shares = [len(set(a) & set(b)) / len(b) for a, b in zip(hits, truth, strict=True)]
        described = index.metadata.describe()
        found[index_type] = {
            "build_seconds": built,
            "bytes": described["bytes"],
            "approximation": described["approximation"],
            "recall@10": statistics.mean(shares),
            **searched,
        }
    started = time.monotonic()
    reopened = open_index(uri)
    found["open_seconds"] = time.monotonic() - started
    found["client_rss_mb"] = memory("VmRSS")
    found["client_anonymous_mb"] = memory("RssAnon")
    found["server_pss_mb"] = server_memory() if is_postgres(uri) else None
    found["problems"] = reopened.verify()
    return found


def fill(index: VectorIndex, text: Path, vectors: np.ndarray) -> None:
    """Add all rows, a commit for some ten thousand, as `simcse index build` does."""
    rows, start = read_index_rows(text), 0
    while batch := list(itertools.islice(rows, COMMIT_ROWS)):
        index.add(batch, vectors[start : start + len(batch)])
        index.commit()
        start += len(batch)


def perturbed(vectors: np.ndarray) -> np.ndarray:
    """Return queries that are near sentences of the index but not in it."""
    random = np.random.default_rng(0)
    chosen = vectors[np.sort(random.choice(len(vectors), QUERIES, replace=False))]
    noise = random.normal(size=chosen.shape) / np.sqrt(chosen.shape[1])
    moved: np.ndarray = chosen + 0.5 * noise * np.linalg.norm(chosen, axis=1, keepdims=True)
    return moved.astype(np.float32)


def search(index: VectorIndex, queries: np.ndarray) -> tuple[dict[str, float], list[list[str]]]:
    """Search query by query; latencies in ms, and the ids found."""
    hits = [[hit.id for hit in index.search(query[None])[0]] for query in queries[:20]]  # warm up
    hits, times = [], []
    for query in queries:
        started = time.perf_counter()
        found = index.search(query[None])[0]
        times.append(1e3 * (time.perf_counter() - started))
        hits.append([hit.id for hit in found])
    times.sort()
    return {"p50_ms": times[len(times) // 2], "p99_ms": times[int(0.99 * len(times))]}, hits


def memory(field: str) -> float:
    """Return a figure of this process in MB."""
    text = Path("/proc/self/status").read_text()
    return int(re.findall(rf"{field}:\s+(\d+)", text)[0]) / 1000


def server_memory() -> float:
    """Return what all processes of PostgreSQL on this machine hold, shared memory counted once."""
    return sum(_pss(folder) for folder in Path("/proc").iterdir() if folder.name.isdecimal()) / 1000


def _pss(folder: Path) -> int:
    try:
        if (folder / "comm").read_text().strip() != "postgres":
            return 0
        return int(re.findall(r"Pss:\s+(\d+)", (folder / "smaps_rollup").read_text())[0])
    except OSError:
        return 0


def uris(arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Yield the indexes to measure, each a new one."""
    mark = f"bench{os.getpid()}"
    yield "folder", str(arguments.folder / mark)
    if arguments.postgres:
        yield "postgres", f"{arguments.postgres}#{mark}"


def main() -> None:
    """Encode, measure each index in a process of its own, write JSON."""
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("text", type=Path)
    parser.add_argument("--folder", type=Path, required=True, help="for vectors and the index")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--postgres", help="address of a database, without #name")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--encode-only", action="store_true")
    parser.add_argument("--uri", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.uri:
        print(json.dumps(measure_index(arguments)))
        return
    report: dict[str, Any] = {"encoding": encode(arguments)}
    for name, uri in () if arguments.encode_only else uris(arguments):
        print(f"measuring {name} ...", file=sys.stderr)
        command = [sys.executable, __file__, *sys.argv[1:], "--uri", uri]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        report[name] = json.loads(done.stdout)
    text = json.dumps(report, indent=1)
    if arguments.output:
        arguments.output.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
