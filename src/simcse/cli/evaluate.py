"""``simcse evaluate``."""

from pathlib import Path

import click

from simcse.cli.evaluate_options import (
    STS_TASKS,
    TRANSFER_TASKS,
    OptionValue,
    choice,
    data_option,
    load_sts,
    load_transfer,
    model_options,
    path_option,
    protocol_options,
    read_pairs_file,
    report_option,
    run_suite,
    self_test_models,
    sts_options,
    tasks_option,
)
from simcse.cli.options import load_encoder, loading_options, precision_option
from simcse.cli.output import format_option, show_all

KNOWN_SETS = ("captions", "quora")
TEMPERATURE = 0.05
natural_text = choice(
    "--text",
    ("natural", "senteval"),
    "Text version of the STS tasks: natural, or tokenized by SentEval as in the paper.",
)


@click.group("evaluate", invoke_without_command=True)
@click.option(
    "--self-test",
    is_flag=True,
    help="Evaluate all-MiniLM-L6-v2 and compare each task with its known score.",
)
@data_option
@click.pass_context
def evaluate_command(context: click.Context, self_test: bool, data: Path | None) -> None:
    """Evaluate models on standard tasks.

    \b
    Examples:
      simcse evaluate sts mini runs/mine/best
      simcse evaluate all mini --fast --output evaluation
      simcse evaluate --self-test
    """
    if self_test and context.invoked_subcommand is None:
        self_test_models(data)
    elif self_test or data:
        raise click.UsageError("--self-test [--data FOLDER] cannot be combined with a command")
    elif context.invoked_subcommand is None:
        click.echo(context.get_help())


@evaluate_command.command("sts")
@tasks_option(STS_TASKS)
@natural_text
@sts_options
@click.option(
    "--details", is_flag=True, help="Print the Spearman correlation of every task by subset."
)
@model_options
def sts_command(
    tasks: list[str],
    split: str,
    sickr: str,
    text: str,
    aggregation: str,
    details: bool,
    data: Path | None,
    **shared: OptionValue,
) -> None:
    """Compute Spearman correlations on the 7 STS tasks, as the paper does.

    Several models are printed side by side and compared with the first by a paired bootstrap.
    Alignment and uniformity follow the paper's protocol: STS-B pairs rated above 4, and all STS-B
    sentences, of the split that is evaluated.

    \b
    Examples:
      simcse evaluate sts
      simcse evaluate sts runs/nli/best mini --format markdown
      simcse evaluate sts bert-base-uncased --pooling mean_first_last --aggregation wmean
      simcse evaluate sts mini --split dev --tasks stsb
    """
    from simcse.evaluate.suite import EvaluationSuite
    from simcse.report.evaluation_tables import subset_table

    rated = load_sts(tasks, split, sickr, text, data)
    suite = EvaluationSuite(sts=rated, geometry=rated.get("stsb"))
    options = {"split": split, "sickr": sickr, "text": text}
    values = {"aggregation": aggregation, "options": options}
    evaluation = run_suite(suite, values, json_tables=1, **shared)
    for task in rated if details else ():
        show_all([subset_table(evaluation.models, task)], shared["form"])


@evaluate_command.command("transfer")
@tasks_option(TRANSFER_TASKS)
@choice(
    "--text",
    ("senteval", "natural"),
    "Text version: tokenized by SentEval, which determines the folds, or natural.",
)
@protocol_options
@model_options
def transfer_command(
    tasks: list[str], text: str, fast: bool, solver: str, data: Path | None, **shared: OptionValue
) -> None:
    """Compute the accuracy of a linear classifier on frozen embeddings, on 7 transfer tasks.

    The protocol is that of SentEval's code: nested 10-fold cross-validation, seed 1111, L2 from
    1e-5 to 1e-2, Adam, batch 64, early stopping. Its hundreds of small fits train together.

    \b
    Examples:
      simcse evaluate transfer --fast
      simcse evaluate transfer runs/nli/best mini --tasks cr,trec,mrpc
      simcse evaluate transfer mini --solver lbfgs --output transfer
    """
    from simcse.evaluate.classifier import choose_protocol
    from simcse.evaluate.suite import EvaluationSuite

    protocol = choose_protocol(fast=fast, solver=solver)
    suite = EvaluationSuite(transfer=load_transfer(tasks, text, data), protocol=protocol)
    options = {"text": text, "fast": fast, "solver": solver}
    run_suite(suite, {"options": options}, json_tables=1, **shared)


