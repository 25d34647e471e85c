"""A firing profile as a picture: how few neurons make most of the firings, layer by layer. Draws without a display."""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from models.paths import whole_file
from profiles.firing import FiringProfile
from profiles.report import FIRINGS, FIRINGS_SHOWN, HOT_SHOWN, Heat, n_layers, percent

POINTS = 500  # of a curve; more cannot be seen
COLOURS = colormaps["viridis"].resampled(256)
DARK, GREY, WARM, COLD = "#222222", "#999999", "#d1495b", "#30638e"


def draw(profile: FiringProfile, path: Path) -> None:
    """Writes a PNG: the curves on the left; sparsity, and the stability of the hot set, per layer on the right."""
    layers, whole = Heat.of(profile, n_layers(profile)), Heat.of(profile, 1)
    figure = Figure(figsize=(12, 5.4), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplot_mosaic([["curves", "sparsity"], ["curves", "stability"]], width_ratios=(1.2, 1))
    draw_curves(axes["curves"], layers, whole)
    draw_sparsity(axes["sparsity"], layers, whole)
    draw_stability(axes["stability"], layers)
    figure.suptitle(f"{profile.tokens:,} tokens of {shortened(profile.corpus)}", color=GREY, fontsize=9)
    with whole_file(path) as part:
        canvas.print_figure(part, format="png", dpi=150)


def shortened(text: str, most: int = 120) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def draw_curves(axes: Axes, layers: Heat, whole: Heat) -> None:
    rows = len(layers.curves)
    tint = Normalize(0, max(rows - 1, 1))
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":", label="every neuron alike")
    for row, curve in enumerate(layers.curves):
        axes.plot(*points(curve), color=COLOURS(tint(row)), linewidth=1.2)
    skew = float(whole.skew[0])
    axes.plot(*points(whole.curves[0]), color=DARK, linewidth=2.2, label=f"whole model: {percent(skew)} make {FIRINGS_SHOWN}")
    if not np.isnan(skew):
        axes.plot([0, skew, skew], [FIRINGS, FIRINGS, 0], color=DARK, linewidth=0.9, linestyle="--")
    decorate(axes, "Share of firings made by the hottest neurons", "share of neurons, hottest first", "share of firings")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.legend(loc="lower right", edgecolor="none", framealpha=0.9)
    if rows > 1:
        bar = axes.figure.colorbar(ScalarMappable(tint, COLOURS), ax=axes, shrink=0.7, ticks=MaxNLocator(integer=True, nbins=6))
        bar.set_label("layer")
        bar.outline.set_visible(False)


def points(curve: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x, y of a cumulative curve from (0, 0), thinned to what can be seen."""
    places = np.unique(np.linspace(0, len(curve), min(POINTS, len(curve) + 1)).round().astype(np.int64))
    return places / len(curve), np.concatenate(([0.0], curve))[places]


def draw_sparsity(axes: Axes, layers: Heat, whole: Heat) -> None:
    axes.bar(np.arange(len(layers.sparsity)), layers.sparsity, width=0.8, color=COLD)
    axes.axhline(float(whole.sparsity[0]), color=DARK, linewidth=0.9, linestyle="--")
    decorate(axes, f"Neurons silent at a token: {percent(float(whole.sparsity[0]))} in the whole model", "", "sparsity")
    axes.set(ylim=(0, 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def draw_stability(axes: Axes, layers: Heat) -> None:
    places = np.arange(len(layers.overlap))
    axes.plot(places, layers.coverage, "o-", color=WARM, markersize=4, linewidth=1.2, label=f"firings that the hottest {HOT_SHOWN} serve")
    axes.plot(places, layers.overlap, "s-", color=COLD, markersize=4, linewidth=1.2, label=f"hottest {HOT_SHOWN} shared by both halves")
    decorate(axes, "Hot set of one half of the text, seen from the other", "layer", "share")
    axes.set(ylim=(0, 1.03))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend(loc="lower right", edgecolor="none", framealpha=0.9)


def decorate(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.set(xlabel=x, ylabel=y)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
