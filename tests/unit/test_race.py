"""Races: turns, processes, ratios, and peers that do the same work as we do."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from simcse.bench import encode, exported, quality, train
from simcse.bench.outcome import agreements, race_results, race_table
from simcse.bench.race import System, Timing, race, ratios
from simcse.bench.roofline import Roofline
from simcse.errors import ResourceError, UsageError
from simcse.io.benchmarks import read_sts
from simcse.model.settings import ModelSettings
from simcse.report.tables import to_markdown

CONTESTANTS = """
import sys, time, pathlib

def writer(name, log, fails_at=None):
    count = 0
    def work():
        nonlocal count
        count += 1
        print("noise on stdout")
        if count == fails_at:
            sys.exit(7)
        with pathlib.Path(log).open("a") as file:
            file.write(name)
        return [[1.0, 2.0]]
    return work

def missing(**_):
    import a_package_that_nobody_has

def refusing(**_):
    from simcse.errors import UsageError
    raise UsageError("not with this model")

class pupil:
    def __init__(self, log, name, gain):
        self.log, self.name, self.gain, self.level = pathlib.Path(log), name, gain, 0.0
    def __call__(self):
        with self.log.open("a") as file:
            file.write(self.name)
        self.level += self.gain
    def score(self):
        return self.level

def sleeper(seconds, weight):
    def work():
        time.sleep(seconds)
        return len(bytearray(b"x") * weight)
    return work
