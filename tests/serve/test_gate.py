"""Who begins when: requests take turns, a round of the event loop each."""

import asyncio

from simcse.serve.gate import Turns
from simcse.serve.metrics import Metrics


def test_requests_begin_one_a_round_of_the_event_loop():
    """What comes in between, such as a question for health, waits for one of them, not for all."""

    async def run():
        turns, begun, others = Turns(), [], []

        async def request(number):
            await turns.take()
            begun.append(number)

        async def other():
            for _ in range(20):
                others.append(len(begun))
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(request(number)) for number in range(8)]
        watching = asyncio.create_task(other())
        await asyncio.gather(*tasks, watching)
        assert begun == list(range(8))
        assert max(later - earlier for earlier, later in zip(others, others[1:], strict=False)) == 1

    asyncio.run(run())


def test_a_client_that_left_does_not_take_a_turn():
    async def run():
        turns = Turns()
        tasks = [asyncio.create_task(turns.take()) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.wait_for(tasks[2], 5)
        await asyncio.sleep(0)
        assert not turns.is_taken
        await asyncio.wait_for(turns.take(), 5)

    asyncio.run(run())


def test_a_histogram_counts_up_to_each_limit():
    metrics = Metrics()
    for tokens in (16, 17, 40, 9000):
        metrics.observe("batch_tokens", tokens)
    lines = dict(line.rsplit(" ", 1) for line in metrics.text().splitlines() if line[0] != "#")
    found = {label: lines[f'simcse_batch_tokens_bucket{{le="{label}"}}'] for label in ("16", "32")}
    assert found == {"16": "1", "32": "2"}
    assert lines['simcse_batch_tokens_bucket{le="8192"}'] == "3"
    assert lines['simcse_batch_tokens_bucket{le="+Inf"}'] == "4"
    assert lines["simcse_batch_tokens_count"] == "4"
    assert lines["simcse_batch_tokens_sum"] == "9073.0"
