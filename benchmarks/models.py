"""Speed and memory of the bundled models and of other small encoders, in turn.

From this folder, after ``pip install --no-deps wordllama toml``, with any file of sentences:

    python models.py wiki.txt all-MiniLM-L6-v2 results/models.json [--sentences 1000] [--rounds 5]

Each is called as its documentation shows. The embeddings of different models are not compared.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exported import Work, repeated
from race import System, race
from race_report import race_results, race_table
from simcse.io.records import read_texts
from simcse.io.results import write_results
from simcse.model.huggingface import BUNDLED
from simcse.report.tables import to_markdown
from simcse.report.versions import versions

MAX_LENGTH = 128  # tokens


def wordllama(sentences: Sequence[str], *, repeats: int) -> Work:
    """Encode with WordLlama's own package."""
    import wordllama as package

    home = Path(package.__file__).parent  # 0.4.0 does not search it for its own tokenizer
    model = package.WordLlama.load(cache_dir=home, disable_download=True)

    def encode() -> np.ndarray:
        vectors: np.ndarray = model.embed(list(sentences))
        return vectors

    return repeated(encode, repeats)


def systems(other: str, sentences: Sequence[str], repeats: int) -> list[System]:
    """List the systems: the bundled models first, in the automatic precision."""
    task: dict[str, Any] = {"sentences": list(sentences), "repeats": repeats}
    limited = {**task, "max_length": MAX_LENGTH}
    ours = "encode:ours"
    theirs = {**limited, "model": other}
    runtime = {**theirs, "runtime": "openvino", "dtype": "bf16"}
    return [
        *(System(name, ours, {**limited, "model": name, "precision": "auto"}) for name in BUNDLED),
        System(f"{other}, simcse", ours, {**theirs, "precision": "auto"}),
        System(f"{other}, sentence-transformers", "encode:sentence_transformers", theirs),
        System(f"{other}, OpenVINO bf16", "exported:encode", runtime),
        System("WordLlama 256", "models:wordllama", task),
    ]


def main() -> None:
    """Race them and write every round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("other", help="all-MiniLM-L6-v2, as a folder")
    parser.add_argument("output", type=Path)
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=1, help="Number of passes per round.")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    texts = list(itertools.islice(read_texts(options.source), options.sentences))
    found = race(systems(options.other, texts, options.repeats), rounds=options.rounds, log=print)
    alone: list[float | None] = [None] * len(found)
    title = f"Encode {len(texts):,} sentences of at most {MAX_LENGTH} tokens"
    print(to_markdown(race_table(title, found, alone)))
    results = {"title": title, "repeats": options.repeats, "versions": versions()}
    write_results(options.output, {**results, "systems": race_results(found, alone)})


if __name__ == "__main__":
    main()
