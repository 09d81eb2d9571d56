"""Figures as PNG bytes. Each draws on its own `Figure`, never on pyplot's global state."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import FancyArrowPatch
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

DPI = 150
# Okabe and Ito 2008: distinct for color-blind readers
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("-", "--", ":")  # of lines beyond the palette
SOFT, GRID, PALE = "#5c6470", "#e4e7eb", "#b4bac2"
SMOOTHED = 200  # longer curves are drawn faint, under their running mean
MAX_LABEL = 32  # characters
RIDGE_COLUMNS = 3  # panels side by side
RIDGE_BINS = np.linspace(-1, 1, 81)
COSINE_BINS = np.linspace(-1, 1, 101)

Values = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Curve:
    """One metric over training: ``values`` at ``steps``; ``None`` and NaN leave a gap."""

    label: str
    steps: Sequence[int]
    values: Values


@dataclass(frozen=True, slots=True)
class PlanePoint:
    """A model in the alignment-uniformity plane."""

    label: str
    alignment: float
    uniformity: float
    score: float | None = None  # its STS average, which gives the point its color
    # alignment and uniformity of the model it was trained from, where known
    before: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Alignment and uniformity of a model during training."""

    label: str  # the run's name
    # alignment and uniformity, from the first evaluation to the last
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class RowPoints:
    """One row of a grid: our scores by seed, and the published one where there is one."""

    label: str
    ours: Sequence[float]
    theirs: float | None = None


def curves(lines: Sequence[Curve], *, title: str, best_step: int | None = None) -> bytes:
    """Draw curves over the training steps, with a dotted line at the best step."""
    figure, axes = _figure(title, width=4.6, height=2.9)
    for line, color in zip(lines, cycle(PALETTE), strict=False):
        _draw_curve(axes, line, color)
    if best_step is not None:
        axes.axvline(best_step, color=SOFT, linestyle=":", linewidth=1.5, zorder=1)
    axes.set_xlabel("step")
    if len(lines) > 1:
        axes.legend(frameon=False)
    return _png(figure)


def alignment_uniformity_plane(
    points: Sequence[PlanePoint], *, trajectories: Sequence[Trajectory] = ()
) -> bytes:
    """Draw models in the plane of figure 3 of Gao et al. 2021: both lower is better.

    Colors and numbers in brackets are STS averages; an arrow leads from a model's start, a line
    with dots follows a training.
    """
    figure, axes = _figure("Alignment and uniformity", width=5.6, height=4.2)
    for point in points:
        if point.before is not None:
            start, end = point.before[::-1], (point.uniformity, point.alignment)
            axes.scatter(*start, c="white", edgecolors=SOFT)
            axes.add_patch(
                FancyArrowPatch(
                    start, end, arrowstyle="->", color=PALE, mutation_scale=10, shrinkA=4, shrinkB=5
                )
            )
    for trajectory, color in zip(trajectories, cycle(PALETTE), strict=False):
        _draw_trajectory(axes, trajectory, color)
    axes.scatter(
        [point.uniformity for point in points],
        [point.alignment for point in points],
        c=_floats([point.score for point in points]),
        cmap=colormaps["cividis"].with_extremes(bad=PALE),
        plotnonfinite=True,
        s=70,
        edgecolors=SOFT,
        zorder=3,
    )
    axes.margins(0.2)
    axes.set_xlabel("uniformity (lower is better)")
    axes.set_ylabel("alignment (lower is better)")
    if len(trajectories) > 1:
        axes.legend(frameon=False)
    _spread_out(figure, [_draw_label(axes, point) for point in points])
    return _png(figure)


