"""Known scores of all-MiniLM-L6-v2, the reference of `simcse evaluate --self-test`."""

from dataclasses import dataclass

from simcse.evaluate.suite import ModelEvaluation

# Encoded by an independent implementation (mean pooling, fp32) and scored by scipy; the published
# values of MTEB agree within 0.013. SICK-R all is MTEB's task of all 9,927 pairs.
STS_REFERENCE = {
    "sts12": 72.3699,
    "sts13": 80.5988,
    "sts14": 75.6008,
    "sts15": 85.3888,
    "sts16": 78.9859,
    "stsb": 82.0290,
    "sickr": 77.1469,
    "sickr-all": 77.5825,
}
STS_TOLERANCE = {"stsb": 0.02, "sickr": 0.02, "sickr-all": 0.02}
STS_DEFAULT_TOLERANCE = 0.05

# SentEval's own code, its classifier moved to the CPU, on the same embeddings: fast protocol.
TRANSFER_REFERENCE = {
    "mr": 76.07,
    "cr": 81.75,
    "subj": 92.20,
    "mpqa": 87.52,
    "sst2": 81.55,
    "trec": 90.20,
    "mrpc": 72.29,
}
TRANSFER_TOLERANCE = 0.3  # the order of random draws


@dataclass(frozen=True, slots=True)
class ReferenceCheck:
    """One task's expected and found score, x100."""

    task: str
    expected: float
    found: float | None
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the two differ by at most the tolerance."""
        return self.found is not None and abs(self.found - self.expected) <= self.tolerance


def check_reference_scores(evaluation: ModelEvaluation) -> list[ReferenceCheck]:
    """Compare an evaluation of all-MiniLM-L6-v2 with its known scores, task by task."""
    checks = []
    for task, expected in STS_REFERENCE.items():
        found = evaluation.sts[task].spearman() if task in evaluation.sts else None
        tolerance = STS_TOLERANCE.get(task, STS_DEFAULT_TOLERANCE)
        checks.append(ReferenceCheck(task, expected, found, tolerance))
    for task, expected in TRANSFER_REFERENCE.items():
        found = evaluation.transfer[task].accuracy if task in evaluation.transfer else None
        checks.append(ReferenceCheck(task, expected, found, TRANSFER_TOLERANCE))
    return checks
