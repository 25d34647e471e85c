"""Checkpoint: a model's spec and its tensors by canonical name. Knows families, not file formats."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from models.architectures import family_of
from models.architectures.config import read_config
from models.architectures.family import Family
from models.errors import BadCheckpoint, MissingTensor
from models.spec import ModelSpec


class Source(Protocol):
    """Named tensors in some container."""

    def names(self) -> list[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def fingerprint(self, config_digest: str) -> str:
        """sha256 over config, tensor headers and sampled bytes of every tensor."""

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """float tensor as stored; rows start..stop of dimension 0."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder with a config and tensors. Every tensor of the spec is there with its shape, and none is left over."""

    folder: Path
    spec: ModelSpec
    family: Family
    source: Source
    fingerprint: str

    def __post_init__(self) -> None:
        expected, present = set(), set(self.source.names())
        for canonical, shape in tensor_shapes(self.spec):  # one by one: a config may claim two thousand million layers
            name = self.foreign(canonical)
            expected.add(name)
            if name not in present:
                raise MissingTensor(self.folder, name)
            if self.source.shape(name) != shape:
                raise BadCheckpoint(
                    self.folder, f"tensor {name!r} has shape {list(self.source.shape(name))}, the config says {list(shape)}"
                )
        ignored = (*self.family.ignored, *((self.foreign("head"),) if self.spec.tied_head else ()))
        for name in sorted(present - expected):
            if not name.endswith(ignored):
                raise BadCheckpoint(self.folder, f"tensor {name!r} is no part of a {self.spec.family!r} model with this config")

    def foreign(self, canonical: str) -> str:
        """'layers.3.q' -> the name in this family's files."""
        parts = canonical.split(".")
        numbers: dict[str, str] = {}
        for word, key in (("layers", "layer"), ("experts", "expert")):
            if word in parts:
                at = parts.index(word) + 1
                numbers[key], parts[at] = parts[at], f"{{{key}}}"
        return self.family.names[".".join(parts)].format_map(numbers)

    def stored(self, canonical: str, start: int = 0, stop: int | None = None) -> Tensor:
        """A tensor in the type it is stored in, or its rows start..stop."""
        return self.source.read(self.foreign(canonical), start, stop)

    def read(self, canonical: str, start: int = 0, stop: int | None = None) -> Tensor:
        """float32 tensor, or its rows start..stop."""
        return self.stored(canonical, start, stop).float()


def tensor_shapes(spec: ModelSpec) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor a model of this spec has, by canonical name, as checkpoints shape it."""
    yield "embed", (spec.vocab, spec.hidden)
    yield "norm", (spec.hidden,)
    if not spec.tied_head:
        yield "head", (spec.vocab, spec.hidden)
    for layer in range(spec.n_layers):
        for name, shape in layer_shapes(spec):
            yield f"layers.{layer}.{name}", shape


def layer_shapes(spec: ModelSpec) -> Iterator[tuple[str, tuple[int, ...]]]:
    h, n = spec.hidden, spec.n_neurons
    yield "attention_norm", (h,)
    yield "ffn_norm", (h,)
    for name, width in (("q", spec.q_width), ("k", spec.kv_width), ("v", spec.kv_width)):
        yield name, (width, h)
        if spec.qkv_bias:
            yield f"{name}_bias", (width,)
    yield "o", (h, spec.q_width)
    if spec.o_bias:
        yield "o_bias", (h,)
    if spec.ffn_bias:
        yield "down_bias", (h,)
    for expert in range(spec.n_experts):
        for name in ("up",) if spec.rule.kind == "plain" else ("gate", "up"):
            yield f"experts.{expert}.{name}", (n, h)
            if spec.ffn_bias:
                yield f"experts.{expert}.{name}_bias", (n,)
        yield f"experts.{expert}.down", (h, n)


def open_checkpoint(folder: Path, source: Source) -> Checkpoint:
    """Config and tensors of `folder` together; BadConfig, BadCheckpoint or MissingTensor says what does not fit."""
    config = read_config(folder)
    family = family_of(config)
    return Checkpoint(folder, family.spec(config), family, source, source.fingerprint(config.digest()))