def spectrum(lines: Mapping[str, Sequence[float]]) -> bytes:
    """Draw singular values, the largest 1, as appendix F of Gao et al. 2021 does."""
    height = 3.4 + 0.2 * -(-len(lines) // 2)
    figure, axes = _figure("Singular values, largest = 1", width=5.6, height=height)
    for number, (label, values) in enumerate(lines.items()):
        axes.plot(
            np.arange(1, len(values) + 1),
            _floats(values),
            DASHES[number // len(PALETTE) % len(DASHES)],
            color=PALETTE[number % len(PALETTE)],
            linewidth=1.8,
            label=_label(label),
        )
    # Rounding leaves meaningless small values: an axis down to them would hide the others.
    axes.set_yscale("log")
    axes.set_ylim(1e-4, 1.5)
    axes.set_xlabel("direction, from the strongest")
    axes.set_ylabel("singular value")
    figure.legend(frameon=False, loc="outside lower center", ncols=2, fontsize=9)
    return _png(figure)


def rating_densities(models: Mapping[str, Mapping[str, Sequence[float]]]) -> bytes:
    """Draw each model's cosines by rating band, as Gao et al. 2021 do for STS-B.

    ``models`` gives each model its bands, from the lowest rating, and their cosines. A good model
    has narrow densities, further right the higher the rating.
    """
    columns = 2 if len(models) == 4 else min(len(models), RIDGE_COLUMNS)
    lines = -(-len(models) // columns)
    figure = _sheet("Cosines by rating", width=max(4.6, 2.8 * columns), height=0.5 + 3 * lines)
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    for spare in panels[len(models) :]:
        spare.set_axis_off()
    for axes, (label, bands) in zip(panels[: len(models)], models.items(), strict=True):
        _style(axes)
        axes.set_title(_label(label), fontsize=9)
        shades = colormaps["viridis_r"](np.linspace(0.1, 0.9, len(bands)))
        for level, (cosines, shade) in enumerate(zip(bands.values(), shades, strict=True)):
            _draw_ridge(axes, np.clip(cosines, -1, 1), level, shade)
        axes.set_yticks(np.arange(len(bands)), list(bands))
        axes.set_xlim(-0.5, 1.02)
    figure.supxlabel("cosine", fontsize=10)
    figure.supylabel("rating", fontsize=10)
    return _png(figure)


def cosine_histogram(groups: Mapping[str, Sequence[float]]) -> bytes:
    """Draw the distribution of each group's cosines, such as before and after training."""
    figure, axes = _figure("Cosines", width=5.6, height=3.2)
    for (label, cosines), color in zip(groups.items(), cycle(PALETTE), strict=False):
        inside = np.clip(cosines, -1, 1)  # rounding may leave a cosine just outside
        name = f"{_label(label)} (mean {inside.mean():.2f})"
        density, _ = np.histogram(inside, COSINE_BINS, density=True)
        axes.stairs(density, COSINE_BINS, fill=True, color=color, alpha=0.3)
        axes.stairs(density, COSINE_BINS, color=color, linewidth=1.5, label=name)
    axes.set_xlim(min(min(cosines) for cosines in groups.values()) - 0.05, 1.02)
    axes.set_xlabel("cosine")
    axes.set_ylabel("density")
    axes.set_ylim(top=axes.get_ylim()[1] * (1 + 0.12 * len(groups)))  # room for the legend
    axes.legend(frameon=False)
    return _png(figure)


def bars(metrics: Sequence[str], groups: Mapping[str, Values], *, title: str) -> bytes:
    """Draw a bar for each metric and group, such as before and after; ``None`` has a dash."""
    thickness = 0.8 / len(groups)
    height = 1 + 0.22 * len(groups) + 0.28 * len(groups) * len(metrics)
    figure, axes = _figure(title, width=5.6, height=height)
    for number, (label, values) in enumerate(groups.items()):
        drawn = axes.barh(
            np.arange(len(metrics)) + number * thickness,
            [value or 0 for value in values],
            thickness,
            label=_label(label),
            color=PALETTE[number % len(PALETTE)],
        )
        shown = ["–" if value is None else f"{value:.2f}" for value in values]
        axes.bar_label(drawn, shown, padding=3, fontsize=8)
    axes.set_yticks(np.arange(len(metrics)) + 0.4 - thickness / 2, map(_label, metrics))
    axes.invert_yaxis()
    axes.margins(x=0.15, y=0.02)
    axes.grid(visible=False, axis="y")
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    return _png(figure)


def row_points(rows: Sequence[RowPoints], *, title: str) -> bytes:
    """Draw one row below another: each seed faint, their mean, and the published score."""
    figure, axes = _figure(title, width=6.4, height=1.2 + 0.36 * len(rows))
    for number, row in enumerate(rows):
        axes.scatter(row.ours, [number] * len(row.ours), color=PALETTE[0], s=14, alpha=0.45)
    means = [sum(row.ours) / len(row.ours) for row in rows]
    axes.plot(means, range(len(rows)), "o", color=PALETTE[0], label="ours: mean, and each seed")
    if any(row.theirs is not None for row in rows):
        theirs = _floats([row.theirs for row in rows])
        axes.plot(theirs, range(len(rows)), "D", color=PALETTE[1], mfc="none", label="published")
    axes.set_yticks(range(len(rows)), [_plain(row.label) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.margins(x=0.08)
    figure.legend(frameon=False, loc="outside lower center", ncols=2, fontsize=9)
    return _png(figure)


def _figure(title: str, *, width: float, height: float) -> tuple[Figure, Axes]:
    figure = _sheet(title, width=width, height=height)
    axes = figure.add_subplot()
    _style(axes)
    return figure, axes


def _sheet(title: str, *, width: float, height: float) -> Figure:
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    figure = Figure(figsize=(width, height), dpi=DPI, layout=layout)
    figure.suptitle(_plain(title), fontsize=11, fontweight="bold", x=0.02, ha="left")
    return figure


def _style(axes: Axes) -> None:
    axes.grid(color=GRID)
    axes.set_axisbelow(True)
    axes.tick_params(colors=SOFT, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)


def _draw_trajectory(axes: Axes, trajectory: Trajectory, color: str) -> None:
    alignments, uniformities = zip(*trajectory.points, strict=True)
    axes.plot(uniformities, alignments, color=color, marker=".", label=_label(trajectory.label))
    axes.text(uniformities[0], alignments[0], " start", fontsize=8, color=SOFT, va="bottom")
    axes.scatter(uniformities[-1:], alignments[-1:], color=color, s=60, zorder=3)


def _draw_ridge(axes: Axes, cosines: NDArray[np.float64], level: int, color: object) -> None:
    """Draw one band's density on the baseline ``level``."""
    if not len(cosines):
        return
    counts, edges = np.histogram(cosines, RIDGE_BINS)
    # Two moving averages of three bins: the shape should not depend on where a bin begins.
    smooth = np.convolve(np.convolve(counts, np.full(3, 1 / 3), "same"), np.full(3, 1 / 3), "same")
    middles = (edges[1:] + edges[:-1]) / 2
    top = level + 0.85 * smooth / smooth.max()
    axes.fill_between(middles, level, top, color=color, alpha=0.75, linewidth=0, zorder=9 - level)
    median = float(np.median(cosines))
    axes.plot([median, median], [level, level + 0.25], color="black", linewidth=1.2, zorder=10)


def _draw_curve(axes: Axes, line: Curve, color: str) -> None:
    steps, values = np.asarray(line.steps), _floats(line.values)
    if len(values) <= SMOOTHED:
        axes.plot(steps, values, color=color, marker=".", linewidth=1.6, label=_label(line.label))
        return
    window = len(values) // 50
    means = np.convolve(values, np.full(window, 1 / window), mode="valid")
    axes.plot(steps, values, color=color, linewidth=0.6, alpha=0.3)
    middle = steps[window // 2 :][: len(means)]
    axes.plot(middle, means, color=color, linewidth=1.6, label=_label(line.label))


def _draw_label(axes: Axes, point: PlanePoint) -> Annotation:
    score = "" if point.score is None else f" ({point.score:.1f})"
    left, right = axes.get_xlim()
    is_right = point.uniformity > (left + right) / 2  # the label must stay inside the axes
    label = Annotation(
        _label(point.label) + score,
        xy=(point.uniformity, point.alignment),
        xytext=(-8 if is_right else 8, 0),
        textcoords="offset points",
        ha="right" if is_right else "left",
        va="center",
        fontsize=9,
        in_layout=False,  # a long label may be cropped, but never shrinks the axes
        path_effects=[withStroke(linewidth=3, foreground="white")],
    )
    axes.add_artist(label)
    return label


def _spread_out(figure: Figure, labels: Sequence[Annotation]) -> None:
    """Move each label down until it overlaps none of those above it."""
    figure.draw_without_rendering()
    placed: list[Bbox] = []
    for label in sorted(labels, key=lambda label: -label.get_window_extent().y1):
        box = label.get_window_extent()
        while any(box.overlaps(other) for other in placed):
            x, y = label.get_position()
            label.set_position((x, y - 3))
            box = label.get_window_extent()
        placed.append(box)


def _floats(values: Values) -> NDArray[np.float64]:
    """Return the values as an array, NaN where there is none or it is infinite."""
    numbers = np.array(values, dtype=np.float64)
    return np.where(np.isfinite(numbers), numbers, math.nan)


def _label(text: str) -> str:
    """Return a name or path for a legend; a long one is shortened to its end."""
    return _plain(text if len(text) <= MAX_LABEL else f"…{text[1 - MAX_LABEL :]}")


def _plain(text: str) -> str:
    """Escape ``$``, which matplotlib reads as mathematics, and ``_x``, a hidden label."""
    escaped = text.replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})  # the same bytes each time
    return buffer.getvalue()
