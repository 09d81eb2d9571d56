"""``simcse train``."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simcse.cli.options import resume_option, run_folder_option

if TYPE_CHECKING:
    from simcse.report.tables import Table
    from simcse.train.evaluator import TrainReport
    from simcse.train.settings import TrainConfig

SEEDS = "seeds.json"

SETTINGS = """\b
Settings (section.key=value) and their defaults:
  seed=0                          precision=auto (fp32, bf16)
  model.pooling=as the model      model.head=as the model
  model.max_length=as the model   model.normalize=as the model
  model.layers=all                model.dropout=as the model
  model.num_encoders=1 (2)
  data.columns=found by name      data.bad_lines=error (skip)
  data.limit=all
  loss.temperature=0.05           loss.similarity=cosine (dot)
  loss.fixed_mask=False           loss.hard_negative_weight=1.0
  loss.mask_duplicates=True       loss.contrastive_weight=1.0
  loss.mlm_weight=0.0             loss.mlm_rate=0.15
  loss.regularizer=none (uniformity, spectrum)
  loss.regularizer_weight=0.1     loss.matryoshka=none (256,128,64)
  loss.form=softmax (decoupled, debiased, focal, classifier)
  loss.debias=0.1                 loss.focal_margin=0.3
  loss.dropout_free_negatives=False
  loss.repetition=0.0             loss.dimension_weight=0.0
  loss.dimension_temperature=5.0  loss.dropout_sampling=none (0.05,0.1,0.2)
  loss.queue=0                    loss.momentum=0.995
  optim.lr=5e-05                  optim.batch_size=64
  optim.epochs=1.0                optim.max_steps=none
  optim.weight_decay=0.0          optim.clip_norm=1.0
  optim.warmup=0.0                optim.schedule=linear (cosine, constant)
  optim.micro_batch_tokens=8192
  eval.every=250                  eval.dev=stsb (a file, heldout, none; A,B watches both)
  eval.heldout=512                eval.patience=none
  eval.save_all=False
  guard.explosion=1000.0          guard.skip=0
  guard.rollback=0
  train.checkpoint_every=250      train.threads=as torch says
  train.deterministic=False       train.timeout=600.0
