"""``simcse pretrain``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simcse.cli.options import resume_option, run_folder_option

if TYPE_CHECKING:
    from simcse.model.from_scratch import NewModel

SIZES = ("tiny", "mini", "small", "medium", "base")


@click.command("pretrain")
@click.option(
    "--train",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Text file, one sentence a line, or a table whose first column is read; may be repeated.",
)
@run_folder_option
@click.option("--model", metavar="NAME", help="Model to train further: a folder or hub id.")
@click.option(
    "--size",
    type=click.Choice(SIZES),
    help="Size of a new model, layers x width: 2x128, 4x256 (the default), 4x512, 8x512, 12x768.",
)
@click.option("--layers", type=int, help="Number of transformer layers of a new model.")
@click.option("--width", type=int, help="Width of a new model's hidden states.")
@click.option("--heads", type=int, help="Number of attention heads of a layer.")
@click.option(
    "--vocabulary", type=int, help="Largest number of tokens of a new model, by default 16,000."
)
@click.option(
    "--subwords",
    type=click.Choice(["wordpiece", "bpe"]),
    help="Kind of tokenizer: WordPiece as in BERT (the default), or byte-level BPE as in RoBERTa.",
)
@click.option("--cased", is_flag=True, default=None, help="Distinguish capital from small letters.")
@click.option(
    "--config",
    "toml",
    type=click.Path(path_type=Path),
    help="TOML file of settings; overrides win over it.",
)
@resume_option
@click.argument("settings", nargs=-1, metavar="[section.key=value]...")
def pretrain_command(
    files: tuple[Path, ...],
    output: Path,
    model: str | None,
    size: str | None,
    toml: Path | None,
    resume: bool,
    settings: tuple[str, ...],
    **shape: Any,  # noqa: ANN401 - the options of a new model
) -> None:
    """Train a masked-language model on your own text: a new one, or --model further.

    For a language or a domain without a pretrained model, this command and then `simcse train`
    lead from raw text to sentence embeddings. A new model gets a tokenizer trained on the text.
    15 % of the tokens are masked, differently in every pass; the checkpoint is chosen by the loss
    on held-out rows, which also gives the perplexity.

    The run folder, the settings (`simcse train --help`) and --resume are those of `simcse train`.
    Defaults that differ are loss.mlm_weight=1, loss.contrastive_weight=0, eval.dev=heldout,
    optim.weight_decay=0.01, optim.warmup=0.06 and optim.lr=1e-4, or 5e-4 for a new model. best/
    includes the masked-language-model head: transformers opens it as such, and loss.mlm_weight,
    `data augment --how mlm` and another pretrain use it.

    \b
    Examples:
      simcse pretrain --train text.txt --output runs/mlm optim.epochs=3
      simcse pretrain --train text.txt --output runs/mlm --size small --vocabulary 30000 --cased
      simcse pretrain --train text.txt --model bert-base-uncased --output runs/more \\
          model.pooling=mean
      simcse pretrain --output runs/mlm --resume
      simcse train --model runs/mlm/best --train text.txt --output runs/mine
    """
    from simcse.cli.train import command_line, read_settings, stored_settings, summary
    from simcse.config import merge
    from simcse.train.pretrain import NEW_MODEL_SETTINGS, SETTINGS, pretrain
    from simcse.train.processes import is_first_process
    from simcse.train.progress import ProgressBar
    from simcse.train.run import START

    stored = stored_settings(output) if resume else {}
    run = stored.get("run", {})
    if not files and not run:
        raise click.UsageError("Missing option '--train'.")
    given = {name: value for name, value in shape.items() if value is not None}
    if model is None and run and Path(run["model"]).name != START:
        model = run["model"]
    if model is not None and (given or size):
        raise click.UsageError(f"--model has its size: leave out {', '.join(given or ['size'])}")
    new = None if run and not given and not size else _new_model(size, given)
    base = SETTINGS if model else merge(SETTINGS, NEW_MODEL_SETTINGS)
    with ProgressBar("pretraining") as progress:
        result = pretrain(
            model or new,
            list(files) or [Path(file) for file in run["train"]],
            output,
            read_settings(stored or base, toml, settings),
            resume=resume,
            command=command_line(),
            callbacks=[progress],
        )
    if is_first_process():
        click.echo(_speed(output))
        click.echo(summary(result, output))


def _new_model(size: str | None, given: dict[str, Any]) -> "NewModel":
    from simcse.model.from_scratch import SHAPES, NewModel

    shape = dict(zip(("layers", "width", "heads"), SHAPES[size or "mini"], strict=True))
    return NewModel(**{**shape, **given})


def _speed(output: Path) -> str:
    from simcse.io.log import read_log
    from simcse.train.callbacks import LOG

    steps = [event for event in read_log(output / LOG) if event["event"] == "step"]
    tokens, seconds = (sum(event[name] for event in steps) for name in ("tokens", "seconds"))
    return f"{tokens:,} tokens, {tokens / max(seconds, 1e-9):,.0f} a second"
