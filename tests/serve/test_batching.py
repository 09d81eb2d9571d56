"""Requests in one batch: what becomes of the others when one fails, or when nothing moves."""

import threading

import numpy as np
import pytest

from simcse.serve.batching import Batcher, Overloaded
from simcse.serve.metrics import ServerMetrics

from .conftest import WAIT


class Model:
    """Embeds token ids as their sum; waits while it is closed, and fails on the id 13."""

    def __init__(self):
        self.open = threading.Event()
        self.entered = threading.Event()
        self.batches = []

    def __call__(self, rows):
        self.entered.set()
        assert self.open.wait(WAIT)
        self.batches.append([sum(row) for row in rows])
        if any(13 in row for row in rows):
            raise RuntimeError("thirteen")
        return np.array([[sum(row)] * 2 for row in rows], np.float32)


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def batcher(model):
    made = Batcher(
        model,
        dimensions=2,
        batch_tokens=100,
        queue_tokens=50,
        max_wait=1.0,
        metrics=ServerMetrics(),
    )
    yield made
    model.open.set()
    made.close()


def wait_in_one_batch(batcher, model, *requests):
    """Submit requests while the model is held up by another one, so that they wait together."""
    first = batcher.submit([[1]], seconds=WAIT)
    assert model.entered.wait(WAIT)
    futures = [batcher.submit(rows, seconds=WAIT) for rows in requests]
    model.open.set()
    assert first.result(timeout=WAIT).tolist() == [[1, 1]]
    return futures


def test_a_request_that_fails_fails_alone(batcher, model):
    good, bad, other = wait_in_one_batch(batcher, model, [[2], [3]], [[4], [13]], [[5]])
    assert good.result(timeout=WAIT).tolist() == [[2, 2], [3, 3]]
    assert other.result(timeout=WAIT).tolist() == [[5, 5]]
    with pytest.raises(RuntimeError, match="thirteen"):
        bad.result(timeout=WAIT)
    assert model.batches == [[1], [2, 3, 4, 13, 5], [2, 3], [4, 13], [5]]
    assert batcher.submit([[6]], seconds=WAIT).result(timeout=WAIT).tolist() == [[6, 6]]


def test_two_requests_that_fail_get_an_error_each(batcher, model):
    one, two = wait_in_one_batch(batcher, model, [[13]], [[13]])
    assert one.exception(timeout=WAIT) is not two.exception(timeout=WAIT)


def test_s13_a_full_queue_rejects_while_the_model_is_held_up(batcher, model):
    held = batcher.submit([[1]], seconds=WAIT)
    assert model.entered.wait(WAIT)
    waiting = batcher.submit([[2]] * 50, seconds=WAIT)
    for ask in (lambda: batcher.check_room(1, 51), lambda: batcher.submit([[3]], seconds=WAIT)):
        with pytest.raises(Overloaded) as caught:
            ask()
        assert caught.value.seconds >= 1
    model.open.set()
    assert len(waiting.result(timeout=WAIT)) == 50
    assert held.done()
    batcher.check_room(1, 0)


def test_s13_requests_on_their_way_to_the_queue_count_as_waiting(batcher, model):
    batcher.rate = 10.0  # tokens a second: in max_wait there is time for 10
    held = batcher.submit([[1]], seconds=WAIT)
    assert model.entered.wait(WAIT)
    batcher.check_room(3, in_flight=3)  # 1 computed, 2 of 3 tokens coming, and 3 more: 10
    with pytest.raises(Overloaded):
        batcher.check_room(3, in_flight=4)
    batcher.check_room(3, in_flight=2, waited=0.25)
    with pytest.raises(Overloaded):
        batcher.check_room(3, in_flight=2, waited=0.35)
    model.open.set()
    assert len(held.result(timeout=WAIT)) == 1


def test_s13_what_would_wait_too_long_is_rejected_by_the_measured_rate(batcher, model):
    batcher.rate = 10.0  # tokens a second: in max_wait there is time for 10
    held = batcher.submit(
        [[1]] * 20, seconds=WAIT
    )  # the queue is empty: accepted however long it takes
    assert model.entered.wait(WAIT)
    queued = batcher.submit([[2]] * 5, seconds=WAIT)
    with pytest.raises(Overloaded):
        batcher.submit([[3]] * 5, seconds=WAIT)
    model.open.set()
    assert len(held.result(timeout=WAIT)) + len(queued.result(timeout=WAIT)) == 25
