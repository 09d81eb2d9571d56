"""Which columns of a file hold what: one header rule and one meaning of ``--columns``.

Every reader wants *roles*, such as anchor, positive and negative. They are assigned to columns by
what the caller names, or else by known names of columns, or else by their order where that leaves
no doubt. What was decided is described in one line; a doubt is an error that lists the columns.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from simcse.errors import ConfigError, DataError
from simcse.io.files import Source, file_format
from simcse.io.formats import RawRows

Columns = str | Sequence[str]  # "question,answer", "2,3" or "anchor=question,positive=answer"
Key = int | str  # position of a cell in a list, from 0, or key of a dictionary

LABELS = ("entailment", "neutral", "contradiction")
UNDECIDED = "-"  # SNLI's label where its annotators did not agree
MAX_TEXT_COLUMNS = 3  # that are used in order without known names
MAX_NAME = 32  # characters of a column's name
MIN_REPEATED = 4  # times that each word of a column of labels occurs on average
MAX_NAME_WORDS, MAX_NAME_IDEOGRAPHS = 3, 6


def _pairs(names: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(pair.split()) for pair in names.split(", "))


_TEXTS = ("text", "sentence", "sentences", "content", "body", "文本", "句子")
_SYMMETRIC = _pairs(  # two texts of a pair, which may be labeled
    "premise hypothesis, sentence1 sentence2, sentence_1 sentence_2, sentence_a sentence_b, "
    "text1 text2, text_a text_b, question1 question2, first second, s1 s2, 句子1 句子2"
)
_DIRECTED = _pairs(
    "anchor positive, sent0 sent1, query positive, query document, query passage, query answer, "
    "text positive, sentence positive, question answer, 问题 答案, 问题 回答, 问 答"
)
_NEGATIVE = re.compile(r"(hard_?)?neg(ative)?s?_?\d*|负例\d*", re.IGNORECASE)
_LABEL_NAMES = ("label", "gold_label", "标签")
(_SCORE_NAMES,) = _pairs("score similarity similarity_score is_duplicate relatedness_score rating")
_PAIRS = (("anchor", "positive"), *_SYMMETRIC)
_NUMBER = re.compile(r"[+-]?(\d[\d,._]*|\.\d+)([eE][+-]?\d+)?%?")
_ID = re.compile(r"[A-Za-z0-9_./:#-]*\d[A-Za-z0-9_./:#-]*|\w+://\S+")
_IDEOGRAPH = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


@dataclass(frozen=True)
class Roles:
    """The roles of one reader."""

    names: tuple[str, ...]  # in the order in which --columns lists them
    required: int  # how many of them, the first ones, a file must have
    # Known names of the columns with the required roles, the likeliest first.
    schemes: tuple[tuple[str, ...], ...]
    repeated: bool = False  # whether the last role may have several columns
    extra: re.Pattern[str] | None = None  # known names of columns with the last role
    # Whether unknown columns are used in their order; else the only text is used.
    in_order: bool = True

    @property
    def known(self) -> set[str]:
        """All known names of columns."""
        return {"id", *_LABEL_NAMES, *_SCORE_NAMES, *chain.from_iterable(self.schemes)}


TRAINING = Roles(
    ("anchor", "positive", "negative"),
    required=1,
    schemes=(*_DIRECTED, *_SYMMETRIC, ("anchor",), *((name,) for name in _TEXTS)),
    repeated=True,
    extra=_NEGATIVE,
)
LABELED = Roles(
    ("label", "premise", "hypothesis"),
    required=3,
    schemes=tuple((label, *pair) for label in _LABEL_NAMES for pair in _SYMMETRIC),
)
SCORED = Roles(
    ("label", "s1", "s2"),
    required=3,
    schemes=tuple((label, *pair) for label in (*_LABEL_NAMES, *_SCORE_NAMES) for pair in _PAIRS),
)
TEXTS = Roles(("text",), 1, tuple((name,) for name in _TEXTS), in_order=False)
INDEX = Roles(("text", "id"), 1, TEXTS.schemes, extra=re.compile("_?(id|ID)"), in_order=False)


@dataclass(frozen=True)
class Layout:
    """What was decided about a file."""

    keys: tuple[Key, ...] = ()  # the columns with roles, in the order of the roles
    names: Mapping[Key, str] = field(default_factory=dict)  # of all columns, by their keys
    parsed: bool = False  # whether values have types, as in JSON; else they are texts, and clean
    header: bool = False  # whether the first row is a header
    width: int | None = None  # cells that a row may have at most; None if it does not matter
    note: str = ""  # the decision in one line

    def others(self, row: Any) -> dict[str, Any]:  # noqa: ANN401 - parsed JSON
        """Return the values of a row that have no role, by name."""
        items = row.items() if isinstance(row, dict) else enumerate(row)
        return {str(self.names.get(k, k)): v for k, v in items if k not in self.keys}


def parse_columns(columns: Columns, roles: Roles) -> list[tuple[str, str]]:
    """Return role and column for each item of ``--columns``.

    Raises:
        ConfigError: an item is empty, numbered 0, or has a role that is unknown or given twice; or
            some items have roles and others have none.
    """
    items = columns.split(",") if isinstance(columns, str) else list(columns)
    items = [item.strip() for item in items] if columns else []
    given = ",".join(items)
    if not all(items) or "0" in items:
        raise ConfigError(f"columns are names or numbers from 1, found {given!r}")
    split = [item.partition("=") for item in items]
    if not any(sign for _, sign, _ in split):
        return _in_order(items, roles)
    known = ", ".join(roles.names)
    found = [(role.strip(), column.strip()) for role, _, column in split]
    for role, column in found:
        if role not in roles.names or not column:
            close = difflib.get_close_matches(role, roles.names, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"expected role=column with one of {known}, found {given!r}.{hint}")
    assigned = [role for role, _ in found]
    missing = [role for role in roles.names[: roles.required] if role not in assigned]
    if "negative" in assigned and "positive" not in assigned:
        missing.append("positive")
    single = roles.names[:-1] if roles.repeated else roles.names
    twice = [role for role in single if assigned.count(role) > 1]
    if missing or twice:
        problem = f"no column for {missing[0]}" if missing else f"two columns for {twice[0]}"
        raise ConfigError(f"columns={given}: found {problem}; the roles are {known}")
    return sorted(found, key=lambda item: roles.names.index(item[0]))


def find_layout(source: Source, rows: RawRows, columns: Columns, roles: Roles) -> Layout:
    """Decide which columns have which roles, from the first rows and what the caller names.

    Raises:
        ConfigError: ``columns`` is malformed.
        DataError: a named column is not there, or it is not clear what the columns are.
    """
    wanted = parse_columns(columns, roles)
    if file_format(source.path) == "txt":
        return _text_layout(source, wanted, roles)
    sample = [cells for _, cells in rows.sample]
    table = file_format(source.path) in ("tsv", "csv")
    records = bool(rows.names) or any(isinstance(cells, dict) for cells in sample)
    header = False
    names: dict[Key, str]
    if records:
        names = {key: key for key in rows.names or dict.fromkeys(k for row in sample for k in row)}
    else:
        header = table and _has_header(source, sample, [column for _, column in wanted], roles)
        width = max(map(len, sample))
        if roles.required > 1 and not wanted and any(len(row) == roles.required for row in sample):
            width = roles.required  # a longer row is a bad one
        cells = sample[0] if header else [f"column {number + 1}" for number in range(width)]
        names = dict(enumerate(cells))
    file = _File(source, names, sample[header:], named=records or header)
    picks = file.assign(wanted) if wanted else file.infer(roles)
    if roles is INDEX and len(picks) == 1:
        picks = file.with_extra(picks, roles)
    given = "" if not table else "header found; " if header else "no header; "
    rest = "metadata" if roles is INDEX else "ignored"
    return Layout(
        tuple(key for _, key in picks),
        names,
        parsed=not table,
        header=header,
        width=len(names) if header or not (records or wanted) else None,
        note=f"{source}: {given}{_described(picks, names, rest)}",
    )


@dataclass(frozen=True)
class _File:
    """The columns of one file, with a sample of its rows."""

    source: Source
    names: dict[Key, str]
    sample: list[Any]
    named: bool

    def assign(self, wanted: list[tuple[str, str]]) -> list[tuple[str, Key]]:
        """Find the columns that the caller names."""
        return [(role, self._find(column)) for role, column in wanted]

    def _find(self, column: str) -> Key:
        found = [key for key, name in self.names.items() if self.named and name == column]
        if len(found) > 1:
            raise DataError(f"{self.source}: the header has the column {column!r} twice")
        if found:
            return found[0]
        if column.isdecimal() and int(column) <= len(self.names):
            return list(self.names)[int(column) - 1]
        raise DataError(missing_column(self.source, column, self.names.values()))

    def infer(self, roles: Roles) -> list[tuple[str, Key]]:
        """Assign roles by known names, or by order and content."""
        if not self.names:
            raise self.doubt("expected columns")
        if self.named and (known := self._by_known_names(roles)):
            return known
        if roles.required > 1:
            if len(self.names) != roles.required:
                raise self.doubt(f"expected the columns {', '.join(roles.names)}")
            return list(zip(roles.names, self.names, strict=True))
        text = [key for key in self.names if not self.content(key)]
        return self._in_order(text, roles) if roles.in_order else self._only_text(text, roles)

    def _only_text(self, text: list[Key], roles: Roles) -> list[tuple[str, Key]]:
        if len(text) != 1:
            raise self.doubt(f"expected one column of {roles.names[0]}", shown=1)
        return [(roles.names[0], text[0])]

    def _in_order(self, text: list[Key], roles: Roles) -> list[tuple[str, Key]]:
        if len(text) < len(self.names) or len(text) > MAX_TEXT_COLUMNS:
            raise self.doubt("it is not clear which columns are anchor, positive and negative")
        if len(text) == 1 and not self.named:
            raise self.doubt("expected 2 or more columns (anchor, positive, negative)")
        return [(role_at(roles, i), key) for i, key in enumerate(self.names)]

    def _by_known_names(self, roles: Roles) -> list[tuple[str, Key]]:
        by_name = {name.casefold(): key for key, name in reversed(self.names.items())}
        scheme = next((s for s in roles.schemes if all(name in by_name for name in s)), None)
        if scheme is None:
            return []
        if roles is TRAINING and scheme in _SYMMETRIC:
            labels = [name for name in (*_LABEL_NAMES, *_SCORE_NAMES) if name in by_name]
            if labels:
                raise self.doubt(f"pairs with {labels[0]!r} are not all positives")
        picks = [(role, by_name[name]) for role, name in zip(roles.names, scheme, strict=False)]
        return self.with_extra(picks, roles) if len(scheme) > 1 else picks

    def with_extra(self, picks: list[tuple[str, Key]], roles: Roles) -> list[tuple[str, Key]]:
        """Add the columns of the last role that have its known names."""
        if not (roles.extra and self.named):
            return picks
        taken = {key for _, key in picks}
        more = [k for k, n in self.names.items() if roles.extra.fullmatch(n) and k not in taken]
        return picks + [(roles.names[-1], key) for key in (more if roles.repeated else more[:1])]

    def content(self, key: Key) -> str:
        """Say what a column holds that is not text: numbers, ids or labels; "" for text."""
        texts = [cell for row in self.sample if (cell := _cell(row, key)) not in (None, "", [])]
        words = [each for cell in texts for each in (cell if isinstance(cell, list) else [cell])]
        if not all(isinstance(word, str) for word in words):
            return "numbers" if isinstance(words[0], int | float) else "other values"
        if words and all(_NUMBER.fullmatch(word) for word in words):
            return "numbers"
        if words and {word.casefold() for word in words} <= {*LABELS, UNDECIDED}:
            return "NLI labels"
        if words and all(_ID.fullmatch(word) for word in words):
            return "ids"
        short = all(len(word.split()) == 1 and len(word) <= MAX_NAME for word in words)
        repeated = len(words) >= MIN_REPEATED and len(set(words)) <= len(words) // MIN_REPEATED
        return "labels" if short and repeated else ""

    def doubt(self, problem: str, shown: int = MAX_TEXT_COLUMNS) -> DataError:
        """Return the error that lists the columns and asks for ``--columns``."""
        seen = [f"{name} ({self.content(key) or 'text'})" for key, name in self.names.items()]
        text = [
            name if self.named else str(number + 1)
            for number, (key, name) in enumerate(self.names.items())
            if not self.content(key)
        ]
        such = ",".join(text[:shown]) or "1"
        nli = any("(NLI labels)" in each for each in seen)
        hint = " `simcse data nli` makes pairs or triplets of labeled rows." if nli else ""
        return DataError(
            f"{self.source}: {problem}; found {len(seen)}: {', '.join(seen)}. Name the columns by "
            f"--columns (data.columns in training), such as {such}.{hint}"
        )


def role_at(roles: Roles, position: int) -> str:
    """Return the role of the column at a position of ``--columns``."""
    return roles.names[min(position, len(roles.names) - 1)]


def missing_column(source: Source, column: str, names: Iterable[str]) -> str:
    """Say that a named column is not there, and what the file has."""
    known = [name for name in names if name]
    close = difflib.get_close_matches(column, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{source}: no column {column!r}, the file has: {', '.join(known)}.{hint}"


def _in_order(items: list[str], roles: Roles) -> list[tuple[str, str]]:
    if (
        items
        and len(items) < roles.required
        or len(items) > len(roles.names)
        and not roles.repeated
    ):
        raise ConfigError(
            f"expected columns for {', '.join(roles.names)}, found {','.join(items)!r}"
        )
    return [(role_at(roles, position), item) for position, item in enumerate(items)]


def _text_layout(source: Source, wanted: list[tuple[str, str]], roles: Roles) -> Layout:
    if roles.required > 1:
        raise DataError(f"{source}: expected a table of {', '.join(roles.names)}, found .txt")
    if [column for _, column in wanted] not in ([], ["1"], ["text"]):
        given = ",".join(column for _, column in wanted)
        raise DataError(
            f"{source}: a .txt file has one column, text; found columns={given}. Leave it out."
        )
    return Layout((0,), {0: "text"})


def _has_header(source: Source, sample: list[list[str]], wanted: list[str], roles: Roles) -> bool:
    """Decide whether the first row names the columns; every named column must be in it then."""
    first, rest = sample[0], sample[1:]
    known = roles.known
    is_names = _are_names(first)
    missing = [name for name in wanted if not name.isdecimal() and name not in first]
    if missing:
        if is_names or any(name in first for name in wanted):
            raise DataError(missing_column(source, missing[0], first))
        raise DataError(
            f"{source}:1: expected a header with {', '.join(wanted)}, found {', '.join(first)[:80]}"
        )
    if any(name in first for name in wanted if not name.isdecimal()):
        return True
    if not is_names:
        return False
    if any(cell.casefold() in known or _NEGATIVE.fullmatch(cell) for cell in first):
        return True
    return len(first) > 1 and any(_differs(rest, column) for column in range(len(first)))


def _are_names(cells: list[str]) -> bool:
    """Whether the cells of a row are short and distinct, and none is a sentence or number."""
    given = cells if cells[0] else cells[1:]  # tables are exported with an unnamed first column
    distinct = len({cell.casefold() for cell in given}) == len(given)
    return distinct and bool(given) and all(map(_is_name, given))


def _is_name(cell: str) -> bool:
    return (
        0 < len(cell) <= MAX_NAME
        and len(cell.split()) <= MAX_NAME_WORDS
        and len(_IDEOGRAPH.findall(cell)) <= MAX_NAME_IDEOGRAPHS
        and cell[-1] not in ".?!;,。？！；，…"
        and not _NUMBER.fullmatch(cell)
        and cell.casefold() not in LABELS
    )


def _differs(rows: list[list[str]], column: int) -> bool:
    """Whether most cells below the first one are no names."""
    cells = [row[column] for row in rows if column < len(row) and row[column]]
    return sum(map(_is_name, cells)) * 2 < len(cells)


def _described(picks: Sequence[tuple[str, Key]], names: dict[Key, str], rest: str) -> str:
    used = ", ".join(f"{role}={names[key]}" for role, key in picks)
    taken = {key for _, key in picks}
    others = [name or "(unnamed)" for key, name in names.items() if key not in taken]
    return f"{used}; {rest}: {', '.join(others)}" if others else used


def _cell(row: Any, key: Key) -> Any:  # noqa: ANN401 - parsed JSON
    if isinstance(row, dict):
        return row.get(key)
    return row[key] if isinstance(key, int) and key < len(row) else None
