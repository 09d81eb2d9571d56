"""The effect of `simcse adapt` on three corpora, evaluated on labeled pairs that it never sees.

    python adaptation.py mini results/adaptation.json [--rows 6400] [--seeds 3] [--runs FOLDER]

The queries are questions for their duplicates, captions for those of the same image (both from the
shared data), and summary lines of Python's docstrings for their bodies. Prints Markdown.
Interrupted runs continue.
"""

import argparse
import dataclasses
import random
from pathlib import Path
from typing import Any

from simcse.config import build, merge
from simcse.evaluate.retrieval import RetrievalSet, groups_set, pairs_set, sentence_groups
from simcse.io.benchmarks import data_folder
from simcse.io.files import write_text
from simcse.io.log import read_log
from simcse.io.records import read_pairs
from simcse.io.results import write_results
from simcse.quickstart.prose import build_corpus, read_docstrings, read_topics
from simcse.report.tables import Column, Table, to_markdown
from simcse.report.versions import versions
from simcse.train import adapt as adapting
from simcse.train.settings import TrainConfig

HELD_OUT = 1_500  # groups of one meaning whose pairs are ranked


def of_pairs(name: str, rows: int) -> tuple[list[str], RetrievalSet]:
    """Split a file of pairs: sentences to train on, and groups none of whose sentences is there."""
    path = data_folder() / "pairs" / name
    pairs = read_pairs(path)
    group = {text: members[0] for text, members in sentence_groups(pairs).items()}
    draw = random.Random(0)
    held_out = set(draw.sample(sorted(set(group.values())), HELD_OUT))
    corpus = [text for text in group if group[text] not in held_out]
    test = [pair for pair in pairs if group[pair[0]] in held_out]
    return draw.sample(corpus, rows), groups_set(name, test)


def of_docstrings(rows: int) -> tuple[list[str], RetrievalSet]:
    """Take the prose that Python carries, as the quickstart does."""
    corpus = build_corpus(read_topics(), read_docstrings(), limit=rows)
    test = [(pair.summary, pair.body) for pair in corpus.test]
    return [sentence.text for sentence in corpus.sentences], pairs_set("docstrings", test)


def adapt(
    model: str, corpus: Path, asked: RetrievalSet, settings: dict[str, Any]
) -> dict[str, Any]:
    """Adapt once, in a folder beside the corpus; return plain values for the results file."""
    config = build(TrainConfig, merge(adapting.SETTINGS, settings))
    run = corpus.parent / f"seed-{config.seed}"
    found = adapting.adapt(model, [corpus], run, config, pairs=asked, resume=run.exists())
    steps = [event for event in read_log(run / "log.jsonl") if event["event"] == "step"]
    return {
        "seed": config.seed,
        "queries": len(asked.queries),
        "best_step": found.training.best_step,
        "seconds": sum(step["seconds"] for step in steps),
        "pairs": dataclasses.asdict(found.pairs) if found.pairs else None,
        "rejected": found.rejection,
        "trained": found.trained,
    }


def table(found: dict[str, list[dict[str, Any]]]) -> Table:
    """Return a table with one row per run."""
    titles = ("Corpus", "Seed", "Before", "After", "Difference", "From", "To", "Result")
    columns = tuple(Column(title, 2 if 1 < i < 7 else 0) for i, title in enumerate(titles))
    rows = []
    for corpus, runs in found.items():
        for run in runs:
            pairs = run["pairs"]
            before, after = pairs["first"], pairs["second"]
            change = (before, after, after - before, pairs["low"], pairs["high"])
            what = "trained" if run["trained"] else "token weights alone"
            rows.append((corpus, run["seed"], *change, "no" if run["rejected"] else what))
    return Table("Mean reciprocal rank x100 of held-out pairs", columns, tuple(rows))


def main() -> None:
    """Adapt to each corpus with each seed, and write every run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("output", type=Path)
    parser.add_argument("--rows", type=int, default=6400, help="Number of sentences to train on.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("adaptation"))
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    corpora = {
        "duplicate questions": of_pairs("quora_duplicates.tsv.gz", options.rows),
        "captions of one image": of_pairs("flickr30k_captions.tsv.gz", options.rows),
        "docstrings": of_docstrings(options.rows),
    }
    found: dict[str, list[dict[str, Any]]] = {}
    for name, (sentences, pairs) in corpora.items():
        corpus = options.runs / name.replace(" ", "-") / "corpus.txt"
        write_text(corpus, "".join(f"{' '.join(line.split())}\n" for line in sentences))
        for seed in range(options.seeds):
            settings = {"seed": seed, "train": {"threads": options.threads}}
            found.setdefault(name, []).append(adapt(options.model, corpus, pairs, settings))
            print(f"{name}, seed {seed}: {found[name][-1]}")
    print(to_markdown(table(found)))
    results = {"model": options.model, "rows": options.rows, "versions": versions()}
    write_results(options.output, {**results, "corpora": found})


if __name__ == "__main__":
    main()
