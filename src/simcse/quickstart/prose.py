"""The documentation that comes with Python as sentences, and the split for training."""

import ast
import re
import sys
import sysconfig
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from simcse.errors import DataError

DEV_PERCENT, TEST_PERCENT = 10, 30  # of all docstrings, one in five of which has a usable pair
MIN_BODY, MAX_BODY = 12, 60  # words
MIN_PAIRS = 20  # of a split, for scores that mean something
# Tools, tests and tables, which are not documentation for readers.
SKIPPED = {"encodings", "ensurepip", "idlelib", "lib2to3", "test", "tests", "turtledemo"}

Split = Literal["train", "dev", "test"]
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


MIN_WORDS, MAX_WORDS = 4, 60
MIN_PROSE = 0.75  # share of a sentence's tokens that are words

_RULE = re.compile(r"\W*|\+[-=+]+\+")  # an underline, a table's border, a blank line
_BULLET = re.compile(r"(?:[*•-]|\(?\d+[.)]) +")
_ROLE = re.compile(r":[a-z:]+:(?=`)")  # :class:`Thread`
_MARKUP = re.compile(r"`+|(?<![\w*])\*{1,2}(?=\w)|(?<=[\w.,()-])\*{1,2}(?![\w*])")
_FOOTNOTE = re.compile(r" *\[\d+\]_?(?=\W|$)")
_HYPHENATED = re.compile(r"(?<=[a-z]-) (?!and |or )(?=[a-z])")  # a word broken at a line's end

_CODE = re.compile(r"``.+?``|`[^`]+`|\"[^\"]+\"")
_END = re.compile(r"[.!?][\"'”’)\]]*\s+(?=[\"'“‘(\[`*]*[A-Z])")
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|cf|al|approx|resp|Dr|Mr|Mrs|Prof|St|No|Fig|Sec)|\b[A-Z])\.$"
)

_SENTENCE = re.compile(r"[\"'“‘(]?[A-Z].*[^\s.!?][.!?][\"'”’)]*", re.DOTALL)
_WORD = re.compile(r"[\"'“‘(]*[A-Za-z]+(?:[-'’/][A-Za-z]+)*[\"'”’)]*[.,:;!?]*[\"'”’)]*")
_NOT_PROSE = re.compile(r">>>|::=|==|->|\s\|\s|[{}\\]|:$")


@dataclass(frozen=True, slots=True)
class Document:
    """A text and the name a reader finds it by: ``help('try')`` or ``json.loads``."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence and the name of the first document that has it."""

    text: str
    source: str

    def __str__(self) -> str:
        return f"{self.text} [{self.source}]"


@dataclass(frozen=True, slots=True)
class Pair:
    """The summary line and the beginning of the body of a held-out docstring, prose only."""

    name: str
    summary: str
    body: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """The sentences for training and search, and the pairs that are held out from both."""

    sentences: tuple[Sentence, ...]  # distinct sentences, those of the language reference first
    available: int  # number of sentences before the choice
    dev: tuple[Pair, ...]  # pairs that choose the best model
    test: tuple[Pair, ...]  # pairs that evaluate it


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
            "library. Use a Python that has them, such as that of python.org, conda or uv."
        )
    return documents


def build_corpus(
    topics: Iterable[Document], docstrings: Iterable[Document], *, limit: int
) -> Corpus:
    """Choose the sentences for training and the held-out pairs.

    The name of a docstring decides its split. No sentence of a held-out docstring is trained on,
    also if another document repeats it. If there are more than ``limit`` sentences, a fixed
    arbitrary choice is taken, from the language reference first.

    Raises:
        DataError: too few held-out docstrings have a summary line and a body.
    """
    splits: dict[Split, list[Document]] = {"train": [], "dev": [], "test": []}
    for document in docstrings:
        splits[split_of(document.name)].append(document)
    held_out = [*splits["dev"], *splits["test"]]
    seen = {text.casefold() for document in held_out for text in split_document(document.text)}
    sentences = [*_new_sentences(topics, seen), *_new_sentences(splits["train"], seen)]
    return Corpus(
        tuple(sentences[:limit]), len(sentences), _pairs(splits["dev"]), _pairs(splits["test"])
    )


def split_of(name: str) -> Split:
    """Return the split of a docstring, which is the same on every machine."""
    percent = _number(name) % 100
    if percent < DEV_PERCENT:
        return "dev"
    return "test" if percent < DEV_PERCENT + TEST_PERCENT else "train"


