"""Conversion of small archives in SentEval's and MTEB's form; no network is used."""

import gzip
import io
import json
import tarfile

import pytest

from simcse.errors import DataError, ResourceError
from simcse.io import fetch
from simcse.io.benchmarks import known_files
from simcse.io.fetch import (
    STS_SUBSETS,
    convert_natural,
    convert_senteval,
    fetch_datasets,
    name_subsets,
)

SICK = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n"
MRPC = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"


def senteval_files():
    """Return every file of a SentEval archive, with a row or two each."""
    files = {
        f"STS/STS{year}-en-test/STS.{kind}.{subset}.txt": text
        for year, subsets in STS_SUBSETS.items()
        for subset in subsets
        for kind, text in (("input", "a  cat .\ta dog .\nno\tscore\n"), ("gs", "4.40\n\n"))
    }
    for split in ("train", "dev", "test"):
        row = "main-news\tMSRpar\t2012test\t0001\t5.000\tone ,\ttwo\n"
        files[f"STS/STSBenchmark/sts-{split}.csv"] = row
        files[f"SST/binary/sentiment-{split}"] = "a  charming journey\t1\ndull\t0\n"
    for split in ("train", "trial", "test_annotated"):
        files[f"SICK/SICK_{split}.txt"] = f"{SICK}1\tA man\tA Man\t4.5\tNEUTRAL\r\n"
    for positive, negative in fetch.BINARY_FILES.values():
        files[positive], files[negative] = "good  one\n", "bad M-iM-s one\nworse\n"
    for stored in fetch.TREC_FILES.values():
        files[f"TREC/{stored}.label"] = "NUM:dist How far : is it ?\n"
    for split in ("train", "test"):
        files[f"MRPC/msr_paraphrase_{split}.txt"] = f"{MRPC}1\t7\t8\tfirst é\tsecond\r\n"
    return files


def pack(path, files, *, folder="data/downstream"):
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            data = text.encode()
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def write_jsonl(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in records).encode()))
    return path


@pytest.mark.parametrize("folder", [".", "data/downstream"])
def test_senteval_archive_becomes_our_files(tmp_path, folder):
    tables = dict(
        convert_senteval(pack(tmp_path / "senteval.tar", senteval_files(), folder=folder))
    )
    assert tables["sts_senteval/sts13.tsv"] == [
        (subset, "4.4", "a cat .", "a dog .") for subset in ("FNWN", "headlines", "OnWN")
    ]
    assert tables["sts_senteval/stsb-dev.tsv"] == [("main-news/MSRpar", "5.0", "one ,", "two")]
    assert tables["sts_senteval/sickr-dev.tsv"] == [("SICK", "4.5", "A man", "A Man", "NEUTRAL")]
    assert tables["transfer_senteval/subj.tsv"] == [
        ("1", "good one"),
        ("0", "bad M-iM-s one"),
        ("0", "worse"),
    ]
    assert tables["transfer/sst2-test.tsv"] == [("1", "a charming journey"), ("0", "dull")]
    assert tables["transfer_senteval/trec-test.tsv"] == [("NUM", "How far : is it ?")]
    assert tables["transfer_senteval/mrpc-train.tsv"] == [("1", "first é", "second")]


def test_senteval_archive_gives_every_known_file(tmp_path):
    names = {name for name, _ in convert_senteval(pack(tmp_path / "a.tar", senteval_files()))}
    senteval = {name for name in known_files() if "_senteval/" in name or "sst2" in name}
    assert names == senteval


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("TREC/TREC_10.label", None, "no file TREC/TREC_10.label"),
        ("STS/STS12-en-test/STS.gs.MSRpar.txt", "high\n\n", "could not convert"),
        ("STS/STS12-en-test/STS.gs.MSRpar.txt", "1\n", "zip"),
        ("SST/binary/sentiment-dev", "no label\n", "out of range"),
    ],
)
def test_another_form_is_a_data_error(tmp_path, name, text, problem):
    files = senteval_files() | {name: text}
    archive = pack(tmp_path / "a.tar", {n: t for n, t in files.items() if t is not None})
    with pytest.raises(DataError, match=f"not SentEval's form: .*{problem}"):
        list(convert_senteval(archive))


