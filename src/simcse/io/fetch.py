"""Download the public data sets and write them in this project's form.

The SentEval text comes from the archive of Gao et al. 2021, the natural text from MTEB's copies
(Muennighoff et al. 2023) and the training files as Gao et al. released them. The conversion is
tested on small archives; the download itself is not tested, because the project was written on a
machine without internet. `simcse.io.benchmarks.check_datasets` compares the files with those
that the project's results were computed on.
"""

import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from simcse.errors import DataError, ResourceError
from simcse.io.benchmarks import known_files
from simcse.io.files import (
    Source,
    atomic_path,
    clean_text,
    read_json_lines,
    sha256_file,
    write_text,
)

Rows = Sequence[tuple[str, ...]]
Download = Callable[[str, str], Path]  # repository, file -> local path

PAPER_REPOSITORY = "princeton-nlp/datasets-for-simcse"
TRAINING_FILES = {
    "wiki1m_for_simcse.txt": "wiki/wiki1m_for_simcse.txt",
    "nli_for_simcse.csv": "nli/nli_for_simcse.csv",
}
NATURAL_FILES = {
    **{f"sts{year}": (f"mteb/sts{year}-sts", "test") for year in range(12, 17)},
    "stsb-train": ("mteb/stsbenchmark-sts", "train"),
    "stsb-dev": ("mteb/stsbenchmark-sts", "validation"),
    "stsb-test": ("mteb/stsbenchmark-sts", "test"),
    "sickr-all": ("mteb/sickr-sts", "test"),  # all three splits
}
STS_SUBSETS = {
    "12": ("MSRpar", "MSRvid", "SMTeuroparl", "surprise.OnWN", "surprise.SMTnews"),
    "13": ("FNWN", "headlines", "OnWN"),
    "14": ("deft-forum", "deft-news", "headlines", "OnWN", "images", "tweet-news"),
    "15": ("answers-forums", "answers-students", "belief", "headlines", "images"),
    "16": ("answer-answer", "headlines", "plagiarism", "postediting", "question-question"),
}
SICK_FILES = {"train": "train", "dev": "trial", "test": "test_annotated"}
BINARY_FILES = {  # label 1, then label 0
    "mr": ("MR/rt-polarity.pos", "MR/rt-polarity.neg"),
    "cr": ("CR/custrev.pos", "CR/custrev.neg"),
    "subj": ("SUBJ/subj.objective", "SUBJ/subj.subjective"),
    "mpqa": ("MPQA/mpqa.pos", "MPQA/mpqa.neg"),
}
TREC_FILES = {"train": "train_5500", "test": "TREC_10"}


@dataclass(frozen=True)
class FetchedFile:
    """A file that was written, and a note for the user."""

    path: Path
    note: str = ""


def fetch_datasets(folder: Path, *, download: Download | None = None) -> Iterator[FetchedFile]:
    """Download and convert all data sets; yield each file when it is complete in ``folder``.

    A file that exists and has the known SHA-256 stays; others are replaced.

    Raises:
        ResourceError: the hub cannot be reached, or the folder cannot be written.
        DataError: a download does not have the expected format.
    """
    download = download or download_file
    archive = download(PAPER_REPOSITORY, "senteval.tar")
    converted = {}
    for name, rows in convert_senteval(archive):
        converted[name] = rows
        yield _write_rows(folder, name, rows)
    for name, (repository, split) in NATURAL_FILES.items():
        unnamed = convert_natural(download(repository, f"{split}.jsonl.gz"))
        rows, note = name_subsets(unnamed, name, converted.get(f"sts_senteval/{name}.tsv", ()))
        yield _write_rows(folder, f"sts/{name}.tsv", rows, note)
    for name, destination in TRAINING_FILES.items():
        downloaded = download(PAPER_REPOSITORY, name)
        with atomic_path(folder / destination) as temporary:
            shutil.copyfile(downloaded, temporary)
        yield FetchedFile(folder / destination)


def download_file(repository: str, name: str) -> Path:
    """Return a local copy of one file of a Hugging Face data set.

    Raises:
        ResourceError: the hub cannot be reached or denies access.
    """
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, name, repo_type="dataset"))
    except OSError as error:  # huggingface_hub's own errors are OSErrors
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ResourceError(f"cannot download {name} of {repository}: {reason}") from error


def convert_senteval(archive: Path) -> Iterator[tuple[str, Rows]]:
    """Yield the path and rows of each file from SentEval's archive, which is never unpacked.

    Sentences are their tokens separated by one space, as SentEval passes them to an encoder.

    Raises:
        DataError: the archive is damaged, or lacks a file or column.
    """
    try:
        with tarfile.open(archive) as tar:
            read = _Members(tar)
            yield from _sts_files(read)
            yield from _transfer_files(read)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{archive}: damaged archive: {error}") from error
    except (ValueError, IndexError) as error:
        raise DataError(f"{archive}: not in SentEval's format: {error}") from error


