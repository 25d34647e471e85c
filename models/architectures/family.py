"""Family: what one file of this folder provides."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from models.architectures.config import Config
from models.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Family:
    """`spec` reads a config; `names` maps canonical tensor names to the checkpoint's, with {layer} (and {expert}) to fill in.

    Canonical names: embed, head, norm; layers.{layer}.attention_norm, .ffn_norm, .q .k .v .o with _bias;
    layers.{layer}.experts.{expert}.gate .up with _bias, .down; layers.{layer}.down_bias.
    """

    model_type: str
    classes: tuple[str, ...]
    spec: Callable[[Config], ModelSpec]
    names: Mapping[str, str]
    ignored: tuple[str, ...] = ()  # endings of tensor names that older checkpoints carry and nobody needs