"""


@click.command(epilog=SETTINGS)
@click.option(
    "--model",
    metavar="NAME",
    help="Start model: folder, bundled name, name in SIMCSE_MODELS or hub id.",
)
@click.option(
    "--train",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Training file; may be given several times.",
)
@run_folder_option
@click.option("--preset", metavar="NAME", help="A recipe of the paper, as unsup-bert-base.")
@click.option(
    "--config",
    "toml",
    type=click.Path(path_type=Path),
    help="Settings in TOML; overrides win over it, it wins over the preset.",
)
@resume_option
@click.option("--seeds", type=click.IntRange(1), help="Train so many seeds, from `seed` upwards.")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="An earlier --seeds folder, to compare with on the same seeds.",
)
@click.argument("settings", nargs=-1, metavar="[section.key=value]...")
def train(
    model: str | None,
    files: tuple[Path, ...],
    output: Path,
    preset: str | None,
    toml: Path | None,
    resume: bool,
    seeds: int | None,
    against: Path | None,
    settings: tuple[str, ...],
) -> None:
    """Train SimCSE: unsupervised from text, supervised from pairs or triplets.

    A text file (.txt, .txt.gz, one sentence a line) trains with dropout positives. A table
    (.tsv, .csv, .jsonl, .parquet) holds an anchor, a positive and any number of hard negatives
    a row, for loss.form=classifier a label, a premise and a hypothesis. The run folder holds
    best/ and last/, checkpoints/, log.jsonl, settings.toml and report.html.

    A run that was killed goes on by --resume, to the same weights bit for bit; without other
    options it takes them from the run folder. SIGTERM and Ctrl-C save a checkpoint first.

    \b
    Examples:
      simcse train --train sentences.txt --output runs/mine
      simcse train --train nli.tsv --output runs/nli loss.temperature=0.05 optim.lr=2e-4
      simcse train --preset sup-bert-base --train nli.csv --output runs/bert \\
          data.columns=sent0,sent1,hard_neg
      simcse train --train sentences.txt --output runs/three --seeds 3
      simcse train --train sentences.txt --output runs/warm --seeds 3 --against runs/three \\
          loss.temperature=0.1
      simcse train --output runs/mine --resume

    """
    from simcse.train.presets import find_preset
    from simcse.train.processes import is_first_process

    recipe = find_preset(preset) if preset else None
    stored = stored_settings(output) if resume and not files else {}
    if not (files or stored):
        raise click.UsageError("Missing option '--train'.")
    run = stored.get("run", {})
    start = model or run.get("model") or (recipe.backbone if recipe else "mini")
    files = files or tuple(Path(file) for file in run["train"])
    config = read_settings(recipe.settings if recipe else stored, toml, settings)
    if against is not None and seeds is None:
        raise click.UsageError("--against compares seeds; give --seeds, too")
    if seeds is not None:
        reports = _several_seeds(start, files, output, config, seeds, resume=resume)
        _show_seeds(reports, output, against)
        return
    report = _one_run(start, files, output, config, resume=resume)
    if is_first_process():
        click.echo(summary(report, output))


def stored_settings(output: Path) -> dict[str, Any]:
    """Return the settings of the run in ``output``, or of its first seed; empty without one."""
    from simcse.io.settings import read_toml

    seeds = sorted(output.glob("seed-*/settings.toml"), key=lambda path: int(path.parent.name[5:]))
    found = [output / "settings.toml", *seeds]
    return next((read_toml(path) for path in found if path.exists()), {})


def read_settings(
    base: dict[str, Any], toml: Path | None, overrides: tuple[str, ...]
) -> "TrainConfig":
    """Lay a file and what was typed over ``base``."""
    from simcse.config import build, merge, parse_overrides
    from simcse.io.settings import read_toml
    from simcse.train.settings import TrainConfig

    values = merge(merge(base, read_toml(toml) if toml else {}), parse_overrides(overrides))
    values.pop("run", None)  # what a saved settings.toml adds about its run
    return build(TrainConfig, values)


def _one_run(
    model: str, files: tuple[Path, ...], output: Path, config: "TrainConfig", *, resume: bool
) -> "TrainReport":
    from simcse.cli.progress import TrainProgress
    from simcse.train.processes import is_first_process
    from simcse.train.run import train_run

    command = shlex.join(["simcse", *click.get_current_context().obj])
    with TrainProgress(f"seed {config.seed}") as progress:
        report = train_run(
            model, files, output, config, resume=resume, command=command, observe=progress
        )
    if is_first_process():
        write_report(output)
    return report


def _several_seeds(
    model: str,
    files: tuple[Path, ...],
    output: Path,
    config: "TrainConfig",
    seeds: int,
    *,
    resume: bool,
) -> "dict[int, TrainReport]":
    """Train one run a seed into ``output/seed-N``."""
    from dataclasses import replace

    reports = {}
    for seed in range(config.seed, config.seed + seeds):
        run = output / f"seed-{seed}"
        reports[seed] = _one_run(model, files, run, replace(config, seed=seed), resume=resume)
    return reports


def _show_seeds(reports: "dict[int, TrainReport]", output: Path, against: Path | None) -> None:
    """Print the runs with mean, deviation and interval, and compare them if that is asked."""
    from simcse.cli.output import show
    from simcse.io.results import write_results
    from simcse.report.seeds import seeds_table
    from simcse.train.processes import is_first_process

    if not is_first_process():
        return
    rows = {seed: {"start": report.start, "best": report.best} for seed, report in reports.items()}
    write_results(output / SEEDS, {str(seed): row for seed, row in rows.items()})
    show(seeds_table(rows), "table")
    if against is not None:
        _compare_seeds(against, output)


def _compare_seeds(first: Path, second: Path) -> None:
    from simcse.cli.output import show
    from simcse.io.results import read_results
    from simcse.report.seeds import compare_seeds, differences_table

    runs = [
        {int(seed): run for seed, run in read_results(folder / SEEDS).items()}
        for folder in (first, second)
    ]
    show(differences_table(compare_seeds(*runs)), "table")


def write_report(output: Path, *tables: "Table", title: str = "Training run") -> None:
    """Write the page of a run folder."""
    from simcse.io.files import write_text
    from simcse.io.log import read_log
    from simcse.io.settings import read_toml
    from simcse.report.runs import training_report
    from simcse.train import run

    log, settings = read_log(output / run.LOG), read_toml(output / run.SETTINGS)
    page = training_report(log, settings, title=title, tables=tables)
    write_text(output / "report.html", page)


def summary(report: "TrainReport", output: Path) -> str:
    """Say what a run came to."""
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
