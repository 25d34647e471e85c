"""A placement as a picture: for each layer the share of its neurons on the GPU, and the share of its firings they make."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from models.paths import whole_file
from models.units import format_rate
from placement.artefact import Placement


def draw(plan: Placement, path: Path) -> None:
    """Writes a PNG."""
    figure = Figure(figsize=(max(6.0, 2.0 + 0.2 * plan.n_layers), 4.0), layout="constrained")
    FigureCanvasAgg(figure)  # draws into memory: no window, no display
    axes = figure.add_subplot()
    layers = np.arange(plan.n_layers)
    neurons = 100.0 * np.array(plan.hot_of_layer) / (plan.n_experts * plan.n_neurons)
    axes.bar(layers - 0.2, neurons, width=0.4, color="#c0392b", label="of its neurons")
    axes.bar(layers + 0.2, 100.0 * np.array(plan.served), width=0.4, color="#e8a87c", label="of its firings")
    axes.set(xlabel="layer", ylabel="share on the GPU, %", ylim=(0, 105), xlim=(-0.6, plan.n_layers - 0.4))
    axes.set_title(f"{plan.model}, {plan.question.format}: {format_rate(plan.expected.tokens_per_second)} tokens/s expected")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=2)
    with whole_file(path) as part:
        figure.savefig(part, format="png")
