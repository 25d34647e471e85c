"""PowerInfer's counts of firings as a firing profile: `activation/activation_{layer}.pt` beside a model, one vector [N] a layer.

The files are read by layer number; in the order of their names, layer 10 would come before layer 2, and get its counts. What the
counts were taken over is not told, nor how many tokens it was: the hottest neuron of all is taken to have fired at every one, so
rates are at most too high, and the order, which is what placement goes by first, is that of the file. Halves of
a text there are none. Where gate and up are both activated (Bamboo), how often the gate alone passes is not told either, and is taken
to be how often the neuron fires.
"""

import re
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.checkpoint.archive import read_members
from models.errors import BadCheckpoint
from models.manifest import Manifest
from profiles.firing import FiringProfile

FOLDER = "activation"
NAME = re.compile(r"activation_(0|[1-9]\d{0,8})\.pt")
ROOM_BYTES = 1 << 16  # of a file beside its numbers
OF_FREQUENCIES = 1_000_000  # tokens that shares of them are turned into counts over
MOST_COUNT = 2**32 - 1
WHY = "counts by PowerInfer's profiler, over a text and a number of tokens that it does not tell"


def activation_folder(manifest: Manifest) -> Path | None:
    """The folder of counts beside what a model was packed from, or None; another folder of that name has no first layer's."""
    source = Path(manifest.source)
    folder = (source.parent if source.is_file() else source) / FOLDER
    return folder if (folder / "activation_0.pt").is_file() else None


def read_activation(folder: Path, manifest: Manifest) -> FiringProfile:
    """BadCheckpoint names the file that is missing, too many, or not counts of this model's neurons."""
    spec = manifest.spec
    if spec.n_experts > 1:
        raise BadCheckpoint(folder, "counts neurons of layers, and this model has them in experts")
    paths = layer_files(folder)
    if missing := sorted(set(range(spec.n_layers)) - paths.keys())[:1]:
        raise BadCheckpoint(folder, f"has no activation_{missing[0]}.pt, and the model has {spec.n_layers} layers")
    if strange := sorted(paths.keys() - set(range(spec.n_layers)))[:1]:
        raise BadCheckpoint(paths[strange[0]], f"is of a layer that the model does not have: its last is {spec.n_layers - 1}")
    counts = np.stack([read_counts(paths[layer], spec.n_neurons) for layer in range(spec.n_layers)])
    fired, tokens = as_firings(counts)
    routed = np.full(spec.n_layers, tokens, np.uint32)
    return FiringProfile(fired, fired, routed, tokens, np.zeros_like(fired), manifest.fingerprint, WHY)


def layer_files(folder: Path) -> dict[int, Path]:
    """By layer number."""
    found = ((NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return {int(match[1]): path for match, path in found if match is not None}


def read_counts(path: Path, neurons: int) -> NDArray[np.float64]:
    """float64 [N] of one file: finite, none below zero."""
    if path.stat().st_size > 8 * neurons + ROOM_BYTES:
        raise BadCheckpoint(path, f"is too large for the counts of {neurons} neurons")
    read_members(path)  # says whether it is an archive whose parts are as large as they claim
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what its parts raise
        raise BadCheckpoint(path, f"cannot be read without running it ({type(error).__name__})") from None
    is_vector = isinstance(loaded, torch.Tensor) and loaded.layout == torch.strided and tuple(loaded.shape) == (neurons,)
    if not is_vector or loaded.is_complex() or loaded.is_quantized:
        raise BadCheckpoint(path, f"is not a vector of {neurons} counts, one for each neuron of the model")
    counts: NDArray[np.float64] = loaded.double().numpy()
    if not np.all(np.isfinite(counts) & (counts >= 0)):
        raise BadCheckpoint(path, "holds counts that are below zero or no numbers")
    return counts


def as_firings(counts: NDArray[np.float64]) -> tuple[NDArray[np.uint32], int]:
    """Counts, or shares of tokens, [L, N] -> whole counts, and the tokens they are over."""
    most = float(counts.max(initial=0.0))
    are_shares = bool(most <= 1.0 and np.any(counts != np.round(counts)))
    scale = OF_FREQUENCIES if are_shares else min(1.0, MOST_COUNT / max(most, 1.0))
    fired = np.round(counts * scale).astype(np.uint32)
    return fired, OF_FREQUENCIES if are_shares else int(fired.max(initial=0))
