"""Grids as files: the paper's own, and what is refused."""

import dataclasses

import pytest

from simcse.errors import ConfigError, UsageError
from simcse.paper.grid import grid_from, list_grids, paper_grid, read_grid, row_config
from simcse.train.presets import PRESETS

SMALL = """
title = "Dropout"
corpus = "text.txt"
[[row]]
name = "none"
baseline = true
settings.model.dropout = 0.0
[[row]]
name = "more"
published = 80
settings.model.dropout = 0.2
"""


@pytest.fixture
def write(tmp_path):
    def made(text):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return path

    return made


@pytest.mark.parametrize("name", list_grids())
def test_every_table_of_the_paper_is_whole(name):
    grid = paper_grid(name)
    assert grid.source.startswith("Gao et al. 2021")
    assert grid.claim.endswith(".")
    assert grid.find_backbone() == "google-bert/bert-base-uncased"
    groups = {row.group for row in grid.rows}
    baselines = [row.group for row in grid.rows if row.baseline]
    assert sorted(baselines) == sorted(groups)
    for row in grid.rows:
        config = row_config(grid, row, {})
        assert config.model.max_length == 32
    stored = dataclasses.asdict(grid)
    assert dataclasses.asdict(grid_from(stored)) == stored


def test_the_tables_have_the_papers_rows_and_figures():
    def published(name, metric="dev"):
        return [row.published.get(metric) for row in paper_grid(name).rows]

    # Gao et al. 2021: tables 3, 6, 7, D.1 and D.2, read off the paper
    assert published("3") == [71.1, 72.6, 81.1, 82.5, 81.4, 80.5, 71.0, 43.6]
    assert published("6") == [81.7, 82.5, 80.9, 81.2, 86.2, 85.8, 86.2, 86.1]
    assert published("7") == [84.9, 86.1, 86.2, 86.2, 85.3]
    assert published("temperature") == [84.9, 85.4, 86.2, 82.0, 64.0, 85.9]
    assert published("mlm") == [86.2, 85.7, 85.7, 85.1]
    assert published("mlm", "transfer_avg") == [85.8, 86.1, 86.2, 85.8]
    assert published("1")[:7] == [82.5, 77.8, 71.4, 63.6, 75.9, 72.2, 68.2]
    assert published("1")[7:] == [75.9, 74.2, 77.4, 62.2]
    assert published("transfer", "transfer_avg") == [84.94, 85.81, 86.64, 86.51, 86.86]
    assert published("2") == [67.1, 68.9, 67.4, 68.8, 75.9, 73.1, 82.5, 80.7]
    assert published("4") == [81.8, 81.4, 78.7, 84.9, 82.9, 77.6, 81.9, 86.2, 85.0, 84.2]
    assert {None} == set(published("batch"))


@pytest.mark.parametrize(("name", "average"), [("5", "sts_avg"), ("transfer", "transfer_avg")])
def test_published_averages_are_those_of_their_tasks(name, average):
    for row in paper_grid(name).rows:  # the paper's own rounding is off by as much
        tasks = [score for metric, score in row.published.items() if metric != average]
        assert sum(tasks) / 7 == pytest.approx(row.published[average], abs=0.031)


def test_a_row_wins_over_what_was_typed_and_that_over_the_grid(write):
    grid = read_grid(write(f'preset = "unsup-bert-base"\nsettings.seed = 4\n{SMALL}'))
    config = row_config(grid, grid.rows[1], {"model": {"dropout": 0.9, "pooling": "mean"}})
    assert (config.model.dropout, config.model.pooling, config.seed) == (0.2, "mean", 4)
    assert config.optim.lr == PRESETS["unsup-bert-base"].settings["optim"]["lr"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "Dropout"', 'titel = "x"', "did you mean 'title'"),
        ("baseline = true", "basline = true", "did you mean 'baseline'"),
        ("settings.model.dropout = 0.0", "settings.model.dropuot = 0.0", "'none'.*model.dropout"),
        ("settings.model.dropout = 0.0", "settings.model.dropout = 1.5", "'none'.*below 1"),
        ('name = "more"', 'name = "none"', "two rows have the name 'none'"),
        ("published = 80", "baseline = true", "expected one baseline per group"),
        ("published = 80", 'published = "80"', "published must be a number"),
        ("published = 80", "published = { stsd_dev = 80 }", "unknown metric 'stsd_dev'"),
        ("published = 80", 'data = { make = "corp" }', "did you mean 'crop'"),
        ('corpus = "text.txt"', "", "row 'none' has no corpus"),
        ('corpus = "text.txt"', 'preset = "x"\ncorpus = "t"', "unknown preset 'x'"),
        ('corpus = "text.txt"', 'metrics = ["sts_agv"]\ncorpus = "t"', "did you mean 'sts_avg'"),
        ('corpus = "text.txt"', "rows = []", "write each row as"),
        ('title = "Dropout"', "title = [", "mine.toml"),
        ("settings.model.dropout = 0.0", "settings = 3", "settings as a section, got the value 3"),
        ("published = 80", 'data = "crop"', "data is a section"),
        (SMALL, 'title = "x"', r"one \[\[row"),
    ],
)
def test_a_wrong_grid_is_refused_when_it_is_read(write, old, new, message):
    path = write(SMALL.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message):
        read_grid(path)


def test_a_table_that_is_not_there_is_named():
    with pytest.raises(UsageError, match="no table '11'; the tables are 1, 2, 3"):
        paper_grid("11")
