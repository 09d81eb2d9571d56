"""The prose that every Python carries, and which of it is held out from training."""

import ast
import sys
import sysconfig
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from simcse.errors import DataError
from simcse.quickstart.sentences import plain, split_document

DEV_PERCENT, TEST_PERCENT = 10, 30  # of all docstrings; one in five has a usable pair
SHORTEST_BODY, LONGEST_BODY = 12, 60  # words
FEWEST_PAIRS = 20  # of a part; fewer measure nothing
# Tools, tests and tables: not the library a reader knows.
SKIPPED = {"encodings", "ensurepip", "idlelib", "lib2to3", "test", "tests", "turtledemo"}

Part = Literal["train", "dev", "test"]
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Document:
    """A text and the name a reader finds it by: ``help('try')`` or ``json.loads``."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence and the name of the document it was first met in."""

    text: str
    source: str

    def __str__(self) -> str:
        return f"{self.text} [{self.source}]"


@dataclass(frozen=True, slots=True)
class Pair:
    """A held-out docstring: its summary line and the beginning of its body, prose only."""

    name: str
    summary: str
    body: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """What is trained on and searched, and what is held out from both.

    Attributes:
        sentences: distinct sentences, those of the language reference first.
        available: how many there were to choose them from.
        dev: pairs to choose a model by.
        test: pairs to measure it on.
    """

    sentences: tuple[Sentence, ...]
    available: int
    dev: tuple[Pair, ...]
    test: tuple[Pair, ...]


def read_topics() -> list[Document]:
    """Return the chapters of the language reference that ``help()`` shows.

    Raises:
        DataError: this Python was packaged without them.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise DataError(f"the Python in {sys.prefix} lacks pydoc_data.topics") from error
    return [Document(f"help({name!r})", text) for name, text in sorted(topics.items())]


def read_docstrings(library: Path | None = None) -> list[Document]:
    """Return the docstrings of the standard library from its sources; nothing is imported.

    Args:
        library: the folder of the sources; left out, that of this Python.

    Raises:
        DataError: there are no sources.
    """
    library = library or Path(sysconfig.get_path("stdlib"))
    documents = [
        document
        for path in _sources(library)
        for document in _docstrings(ast.parse(path.read_bytes()), _module_name(path, library))
    ]
    if not documents:
        raise DataError(
            f"no docstrings in {library}: this Python was packaged without the sources of its "
            "library. Use one that has them, such as python.org's, a system's, conda's or uv's"
        )
    return documents


def build_corpus(
    topics: Iterable[Document], docstrings: Iterable[Document], *, limit: int
) -> Corpus:
    """Choose what is trained on and what is held out.

    A docstring's name alone decides its part. No sentence of a held-out docstring is trained on,
    wherever else it stands. Of more than ``limit`` sentences a fixed arbitrary choice is taken,
    from the language reference first.

    Raises:
        DataError: too few held-out docstrings have a summary line and a body.
    """
    parts: dict[Part, list[Document]] = {"train": [], "dev": [], "test": []}
    for document in docstrings:
        parts[part_of(document.name)].append(document)
    held_out = [*parts["dev"], *parts["test"]]
    seen = {text.casefold() for document in held_out for text in split_document(document.text)}
    sentences = [*_new_sentences(topics, seen), *_new_sentences(parts["train"], seen)]
    return Corpus(
        tuple(sentences[:limit]), len(sentences), _pairs(parts["dev"]), _pairs(parts["test"])
    )


def part_of(name: str) -> Part:
    """Return the part that the docstring of this name belongs to, the same on every machine."""
    percent = _number(name) % 100
    if percent < DEV_PERCENT:
        return "dev"
    return "test" if percent < DEV_PERCENT + TEST_PERCENT else "train"


def summary_and_body(document: Document) -> Pair | None:
    """Return a docstring's one-sentence summary and its body, cut to `LONGEST_BODY` words.

    ``None`` if it has no such summary, too short a body, or a body that repeats the summary.
    """
    summary, *sentences = split_document(document.text) or [""]
    first_paragraph, _, _ = document.text.partition("\n\n")
    words = " ".join(sentences).split()[:LONGEST_BODY]
    body = " ".join(words)
    if plain(first_paragraph) != summary or len(words) < SHORTEST_BODY or summary in body:
        return None
    return Pair(document.name, summary, body)


def _pairs(documents: Iterable[Document]) -> tuple[Pair, ...]:
    """Return the pairs of a held-out part; no summary and no body occurs twice."""
    pairs: list[Pair] = []
    seen: set[str] = set()
    for pair in map(summary_and_body, documents):
        if pair is not None and seen.isdisjoint((pair.summary, pair.body)):
            seen |= {pair.summary, pair.body}
            pairs.append(pair)
    if len(pairs) < FEWEST_PAIRS:
        raise DataError(
            f"expected at least {FEWEST_PAIRS} held-out docstrings with a summary line and a body, "
            f"got {len(pairs)}"
        )
    return tuple(pairs)


def _new_sentences(documents: Iterable[Document], seen: set[str]) -> list[Sentence]:
    """Return the sentences not yet seen, in an arbitrary order that is always the same."""
    found = []
    for document in documents:
        for text in split_document(document.text):
            if text.casefold() not in seen:
                seen.add(text.casefold())
                found.append(Sentence(text, document.name))
    return sorted(found, key=lambda sentence: _number(sentence.text))


def _number(text: str) -> int:
    return zlib.crc32(text.encode())


def _sources(library: Path) -> Iterator[Path]:
    """Yield the source files of the public modules of the standard library, sorted."""
    for name in sorted(sys.stdlib_module_names - SKIPPED):
        if name.startswith("_"):
            continue  # mostly Python twins of modules in C, with the same docstrings
        module = library / f"{name}.py"
        files = [module] if module.is_file() else sorted((library / name).rglob("*.py"))
        yield from (path for path in files if SKIPPED.isdisjoint(path.relative_to(library).parts))


def _module_name(path: Path, library: Path) -> str:
    parts = path.relative_to(library).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def _docstrings(node: Documented, name: str) -> Iterator[Document]:
    text = ast.get_docstring(node)
    if text:
        yield Document(name, text)
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings(child, f"{name}.{child.name}")
