"""Every byte of VRAM and of RAM that serving takes, and how many neurons the rest has room for. Knows no rates and no seconds.

    VRAM ≥ spine + KV cache + workspace + predictors + margin + hot neurons
    RAM  ≥ cold neurons + pinned buffers + workspace + margin            without a GPU: + spine + KV cache + predictors

workspace, for a step of T = PROMPT_CHUNK + slots tokens, in float32: the states, and the largest of three
    states     4·T·(6·H + 2·(q + 2·kv))      residual, norms, and the attention's in and out
    attention  4·context·(2·kv + 2·q if grouped + 2·heads·PROMPT_CHUNK)    one slot's keys and values widened; scores, softmax
    neurons    4·T·5·N + decoded             gate, up, what the activation makes of them, their product; of one bank
    logits     4·T·2·V + decoded             and their logarithms
    decoded    9·min(largest matrix, tile)   a quantised matrix is widened a tile at a time: two float32 and a byte a weight
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from models.errors import DoesNotFit
from models.manifest import Manifest
from models.spec import ModelSpec
from placement.cost import GROUP, STATE_BYTES

DEFAULT_CONTEXT = 4096  # tokens, or the model's own if that is less
DEFAULT_SLOTS = 4
PROMPT_CHUNK = 256  # prompt tokens in one step
GPU_TILE = 2**25  # weights that `gpu_ops` decodes at a time
CPU_TILE = 2**20  # and `cpu_ops`
MARGIN_SHARE = 20  # a twentieth of the budget …
MOST_MARGIN = 2**29  # … up to 512 MiB: the driver's or the interpreter's own, the allocator's rounding


class Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    bytes: int = Field(ge=0)


class Budget(BaseModel):
    """What one kind of memory is spent on, line by line."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    what: Literal["VRAM", "RAM"]
    limit_bytes: int = Field(ge=0)
    lines: tuple[Line, ...]

    @property
    def used_bytes(self) -> int:
        return sum(line.bytes for line in self.lines)

    @property
    def free_bytes(self) -> int:
        return self.limit_bytes - self.used_bytes


@dataclass(frozen=True, slots=True)
class Demand:
    """What is to be served, and within what. `vram_bytes` is None without a GPU."""

    context: int
    slots: int
    vram_bytes: int | None
    ram_bytes: int
    predictor_bytes: int = 0  # of predictors that selection uses; they stay in CPU memory


@dataclass(frozen=True, slots=True)
class Room:
    """Hot neurons of the whole model: RAM asks for `least`, VRAM allows `most`."""

    least: int
    most: int


def workspace_bytes(spec: ModelSpec, context: int, slots: int, tile: int) -> int:
    """The formula of the docstring, for a device that decodes `tile` weights at a time."""
    tokens, attention_width = PROMPT_CHUNK + slots, spec.q_width + 2 * spec.kv_width
    states = 4 * tokens * (6 * spec.hidden + 2 * attention_width)
    repeated = 2 * spec.q_width if spec.n_heads != spec.n_kv_heads else 0
    attention = 4 * context * (2 * spec.kv_width + repeated + 2 * spec.n_heads * PROMPT_CHUNK)
    decoded = 9 * min(spec.hidden * max(attention_width, spec.n_neurons, spec.vocab), tile)
    return states + max(attention, 4 * tokens * 5 * spec.n_neurons + decoded, 4 * tokens * 2 * spec.vocab + decoded)


