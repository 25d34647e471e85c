"""Where things lie in a packed layer file. Torch-free; the writer is `pack.py`, the reader `packed.py`.

For each expert: gate records [N], then up and down records of a neuron side by side [N] (they are read together), then the
float32 biases. Every region begins at a multiple of 64 bytes, so that what is read whole can be used where it lands.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from models.bits import FormatName
from models.manifest import Formats, Manifest, Sizes
from models.spec import ModelSpec

ALIGNMENT = 64


def aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True, slots=True)
class Region:
    """`count` records of `record_bytes`, from `offset` on."""

    offset: int
    count: int
    record_bytes: int

    @property
    def nbytes(self) -> int:
        return self.count * self.record_bytes


@dataclass(frozen=True, slots=True)
class BankRegions:
    """Of one expert. A region of zero bytes is not there."""

    gate: Region
    up_down: Region
    gate_bias: Region
    up_bias: Region

    @property
    def parts(self) -> tuple[Region, Region, Region, Region]:
        """In the order of the file."""
        return self.gate, self.up_down, self.gate_bias, self.up_bias

    @property
    def end(self) -> int:
        return aligned(self.up_bias.offset + self.up_bias.nbytes)


def bank_regions(spec: ModelSpec, sizes: Sizes, expert: int) -> BankRegions:
    """Offsets in the layer's file."""
    first = _bank_regions(spec, sizes, 0)
    return first if expert == 0 else _bank_regions(spec, sizes, expert * first.end)


def _bank_regions(spec: ModelSpec, sizes: Sizes, offset: int) -> BankRegions:
    n = spec.n_neurons
    gate = Region(offset, n, sizes.gate_row)
    up_down = Region(aligned(gate.offset + gate.nbytes), n, sizes.up_row + sizes.down_row)
    biases = sizes.neuron_biases // 4
    gate_bias = Region(aligned(up_down.offset + up_down.nbytes), n, 4 if biases == 2 else 0)
    up_bias = Region(gate_bias.offset + gate_bias.nbytes, n, 4 if biases else 0)
    return BankRegions(gate, up_down, gate_bias, up_bias)


def layer_bytes(manifest: Manifest) -> int:
    """Size of every layer file of this model."""
    return bank_regions(manifest.spec, manifest.sizes, 0).end * manifest.spec.n_experts


def layer_file(layer: int) -> str:
    return f"layer-{layer:04d}.bin"


INWARD, OUTWARD = "predictor.inward", "predictor.outward"  # of an expert, in the spine's file
SPINE_FILE = "spine.bin"
MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True, slots=True)
class SpineShape:
    """How a spine tensor is stored: `rows` of `width` weights. A vector is one float32 row."""

    format: FormatName
    rows: int
    width: int


def spine_tensors(spec: ModelSpec, formats: Formats) -> Iterator[tuple[str, SpineShape]]:
    """Every tensor of the spine's file, in its order."""
    embedding = SpineShape(formats.embedding, spec.vocab, spec.width)
    yield "embed", embedding
    if not spec.tied_head:
        yield "head", embedding
    if spec.learned_positions:
        yield "positions", SpineShape("float32", spec.context, spec.hidden)
    if spec.embedding_width is not None:
        yield "project_in", SpineShape(formats.spine, spec.hidden, spec.width)
        yield "project_out", SpineShape(formats.spine, spec.width, spec.hidden)
    if not spec.norm_after:
        yield from _norm("norm", spec)
    for layer in range(spec.n_layers):
        for name, shape in _layer_tensors(spec, formats.spine):
            yield f"layers.{layer}.{name}", shape
    for layer in range(spec.n_layers if spec.predictors else 0):
        for name, shape in _predictor_tensors(spec, formats.neurons, layer):
            yield f"layers.{layer}.{name}", shape


def _layer_tensors(spec: ModelSpec, name: FormatName) -> Iterator[tuple[str, SpineShape]]:
    vector, attended = SpineShape("float32", 1, spec.hidden), spec.q_width + 2 * spec.kv_width
    yield from _norm("attention_norm", spec)
    yield "qkv", SpineShape(name, attended, spec.hidden)
    yield "o", SpineShape(name, spec.hidden, spec.q_width)
    if not spec.shared_norm:
        yield from _norm("ffn_norm", spec)
    if spec.o_bias:
        yield "o_bias", vector
    if spec.ffn_bias:
        yield "down_bias", vector
    if spec.qkv_bias:
        yield "qkv_bias", SpineShape("float32", 1, attended)
    if spec.qk_norm:
        yield "q_norm", SpineShape("float32", 1, spec.head_dim)
        yield "k_norm", SpineShape("float32", 1, spec.head_dim)
    if spec.n_experts > 1:
        yield "router", SpineShape("float32", spec.n_experts, spec.hidden)


def _norm(name: str, spec: ModelSpec) -> Iterator[tuple[str, SpineShape]]:
    yield name, SpineShape("float32", 1, spec.hidden)
    if spec.norm == "layer":
        yield f"{name}_bias", SpineShape("float32", 1, spec.hidden)


def is_predictor(name: str) -> bool:
    """Whether a tensor of the spine's file belongs to a predictor."""
    return name.endswith((INWARD, OUTWARD))


def _predictor_tensors(spec: ModelSpec, name: FormatName, layer: int) -> Iterator[tuple[str, SpineShape]]:
    for expert in range(spec.n_experts):
        yield f"experts.{expert}.{INWARD}", SpineShape(name, spec.rank(layer), spec.hidden)
        yield f"experts.{expert}.{OUTWARD}", SpineShape(name, spec.n_neurons, spec.rank(layer))
