"""Figures: PNG, deterministic, and calm about missing values and odd names."""

import sys

import numpy as np
import pytest

from simcse.report.plots import (
    Curve,
    PlanePoint,
    alignment_uniformity_plane,
    bars,
    cosine_histogram,
    curves,
)

NAN = float("nan")
ODD = ["_hidden", r"cost $\frac{$", "a/very/long/path/to/a/model/folder/best-of-them"]


def is_png(data):
    return data.startswith(b"\x89PNG\r\n\x1a\n") and data.rstrip().endswith(b"IEND\xaeB`\x82")


def long_curve():
    return Curve("loss", range(1000), np.random.default_rng(0).random(1000).tolist())


@pytest.mark.parametrize(
    "line",
    [
        Curve("one point", [250], [70.0]),
        Curve("gaps", [1, 2, 3, 4], [1.0, None, NAN, float("inf")]),
        Curve("nothing known", [1, 2], [None, None]),
        Curve("no point", [], []),
        long_curve(),
        Curve(
            "long with gaps", range(1000), [None if at % 100 < 50 else 1.0 for at in range(1000)]
        ),
    ],
    ids=lambda line: line.label,
)
def test_curves(line):
    assert is_png(curves([line], title="STS-B dev", best_step=250))


def test_several_curves_with_odd_names():
    lines = [Curve(name, [1, 2, 3], [0.1, 0.2, 0.3]) for name in ODD * 3]  # more than the palette
    assert is_png(curves(lines, title="_$a$"))


@pytest.mark.parametrize(
    "points",
    [
        [],
        [PlanePoint("alone", 0.2, -2.0)],
        [PlanePoint("collapsed", 0.0, 0.0, None), PlanePoint("good", 0.2, -2.5, 76.25)],
        [PlanePoint(name, 0.2, -2.0, 70.0, before=(0.2, -1.0)) for name in ODD],  # all on one spot
    ],
    ids=len,
)
def test_plane(points):
    assert is_png(alignment_uniformity_plane(points))


def test_histogram_takes_constants_and_rounding_beyond_one():
    assert is_png(cosine_histogram({"before": [1.0, 1.0000001], "after": [-1.0, 0.0, 0.5]}))


def test_bars_take_missing_and_negative_values():
    groups = {"before": [45.09, None], "_after $x$": [-2.5, 0.0]}
    assert is_png(bars(["STS12", "_SICK-R"], groups, title="STS"))


def test_the_same_figure_has_the_same_bytes():
    png = curves([long_curve()], title="Loss")
    assert png == curves([long_curve()], title="Loss")
    assert b"Software" not in png  # matplotlib's version does not change the bytes


def test_no_global_state_is_used():
    curves([long_curve()], title="Loss")
    assert "matplotlib.pyplot" not in sys.modules
