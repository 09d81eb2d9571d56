"""The language of NAMES.md: help texts are sentences, names are the field's, one name one thing."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import simcse
from simcse.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(simcse.__file__).parent
# Names that no class, function, argument, attribute or variable has: the left column of NAMES.md.
FORBIDDEN_NAMES = frozenset(
    """
    look looks Watch glance told tell observe keep keep_now Stepper mend mends MENDS ModelStamp
    stamp place places Place is_address damages facts effort kind annotate take_up Loading parts
    copies TRUTH Pass Piece way clean backward_in_pieces chunk_tokens owners spread_penalty Noise
    noise site take_back spots lone cut sizes check_size refine finish inner Plan measure Material
    Prepared Contestant Lesson Trainee contestant lesson trainee Gate Turns _Exchange deaf hasty
    hurry calm Plane engine towers weigh doctor
    """.split()
)
# Names of an option that users type, or of another library's class, by file.
ALLOWED_NAMES = {"cli/encode.py": {"engine"}, "bulk.py": {"engine"}}  # simcse encode --engine
# Words that stand nowhere: in code, comments, docstrings, messages, documents and help texts.
FORBIDDEN_WORDS = re.compile(
    r"\b(?:looks?|looked|looking|glances?|told|tells?(?!\()|observes?(?!\()|observed|mends?|mended|stamps?"
    r"|weighs?|weighed|doctor|deaf|hasty|hurry|hurries|calm|lone(?! surrogate)|spots?|towers?"
    r"|contestants?|lessons?|trainees?|damages|annotates?|take_up|take_back|keep_now|Stepper|refused/"
    r"|2021 (?:code|tool)(?:'s)?|what it came to|so many times|such as it is)\b",
    re.IGNORECASE,
)
# First words of a fragment: a help text begins with a noun or a verb.
FRAGMENTS = "Of As In To Where What How By For From With Only On Also".split()


SOURCES = sorted(SOURCE.rglob("*.py"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[tuple[str, click.Command]]:
    def walk(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
        yield path, command
        for name, each in getattr(command, "commands", {}).items():
            yield from walk(each, f"{path} {name}")

    return list(walk(cli, "simcse"))


@pytest.mark.parametrize(("path", "command"), commands())
def test_help_texts_are_sentences(path: str, command: click.Command) -> None:
    assert command.help, path
    summary = command.help.strip().partition("\n\n")[0]
    assert re.fullmatch(r"[A-Z].*\.", summary, re.DOTALL), (path, summary)
    assert not FORBIDDEN_WORDS.findall(command.help), path
    assert re.search(r"Examples?:|Start here:", command.help), f"{path} has no example"
    for option in command.params:
        if isinstance(option, click.Option):
            text = re.sub(r"\s*\[[^\]]*\]$", "", option.help or "")
            shown = f"{path} --{option.name}: {text}"
            assert re.fullmatch(r"[A-Z]\S* \S+ .*\.", text, re.DOTALL), shown
            assert text.partition(" ")[0] not in FRAGMENTS, shown
            assert not FORBIDDEN_WORDS.findall(text), shown


def defined_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield every identifier that a module defines, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.lineno, node.name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_name_is_of_the_dialect(path: Path) -> None:
    allowed = ALLOWED_NAMES.get(path.relative_to(SOURCE).as_posix(), set())
    found = [
        f"{path}:{line}: {name}"
        for line, name in defined_names(ast.parse(path.read_text(encoding="utf-8")))
        if name in FORBIDDEN_NAMES - allowed
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", [*SOURCES, *DOCUMENTS], ids=lambda path: path.name)
def test_no_word_is_of_the_dialect(path: Path) -> None:
    found = [
        f"{path}:{number}: {match.group()}: {line.strip()}"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for match in FORBIDDEN_WORDS.finditer(line)
    ]
    assert not found, "\n".join(found)


def test_one_name_is_one_thing() -> None:
    """No two public classes or functions at the top level of modules share a name."""
    owners = defaultdict(list)
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                owners[node.name].append(path.relative_to(SOURCE).as_posix())
    assert not {name: paths for name, paths in owners.items() if len(paths) > 1}
