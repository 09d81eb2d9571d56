"""Plain-text documentation -> sentences: markup dropped, what is not prose left out."""

import re
from collections.abc import Iterator

FEWEST_WORDS, MOST_WORDS = 4, 60
LEAST_PROSE = 0.75  # share of a sentence's words that are words of English, by their letters

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


def split_document(text: str) -> list[str]:
    r"""Return the sentences of a plain-text document, in order.

    Code, tables, grammar, headings and lists of parameters are no sentences and are left out, as
    is what has fewer than `FEWEST_WORDS` words or more than `MOST_WORDS`.

    Example:
        >>> split_document("Title\n=====\n\nIt reads a file. Use ``f.close()``, e.g. Later.")
        ['It reads a file.', 'Use f.close(), e.g. Later.']
    """
    sentences = (plain(part) for block in blocks(text) for part in split_sentences(block))
    return [sentence for sentence in sentences if is_prose(sentence)]


def blocks(text: str) -> Iterator[str]:
    """Yield runs of lines that belong together, each on one line.

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
        inside = any(first < end.start() < last - 1 for first, last in code)
        if inside or _ABBREVIATION.search(block[start : end.start() + 1]):
            continue
        sentences.append(block[start : end.end()].strip())
        start = end.end()
    return [*sentences, block[start:].strip()]


def plain(text: str) -> str:
    """Drop reST markup and put single spaces between words."""
    unmarked = _FOOTNOTE.sub("", _MARKUP.sub("", _ROLE.sub("", text)))
    return _HYPHENATED.sub("", " ".join(unmarked.split()))


def is_prose(sentence: str) -> bool:
    """Whether a text is one whole sentence of usual length, made of words."""
    words = sentence.split()
    if not FEWEST_WORDS <= len(words) <= MOST_WORDS:
        return False
    if not _SENTENCE.fullmatch(sentence) or _NOT_PROSE.search(sentence):
        return False
    if _ABBREVIATION.search(sentence):  # it went on with a block of code
        return False
    return sum(bool(_WORD.fullmatch(word)) for word in words) >= LEAST_PROSE * len(words)