@evaluate_command.command("geometry")
@choice("--split", ("test", "dev"), "Split of STS-B to use.")
@path_option("--pairs", help="Positive pairs to use instead of STS-B.")
@click.option("--columns", help="Columns of --pairs, such as anchor,positive or 1,2.")
@path_option("--run", "runs", multiple=True, help="Run folder whose training is drawn as a line.")
@model_options
def geometry_command(
    split: str,
    pairs: Path | None,
    columns: str | None,
    runs: tuple[Path, ...],
    data: Path | None,
    **shared: OptionValue,
) -> None:
    """Compute alignment, uniformity, mean cosine, spectrum and hubness.

    By the paper's protocol: positives are STS-B pairs rated above 4, everything else is over all
    STS-B sentences. With 95 % bootstrap intervals; --output draws the figures.

    \b
    Examples:
      simcse evaluate geometry mini sentence-transformers/all-MiniLM-L6-v2 --output geometry
      simcse evaluate geometry mini --pairs questions.tsv
      simcse evaluate geometry runs/mine/best --run runs/mine --output geometry
    """
    from simcse.evaluate.geometry import positive_pairs
    from simcse.evaluate.suite import EvaluationSuite
    from simcse.io.benchmarks import load_sts_task
    from simcse.report.runs import run_trajectory

    if pairs:
        task = positive_pairs(pairs, read_pairs_file(pairs, columns))
    else:
        task = load_sts_task(f"stsb-{split}", folder=data)
    trajectories = [run_trajectory(run) for run in runs]
    suite = EvaluationSuite(sts={} if pairs else {"stsb": task}, geometry=task)
    options = {"split": split, "pairs": str(pairs or "")}
    values = {"options": options, "trajectories": trajectories}
    run_suite(suite, values, show_sts=False, **shared)  # only the figure of their cosines is shown


@evaluate_command.command("retrieval")
@path_option("--pairs", multiple=True, help="File with a query and its document in each row.")
@path_option(
    "--groups",
    multiple=True,
    help="File with two equivalent sentences in each row; rows that share one form a group.",
)
@click.option(
    "--set",
    "sets",
    multiple=True,
    type=click.Choice(KNOWN_SETS),
    help="Known set of groups: captions of one image, or duplicate questions.",
)
@click.option("--columns", help="Columns of the files, such as query,document or 1,2.")
@click.option(
    "--limit",
    type=click.IntRange(min=2),
    default=10_000,
    show_default=True,
    help="Number of rows to read from the start of each file.",
)
@click.option(
    "--at", "k", type=int, default=10, show_default=True, help="Cut-off k of recall and nDCG."
)
@model_options
def retrieval_command(
    pairs: tuple[Path, ...],
    groups: tuple[Path, ...],
    sets: tuple[str, ...],
    columns: str | None,
    limit: int,
    k: int,
    data: Path | None,
    **shared: OptionValue,
) -> None:
    """Compute MRR, recall and nDCG of exact search by cosine, on pairs or on groups.

    A query's documents are ranked among all documents of the file; a sentence of a group is a
    query for the others of its group among all other sentences.

    \b
    Examples:
      simcse evaluate retrieval mini --pairs questions_and_answers.tsv
      simcse evaluate retrieval mini runs/mine/best --set captions --set quora --limit 5000
      simcse evaluate retrieval --groups duplicates.csv --columns question1,question2 --at 5
    """
    from simcse.evaluate.retrieval import groups_set, pairs_set
    from simcse.evaluate.suite import EvaluationSuite
    from simcse.io.benchmarks import retrieval_file
    from simcse.io.files import sha256_file

    known = {name: retrieval_file(name, data) for name in sets}
    if not (pairs or groups or known):
        raise click.UsageError("there are no documents to search: pass --pairs, --groups or --set")
    found = [pairs_set(path.name, read_pairs_file(path, columns, limit)) for path in pairs]
    found += [groups_set(path.name, read_pairs_file(path, columns, limit)) for path in groups]
    found += [groups_set(name, read_pairs_file(path, "1,2", limit)) for name, path in known.items()]
    suite = EvaluationSuite(retrieval=found, k=k)
    files = {path.name: sha256_file(path) for path in (*pairs, *groups, *known.values())}
    run_suite(suite, {"data": files, "options": {"limit": limit, "k": k}}, **shared)


