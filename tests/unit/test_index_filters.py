"""Conditions on metadata."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters import holds
from simcse.errors import UsageError
from simcse.index.filters import Condition, parse_condition, parse_filter
from simcse.index.sqlite import SqliteIndex
from simcse.io.fingerprint import ModelFingerprint
from simcse.io.rows import IndexRow


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("lang=en", "en", True),
        ("lang=en", "de", False),
        ("lang!=en", "de", True),
        ("year>=2000", 2000, True),
        ("year>2000", 2000, False),
        ("year<=2000", "2000", False),  # a text has no order with a number
        ("day<2020-06-01", "2020-01-02", True),
        ("zip=12345", "12345", True),  # a number asked for may be stored as text
        ("zip=12345", 12345, True),
        ("tag=a", ["a", "b"], True),
        ("tag!=a", ["a", "b"], False),
        ("new=true", True, True),
        ("new=1", True, False),  # true is not 1
        ("name = a b ", "a b", True),
        ("x=null", None, True),
    ],
)
def test_a_condition_of_the_command_line(text, value, expected):
    assert holds(parse_condition(text), value) is expected


@pytest.mark.parametrize("text", ["", "lang", "=en", "a~b"])
def test_what_is_no_condition(text):
    with pytest.raises(UsageError, match="expected a filter such as"):
        parse_condition(text)


def test_a_filter_of_a_request():
    wanted = {"lang": "en", "tag": ["a", "b"], "year": {"gte": 2000, "lt": 2010}}
    assert parse_filter(wanted) == (
        Condition("lang", "in", ("en",)),
        Condition("tag", "in", ("a", "b")),
        Condition("year", "gte", (2000,)),
        Condition("year", "lt", (2010,)),
    )
    with pytest.raises(UsageError, match="unknown operator 'like'"):
        parse_filter({"a": {"like": "b"}})
    with pytest.raises(UsageError, match="takes a list"):
        parse_filter({"a": {"not_in": "b"}})


VALUES = st.one_of(st.none(), st.booleans(), st.integers(0, 3), st.sampled_from("ab"))
METADATA = st.dictionaries(st.sampled_from("xy"), st.one_of(VALUES, st.lists(VALUES, max_size=2)))
CONDITIONS = st.builds(
    Condition,
    st.sampled_from("xyz"),
    st.sampled_from(["in", "not_in", "gt", "gte", "lt", "lte"]),
    st.tuples(VALUES),
)


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(METADATA, min_size=1, max_size=6), where=st.lists(CONDITIONS, max_size=3))
def test_the_table_of_metadata_agrees_with_the_rows(tmp_path_factory, rows, where):
    index = SqliteIndex.create(tmp_path_factory.mktemp("index"), ModelFingerprint("m", "f", 8))
    stored = [IndexRow(str(at), "text", metadata) for at, metadata in enumerate(rows)]
    index.add(stored, np.eye(len(rows), 8, dtype=np.float32))
    index.commit()

    def meets(metadata, condition):
        if condition.field not in metadata:
            return condition.operator == "not_in"
        return holds(condition, metadata[condition.field])

    known = {name for metadata in rows for name in metadata}
    assert set(index.metadata.read_values(5)) == known
    where = [condition for condition in where if condition.field in known]
    expected = [all(meets(metadata, condition) for condition in where) for metadata in rows]
    assert index._view.allowed(where).tolist() == expected
