"""Which candidates are no negatives because they are the row's own text (D10)."""

from hypothesis import given, settings
from hypothesis import strategies as st

from simcse.losses.contrastive import duplicate_mask

texts = st.sampled_from(["a", "b", "c", "A", "a "])
rows = st.lists(st.tuples(texts, texts), min_size=1, max_size=8)


def marked(*arguments):
    mask = duplicate_mask(*arguments)
    return {(i, j) for i, row in enumerate(mask.tolist()) for j, hit in enumerate(row) if hit}


def test_different_sentences_are_all_negatives():
    mask = duplicate_mask(["a", "b"], ["c", "d"], ["e"])
    assert mask.shape == (2, 3)
    assert not mask.any()


def test_a_repeated_sentence_is_not_its_own_negative():
    same = ["a", "b", "a", "a"]  # unsupervised: anchors are their own positives
    assert marked(same, same) == {(0, 2), (0, 3), (2, 0), (2, 3), (3, 0), (3, 2)}


def test_a_shared_positive_is_no_negative():
    assert marked(["a", "b"], ["x", "x"]) == {(0, 1), (1, 0)}


def test_a_positive_that_is_another_rows_anchor_is_no_negative_of_that_row_only():
    assert marked(["a", "b"], ["x", "a"]) == {(0, 1)}


def test_hard_negatives_with_the_rows_text_are_left_out():
    assert marked(["a", "b"], ["x", "y"], ["x", "b", "n"]) == {(0, 2), (1, 3)}


def test_anchors_of_the_same_text_do_not_hide_each_others_positives():
    """Two good positives of one premise still push each other away, as in the paper."""
    assert marked(["a", "a"], ["x", "y"]) == set()


@settings(max_examples=50, deadline=None)
@given(rows, st.lists(texts, max_size=4))
def test_the_mask_is_its_definition(pairs, negatives):
    anchors, positives = map(list, zip(*pairs, strict=True))
    expected = {
        (i, j)
        for i, own in enumerate(pairs)
        for j, candidate in enumerate(positives + negatives)
        if j != i and candidate in own
    }
    assert marked(anchors, positives, negatives) == expected