def margin_bytes(limit_bytes: int) -> int:
    return min(limit_bytes // MARGIN_SHARE, MOST_MARGIN)


def smallest_limit(need_bytes: int) -> int:
    """The smallest budget that leaves `need_bytes` after its margin."""
    of_share = (need_bytes - 1) * MARGIN_SHARE // (MARGIN_SHARE - 1) + 1
    return max(0, min(of_share, need_bytes + MOST_MARGIN))


def spine_lines(manifest: Manifest, demand: Demand) -> list[Line]:
    """What lives where the transformer runs, neurons left out."""
    tile = CPU_TILE if demand.vram_bytes is None else GPU_TILE
    return [
        Line(name="spine", bytes=manifest.spine_bytes),
        Line(name="KV cache", bytes=manifest.spec.kv_bytes_per_token() * demand.context * demand.slots),
        Line(name="workspace", bytes=workspace_bytes(manifest.spec, demand.context, demand.slots, tile)),
        Line(name="predictors", bytes=mask_bytes(manifest) + (demand.predictor_bytes if demand.vram_bytes is None else 0)),
    ]


def cpu_lines(manifest: Manifest, demand: Demand) -> list[Line]:
    """What the RAM holds besides cold neurons."""
    if demand.vram_bytes is None:
        return spine_lines(manifest, demand)
    pinned = 2 * STATE_BYTES * (PROMPT_CHUNK + demand.slots) * manifest.spec.hidden  # a step's input, and its partial sum
    workspace = workspace_bytes(manifest.spec, 0, demand.slots, CPU_TILE)  # attention stays on the GPU
    predictors = mask_bytes(manifest) + demand.predictor_bytes
    named = [Line(name="predictors", bytes=predictors)] if predictors else []
    return [Line(name="workspace", bytes=workspace), Line(name="pinned buffers", bytes=pinned), *named]


def mask_bytes(manifest: Manifest) -> int:
    """Of predictors that are part of the model: counted whole on either side, though each keeps only its neurons' rows of them."""
    return manifest.sizes.predictors if manifest.spec.masked else 0


def total_of(lines: list[Line]) -> int:
    return sum(line.bytes for line in lines)


def room(manifest: Manifest, demand: Demand) -> Room:
    """How many neurons must and may be hot; DoesNotFit names what is missing, and what would fit."""
    neurons, size = manifest.spec.n_banks * manifest.spec.n_neurons, manifest.sizes.neuron
    most = 0
    if demand.vram_bytes is not None:
        free = demand.vram_bytes - margin_bytes(demand.vram_bytes) - total_of(spine_lines(manifest, demand))
        if free < 0:
            raise _no_vram(manifest, demand, demand.vram_bytes)
        most = min(free // size, neurons)
    cold_bytes = demand.ram_bytes - margin_bytes(demand.ram_bytes) - total_of(cpu_lines(manifest, demand))
    least = max(0, neurons - max(cold_bytes, 0) // size)
    if cold_bytes < 0 or least > most:
        raise no_ram(manifest, demand, most)
    return Room(least, most)


def no_ram(manifest: Manifest, demand: Demand, most: int) -> DoesNotFit:
    """The error for a RAM that cannot hold what at most `most` hot neurons leave cold."""
    spec, size = manifest.spec, manifest.sizes.neuron
    in_layer = spec.n_experts * spec.n_neurons
    hot = most - most % in_layer + most % in_layer // GROUP * GROUP  # a number of neurons that whole groups can make
    bare = total_of(cpu_lines(manifest, demand))
    need = smallest_limit(bare + (spec.n_layers * in_layer - hot) * size)
    advice = f"--ram {ask(need)} is the smallest that works" + (" with this --vram" if demand.vram_bytes is not None else "")
    if demand.vram_bytes is not None and smallest_limit(bare) <= demand.ram_bytes:
        all_hot = smallest_limit(total_of(spine_lines(manifest, demand)) + spec.n_layers * in_layer * size)
        advice += f"; with --vram {ask(all_hot)} every neuron fits on the GPU"
    return DoesNotFit("RAM", need, demand.ram_bytes, advice)


def _no_vram(manifest: Manifest, demand: Demand, vram_bytes: int) -> DoesNotFit:
    need = smallest_limit(total_of(spine_lines(manifest, demand)))
    advice = f"--vram {ask(need)} is the smallest that works"

    def fits(context: int, slots: int) -> bool:
        smaller = Demand(context, slots, vram_bytes, demand.ram_bytes)
        return total_of(spine_lines(manifest, smaller)) <= vram_bytes - margin_bytes(vram_bytes)

    if fits(1, demand.slots):
        advice += f", or --context {largest(lambda context: fits(context, demand.slots), demand.context)}"
    elif fits(1, 1):
        advice += f", or --slots 1 --context {largest(lambda context: fits(context, 1), demand.context)}"
    else:
        advice += "; no smaller context would do"
    return DoesNotFit("VRAM", need, vram_bytes, advice)


def largest(fits: Callable[[int], bool], too_large: int) -> int:
    """The largest number that fits, between 1, which does, and `too_large`."""
    low, high = 1, too_large
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def ask(count: int) -> str:
    """A size a user can type, rounded up to a tenth of its unit, so that it is never too small."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if count >= 10 * scale:
            tenths = -(-count * 10 // scale)
            return f"{tenths // 10}.{tenths % 10}{unit}"
    return f"{count}B"
