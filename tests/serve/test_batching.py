"""Requests in one batch: what becomes of the others when one fails, or when nothing moves."""

import threading

import numpy as np
import pytest

from simcse.serve.batching import Batcher, Overloaded
from simcse.serve.metrics import Metrics


class Model:
    """Embeds token ids as their sum; waits while it is closed, and fails on the id 13."""

    def __init__(self):
        self.open = threading.Event()
        self.entered = threading.Event()
        self.batches = []

    def __call__(self, rows):
        self.entered.set()
        assert self.open.wait(30)
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
        *(model,), dimensions=2, batch_tokens=100, queue_tokens=50, max_wait=1.0, metrics=Metrics()
    )
    yield made
    model.open.set()
    made.close()


def wait_in_one_batch(batcher, model, *requests):
    """Submit requests while the model is held up by another one, so that they wait together."""
    first = batcher.submit([[1]], seconds=30)
    assert model.entered.wait(30)
    futures = [batcher.submit(rows, seconds=30) for rows in requests]
    model.open.set()
    assert first.result(timeout=30).tolist() == [[1, 1]]
    return futures


def test_a_request_that_fails_fails_alone(batcher, model):
    good, bad, other = wait_in_one_batch(batcher, model, [[2], [3]], [[4], [13]], [[5]])
    assert good.result(timeout=30).tolist() == [[2, 2], [3, 3]]
    assert other.result(timeout=30).tolist() == [[5, 5]]
    with pytest.raises(RuntimeError, match="thirteen"):
        bad.result(timeout=30)
    assert model.batches == [[1], [2, 3, 4, 13, 5], [2, 3], [4, 13], [5]]
    assert batcher.submit([[6]], seconds=30).result(timeout=30).tolist() == [[6, 6]]


def test_two_requests_that_fail_get_an_error_each(batcher, model):
    one, two = wait_in_one_batch(batcher, model, [[13]], [[13]])
    assert one.exception(timeout=30) is not two.exception(timeout=30)


def test_s13_a_full_queue_refuses_while_the_model_is_held_up(batcher, model):
    held = batcher.submit([[1]], seconds=30)
    assert model.entered.wait(30)
    waiting = batcher.submit([[2]] * 50, seconds=30)
    for refuse in (lambda: batcher.check_room(1, 51), lambda: batcher.submit([[3]], seconds=30)):
        with pytest.raises(Overloaded) as caught:
            refuse()
        assert caught.value.seconds >= 1
    model.open.set()
    assert len(waiting.result(timeout=30)) == 50
    assert held.done()
    batcher.check_room(1, 0)


def test_s13_requests_on_their_way_to_the_queue_count_as_waiting(batcher, model):
    batcher.rate = 10.0  # tokens a second: in max_wait there is time for 10
    held = batcher.submit([[1]], seconds=30)
    assert model.entered.wait(30)
    batcher.check_room(3, inside=3)  # 1 computed, 2 of 3 tokens coming, and 3 more: 10
    with pytest.raises(Overloaded):
        batcher.check_room(3, inside=4)
    batcher.check_room(3, inside=2, waited=0.25)
    with pytest.raises(Overloaded):
        batcher.check_room(3, inside=2, waited=0.35)
    model.open.set()
    assert len(held.result(timeout=30)) == 1


def test_s13_what_would_wait_too_long_is_refused_by_the_measured_rate(batcher, model):
    batcher.rate = 10.0  # tokens a second: in max_wait there is time for 10
    held = batcher.submit([[1]] * 20, seconds=30)  # nobody waits: taken whatever it takes
    assert model.entered.wait(30)
    queued = batcher.submit([[2]] * 5, seconds=30)
    with pytest.raises(Overloaded):
        batcher.submit([[3]] * 5, seconds=30)
    model.open.set()
    assert len(held.result(timeout=30)) + len(queued.result(timeout=30)) == 25
