"""Sentences of plain-text documentation."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simcse.quickstart.prose import (
    MAX_WORDS,
    MIN_WORDS,
    blocks,
    is_prose,
    plain,
    split_document,
    split_sentences,
)


@pytest.mark.parametrize(
    ("block", "sentences"),
    [
        ("It reads. It writes! Does it? Yes.", ["It reads.", "It writes!", "Does it?", "Yes."]),
        ("Use a name, e.g. Path. Then go.", ["Use a name, e.g. Path.", "Then go."]),
        ("A suite, i.e. Python code. Next.", ["A suite, i.e. Python code.", "Next."]),
        ("Lists, tuples etc. Are sequences.", ["Lists, tuples etc. Are sequences."]),
        ("Written by G. van Rossum. Thanks.", ["Written by G. van Rossum.", "Thanks."]),
        ("New in 3.10.1. It is 2.5 times faster.", ["New in 3.10.1.", "It is 2.5 times faster."]),
        ("Call ``a. B`` or `c. D` now. Done.", ["Call ``a. B`` or `c. D` now.", "Done."]),
        ('Print "One. Two." twice. Done.', ['Print "One. Two." twice.', "Done."]),
        ("(It is so.) The end.", ["(It is so.)", "The end."]),
        ("It calls f.close(). *Then* it ends.", ["It calls f.close().", "*Then* it ends."]),
        ("No end here", ["No end here"]),
        ("", [""]),
    ],
)
def test_a_block_is_split_at_the_ends_of_sentences_only(block, sentences):
    assert split_sentences(block) == sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a :class:`Thread` and ``x = 1``", "a Thread and x = 1"),
        ("the *name* and **kwargs", "the name and kwargs"),
        ("a * b and 2 ** 3", "a * b and 2 ** 3"),
        ("as shown [1]. And [2]_ too", "as shown. And too"),
        ("two   spaces\n and a line", "two spaces and a line"),
        ("a non- virtual base, pre- and post-order", "a non-virtual base, pre- and post-order"),
    ],
)
def test_markup_is_dropped(text, expected):
    assert plain(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "A short one.",
        "No full stop at the end",
        "lower case is the first letter.",
        'try_stmt ::= "try" ":" suite And so on.',
        "The list | is here | and so on.",
        "Print >>> to prompt the user.",
        "X = foo(a, b); y[0] += {1: 2}.",
        "It reads a b c1 d2 e3 f4 g5 h6 i7.",
        "It takes a list of names, e.g.",
        "It goes on and on...",
        "Installs the corresponding shape. !!",
        "Word " * (MAX_WORDS + 1) + ".",
    ],
)
def test_what_is_no_sentence_of_prose_is_left_out(text):
    assert not is_prose(text)


DOCUMENT = """\
The "try" statement
*******************

The "try" statement handles exceptions. It has
several clauses, e.g. "except":

   try:
       print(x)
   except ValueError:
       pass

   try_stmt ::= "try" ":" suite

* The first clause runs when there is an
  exception of its type.
* The second clause runs whenever there is none.

+-----------+-------------------------+
| Operator  | This table is not text. |
+-----------+-------------------------+

name -- the name of the thing.

   Called when an instance is made.
"""


def test_a_document_gives_its_sentences_and_nothing_else():
    assert split_document(DOCUMENT) == [
        'The "try" statement handles exceptions.',
        "The first clause runs when there is an exception of its type.",
        "The second clause runs whenever there is none.",
        "Called when an instance is made.",
    ]


def test_blocks_end_at_blank_lines_rules_bullets_and_changes_of_indentation():
    text = "one\ntwo\n\nthree\n---\nfour\n* five\n  six\n    seven\n1. eight"
    found = [block for block in blocks(text) if block]
    assert found == ["one two", "three", "four", "five six", "seven", "eight"]


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="aB .,e.g!?\n*`\"'(1-|+=", max_size=300))
def test_whatever_the_text_every_sentence_is_prose_of_allowed_length(text):
    for sentence in split_document(text):
        assert is_prose(sentence)
        assert MIN_WORDS <= len(sentence.split()) <= MAX_WORDS