def test_damaged_archive_is_a_data_error(tmp_path):
    archive = pack(tmp_path / "a.tar", senteval_files())
    archive.write_bytes(archive.read_bytes()[:500])
    with pytest.raises(DataError, match="damaged archive"):
        list(convert_senteval(archive))


def test_an_archive_cannot_write_outside(tmp_path):
    files = senteval_files() | {"../../../escaped.txt": "out"}
    list(convert_senteval(pack(tmp_path / "a.tar", files)))
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


def test_natural_rows(tmp_path):
    pair = {"score": 4, "sentence1": "A\tcat\n", "sentence2": "A dog."}
    named = {**pair, "genre": "main-news", "dataset": "MSRpar"}
    path = write_jsonl(tmp_path / "test.jsonl.gz", [pair, named])
    assert convert_natural(path) == [
        ("", "4.0", "A cat", "A dog."),
        ("main-news/MSRpar", "4.0", "A cat", "A dog."),
    ]
    write_jsonl(path, [pair, {"score": None}])
    with pytest.raises(DataError, match=r"test.jsonl.gz:2: expected sentence1"):
        convert_natural(path)


def test_subsets_are_taken_from_senteval_only_if_every_score_agrees():
    rows = [("", "1.0", "A", "B"), ("", "2.0", "C", "D")]
    senteval = [("x", "1.0", "a", "b"), ("y", "2.0", "c", "d")]
    named, note = name_subsets(rows, "sts12", senteval)
    assert (named, note) == ([("x", "1.0", "A", "B"), ("y", "2.0", "C", "D")], "")
    for other in ([], senteval[::-1]):
        named, note = name_subsets(rows, "sts12", other)
        assert [row[0] for row in named] == ["sts12", "sts12"]
        assert "mean and wmean need the SentEval text" in note


def test_everything_is_fetched_and_written(tmp_path):
    stored, folder = tmp_path / "hub", tmp_path / "data"

    def download(repository, name):
        if name == "senteval.tar":
            stored.mkdir(exist_ok=True)
            return pack(stored / name, senteval_files())
        if name.endswith(".jsonl.gz"):
            record = {"score": 4.4, "sentence1": "A cat.", "sentence2": "A dog."}
            return write_jsonl(stored / repository / name, [record])
        (stored / name).write_text(name)
        return stored / name

    fetched = list(fetch_datasets(folder, download=download))
    written = sorted(path for path in folder.rglob("*") if path.is_file())
    assert sorted(file.path for file in fetched) == written
    assert {path.relative_to(folder).as_posix() for path in written} <= set(known_files())
    assert (folder / "sts" / "sts16.tsv").read_text() == "sts16\t4.4\tA cat.\tA dog.\n"
    assert (folder / "wiki" / "wiki1m_for_simcse.txt").read_text() == "wiki1m_for_simcse.txt"


def test_a_known_file_is_kept(tmp_path, monkeypatch):
    path = tmp_path / "sts" / "sts12.tsv"
    path.parent.mkdir()
    path.write_text("known")
    known = known_files()["sts/sts12.tsv"]
    monkeypatch.setattr(fetch, "sha256_file", lambda path: known.sha256)
    assert "kept" in fetch._write_rows(tmp_path, "sts/sts12.tsv", [("new",)]).note
    assert path.read_text() == "known"


def test_no_internet_is_a_resource_error(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")

    def unreachable(*arguments, **options):
        raise hub.errors.LocalEntryNotFoundError("Please check your connection")

    monkeypatch.setattr(hub, "hf_hub_download", unreachable)
    with pytest.raises(ResourceError, match=r"cannot download senteval.tar of princeton-nlp"):
        next(fetch_datasets(tmp_path))
    assert list(tmp_path.iterdir()) == []
