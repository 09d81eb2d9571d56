"""Several runs of one setting that differ in the seed, and their comparison."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from simcse.io.results import read_results, write_results
from simcse.report.seeds import compare_seeds, differences_table, seeds_table
from simcse.report.tables import Table
from simcse.train.events import Callback, TrainResult
from simcse.train.processes import is_first_process
from simcse.train.run import train
from simcse.train.settings import TrainConfig
from simcse.train.training_data import DataSource

SEEDS = "seeds.json"


def train_seeds(
    data: DataSource,
    seeds: int,
    *,
    model: str,
    output: Path,
    config: TrainConfig,
    resume: bool = False,
    command: str = "",
    make_callbacks: Callable[[int], Sequence[Callback]] = lambda seed: (),
) -> Table:
    """Train one run for each seed, from ``config.seed`` upwards, into ``output/seed-N``.

    Arguments and errors are those of `simcse.train.run.train`; ``make_callbacks`` returns the
    callbacks of the run with a seed.

    Returns:
        One row for each seed, then mean, standard deviation and 95 % interval.
    """
    results: dict[int, TrainResult] = {}
    for seed in range(config.seed, config.seed + seeds):
        results[seed] = train(
            data,
            model=model,
            output=output / f"seed-{seed}",
            config=dataclasses.replace(config, seed=seed),
            resume=resume,
            command=command,
            callbacks=make_callbacks(seed),
        )
    rows = {seed: {"start": each.start, "best": each.best} for seed, each in results.items()}
    if is_first_process():
        write_results(output / SEEDS, {str(seed): row for seed, row in rows.items()})
    return seeds_table(rows)


def compare_seed_runs(first: Path, second: Path) -> Table:
    """Compare two folders of `train_seeds` on the seeds that both have.

    Raises:
        ArtifactError: a folder has no ``seeds.json``, or a damaged one.
        DataError: they have no seed in common.
    """
    runs = [
        {int(seed): run for seed, run in read_results(folder / SEEDS).items()}
        for folder in (first, second)
    ]
    return differences_table(compare_seeds(*runs))
