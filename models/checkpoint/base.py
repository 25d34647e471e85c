"""Checkpoint: a model's spec and its tensors by canonical name. Knows families, not file formats."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from models.architectures import family_of
from models.architectures.config import read_config
from models.architectures.family import Family, Part
from models.bits import FormatName
from models.errors import BadCheckpoint, MissingTensor
from models.layout import INWARD, OUTWARD
from models.rows import Rows
from models.spec import ModelSpec


class Source(Protocol):
    """Named tensors in some container."""

    def names(self) -> list[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def fingerprint(self, config_digest: str) -> str:
        """sha256 over config, tensor headers and sampled bytes of every tensor."""

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """float tensor as stored; rows start..stop of dimension 0."""


@runtime_checkable
class StoredRows(Protocol):
    """A source that may hold the rows of a format as they are."""

    def rows(self, name: str, format_name: FormatName, start: int, stop: int) -> Rows | None:
        """Rows start..stop that hold exactly the stored numbers; None where the format has none such."""

    def is_turned(self, name: str) -> bool:
        """Whether it is the columns of a matrix that lie in one piece."""

    def columns(self, name: str, format_name: FormatName, start: int, stop: int) -> Rows:
        """Columns start..stop of such a matrix, as rows."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder with a config and tensors. Every tensor of the spec is there with its shape, and none is left over."""

    folder: Path
    spec: ModelSpec
    family: Family
    source: Source
    fingerprint: str
    bare: bool = False  # names lack the prefix that the family's begin with
    default_format: FormatName = "bf16"  # as near to the files as a fast format gets
    texts: Callable[[], Mapping[str, str]] = dict  # small files that folders have and this container keeps inside, by name

    def __post_init__(self) -> None:
        expected, present = set(), set(self.source.names())
        for canonical, shape in tensor_shapes(self.spec):  # one by one: a config may claim two thousand million layers
            name, whole = self.foreign(canonical), self.part(canonical)
            if whole is not None:
                shape = (whole.height(self.spec), *shape[1:])
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
        pattern, numbers = _pattern(canonical)
        found = self.family.names(self.spec)[pattern]
        name = (found if isinstance(found, str) else found.name).format_map(numbers)
        return name.removeprefix(self.family.prefix) if self.bare else name

    def part(self, canonical: str) -> Part | None:
        """Which rows of its file's tensor a tensor is, where it is not all of them."""
        found = self.family.names(self.spec)[_pattern(canonical)[0]]
        return None if isinstance(found, str) else found

    def shape(self, canonical: str) -> tuple[int, ...]:
        """As the checkpoint shapes it."""
        shape, part = self.source.shape(self.foreign(canonical)), self.part(canonical)
        return shape if part is None else (sum(len(run) for run in part.rows(self.spec)), *shape[1:])

    def stored(self, canonical: str, start: int = 0, stop: int | None = None) -> Tensor:
        """A tensor in the type it is stored in, or its rows start..stop."""
        name, part = self.foreign(canonical), self.part(canonical)
        if part is None:
            return self.source.read(name, start, stop)
        return torch.cat([self.source.read(name, run.start, run.stop) for run in rows_between(part.rows(self.spec), start, stop)])

    def rows(self, canonical: str, name: FormatName, start: int, stop: int) -> Rows:
        """Rows start..stop of a matrix in a format; as they are stored, where they are stored so."""
        held = self.held(canonical, name, start, stop)
        return Rows.encode(name, self.stored(canonical, start, stop)) if held is None else held

    def held(self, canonical: str, name: FormatName, start: int, stop: int) -> Rows | None:
        """Rows start..stop of a matrix, where they are stored in this format."""
        if isinstance(self.source, StoredRows):
            foreign, part = self.foreign(canonical), self.part(canonical)
            runs = [range(start, stop)] if part is None else rows_between(part.rows(self.spec), start, stop)
            found = [self.source.rows(foreign, name, run.start, run.stop) for run in runs]
            if (taken := [rows for rows in found if rows is not None]) and len(taken) == len(runs):
                return joined(taken)
        return None

    def columns(self, canonical: str, name: FormatName, start: int, stop: int) -> Rows | None:
        """Columns start..stop of a matrix as rows in a format, where the files have columns in one piece; else None."""
        foreign = self.foreign(canonical)
        if not isinstance(self.source, StoredRows) or not self.source.is_turned(foreign):
            return None
        return self.source.columns(foreign, name, start, stop)

    def read(self, canonical: str, start: int = 0, stop: int | None = None) -> Tensor:
        """float32 tensor, or its rows start..stop."""
        return self.stored(canonical, start, stop).float()


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows of one format, one below the other."""
    if len(parts) == 1:
        return parts[0]
    return Rows(parts[0].format, parts[0].k, tuple(torch.cat(planes) for planes in zip(*(part.planes for part in parts), strict=True)))


def rows_between(runs: Sequence[range], start: int, stop: int | None) -> list[range]:
    """Of rows that lie in `runs`, numbered one after the other, those from `start` to `stop`."""
    found, before = [], 0
    for run in runs:
        first, last = max(start - before, 0), len(run) if stop is None else min(stop - before, len(run))
        if first < last:
            found.append(run[first:last])
        before += len(run)
    return found


def _pattern(canonical: str) -> tuple[str, dict[str, str]]:
    """'layers.3.q' -> 'layers.{layer}.q' and what stands for the names in braces."""
    parts = canonical.split(".")
    numbers: dict[str, str] = {}
    for word, key in (("layers", "layer"), ("experts", "expert")):
        if word in parts:
            at = parts.index(word) + 1
            numbers[key], parts[at] = parts[at], f"{{{key}}}"
    return ".".join(parts), numbers


def tensor_shapes(spec: ModelSpec) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor a model of this spec has, by canonical name, as checkpoints shape it."""
    yield "embed", (spec.vocab, spec.width)
    if not spec.norm_after:
        yield from _norm_shapes("norm", spec)
    if not spec.tied_head:
        yield "head", (spec.vocab, spec.width)
    if spec.learned_positions:
        yield "positions", (spec.context, spec.hidden)
    if spec.embedding_width is not None:
        yield "project_in", (spec.hidden, spec.width)
        yield "project_out", (spec.width, spec.hidden)
    for layer in range(spec.n_layers):
        for name, shape in layer_shapes(spec, layer):
            yield f"layers.{layer}.{name}", shape


