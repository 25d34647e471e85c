"""PowerInfer's predictor folders: `model_0.pt`, `model_1.pt`, … and `config.json` with the threshold. Knows one predictor a layer.

Each file is a dict of `fc1.weight` [r, H] and `fc2.weight` [N, r]; r may differ from layer to layer. What they score is the residual before
the FFN's norm, which in a parallel layer (Falcon) is the layer's input; a neuron counts where its score is at least the threshold.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from models.checkpoint.pytorch import map_tensors
from models.errors import BadCheckpoint
from models.foreign_json import read_json
from models.predictor import State
from models.spec import ModelSpec

FILE = re.compile(r"model_(\d{1,5})\.pt")
INWARD, OUTWARD = "fc1.weight", "fc2.weight"


class PredictorSource(Protocol):
    """Predictors in somebody else's files, one for every bank of a model."""

    @property
    def name(self) -> str: ...

    @property
    def threshold(self) -> float: ...

    @property
    def reads(self) -> State: ...

    def matrices(self, layer: int, expert: int) -> tuple[Tensor, Tensor]:
        """Of one bank: inward [r, H], outward [N, r]."""


@dataclass(frozen=True, slots=True)
class PredictorFolder:
    """Satisfies `PredictorSource`."""

    name: str
    threshold: float
    layers: Sequence[tuple[Tensor, Tensor]]
    reads: State = "residual"

    def matrices(self, layer: int, expert: int) -> tuple[Tensor, Tensor]:
        return self.layers[layer]


def open_predictor_folder(folder: Path, spec: ModelSpec) -> PredictorFolder:
    """The predictors of `folder`, for a model of this spec; BadCheckpoint says where they do not fit. Only headers are read."""
    if not folder.is_dir():
        raise BadCheckpoint(folder, "no such directory")
    if spec.n_experts > 1:
        raise BadCheckpoint(folder, f"has one predictor a layer, and this model has {spec.n_experts} experts in each")
    if not spec.rule.is_sparse:
        raise BadCheckpoint(folder, f"names neurons that fire, and with {spec.rule.activation} all of them do")
    paths = files_of(folder, spec.n_layers)
    return PredictorFolder(str(folder.resolve()), read_threshold(folder), [_matrices(path, spec) for path in paths])


def files_of(folder: Path, n_layers: int) -> list[Path]:
    """One file a layer, by number: 2 comes before 10."""
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if match := FILE.fullmatch(path.name):
            number = int(match[1])
            if number in found:
                raise BadCheckpoint(folder, f"has layer {number} twice: {found[number].name} and {path.name}")
            found[number] = path
    if not found:
        raise BadCheckpoint(folder, "is not a folder of predictors: it has no model_0.pt")
    if odd := sorted(set(found) ^ set(range(n_layers))):
        raise BadCheckpoint(
            folder, f"has predictors of {len(found)} layers, the model has {n_layers}; layer {odd[0]} is in one of them only"
        )
    return [found[number] for number in range(n_layers)]


def read_threshold(folder: Path) -> float:
    """`sparse_threshold` of config.json; 0 when it says nothing, as PowerInfer's converter has it."""
    value = read_json(folder / "config.json").get("sparse_threshold", 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e6:
        raise BadCheckpoint(folder / "config.json", f"sparse_threshold: {str(value)[:50]!r} is not a number we can use")
    return float(value)


def _matrices(path: Path, spec: ModelSpec) -> tuple[Tensor, Tensor]:
    tensors = map_tensors(path)
    if set(tensors) != {INWARD, OUTWARD}:
        raise BadCheckpoint(path, f"holds {', '.join(sorted(tensors)[:4]) or 'nothing'}; a predictor is {INWARD} and {OUTWARD}")
    inward, outward = tensors[INWARD], tensors[OUTWARD]
    if inward.ndim != 2 or outward.shape != (spec.n_neurons, inward.shape[0]) or inward.shape[1] != spec.hidden or not inward.shape[0]:
        shapes = f"{list(inward.shape)} and {list(outward.shape)}"
        raise BadCheckpoint(path, f"has shapes {shapes}, where this model needs [r, {spec.hidden}] and [{spec.n_neurons}, r]")
    return inward, outward
