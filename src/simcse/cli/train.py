"""``simcse train``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from simcse.train.loop import TrainReport
    from simcse.train.settings import TrainConfig


SETTINGS = """\b
Settings (section.key=value) and their defaults:
  seed=0                          precision=auto (fp32, bf16)
  model.pooling=as the model      model.head=as the model
  model.max_length=as the model   model.normalize=as the model
  model.layers=all                model.dropout=as the model
  data.columns=in file order      data.bad_lines=error (skip)
  data.limit=all
  loss.temperature=0.05           loss.hard_negative_weight=1.0
  loss.mask_duplicates=True       loss.contrastive_weight=1.0
  loss.mlm_weight=0.0             loss.mlm_rate=0.15
  loss.regulariser=none (uniformity, spectrum)
  loss.regulariser_weight=0.1
  optim.lr=5e-05                  optim.batch_size=64
  optim.epochs=1.0                optim.max_steps=none
  optim.weight_decay=0.0          optim.clip_norm=1.0
  optim.warmup=0.0                optim.schedule=linear (cosine, constant)
  optim.chunk_tokens=8192
  eval.every=250                  eval.dev=stsb (a file, none)
  eval.patience=none
"""


@click.command(epilog=SETTINGS)
@click.option("--model", metavar="NAME", help="Start model: folder, bundled name or hub id.")
@click.option(
    "--train",
    "files",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Training file; may be given several times.",
)
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The run folder.")
@click.option("--preset", metavar="NAME", help="A recipe of the paper, as unsup-bert-base.")
@click.option(
    "--config",
    "toml",
    type=click.Path(path_type=Path),
    help="Settings in TOML; overrides win over it, it wins over the preset.",
)
@click.option("--seeds", type=click.IntRange(1), help="Train so many seeds, from `seed` upwards.")
@click.argument("settings", nargs=-1, metavar="[section.key=value]...")
def train(
    model: str | None,
    files: tuple[Path, ...],
    output: Path,
    preset: str | None,
    toml: Path | None,
    seeds: int | None,
    settings: tuple[str, ...],
) -> None:
    """Train SimCSE: unsupervised from text, supervised from pairs or triplets.

    A text file (.txt, .txt.gz, one sentence a line) trains with dropout positives. A table
    (.tsv, .csv, .jsonl, .parquet) holds an anchor, a positive and any number of hard negatives
    a row. The run folder holds best/ and last/, log.jsonl, settings.toml and report.html.

    \b
    Examples:
      simcse train --train sentences.txt --output runs/mine
      simcse train --train nli.tsv --output runs/nli loss.temperature=0.05 optim.lr=2e-4
      simcse train --preset sup-bert-base --train nli.csv --output runs/bert \\
          data.columns=sent0,sent1,hard_neg
      simcse train --train sentences.txt --output runs/three --seeds 3

    """
    from simcse.train.presets import find_preset

    recipe = find_preset(preset) if preset else None
    start = model or (recipe.backbone if recipe else "mini")
    config = _settings(recipe.settings if recipe else {}, toml, settings)
    if seeds is None:
        click.echo(_summary(_one_run(start, files, output, config), output))
    else:
        _several_seeds(start, files, output, config, seeds)


def _settings(
    preset: dict[str, Any], toml: Path | None, overrides: tuple[str, ...]
) -> "TrainConfig":
    from simcse.config import build, merge, parse_overrides
    from simcse.io.settings import read_toml
    from simcse.train.settings import TrainConfig

    written = read_toml(toml) if toml else {}
    written.pop("run", None)  # what a saved settings.toml adds about its run
    return build(TrainConfig, merge(merge(preset, written), parse_overrides(overrides)))


def _one_run(
    model: str, files: tuple[Path, ...], output: Path, config: "TrainConfig"
) -> "TrainReport":
    from simcse.cli.progress import TrainProgress
    from simcse.train.run import train_run

    with TrainProgress(f"seed {config.seed}") as progress:
        report = train_run(model, files, output, config, observe=progress)
    _write_report(output)
    return report


def _several_seeds(
    model: str, files: tuple[Path, ...], output: Path, config: "TrainConfig", seeds: int
) -> None:
    """Train one run a seed into ``output/seed-N`` and print them with mean and deviation."""
    from dataclasses import replace

    from simcse.cli.output import show
    from simcse.io.results import write_results
    from simcse.report.seeds import seeds_table

    reports = {}
    for seed in range(config.seed, config.seed + seeds):
        run = output / f"seed-{seed}"
        reports[seed] = _one_run(model, files, run, replace(config, seed=seed))
    rows = {seed: {"start": report.start, "best": report.best} for seed, report in reports.items()}
    write_results(output / "seeds.json", {str(seed): row for seed, row in rows.items()})
    show(seeds_table(rows), "table")


def _write_report(output: Path) -> None:
    from simcse.io.files import write_text
    from simcse.io.log import read_log
    from simcse.io.settings import read_toml
    from simcse.report.runs import training_report
    from simcse.train import run

    page = training_report(read_log(output / run.LOG), read_toml(output / run.SETTINGS))
    write_text(output / "report.html", page)


def _summary(report: "TrainReport", output: Path) -> str:
    cut = f", {report.truncated:,} sentences cut to the length limit" if report.truncated else ""
    lines = [f"{report.steps:,} steps in {report.seconds:.0f} s{cut}"]
    for name, before in report.start.items():
        after = report.best.get(name)
        shown = ["undefined" if value is None else f"{value:.3f}" for value in (before, after)]
        lines.append(f"{name}: {shown[0]} before, {shown[1]} at the best step {report.best_step}")
    if report.start and report.best_step == 0:
        lines.append("training did not improve on the start model; best/ holds the start model")
    lines.append(f"models: {output}/best and {output}/last; report: {output}/report.html")
    return "\n".join(lines)
