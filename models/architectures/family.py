"""Family: what one file of this folder provides."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from models.architectures.config import Config
from models.spec import ModelSpec

Shapes = Mapping[str, tuple[int, ...]]  # of a checkpoint's tensors, by their names there


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a tensor that holds more than one: which of its `height` rows, run by run."""

    name: str
    rows: Callable[[ModelSpec], Sequence[range]]
    height: Callable[[ModelSpec], int]


Names = Mapping[str, str | Part]


def as_configured(spec: ModelSpec, shapes: Shapes) -> ModelSpec:
    """For families whose config says everything."""
    return spec


@dataclass(frozen=True, slots=True)
class Family:
    """`spec` reads a config; `names` gives for a spec what canonical names are called in checkpoints, with {layer} and {expert} to fill in.

    Canonical names: embed, head, norm, positions, project_in, project_out; layers.{layer}.attention_norm, .ffn_norm,
    .q .k .v .o with _bias, .q_norm, .k_norm, .router, .down_bias; layers.{layer}.experts.{expert}.gate .up with _bias, .down,
    .predictor.inward, .predictor.outward. Norms with a bias have a tensor named like them, with _bias.
    `model_types` are what its configs call themselves. A config without any is taken when it has every key of `marks`.
    """

    model_types: tuple[str, ...]
    classes: tuple[str, ...]
    spec: Callable[[Config], ModelSpec]
    names: Callable[[ModelSpec], Names]
    ignored: tuple[str, ...] = ()  # endings of tensor names that older checkpoints carry and nobody needs
    prefix: str = ""  # what names begin with, and some checkpoints leave out
    refined: Callable[[ModelSpec, Shapes], ModelSpec] = as_configured  # what only the tensors can say
    marks: tuple[str, ...] = ()
