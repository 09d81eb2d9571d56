"""Every command reads every format by one rule, with one ``--columns``, and reports it."""

import csv
import gzip
import io
import json

import pytest

WORDS = ["man", "woman", "dog", "cat", "guitar", "music", "food", "house"]
NAMES = ["ticket", "question", "answer"]
ROWS = [
    [f"T-{i}", f"How does the {word} run here?", f"The {word} runs with a woman."]
    for i, word in enumerate(f"{first} {second}" for first in WORDS for second in WORDS[:3])
]
RUN = ("optim.batch_size=4", "optim.max_steps=1", "eval.dev=none", "precision=fp32")
COMMANDS = {
    "train": ("train", "--train", "FILE", "--model", "MODEL", "--output", "run", *RUN),
    "adapt": ("adapt", "FILE", "--model", "MODEL", "--output", "run", *RUN[:2], "precision=fp32"),
    "pretrain": ("pretrain", "--train", "FILE", "--model", "MODEL", "--output", "run", *RUN[:2]),
    "encode": ("encode", "FILE", "--model", "MODEL", "--output", "v.npy", "--columns", "COLUMNS"),
    "shards": ("encode", "FILE", "--model", "MODEL", "--output", "v", "--columns", "COLUMNS"),
    "index": ("index", "build", "i", "FILE", "--model", "MODEL", "--columns", "COLUMNS"),
    "retrieval": ("evaluate", "retrieval", "MODEL", "--pairs", "FILE", "--columns", "COLUMNS"),
    "geometry": ("evaluate", "geometry", "MODEL", "--pairs", "FILE", "--columns", "COLUMNS"),
    "lint": ("data", "lint", "FILE", "--columns", "COLUMNS"),
    "dedupe": ("data", "dedupe", "FILE", "--output", "OUT", "--columns", "COLUMNS"),
    "split": ("data", "split", "FILE", "--output", "o", "--dev", 0.2, "--columns", "COLUMNS"),
    "sample": ("data", "sample", "FILE", "--rows", 4, "--output", "OUT", "--columns", "COLUMNS"),
    "augment": ("data", "augment", "FILE", "--how", "delete-one", "--output", "o.tsv")
    + ("--columns", "COLUMNS"),
}
ONE_TEXT = ("encode", "shards", "index")
SUBSETS = ("dedupe", "split", "sample")


def write(path, names):
    """Write `ROWS` below a header, if there are names."""
    out, rows = io.StringIO(), [names, *ROWS] if names else ROWS
    if ".parquet" in path.name:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        columns = map(list, zip(*ROWS, strict=True))
        table = dict(zip(names or ["a", "b", "c"], columns, strict=True))
        parquet.write_table(pyarrow.table(table), path)
        return path
    if ".csv" in path.name:
        csv.writer(out).writerows(rows)
    elif ".tsv" in path.name:
        out.writelines("\t".join(row) + "\n" for row in rows)
    else:
        records = [dict(zip(names, row, strict=True)) for row in ROWS] if names else ROWS
        out.writelines(json.dumps(record) + "\n" for record in records)
    data = out.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("a.csv", NAMES),
        ("a.csv", None),
        ("a.tsv", NAMES),
        ("a.tsv.gz", None),
        ("a.jsonl", NAMES),
        ("a.jsonl.gz", None),
        ("a.parquet", NAMES),
    ],
)
def test_every_command_reads_every_format(
    simcse, tiny_model_folder, tmp_path, monkeypatch, command, name, names
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIMCSE_DATA", str(tmp_path / "data"))
    path = write(tmp_path / name, names)
    columns = "question" if names else "2"
    if command not in ONE_TEXT:
        columns = "anchor=question,positive=answer" if names else "2,3"
    given = {"FILE": path, "MODEL": tiny_model_folder, "COLUMNS": columns, "OUT": f"out-{name}"}
    arguments = [given.get(word, word) for word in COMMANDS[command]]
    if "--columns" not in arguments:
        arguments.append(f"data.columns={columns}")
    outcome = simcse(*arguments)
    if command in SUBSETS and name == "a.parquet":
        assert (outcome.code, "of one format" in outcome.err) == (3, True)
        return
    assert outcome.code in ((0, 6) if command == "adapt" else (0,)), outcome.err
    shown = names or (["a", "b", "c"] if ".parquet" in name else [f"column {i}" for i in (1, 2, 3)])
    used = f"text={shown[1]}" if command in ONE_TEXT else f"anchor={shown[1]}, positive={shown[2]}"
    assert f"{path}: " in outcome.err
    assert used in outcome.err
    if ".csv" in name or ".tsv" in name:
        assert ("header found; " if names else "no header; ") in outcome.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_stops_at_a_doubt_before_it_writes(
    simcse, tiny_model_folder, tmp_path, monkeypatch, command
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIMCSE_DATA", str(tmp_path / "data"))
    path = write(tmp_path / "a.csv", ["nr", "what", "which"])
    given = {"FILE": path, "MODEL": tiny_model_folder, "COLUMNS": "", "OUT": "out.csv"}
    outcome = simcse(*(given.get(word, word) for word in COMMANDS[command]))
    assert outcome.code == 3, outcome.err
    assert "nr (ids), what (text), which (text). Name the columns by --columns" in outcome.err
    assert "Traceback" not in outcome.err
    left = {each.name for each in tmp_path.iterdir()} - {"a.csv", "cache"}
    assert left <= {"i"}  # an index is made before its rows are read


def test_a_subset_keeps_its_header_byte_for_byte(simcse, tmp_path):
    path = write(tmp_path / "a.csv", NAMES)
    columns = ("--columns", "question,answer")
    output = ("--output", tmp_path / "b.csv")
    for words in (("dedupe",), ("sample", "--rows", 24)):
        assert simcse("data", words[0], path, *words[1:], *output, *columns).code == 0
        assert (tmp_path / "b.csv").read_bytes() == path.read_bytes()


def test_a_misspelled_column_is_an_error_with_the_closest(simcse, tmp_path):
    path = write(tmp_path / "a.csv", NAMES)
    outcome = simcse("data", "lint", path, "--columns", "question,anser")
    assert outcome.code == 3
    assert "no column 'anser', the file has: ticket, question, answer." in outcome.err
    assert "Did you mean 'answer'?" in outcome.err
