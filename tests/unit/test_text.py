"""Packing and truncation."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simcse.errors import DataError
from simcse.model.encoder import SentenceEncoder, batches_by_tokens
from simcse.text import Tokenizer, pack

ROWS = st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=6), min_size=1, max_size=12)


def test_a_small_batch_by_hand() -> None:
    batch = pack([[1, 2, 3], [4], [5, 6, 7], [8]])
    assert batch.input_ids.tolist() == [4, 8, 1, 2, 3, 5, 6, 7]
    assert batch.lengths == (1, 1, 3, 3)
    assert batch.original_index.tolist() == [1, 3, 0, 2]
    assert batch.positions.tolist() == [0, 0, 0, 1, 2, 0, 1, 2]


@given(rows=ROWS)
def test_packing_loses_nothing_and_restores_the_order(rows: list[list[int]]) -> None:
    batch = pack(rows)
    pieces = list(batch.input_ids.split(list(batch.lengths)))
    assert [pieces[i].tolist() for i in torch.argsort(batch.original_index)] == rows
    assert [rows[i] for i in batch.original_index] == [piece.tolist() for piece in pieces]
    assert list(batch.lengths) == sorted(map(len, rows))
    ends = torch.tensor(batch.lengths).cumsum(0) - 1
    assert batch.positions[ends].tolist() == [length - 1 for length in batch.lengths]
    starts = [i for i, position in enumerate(batch.positions.tolist()) if position == 0]
    assert len(starts) == len(rows)
    lengths = torch.tensor(batch.lengths)
    assert batch.unsort(lengths).tolist() == [len(row) for row in rows]


def test_equal_lengths_keep_their_order() -> None:
    assert pack([[3], [1], [2]]).original_index.tolist() == [0, 1, 2]


def test_a_sentence_without_tokens_is_refused() -> None:
    with pytest.raises(DataError, match="has no tokens"):
        pack([[1], []])


@given(lengths=st.lists(st.integers(1, 50), max_size=40), limit=st.integers(1, 120))
def test_batches_hold_every_sentence_once_within_the_limit(lengths: list[int], limit: int) -> None:
    batches = list(batches_by_tokens(lengths, limit))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or sum(lengths[i] for i in batch) <= limit


@pytest.fixture
def tokenizer(tiny_encoder: SentenceEncoder) -> Tokenizer:
    return Tokenizer(tiny_encoder.tokenizer.hf_tokenizer, max_length=6)


LONG, FITS = "dog cat dog cat dog", "dog cat dog cat"  # 7 and 6 tokens with [CLS] and [SEP]


def test_truncation_counts(tokenizer: Tokenizer) -> None:
    rows = tokenizer.ids([LONG, FITS, "", LONG])
    assert [len(row) for row in rows] == [6, 6, 2, 6]
    assert rows[0] == rows[1]
    assert (tokenizer.seen, tokenizer.truncated) == (4, 2)
    tokenizer.ids([LONG], truncation="warn")
    assert (tokenizer.seen, tokenizer.truncated) == (5, 3)


def test_truncation_as_an_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="sentence 1 has 7 tokens, the limit is 6; 1 of 2"):
        tokenizer.ids([FITS, LONG], truncation="error")
    assert tokenizer.truncated == 0
    assert len(tokenizer.ids([FITS], truncation="error")[0]) == 6


def test_the_empty_string_is_its_special_tokens(tokenizer: Tokenizer) -> None:
    hf_tokenizer = tokenizer.hf_tokenizer
    assert tokenizer.ids([""]) == [[hf_tokenizer.cls_token_id, hf_tokenizer.sep_token_id]]
    assert tokenizer.ids([" \x00\t"]) == tokenizer.ids([""])


def test_truncation_does_not_outlast_the_call(tokenizer: Tokenizer) -> None:
    tokenizer.ids([LONG])
    assert len(Tokenizer(tokenizer.hf_tokenizer, max_length=32).ids([LONG])[0]) == 7


def test_calling_packs(tokenizer: Tokenizer) -> None:
    batch = tokenizer([LONG, "dog"])
    assert batch.lengths == (3, 6)
    assert batch.to(torch.device("cpu")).lengths == (3, 6)


def test_encode_takes_a_list_and_gives_rows(tiny_encoder: SentenceEncoder) -> None:
    with pytest.raises(TypeError, match=r"pass \[sentence\]"):
        tiny_encoder.encode("one sentence")
    assert tiny_encoder.encode([]).shape == (0, 32)
    assert tiny_encoder.encode(["", ""]).shape == (2, 32)


@pytest.mark.parametrize("tokens", [1, 3, 4, 5, 100])
def test_split_keeps_sentences_whole_and_tokens_few(tokens):
    batch = pack([[1, 2, 3], [4], [5, 6], [7, 8, 9, 10], [11]])
    pieces = batch.split(tokens)
    assert torch.cat([piece.input_ids for piece in pieces]).tolist() == batch.input_ids.tolist()
    assert (
        torch.cat([piece.original_index for piece in pieces]).tolist()
        == batch.original_index.tolist()
    )
    assert sum((piece.lengths for piece in pieces), ()) == batch.lengths
    for piece in pieces:
        assert len(piece.input_ids) == sum(piece.lengths)
        assert sum(piece.lengths) <= tokens or len(piece.lengths) == 1
    assert len(batch.split(11)) == 1
