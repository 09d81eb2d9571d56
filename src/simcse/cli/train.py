"""``simcse train``."""

import shlex
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simcse.cli.options import resume_option, run_folder_option

if TYPE_CHECKING:
    from simcse.train.events import TrainResult
    from simcse.train.settings import TrainConfig

FILE = click.Path(path_type=Path)
SETTINGS_TEXT = "train_settings.txt"  # written by `make docs` from the settings' docstrings


class TrainCommand(click.Command):
    """A command whose help ends in the list of all settings."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list, which is stored as text so that ``--help`` imports no torch."""
        text = resources.files("simcse.cli").joinpath(SETTINGS_TEXT).read_text(encoding="utf-8")
        formatter.write(f"\n{text}")


@click.command("train", cls=TrainCommand)
@click.option(
    "--model",
    metavar="NAME",
    help="Start model: a folder, bundled name, name in SIMCSE_MODELS or hub id.",
)
@click.option(
    "--train",
    "files",
    multiple=True,
    type=FILE,
    metavar="FILE",
    help="Training file; may be given several times.",
)
@run_folder_option
@click.option("--preset", metavar="NAME", help="Recipe of the paper, such as unsup-bert-base.")
@click.option(
    "--config",
    "toml",
    type=FILE,
    help="TOML file of settings; it wins over the preset, and overrides win over it.",
)
@resume_option
@click.option(
    "--seeds", type=click.IntRange(1), help="Number of seeds to train, from `seed` upwards."
)
@click.option(
    "--baseline",
    type=FILE,
    metavar="FOLDER",
    help="Folder of an earlier --seeds run, to compare with on the same seeds.",
)
@click.argument("settings", nargs=-1, metavar="[section.key=value]...")
def train_command(
    model: str | None,
    files: tuple[Path, ...],
    output: Path,
    preset: str | None,
    toml: Path | None,
    resume: bool,
    seeds: int | None,
    baseline: Path | None,
    settings: tuple[str, ...],
) -> None:
    """Train SimCSE: unsupervised from text, supervised from pairs or triplets.

    A text file (.txt, .txt.gz, one sentence a line) trains with dropout positives. A table
    (.tsv, .csv, .jsonl, .parquet) holds an anchor, a positive and any number of hard negatives
    in each row, for loss.type=classifier a label, a premise and a hypothesis. The run folder
    holds best/ and last/, checkpoints/, log.jsonl, settings.toml and report.html.

    With --resume a run that was killed continues to the same weights, bit for bit; without other
    options it takes them from the run folder. SIGTERM and Ctrl-C save a checkpoint first.

    \b
    Examples:
      simcse train --train sentences.txt --output runs/mine
      simcse train --train nli.tsv --output runs/nli loss.temperature=0.05 optim.lr=2e-4
      simcse train --preset sup-bert-base --train nli.csv --output runs/bert \\
          data.columns=sent0,sent1,hard_neg
      simcse train --train sentences.txt --output runs/three --seeds 3
      simcse train --train sentences.txt --output runs/warm --seeds 3 --baseline runs/three \\
          loss.temperature=0.1
      simcse train --output runs/mine --resume

    """
    from simcse.train.presets import find_preset
    from simcse.train.processes import is_first_process
    from simcse.train.progress import ProgressBar
    from simcse.train.run import train

    recipe = find_preset(preset) if preset else None
    stored = stored_settings(output) if resume and not files else {}
    if not (files or stored.get("run", {}).get("train")):
        raise click.UsageError("Missing option '--train'.")
    if baseline is not None and seeds is None:
        raise click.UsageError("--baseline compares seeds; pass --seeds, too")
    run = stored.get("run", {})
    start = model or run.get("model") or (recipe.backbone if recipe else "mini")
    data = list(files) or [Path(file) for file in run["train"]]
    config = read_settings(recipe.settings if recipe else stored, toml, settings)
    options: dict[str, Any] = {"model": start, "config": config, "resume": resume}
    options["command"] = command_line()
    if seeds is not None:
        _train_seeds(data, seeds, output, baseline, options)
        return
    with ProgressBar(f"seed {config.seed}") as progress:
        result = train(data, output=output, callbacks=[progress], **options)
    if is_first_process():
        click.echo(summary(result, output))


def _train_seeds(
    data: list[Path], seeds: int, output: Path, baseline: Path | None, options: dict[str, Any]
) -> None:
    import contextlib

    from simcse.cli.output import show
    from simcse.train.processes import is_first_process
    from simcse.train.progress import ProgressBar
    from simcse.train.seeds import compare_seed_runs, train_seeds

    with contextlib.ExitStack() as bars:

        def next_bar(seed: int) -> list[ProgressBar]:
            bars.close()  # that of the seed before
            return [bars.enter_context(ProgressBar(f"seed {seed}"))]

        table = train_seeds(data, seeds, output=output, make_callbacks=next_bar, **options)
    if is_first_process():
        show(table, "table")
        if baseline is not None:
            show(compare_seed_runs(baseline, output), "table")


def command_line() -> str:
    """Return the command line as it was typed, for the provenance of models."""
    return shlex.join(["simcse", *click.get_current_context().obj])


def stored_settings(output: Path) -> dict[str, Any]:
    """Return the settings of the run in ``output``, or of its first seed; empty without one."""
    from simcse.io.settings import read_toml

    seeds = sorted(output.glob("seed-*/settings.toml"), key=lambda path: int(path.parent.name[5:]))
    found = [output / "settings.toml", *seeds]
    return next((read_toml(path) for path in found if path.exists()), {})


def read_settings(
    base: dict[str, Any], toml: Path | None, overrides: tuple[str, ...]
) -> "TrainConfig":
    """Update ``base`` by a file and by overrides."""
    from simcse.config import build, merge, parse_overrides
    from simcse.io.settings import read_toml
    from simcse.train.settings import TrainConfig

    values = merge(merge(base, read_toml(toml) if toml else {}), parse_overrides(overrides))
    values.pop("run", None)  # provenance in a saved settings.toml
    return build(TrainConfig, values)


def summary(result: "TrainResult", output: Path) -> str:
    """Return the outcome of a run in a few lines."""
    lines = [f"{result.steps:,} steps in {result.seconds:.0f} s"]
    if result.truncated:
        lines[0] += f", {result.truncated:,} sentences truncated to the length limit"
    for name, before in result.start.items():
        after = result.best.get(name)
        shown = ["undefined" if value is None else f"{value:.3f}" for value in (before, after)]
        lines.append(f"{name}: {shown[0]} before, {shown[1]} at the best step {result.best_step}")
    if result.start and result.best_step == 0:
        lines.append("training did not improve on the start model; best/ holds the start model")
    lines.append(f"models: {output}/best and {output}/last; report: {output}/report.html")
    return "\n".join(lines)
