"""Batch order: a pure function of seed and epoch in which every row comes once an epoch."""

import collections
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simcse.errors import DataError
from simcse.train.optim import OptimConfig
from simcse.train.order import batch_order, count_steps, epoch_batches

rows = st.integers(2, 60)
batch_sizes = st.integers(2, 20)
quick = settings(max_examples=60, deadline=None)


@quick
@given(rows, batch_sizes, st.integers(0, 2**32 - 1), st.integers(0, 50), st.booleans())
def test_every_row_comes_once_an_epoch(rows, batch_size, seed, epoch, keep_single):
    batches = epoch_batches(rows, batch_size, seed=seed, epoch=epoch, keep_single=keep_single)
    seen = list(itertools.chain(*batches))
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(range(rows))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    dropped = rows % batch_size == 1 and not keep_single  # D9
    assert len(seen) == rows - dropped
    assert keep_single or min(map(len, batches)) > 1


def test_the_last_batch_of_one_is_dropped_or_kept():
    dropping = epoch_batches(9, 4, seed=0, epoch=0)
    keeping = epoch_batches(9, 4, seed=0, epoch=0, keep_single=True)
    assert [len(batch) for batch in keeping] == [4, 4, 1]
    assert dropping == keeping[:2]


def test_the_order_depends_on_seed_and_epoch_only():
    def order(seed, epoch):
        return tuple(epoch_batches(40, 40, seed=seed, epoch=epoch)[0])

    torch.manual_seed(1)
    first = order(3, 2)
    state = torch.get_rng_state()
    assert order(3, 2) == first
    assert torch.equal(torch.get_rng_state(), state)  # dropout does not depend on the data's order
    # torch keeps 32 bits of a generator's seed, so high seeds are where orders could coincide
    seeds = [0, 1, 2, 4095, 4096, 8192, 2**20, 2**31, 2**32 - 1]
    assert len({order(seed, epoch) for seed in seeds for epoch in range(5)}) == len(seeds) * 5


def test_epochs_follow_one_another():
    order = list(batch_order(10, 4, seed=7, steps=8))
    epochs = [epoch_batches(10, 4, seed=7, epoch=epoch) for epoch in range(3)]
    assert order == list(itertools.chain(*epochs))[:8]
    assert sorted(itertools.chain(*order[:3])) == list(range(10))


@quick
@given(
    rows,
    batch_sizes,
    st.one_of(st.integers(1, 4).map(float), st.floats(0.01, 4)),
    st.none() | st.integers(1, 30),
    st.booleans(),
)
def test_as_many_steps_are_counted_as_batches_come(rows, size, epochs, max_steps, keep_single):
    config = OptimConfig(batch_size=size, epochs=epochs, max_steps=max_steps)
    steps = count_steps(rows, config, keep_single=keep_single)
    batches = list(batch_order(rows, size, seed=1, steps=steps, keep_single=keep_single))
    assert len(batches) == steps
    an_epoch = len(epoch_batches(rows, size, seed=1, epoch=0, keep_single=keep_single))
    unlimited = max(1, round(an_epoch * epochs))
    assert steps == (unlimited if max_steps is None else min(unlimited, max_steps))
    if epochs.is_integer() and steps == an_epoch * epochs:
        dropped = rows % size == 1 and not keep_single
        times = collections.Counter(itertools.chain(*batches))
        assert sum(times.values()) == (rows - dropped) * epochs
        assert dropped or set(times.values()) == {epochs}


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows_for_a_step_are_refused(rows):
    with pytest.raises(DataError, match=f"at least 2 rows, got {rows}") as error:
        count_steps(rows, OptimConfig(epochs=10))
    assert error.value.exit_code == 3


def test_one_row_with_hard_negatives_is_a_step():
    assert count_steps(1, OptimConfig(epochs=3), keep_single=True) == 3
    assert list(batch_order(1, 64, seed=0, steps=3, keep_single=True)) == [[0], [0], [0]]