def convert_natural(path: Path) -> Rows:
    """Return the rows of one MTEB file; the subset is empty if the file does not name it.

    Raises:
        DataError: a row lacks a sentence or score.
    """
    rows = []
    for number, record in read_json_lines(Source(path)):
        try:
            score = str(float(record["score"]))
            pair = clean_text(record["sentence1"]), clean_text(record["sentence2"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}:{number}: expected sentence1, sentence2, score") from error
        subset = f"{record['genre']}/{record['dataset']}" if "genre" in record else ""
        rows.append((subset, score, *pair))
    return rows


def name_subsets(rows: Rows, name: str, senteval: Rows) -> tuple[Rows, str]:
    """Fill in empty subsets; return the rows, and a note if that was not possible.

    MTEB drops the subsets of STS12-16. If its scores equal those of the SentEval rows in order, the
    pairs and their subsets are the same; otherwise each row gets the name of the task.
    """
    if all(row[0] for row in rows):
        return rows, ""
    if [row[1] for row in rows] == [row[1] for row in senteval]:
        return [(same[0], *row[1:]) for row, same in zip(rows, senteval, strict=True)], ""
    note = "the subsets are unknown: mean and wmean need the SentEval text"
    return [(name, *row[1:]) for row in rows], note


class _Members:
    """Reads members of an archive by the end of their path, in any folder."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self.tar = tar
        self.members = [member for member in tar.getmembers() if member.isfile()]

    def __call__(self, name: str, *, encoding: str = "utf-8") -> list[str]:
        for member in self.members:
            stream = (
                self.tar.extractfile(member) if f"/{member.name}".endswith(f"/{name}") else None
            )
            if stream:
                text = stream.read().decode(encoding)
                return text.replace("\r\n", "\n").removesuffix("\n").split("\n")
        raise ValueError(f"no file {name}")


def _sts_files(read: _Members) -> Iterator[tuple[str, Rows]]:
    for year, subsets in STS_SUBSETS.items():
        rows = [row for subset in subsets for row in _sts_subset(read, year, subset)]
        yield f"sts_senteval/sts{year}.tsv", rows
    for split in ("train", "dev", "test"):
        cells = _cells(read(f"STS/STSBenchmark/sts-{split}.csv"))
        rows = [(f"{c[0]}/{c[1]}", _score(c[4]), _words(c[5]), _words(c[6])) for c in cells]
        yield f"sts_senteval/stsb-{split}.tsv", rows
    for split, stored in SICK_FILES.items():
        cells = _cells(read(f"SICK/SICK_{stored}.txt")[1:])  # below the header
        sick = [("SICK", _score(c[3]), _words(c[1]), _words(c[2]), c[4].strip()) for c in cells]
        yield f"sts_senteval/sickr-{split}.tsv", sick


def _sts_subset(read: _Members, year: str, subset: str) -> Iterator[tuple[str, ...]]:
    folder = f"STS/STS{year}-en-test"
    scores = read(f"{folder}/STS.gs.{subset}.txt")
    pairs = _cells(read(f"{folder}/STS.input.{subset}.txt"))
    for score, pair in zip(scores, pairs, strict=True):
        if score.strip():  # the organizers rated only some pairs
            yield subset, _score(score), _words(pair[0]), _words(pair[1])


def _transfer_files(read: _Members) -> Iterator[tuple[str, Rows]]:
    for task, (positive, negative) in BINARY_FILES.items():
        ones = [("1", _words(line)) for line in read(positive, encoding="latin-1")]
        zeros = [("0", _words(line)) for line in read(negative, encoding="latin-1")]
        yield f"transfer_senteval/{task}.tsv", [*ones, *zeros]
    for split in ("train", "dev", "test"):
        cells = _cells(read(f"SST/binary/sentiment-{split}"))
        yield f"transfer/sst2-{split}.tsv", [(c[1].strip(), _words(c[0])) for c in cells]
    for split, stored in TREC_FILES.items():
        lines = read(f"TREC/{stored}.label", encoding="latin-1")
        questions = [line.partition(":") for line in lines]  # NUM:dist How far is it ...
        rows = [(label, _words(rest.partition(" ")[2])) for label, _, rest in questions]
        yield f"transfer_senteval/trec-{split}.tsv", rows
    for split in ("train", "test"):
        cells = _cells(read(f"MRPC/msr_paraphrase_{split}.txt")[1:])  # below the header
        pairs = [(c[0], _words(c[3]), _words(c[4])) for c in cells]
        yield f"transfer_senteval/mrpc-{split}.tsv", pairs


def _cells(lines: Iterable[str]) -> list[list[str]]:
    return [line.split("\t") for line in lines]


def _words(text: str) -> str:
    return " ".join(text.split())


def _score(text: str) -> str:
    return str(float(text))


def _write_rows(folder: Path, name: str, rows: Rows, note: str = "") -> FetchedFile:
    path, known = folder / name, known_files().get(name)
    if known and path.exists() and sha256_file(path) == known.sha256:
        return FetchedFile(path, "unchanged: the existing file is the known one")
    write_text(path, "".join("\t".join(row) + "\n" for row in rows))
    return FetchedFile(path, note)