def _norm_shapes(name: str, spec: ModelSpec) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield name, (spec.hidden,)
    if spec.norm == "layer":
        yield f"{name}_bias", (spec.hidden,)


def layer_shapes(spec: ModelSpec, layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    h = spec.hidden
    yield from _norm_shapes("attention_norm", spec)
    if not spec.shared_norm:
        yield from _norm_shapes("ffn_norm", spec)
    for name, width in (("q", spec.q_width), ("k", spec.kv_width), ("v", spec.kv_width)):
        yield name, (width, h)
        if spec.qkv_bias:
            yield f"{name}_bias", (width,)
    yield "o", (h, spec.q_width)
    if spec.qk_norm:
        yield "q_norm", (spec.head_dim,)
        yield "k_norm", (spec.head_dim,)
    if spec.o_bias:
        yield "o_bias", (h,)
    if spec.ffn_bias:
        yield "down_bias", (h,)
    if spec.n_experts > 1:
        yield "router", (spec.n_experts, h)
    for expert in range(spec.n_experts):
        for name, shape in expert_shapes(spec, layer):
            yield f"experts.{expert}.{name}", shape


def expert_shapes(spec: ModelSpec, layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    h, n = spec.hidden, spec.n_neurons
    for name in ("up",) if spec.rule.kind == "plain" else ("gate", "up"):
        yield name, (n, h)
        if spec.ffn_bias:
            yield f"{name}_bias", (n,)
    yield "down", (h, n)
    if spec.predictors is not None:
        yield INWARD, (spec.rank(layer), h)
        yield OUTWARD, (n, spec.rank(layer))


def open_checkpoint(folder: Path, source: Source) -> Checkpoint:
    """Config and tensors of `folder` together; BadConfig, BadCheckpoint or MissingTensor says what does not fit."""
    config = read_config(folder)
    family = family_of(config)
    shapes = {name: source.shape(name) for name in source.names()}
    spec, bare = family.refined(family.spec(config), shapes), not any(name.startswith(family.prefix) for name in shapes)
    return Checkpoint(folder, spec, family, source, source.fingerprint(config.digest()), bare)
