"""A progress bar on stderr with the time left."""

import sys
from collections.abc import Iterator

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def with_progress(chunks: Iterator[np.ndarray], total: int) -> Iterator[np.ndarray]:
    """Pass on chunks of rows while showing how many of ``total`` rows have come by."""
    columns = (TextColumn("encoding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr)) as bar:
        task = bar.add_task("encoding", total=total)
        for chunk in chunks:
            bar.advance(task, len(chunk))
            yield chunk
