"""``simcse pretrain``."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simcse.cli.options import resume_option, run_folder_option

if TYPE_CHECKING:
    from simcse.model.from_scratch import NewModel
    from simcse.train.evaluator import TrainReport

SIZES = ("tiny", "mini", "small", "medium", "base")
SHAPE = ("layers", "width", "heads", "vocabulary", "subwords", "cased")


@click.command()
@click.option(
    "--train",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Text, one sentence a line; may be given several times. Of a table the first column.",
)
@run_folder_option
@click.option("--model", metavar="NAME", help="Train this model further: folder or hub id.")
@click.option(
    "--size",
    type=click.Choice(SIZES),
    help="Size of a new model, layers x width: 2x128, 4x256 (the default), 4x512, 8x512, 12x768.",
)
@click.option("--layers", type=int, help="Transformer layers of a new model.")
@click.option("--width", type=int, help="Size of its hidden states.")
@click.option("--heads", type=int, help="Attention heads of a layer.")
@click.option("--vocabulary", type=int, help="Most tokens of its tokenizer; 16,000 by default.")
@click.option(
    "--subwords",
    type=click.Choice(["wordpiece", "bpe"]),
    help="How its tokenizer splits words: as BERT's (the default), or byte-level as RoBERTa's.",
)
@click.option(
    "--cased", is_flag=True, default=None, help="Let it tell capitals from small letters."
)
@click.option(
    "--config", "toml", type=click.Path(path_type=Path), help="Settings in TOML; overrides win."
)
@resume_option
@click.argument("settings", nargs=-1, metavar="[section.key=value]...")
def pretrain(
    files: tuple[Path, ...],
    output: Path,
    model: str | None,
    size: str | None,
    toml: Path | None,
    resume: bool,
    settings: tuple[str, ...],
    **shape: Any,  # noqa: ANN401 - the options of `SHAPE`
) -> None:
    """Train a masked-language model on your own text: a new one, or --model further.

    What there is no pretrained model for, a language or a domain, goes from raw text to sentence
    embeddings by this command and then `simcse train`. A new model gets a tokenizer trained on
    the text. 15 % of the tokens are masked anew in every pass; the checkpoint is chosen by the
    loss on held-out rows, which also gives the perplexity.

    The run folder is that of `simcse train`, and so are the settings (`simcse train --help`),
    --resume and what a kill or Ctrl-C leaves. Here they are loss.mlm_weight=1,
    loss.contrastive_weight=0, eval.dev=heldout, optim.weight_decay=0.01, optim.warmup=0.06 and
    optim.lr=1e-4, for a new model 5e-4. best/ keeps the masked-language-model head: transformers
    opens it as such, and loss.mlm_weight, `data augment --how mlm` and another pretrain use it.

    \b
    Examples:
      simcse pretrain --train text.txt --output runs/mlm optim.epochs=3
      simcse pretrain --train text.txt --output runs/mlm --size small --vocabulary 30000 --cased
      simcse pretrain --train text.txt --model bert-base-uncased --output runs/more \\
          model.pooling=mean
      simcse pretrain --output runs/mlm --resume
      simcse train --model runs/mlm/best --train text.txt --output runs/mine
    """
    from simcse.cli.train import read_settings, stored_settings, write_report
    from simcse.config import merge
    from simcse.train import pretrain as pretraining
    from simcse.train.processes import is_first_process
    from simcse.train.run import START

    stored = stored_settings(output) if resume else {}
    run = stored.get("run", {})
    if not files and not run:
        raise click.UsageError("Missing option '--train'.")
    files = files or tuple(Path(file) for file in run["train"])
    told = {name: value for name, value in shape.items() if value is not None}
    if model is None and run and Path(run["model"]).name != START:
        model = run["model"]
    if model is not None and (told or size):
        raise click.UsageError(f"--model has its size: leave out {', '.join(told or ['size'])}")
    start = model or (None if run and not told and not size else _shape(size, told))
    base = pretraining.SETTINGS
    if model is None:
        base = merge(base, pretraining.NEW_SETTINGS)
    config = read_settings(stored or base, toml, settings)
    command = shlex.join(["simcse", *click.get_current_context().obj])
    report = _run(start, files, output, config, resume=resume, command=command)
    if is_first_process():
        write_report(output, title="Pretraining")
        click.echo(_summary(report, output))


def _shape(size: str | None, told: dict[str, Any]) -> "NewModel":
    from simcse.model.from_scratch import SHAPES as KNOWN
    from simcse.model.from_scratch import NewModel

    preset = dict(zip(("layers", "width", "heads"), KNOWN[size or "mini"], strict=True))
    return NewModel(**{**preset, **told})


def _run(start: Any, *arguments: Any, **options: Any) -> "TrainReport":  # noqa: ANN401 - passed on
    from simcse.cli.progress import TrainProgress
    from simcse.train.pretrain import pretrain as train

    with TrainProgress("pretraining") as progress:
        return train(start, *arguments, **options, observe=progress)


def _summary(report: "TrainReport", output: Path) -> str:
    from simcse.cli.train import summary
    from simcse.io.log import read_log
    from simcse.train.run import LOG

    steps = [event for event in read_log(output / LOG) if event["event"] == "step"]
    tokens, seconds = (sum(event[name] for event in steps) for name in ("tokens", "seconds"))
    rate = f"{tokens:,} tokens, {tokens / max(seconds, 1e-9):,.0f} a second\n"
    return rate + summary(report, output)
