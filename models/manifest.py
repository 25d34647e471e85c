"""All that planning needs to know of a model: its spec, its formats, and exact bytes. Torch-free.

A packed model carries one as `manifest.json`, with bytes counted while packing. `models.architectures` derives one before
that: bound to the weights where they are, or to `config.json` alone before any weight is downloaded, and then it says so.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.bits import BITS, FormatName, embedding_format
from models.errors import BadArtefact
from models.spec import ModelSpec

VERSION = 1
REMEDY = "remove it with `models rm` and pack again"


class Formats(BaseModel):
    """Which format each class of weights is stored in."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    neurons: FormatName
    spine: FormatName
    embedding: FormatName  # embedding and head

    @classmethod
    def of(cls, name: FormatName) -> "Formats":
        return cls(neurons=name, spine=name, embedding=embedding_format(name))


class Sizes(BaseModel):
    """Bytes as stored. A neuron is a gate row (none when plain), an up row, a down row, and its float32 biases."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    embedding: int  # embedding and head, once when tied
    spine: int  # attention, norms, biases, routers, and what leads from the embedding and back
    positions: int = 0  # the table of learned positions
    predictors: int = 0  # that came with the checkpoint
    gate_row: int
    up_row: int
    down_row: int
    neuron_biases: int

    @property
    def neuron(self) -> int:
        return self.gate_row + self.up_row + self.down_row + self.neuron_biases


class StoredTensor(BaseModel):
    """Where a spine tensor lies in `spine.bin`: `rows` records of `width` weights each, in `format`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: FormatName
    rows: int = Field(gt=0)
    width: int = Field(gt=0)
    offset: int = Field(ge=0)

    @property
    def nbytes(self) -> int:
        return self.rows * BITS[self.format].row_bytes(self.width)


class Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    version: int = VERSION
    name: str
    source: str  # the directory it was packed from
    fingerprint: str
    assumed: bool  # True when there was only config.json to read
    spec: ModelSpec
    formats: Formats
    sizes: Sizes
    spine: dict[str, StoredTensor] = {}

    @property
    def spine_bytes(self) -> int:
        """Everything that is neither a neuron nor a predictor."""
        return self.sizes.embedding + self.sizes.spine + self.sizes.positions

    @property
    def neurons_bytes(self) -> int:
        return self.sizes.neuron * self.spec.n_banks * self.spec.n_neurons


def computed_sizes(spec: ModelSpec, formats: Formats) -> Sizes:
    """The bytes packing will count, computed from shapes alone; a test holds the two equal."""
    linear, neurons = BITS[formats.spine].row_bytes, BITS[formats.neurons].row_bytes
    attention = (spec.q_width + 2 * spec.kv_width) * linear(spec.hidden) + spec.hidden * linear(spec.q_width)
    biases = spec.qkv_bias * (spec.q_width + 2 * spec.kv_width) + spec.o_bias * spec.hidden + spec.ffn_bias * spec.hidden
    projections = spec.hidden * linear(spec.width) + spec.width * linear(spec.hidden) if spec.embedding_width else 0
    predictors = sum(
        spec.rank(layer) * neurons(spec.hidden) + spec.n_neurons * neurons(spec.rank(layer))
        for layer in range(spec.n_layers if spec.predictors else 0)
    )
    row = neurons(spec.hidden)
    return Sizes(
        embedding=spec.vocab * BITS[formats.embedding].row_bytes(spec.width) * (1 if spec.tied_head else 2),
        spine=spec.n_layers * (attention + 4 * biases) + 4 * (spec.norm_parameters + spec.router_parameters) + projections,
        positions=4 * spec.position_parameters,
        predictors=spec.n_experts * predictors,
        gate_row=0 if spec.rule.kind == "plain" else row,
        up_row=row,
        down_row=row,
        neuron_biases=4 * (spec.rows_per_neuron - 1) if spec.ffn_bias else 0,
    )


def load_manifest(path: Path) -> Manifest:
    """Reads `manifest.json`; BadArtefact when it is missing, damaged or of another version."""
    data = read_json_artefact(path, VERSION, REMEDY)
    try:
        return Manifest.model_validate(data)
    except ValidationError as error:
        raise BadArtefact(path, first_line(error), REMEDY) from None


def read_json_artefact(path: Path, version: int, remedy: str) -> dict[str, Any]:
    """The JSON object in one of our files, its `version` checked before anything else is looked at."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BadArtefact(path, "no such file", remedy) from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadArtefact(path, f"cannot be read: {error}", remedy) from None
    if not isinstance(data, dict) or "version" not in data:
        raise BadArtefact(path, "is not one of our files", remedy)
    if data["version"] != version:
        raise BadArtefact(path, f"has format version {data['version']}, this program writes {version}", remedy)
    return data


def first_line(error: ValidationError) -> str:
    """The first complaint of pydantic's, as 'field: what is wrong'."""
    detail = error.errors(include_url=False, include_context=False, include_input=False)[0]
    line = f"{'.'.join(str(part) for part in detail['loc']) or 'value'}: {detail['msg']}"
    return "".join(letter if letter.isprintable() else "?" for letter in line)  # names of fields come from the file
