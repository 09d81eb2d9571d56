"""What is read of a Python installation, and that what is held out stays out."""

import sys
from itertools import islice

import pytest

from simcse.errors import DataError
from simcse.quickstart.prose import (
    MAX_BODY,
    Document,
    build_corpus,
    read_docstrings,
    read_topics,
    split_document,
    split_of,
    summary_and_body,
)

NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def spelled(number):
    return " ".join(NUMBERS[int(digit)] for digit in str(number))


def docstring(number):
    name = spelled(number)
    text = (
        f"Return the thing called {name}.\n\n"
        f"The thing called {name} is looked up in the table of all things. "
        f"It is an error to ask for {name} before the table is there."
    )
    return Document(f"things.get_{number}", text)


DOCSTRINGS = [docstring(number) for number in range(400)]
TOPICS = [
    Document("help('try')", "The statement handles exceptions. " + DOCSTRINGS[0].text),
    *(Document(f"help({d.name!r})", d.text.upper()) for d in DOCSTRINGS[:100]),
]


@pytest.fixture(scope="module")
def corpus():
    return build_corpus(TOPICS, DOCSTRINGS, limit=10_000)


def test_no_sentence_of_a_held_out_docstring_is_trained_on_wherever_it_stands(corpus):
    trained = {sentence.text.casefold() for sentence in corpus.sentences}
    held_out = [document for document in DOCSTRINGS if split_of(document.name) != "train"]
    assert len(held_out) > 100
    for document in held_out:
        assert trained.isdisjoint(text.casefold() for text in split_document(document.text))
    for pair in (*corpus.dev, *corpus.test):
        assert pair.summary.casefold() not in trained


def test_the_splits_share_no_docstring_and_depend_on_names_alone(corpus):
    dev, test = ({pair.name for pair in pairs} for pairs in (corpus.dev, corpus.test))
    assert dev.isdisjoint(test)
    assert {split_of(name) for name in dev} == {"dev"}
    assert {split_of(name) for name in test} == {"test"}
    assert (split_of("json.loads"), split_of("json.dumps")) == ("train", "test")  # on any machine


def test_sentences_are_distinct_and_the_reference_comes_first(corpus):
    texts = [sentence.text.casefold() for sentence in corpus.sentences]
    assert len(texts) == len(set(texts)) == corpus.available
    assert corpus.sentences[0].source.startswith("help(")
    from_topics = [sentence.source.startswith("help(") for sentence in corpus.sentences]
    assert from_topics == sorted(from_topics, reverse=True)


def test_a_smaller_corpus_is_the_beginning_of_a_larger_one(corpus):
    small = build_corpus(TOPICS, DOCSTRINGS, limit=50)
    assert small.sentences == corpus.sentences[:50]
    assert (small.available, small.dev, small.test) == (corpus.available, corpus.dev, corpus.test)


def test_too_few_pairs_are_refused():
    with pytest.raises(DataError, match="expected at least 20 held-out docstrings"):
        build_corpus(TOPICS, DOCSTRINGS[:50], limit=100)


def test_no_summary_and_no_body_is_asked_for_twice():
    doubled = [Document(f"twin.{document.name}", document.text) for document in DOCSTRINGS]
    corpus = build_corpus(TOPICS, [*DOCSTRINGS, *doubled], limit=100)
    for pairs in (corpus.dev, corpus.test):
        assert len({pair.summary for pair in pairs}) == len(pairs)
        assert len({pair.body for pair in pairs}) == len(pairs)


@pytest.mark.parametrize(
    "text",
    [
        "Return the thing.",
        "Return the thing that was asked for.",
        "Return the thing that was asked for.\n\nIt is short.",
        "the summary is no sentence\n\nThe body is quite long enough to be found again by a model, "
        "were there anything to look for it with.",
        "Return the thing that was asked for. It is here.\n\nThe body is quite long enough to be "
        "found again by a model, but the summary is two sentences.",
        "Return the thing that was asked for.\n\nReturn the thing that was asked for. The body "
        "repeats the summary and makes the search too easy to mean anything.",
    ],
)
def test_docstrings_without_summary_and_body_give_no_pair(text):
    assert summary_and_body(Document("thing", text)) is None


def test_a_long_body_is_cut():
    text = "Return the thing that was asked for.\n\n" + "It goes on and on here. " * 40
    pair = summary_and_body(Document("thing", text))
    assert pair.summary == "Return the thing that was asked for."
    assert len(pair.body.split()) == MAX_BODY


def test_docstrings_are_read_from_sources_and_nothing_is_imported(tmp_path):
    (tmp_path / "json" / "tests").mkdir(parents=True)
    (tmp_path / "json" / "__init__.py").write_text(
        '"""The package."""\nraise SystemExit("imported")\n'
        'class A:\n    """A class."""\n    async def b(self):\n        """A method."""\n'
    )
    (tmp_path / "json" / "tests" / "skipped.py").write_text('"""A test."""\n')
    (tmp_path / "wave.py").write_bytes('# coding: latin-1\n"""Ein Stück."""\n'.encode("latin-1"))
    (tmp_path / "foreign.py").write_text('"""Not of the standard library."""\n')
    assert read_docstrings(tmp_path) == [
        Document("json", "The package."),
        Document("json.A", "A class."),
        Document("json.A.b", "A method."),
        Document("wave", "Ein Stück."),
    ]


def test_a_library_in_a_folder_called_test_is_read(tmp_path):
    library = tmp_path / "test"
    library.mkdir()
    (library / "wave.py").write_text('"""Waves."""\n')
    assert [document.name for document in read_docstrings(library)] == ["wave"]


def test_a_python_without_sources_is_named(tmp_path):
    with pytest.raises(DataError, match="packaged without the sources"):
        read_docstrings(tmp_path)


def test_a_python_without_the_reference_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(DataError, match=r"lacks pydoc_data\.topics"):
        read_topics()


def test_the_reference_is_prose():
    found = [text for topic in islice(read_topics(), 12) for text in split_document(topic.text)]
    assert len(found) > 200
    assert not any("::=" in text or "****" in text or "\n" in text for text in found)
