"""A GGUF file's tensors as a model's: one a matrix, in the places that the family's own files have them. Torch-free.

Three things lie otherwise in GGUF. Experts are one tensor of three dimensions (in older files they have numbers instead).
LLaMA's queries and keys have the two halves of a head interleaved. And PowerInfer writes the down projection turned, as
`ffn_down_t`, so that a neuron's weights are a row.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from models.checkpoint.gguf import Stored
from models.errors import BadCheckpoint

NUMBERED = re.compile(r"(blk\.\d+\.ffn_(?:gate|up|down))\.(\d+)\.weight")  # as experts were written in early 2024
TURNED = re.compile(r"(blk\.\d+\.ffn_down)_t\.(weight|bias)")
PAIRED = re.compile(r"blk\.\d+\.attn_([qk])\.(?:weight|bias)")


@dataclass(frozen=True, slots=True)
class View:
    """A matrix [n, k], or a vector: rows `first` … of `stored`.

    `heads`: its rows are those of so many heads, each with its halves interleaved. `turned`: the file has its columns as rows.
    """

    stored: Stored
    first: int
    shape: tuple[int, ...]
    heads: int | None = None
    turned: bool = False


def views_of(tensors: Mapping[str, Stored]) -> dict[str, View]:
    """Every matrix and vector of a file, by the name it would have alone; BadCheckpoint when two would have the same."""
    views: dict[str, View] = {}
    for name, stored in tensors.items():
        for own, view in _views(name, stored):
            if own in views:
                raise BadCheckpoint(stored.path, f"has tensor {own!r} in two forms")
            views[own] = view
    return views


def _views(name: str, stored: Stored) -> Iterator[tuple[str, View]]:
    if match := TURNED.fullmatch(name):
        view = View(stored, 0, stored.shape)
        yield f"{match[1]}.{match[2]}", turn(view) if match[2] == "weight" else view
    elif match := NUMBERED.fullmatch(name):
        yield f"{match[1]}_exps.weight[{int(match[2])}]", View(stored, 0, stored.shape)
    elif len(stored.shape) == 3:
        experts, rows, k = stored.shape
        for expert in range(experts):
            yield f"{name}[{expert}]", View(stored, expert * rows, (rows, k))
    else:
        yield name, View(stored, 0, stored.shape)


def turn(view: View) -> View:
    """The view of a matrix whose columns the file has as rows."""
    return replace(view, shape=view.shape[::-1], turned=True)


def downs_turned(views: Mapping[str, View], hidden: int, neurons: int) -> dict[str, View]:
    """The same, for files of SmallThinker: PowerInfer's converter can write the down projection turned without telling, so shapes tell."""
    return {
        name: turn(view) if ".ffn_down" in name and view.shape == (neurons, hidden) and neurons != hidden else view
        for name, view in views.items()
    }


def paired(views: Mapping[str, View], heads: int, kv_heads: int) -> dict[str, View]:
    """The same, with what is known of LLaMA's queries and keys."""
    own = dict(views)
    for name, view in views.items():
        if (match := PAIRED.fullmatch(name)) is not None:
            count = heads if match[1] == "q" else kv_heads
            if view.shape[0] % (2 * count):
                raise BadCheckpoint(view.stored.path, f"tensor {name!r} has {view.shape[0]} rows, which are not {count} heads")
            own[name] = replace(view, heads=count)
    return own
