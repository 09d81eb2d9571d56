"""Known answers: what all-MiniLM-L6-v2 must score here, so that other numbers can be trusted."""

from dataclasses import dataclass

from simcse.evaluate.measure import ModelEvaluation

# Encoded by an independent implementation (mean pooling, fp32) and scored by scipy; the published
# values of MTEB agree within 0.013. SICK-R all is MTEB's task of all 9,927 pairs.
STS_ANSWERS = {
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
STS_OTHERS = 0.05

# SentEval's own code, its classifier moved to the CPU, on the same embeddings: fast protocol.
TRANSFER_ANSWERS = {
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
class Answer:
    """One task's expected score and the one that came out, x100."""

    task: str
    expected: float
    got: float | None
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether the two are as near as they must be."""
        return self.got is not None and abs(self.got - self.expected) <= self.tolerance


def known_answers(measured: ModelEvaluation) -> list[Answer]:
    """Compare what was measured of all-MiniLM-L6-v2 with what is known, task by task."""
    answers = [
        Answer(
            task,
            expected,
            measured.sts[task].spearman() if task in measured.sts else None,
            STS_TOLERANCE.get(task, STS_OTHERS),
        )
        for task, expected in STS_ANSWERS.items()
    ]
    for task, expected in TRANSFER_ANSWERS.items():
        found = measured.transfer.get(task)
        got = None if found is None else found.accuracy
        answers.append(Answer(task, expected, got, TRANSFER_TOLERANCE))
    return answers