def summary_and_body(document: Document) -> Pair | None:
    """Return a docstring's one-sentence summary and its body of at most `MAX_BODY` words.

    ``None`` without such a summary, with a short body, or with one that repeats the summary.
    """
    summary, *sentences = split_document(document.text) or [""]
    first_paragraph, _, _ = document.text.partition("\n\n")
    words = " ".join(sentences).split()[:MAX_BODY]
    body = " ".join(words)
    if plain(first_paragraph) != summary or len(words) < MIN_BODY or summary in body:
        return None
    return Pair(document.name, summary, body)


def split_document(text: str) -> list[str]:
    r"""Return the sentences of a plain-text document, in order.

    Code, tables, grammar, headings and lists of parameters are left out, and sentences of fewer
    than `MIN_WORDS` or more than `MAX_WORDS` words.

    Example:
        >>> split_document("Title\n=====\n\nIt reads a file. Use ``f.close()``, e.g. Later.")
        ['It reads a file.', 'Use f.close(), e.g. Later.']
    """
    sentences = (plain(piece) for block in blocks(text) for piece in split_sentences(block))
    return [sentence for sentence in sentences if is_prose(sentence)]


def blocks(text: str) -> Iterator[str]:
    """Yield runs of lines that belong together, each joined to one line.

    A blank line, an underline, a bullet and a change of indentation begin a new run.
    """
    run: list[str] = []
    indent = 0
    for line in text.expandtabs().splitlines():
        stripped = line.strip()
        if _RULE.fullmatch(stripped):
            yield " ".join(run)
            run = []
            continue
        bullet = _BULLET.match(stripped)
        start = len(line) - len(line.lstrip()) + (bullet.end() if bullet else 0)
        if bullet or start != indent:
            yield " ".join(run)
            run = []
        run.append(stripped[bullet.end() if bullet else 0 :])
        indent = start
    yield " ".join(run)


def split_sentences(block: str) -> list[str]:
    """Split one block after ``.``, ``!`` or ``?`` before a capital letter.

    Not inside code, and not after an abbreviation or an initial.
    """
    code = [match.span() for match in _CODE.finditer(block)]
    sentences, start = [], 0
    for end in _END.finditer(block):
        in_code = any(first < end.start() < last - 1 for first, last in code)
        if in_code or _ABBREVIATION.search(block[start : end.start() + 1]):
            continue
        sentences.append(block[start : end.end()].strip())
        start = end.end()
    return [*sentences, block[start:].strip()]


def plain(text: str) -> str:
    """Drop reST markup and put single spaces between words."""
    unmarked = _FOOTNOTE.sub("", _MARKUP.sub("", _ROLE.sub("", text)))
    return _HYPHENATED.sub("", " ".join(unmarked.split()))


def is_prose(sentence: str) -> bool:
    """Return whether a text is one complete sentence of usual length, made of words."""
    words = sentence.split()
    if not MIN_WORDS <= len(words) <= MAX_WORDS:
        return False
    if not _SENTENCE.fullmatch(sentence) or _NOT_PROSE.search(sentence):
        return False
    if _ABBREVIATION.search(sentence):  # a block of code continues it
        return False
    return sum(bool(_WORD.fullmatch(word)) for word in words) >= MIN_PROSE * len(words)


def _pairs(documents: Iterable[Document]) -> tuple[Pair, ...]:
    """Return the pairs of a held-out split; no summary and no body occurs twice."""
    pairs: list[Pair] = []
    seen: set[str] = set()
    for pair in map(summary_and_body, documents):
        if pair is not None and seen.isdisjoint((pair.summary, pair.body)):
            seen |= {pair.summary, pair.body}
            pairs.append(pair)
    if len(pairs) < MIN_PAIRS:
        raise DataError(
            f"expected at least {MIN_PAIRS} held-out docstrings with a summary line and a body, "
            f"got {len(pairs)}"
        )
    return tuple(pairs)


def _new_sentences(documents: Iterable[Document], seen: set[str]) -> list[Sentence]:
    """Return the unseen sentences in an arbitrary order that is always the same."""
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
            continue  # mostly copies of modules in C, with the same docstrings
        module = library / f"{name}.py"
        files = [module] if module.is_file() else sorted((library / name).rglob("*.py"))
        yield from (path for path in files if SKIPPED.isdisjoint(path.relative_to(library).parts))


def _module_name(path: Path, library: Path) -> str:
    names = path.relative_to(library).with_suffix("").parts
    return ".".join(name for name in names if name != "__init__")


def _docstrings(node: Documented, name: str) -> Iterator[Document]:
    text = ast.get_docstring(node)
    if text:
        yield Document(name, text)
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings(child, f"{name}.{child.name}")