"""


@pytest.fixture
def systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of systems that the workers find."""
    (tmp_path / "contestants_of_this_test.py").write_text(CONTESTANTS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "log"


def of_test(shown: str, function: str, warm_up: int = 2, **arguments: object) -> System:
    return System(shown, f"contestants_of_this_test:{function}", arguments, warm_up)


def test_contestants_work_in_turns_after_warming_up(systems: Path) -> None:
    entered = [
        of_test("A", "writer", name="a", log=str(systems)),
        of_test("-", "missing", name="-"),
        of_test("B", "writer", name="b", log=str(systems)),
    ]
    first, missing, second = race(entered, rounds=3)
    assert systems.read_text() == "aabb" + "ab" * 3
    assert len(first.seconds) == len(second.seconds) == 3
    assert first.result == [[1.0, 2.0]]
    assert min(first.peak_mib, second.peak_mib) > 1
    assert missing.seconds == ()
    assert "a_package_that_nobody_has" in missing.missing


def test_time_and_memory_are_the_work_s(systems: Path) -> None:
    entered = [
        of_test("long", "sleeper", seconds=0.2, weight=0),
        of_test("large", "sleeper", seconds=0, weight=200 * 2**20),
    ]
    long, large = race(entered, rounds=1)
    assert long.median >= 0.2
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not say a process's peak memory")
    assert large.peak_mib >= long.peak_mib + 190


def test_a_contestant_that_dies_is_named(systems: Path) -> None:
    dying = of_test("dying", "writer", name="a", log=str(systems), fails_at=4)
    with pytest.raises(ResourceError, match="dying ended with exit code 7"):
        race([dying], rounds=5)


def test_a_contestant_that_cannot_do_the_work_is_left_out(systems: Path) -> None:
    able = of_test("able", "writer", name="a", log=str(systems))
    told: list[str] = []
    _, refusing = race([able, of_test("-", "refusing", name="-")], rounds=1, observe=told.append)
    assert refusing.missing == "not with this model"
    assert "left out: -: not with this model" in told


def test_peers_that_pool_otherwise_are_refused(make_encoder, tmp_path: Path) -> None:
    make_encoder(ModelSettings("cls", max_length=16)).save(tmp_path / "cls")
    with pytest.raises(UsageError, match="pool by the mean alone"):
        encode.mean_encoder(str(tmp_path / "cls"), 16)


def test_ratios_are_taken_round_by_round() -> None:
    ours = Timing("ours", (1.0, 2.0, 4.0), 10.0, [[1.0, 0.0]])
    peer = Timing("peer", (3.0, 4.0, 4.0), 20.0, [[1.0, 1.0]])
    absent = Timing("absent", missing="no such package")
    assert ratios(ours, peer) == [3.0, 2.0, 1.0]
    agreement = agreements([ours, peer, absent], encode.lowest_cosine)
    assert agreement == [1.0, pytest.approx(math.sqrt(0.5)), None]
    table = to_markdown(race_table("work", [ours, peer, absent], agreement))
    assert "absent" not in table
    assert "peer 4.000 3.000 2.00 1.00 3.00 20 0.70711" in " ".join(table.replace("|", "").split())
    results = race_results([ours, peer, absent], agreement)
    assert results["peer"]["ratios"] == [3.0, 2.0, 1.0]
    assert results["absent"] == {"missing": "no such package"}
    with pytest.raises(ResourceError, match="absent did not start: no such package"):
        race_table("work", [absent, ours], [None, None])


def test_lowest_cosine_is_of_the_worst_row() -> None:
    first = [[1.0, 0.0], [0.0, 2.0]]
    assert encode.lowest_cosine(first, [[2.0, 0.0], [3.0, 3.0]]) == pytest.approx(math.sqrt(0.5))


def test_a_roofline_by_hand() -> None:
    text = str(Roofline(flops=2e12, seconds=4.0, rate=1e12, precision="bf16"))
    assert text.startswith("2000.0 GFLOP in linear layers at 500 GFLOP/s: 50% of the 1000 GFLOP/s")


def test_peers_encode_the_same_embeddings(tiny_model_folder: Path, sentences: list[str]) -> None:
    options = {"max_length": 16, "repeats": 2}
    ours = encode.ours(str(tiny_model_folder), sentences, precision="fp32", **options)()
    theirs = encode.sentence_transformers(str(tiny_model_folder), sentences, **options)()
    assert np.shape(ours) == np.shape(theirs)
    assert encode.lowest_cosine(ours, theirs) > 0.99999


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_other_runtimes_encode_the_same_embeddings(
    tiny_model_folder: Path, sentences: list[str], runtime: str
) -> None:
    pytest.importorskip({"onnx": "onnxruntime"}.get(runtime, runtime))
    model, options = str(tiny_model_folder), {"max_length": 16, "repeats": 2}
    ours = encode.ours(model, sentences, precision="fp32", **options)()
    exact = {**options, "runtime": runtime, "dtype": "fp32"}
    theirs = exported.encode(model, sentences, **exact)()
    assert np.shape(ours) == np.shape(theirs)
    assert encode.lowest_cosine(ours, theirs) > 0.99999


def test_a_model_that_cannot_be_exported_is_left_out(sentences: list[str]) -> None:
    options = {"max_length": 16, "repeats": 1, "runtime": "onnx", "dtype": "fp32"}
    with pytest.raises(ResourceError, match="nowhere"):
        exported.encode("nowhere", sentences, **options)


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_peers_take_the_same_step(
    tiny_model_folder: Path, sentences: list[str], columns: int
) -> None:
    """At dropout 0 losses are equal, step after step: of sentences, pairs and hard negatives."""
    folder, options = str(tiny_model_folder), {"max_length": 16, "dropout": 0.0, "lr": 1e-4}
    rows = [[*sentences[i:], *sentences[:i]][:columns] for i in range(8)]

    def losses(trainee: train.TrainingRun) -> list[float]:
        return [trainee.update(rows[start : start + 4]) for start in (0, 4, 0, 4)]

    steps = losses(train.ours(folder, precision="fp32", **options))
    assert losses(train.reference(folder, **options)) == pytest.approx(steps, rel=1e-4)
    assert losses(train.sentence_transformers(folder, **options)) == pytest.approx(steps, rel=0.1)
    assert len({round(step, 4) for step in steps}) > 1


@pytest.mark.parametrize("how", train.TRAINEES)
def test_a_trainee_s_embeddings_are_those_of_its_model_now(
    tiny_model_folder: Path, sentences: list[str], how: str
) -> None:
    more = {"precision": "fp32"} if how == "ours" else {}
    options = {"max_length": 32, "dropout": 0.0, "lr": 1e-2, **more}
    trainee = train.TRAINEES[how](str(tiny_model_folder), **options)
    start = encode.mean_encoder(str(tiny_model_folder), 32).encode(sentences)
    before = trainee.encode(sentences)
    assert encode.lowest_cosine(start, before) > 0.99999
    trainee.update([[sentence] for sentence in sentences[:4]])
    assert encode.lowest_cosine(before, trainee.encode(sentences)) < 0.999


def test_who_has_reached_the_target_rests(systems: Path) -> None:
    fast, slow = (
        of_test(name, "pupil", warm_up=0, log=str(systems), name=name[0], gain=gain)
        for name, gain in (("fast", 2.0), ("slow", 1.0))
    )
    timings = race([fast, slow], rounds=9, target=4.0)
    assert systems.read_text() == "fsfsss"
    assert [timing.scores for timing in timings] == [(2.0, 4.0), (1.0, 2.0, 3.0, 4.0)]
    first, second = timings
    assert quality.seconds_to(second, 3.0) == sum(second.seconds[:3])
    assert quality.seconds_to(first, 5.0) is None
    table = to_markdown(quality.quality_table(timings, 4.0, steps=10))
    assert "| fast " in table
    ratio = sum(second.seconds) / sum(first.seconds)
    assert f"{ratio:.2f}" in table


def test_a_lesson_takes_its_steps(
    tiny_model_folder: Path,
    sentences: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs = [("a", float(i), text, f"the {text}") for i, text in enumerate(["man", "dog", "cat"])]
    path = tmp_path / "dev.tsv"
    path.write_text("".join("\t".join(map(str, pair)) + "\n" for pair in pairs))
    task = read_sts(path)
    monkeypatch.setattr(quality, "load_sts_task", lambda name: task)
    rows = [[sentence] for sentence in sentences]
    (entered, *_) = quality.systems(
        str(tiny_model_folder), rows, batch=2, steps=3, max_length=32, lr=1e-3
    )
    assert entered.warm_up == 0
    lesson = quality.Lesson(**entered.arguments)
    before = lesson.trainee.encode(sentences)
    lesson()
    assert encode.lowest_cosine(before, lesson.trainee.encode(sentences)) < 0.99999
    assert -100 <= lesson.score() <= 100


def test_every_contestant_can_be_told_to_a_worker() -> None:
    entered = [
        *encode.systems("mini", ["a"], max_length=8, repeats=1),
        *train.systems("mini", ["a"], batch=2, max_length=8, dropout=None),
        *quality.systems("mini", [["a"]], batch=2, steps=1, max_length=8, lr=1e-4),
    ]
    for system in entered:
        module, function = system.factory.split(":")
        assert callable(getattr(sys.modules[module], function))
        json.dumps(system.arguments)