@evaluate_command.command("all")
@natural_text
@sts_options
@protocol_options
@model_options
def all_command(
    text: str,
    split: str,
    sickr: str,
    aggregation: str,
    fast: bool,
    solver: str,
    data: Path | None,
    **shared: OptionValue,
) -> None:
    """Compute STS, transfer and geometry of models from one pass of encoding.

    --text applies to the STS tasks. The transfer tasks always use SentEval's text, which determines
    the folds. --output writes a self-contained page (report.html) and the same results as
    results.json, results.md and results.tex. Every further model is compared with the first.

    \b
    Examples:
      simcse evaluate all mini --fast --output evaluation
      simcse evaluate all mini mini-whitened --output before-and-after
      simcse evaluate all --encoder mine:encode --output mine
    """
    from simcse.evaluate.classifier import choose_protocol
    from simcse.evaluate.suite import EvaluationSuite

    rated = load_sts(list(STS_TASKS), split, sickr, text, data)
    labeled = load_transfer(list(TRANSFER_TASKS), "senteval", data)
    protocol = choose_protocol(fast=fast, solver=solver)
    suite = EvaluationSuite(sts=rated, transfer=labeled, protocol=protocol, geometry=rated["stsb"])
    options = {"split": split, "sickr": sickr, "text": text, "fast": fast, "solver": solver}
    run_suite(suite, {"aggregation": aggregation, "options": options}, **shared)


@evaluate_command.command("isotropy")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@path_option(
    "--run",
    "runs",
    multiple=True,
    help="Run folder whose evaluations were all saved, by eval.save_all=true.",
)
@click.option(
    "--temperature",
    type=float,
    help="Divisor of the cosine; the default is that of the run, and 0.05 for a model.",
)
@choice("--split", ("test", "dev"), "Split of STS-B whose sentences are used.")
@data_option
@report_option
@precision_option("fp32")
@loading_options
@format_option
def isotropy_command(
    models: tuple[str, ...],
    runs: tuple[Path, ...],
    temperature: float | None,
    split: str,
    data: Path | None,
    output: Path | None,
    form: str,
    **loading: OptionValue,
) -> None:
    """Check each step of the paper's argument for isotropy, for models and along a training.

    The contrastive loss's second term (log-mean-exp of the cosines over the temperature) bounds
    the mean cosine; m times that is at most the largest eigenvalue of the matrix of cosines, and
    where none is negative their sum is at least that eigenvalue. So a lower loss should lower the
    largest eigenvalue. The table shows for each inequality whether it holds, and for --run whether
    the eigenvalue falls.

    \b
    Examples:
      simcse evaluate isotropy mini
      simcse train --train text.txt --output runs/mine eval.save_all=true eval.every=50
      simcse evaluate isotropy --run runs/mine --output isotropy
    """
    from simcse.evaluate.isotropy import Isotropy, isotropy_bound
    from simcse.io.benchmarks import load_sts_task
    from simcse.io.settings import read_toml
    from simcse.report.isotropy import IsotropyEvaluation
    from simcse.report.runs import saved_evaluations
    from simcse.train.callbacks import EVALUATIONS, SETTINGS

    task = load_sts_task(f"stsb-{split}", folder=data)
    sentences = list(dict.fromkeys((*task.first, *task.second)))
    saved = {run: saved_evaluations(run / EVALUATIONS) for run in runs}

    def bound(name: str, divisor: float) -> Isotropy:
        encoder = load_encoder(name, **loading)
        vectors = encoder.encode(sentences, truncation="truncate", progress=True)
        return isotropy_bound(vectors, temperature=divisor)

    names = models or (() if runs else ("mini",))
    by_model = {name: bound(name, temperature or TEMPERATURE) for name in names}
    by_run = {}
    for run, folders in saved.items():
        divisor = temperature or float(read_toml(run / SETTINGS)["loss"]["temperature"])
        by_run[run.name] = {step: bound(str(folder), divisor) for step, folder in folders.items()}
    found = IsotropyEvaluation(by_model, by_run)
    show_all(found.tables(), form)
    if output is not None:
        found.write(output)
        click.echo(f"results and report: {output}", err=True)
