"""Speed and memory of the bundled models beside other small encoders, in turns.

From this folder, after ``pip install --no-deps wordllama toml``, with any file of sentences:

    python models.py wiki.txt all-MiniLM-L6-v2 results/models.json [--sentences 1000] [--rounds 5]

Each encodes in the way its users do; their embeddings are not compared, being of different models.
"""

import argparse
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simcse.bench.exported import Work, repeated
from simcse.bench.outcome import race_results, race_table
from simcse.bench.race import System, race
from simcse.io.records import read_texts
from simcse.io.results import write_results
from simcse.model.names import BUNDLED
from simcse.report.tables import to_markdown
from simcse.report.versions import versions

MAX_LENGTH = 128  # tokens


def wordllama(sentences: Sequence[str], *, repeats: int) -> Work:
    """Encode with WordLlama's own package."""
    import wordllama as package

    home = Path(package.__file__).parent  # where 0.4.0 does not look for the tokenizer it has
    model = package.WordLlama.load(cache_dir=home, disable_download=True)

    def encode() -> np.ndarray:
        vectors: np.ndarray = model.embed(list(sentences))
        return vectors

    return repeated(encode, repeats)


def systems(other: str, sentences: Sequence[str], repeats: int) -> list[System]:
    """Name who encodes: our models first, at the precision we choose here."""
    task: dict[str, Any] = {"sentences": list(sentences), "repeats": repeats}
    cut = {**task, "max_length": MAX_LENGTH}
    ours = "simcse.bench.encode:ours"
    theirs = {**cut, "model": other}
    runtime = {**theirs, "runtime": "openvino", "dtype": "bf16"}
    return [
        *(System(name, ours, {**cut, "model": name, "precision": "auto"}) for name in BUNDLED),
        System(f"{other}, simcse", ours, {**theirs, "precision": "auto"}),
        System(
            f"{other}, sentence-transformers", "simcse.bench.encode:sentence_transformers", theirs
        ),
        System(f"{other}, OpenVINO bf16", "simcse.bench.exported:encode", runtime),
        System("WordLlama 256", "models:wordllama", task),
    ]


def main() -> None:
    """Race them and write every round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("other", help="all-MiniLM-L6-v2, as a folder")
    parser.add_argument("output", type=Path)
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=1, help="passes a round")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # of the systems' processes
    texts = list(itertools.islice(read_texts(asked.source), asked.sentences))
    found = race(systems(asked.other, texts, asked.repeats), rounds=asked.rounds, observe=print)
    alone: list[float | None] = [None] * len(found)
    title = f"Encode {len(texts):,} sentences of at most {MAX_LENGTH} tokens"
    print(to_markdown(race_table(title, found, alone)))
    results = {"title": title, "repeats": asked.repeats, "versions": versions()}
    write_results(asked.output, {**results, "systems": race_results(found, alone)})


if __name__ == "__main__":
    main()
