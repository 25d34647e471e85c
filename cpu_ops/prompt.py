"""Many tokens at once, on the CPU: each row is read once for all of them. Knows neither few tokens nor which neurons are hot.

Quantised rows meet the input in integers (`product`); others are decoded a tile at a time for a library's product. What fires
is added through lists.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from cpu_ops.describe import check_meets, input_places, rows_address
from cpu_ops.kernels.product import prepared_room
from cpu_ops.kernels.product import product as product_kernel
from cpu_ops.kernels.product_ffn import COLUMNS, ENTRY_BYTES, NEURONS
from cpu_ops.kernels.product_ffn import down as down_kernel
from cpu_ops.kernels.product_ffn import neurons as neurons_kernel
from cpu_ops.kernels.tile_code import tile_codes
from cpu_ops.kernels.tile_library import compiled_tile
from cpu_ops.kernels.widen import compiled_widen
from cpu_ops.scratch import scratch
from cpu_ops.tape import run
from cpu_ops.tiles import decode, tiles
from models.bank import NeuronBank
from models.ffn import activate, combine
from models.formats import Input
from models.rows import Rows
from models.spec import FfnRule

FEW_PASS = 0.25  # up to this share of gates that pass, a row of `up` and a token by themselves are faster than a tile and all
TOKENS = 128  # laid out they stay in the second cache; and their activations and lists take little memory


def prompt_linear(rows: Rows, x: Input, bias: Tensor | None) -> Tensor:
    """rows [n, K], x [T, K], bias float32 [n] -> float32 [T, n]."""
    out = torch.empty(len(x), len(rows))
    if rows.format.name in tile_codes():
        product(rows, x, out)
        return out if bias is None else out.add_(bias)
    values = x.decode()
    for tile in tiles(len(rows), rows.k):
        out[:, tile] = F.linear(values, decode(rows[tile]), None if bias is None else bias[tile])
    return out


def ffn_by_tiles(bank: NeuronBank, x: Input, rule: FfnRule) -> Tensor:
    """What the neurons of `bank` add, of any format: x [T, H] -> float32 [T, H]."""
    h = _activations(bank, x, rule, torch.empty(len(x), len(bank)))
    silence(bank, x, h)
    return _dense_down(h, bank.down)


def silence(bank: NeuronBank, x: Input, h: Tensor) -> None:
    """Zeros in h float32 [T, n] where the bank's mask, if it has one, does not name a neuron."""
    if bank.mask is not None:
        inside = prompt_linear(bank.mask.inward, x, None).relu_()
        score = prompt_linear(bank.mask.outward, bank.mask.outward.format.input(inside), None)
        h.masked_fill_(~(score >= bank.mask.threshold), 0.0)


def prompt_ffn(bank: NeuronBank, x: Input, rule: FfnRule, block: int) -> Tensor:
    """The same for a format with kernels, TOKENS at a time. `block` is the address of the bank's block."""
    return torch.cat([_prompt_ffn(bank, part, rule, block) for part in parts_of(x)])


def parts_of(x: Input) -> Iterator[Input]:
    """As many equal parts as have at most TOKENS tokens."""
    parts = -(-len(x) // TOKENS)
    cuts = [part * len(x) // parts for part in range(parts + 1)]
    return (Input(x.values[a:b], None if x.scales is None else x.scales[a:b]) for a, b in pairwise(cuts))


def _prompt_ffn(bank: NeuronBank, x: Input, rule: FfnRule, block: int) -> Tensor:
    tokens, n = len(x), len(bank)
    blocks = -(-n // NEURONS)
    grouped = bank.up.format.name in tile_codes()
    sizes = [prepared_room(tokens, bank.hidden) // 4 if grouped else 0, 2 * blocks, tokens * blocks * (2 * NEURONS + 1), tokens * n]
    prepared, passed, lists, flat = scratch(sum(sizes)).split(sizes)
    h = flat.view(n, tokens).T
    if grouped:
        check_meets(bank.up, x)
        few = int(FEW_PASS * h.numel())
        run(neurons_kernel, *meeting_of(bank.up, x, prepared), block, h.data_ptr(), passed.data_ptr(), few)
    else:
        _activations(bank, x, rule, h)
    silence(bank, x, h)
    return _listed_down(h, lists, bank.down)


def product(rows: Rows, x: Input, out: Tensor) -> None:
    """out float32 [T, n] = x · rows. A token's bits depend neither on the other tokens nor on the threads."""
    check_meets(rows, x)
    if out.numel() > 0:
        prepared = torch.empty(prepared_room(len(x), rows.k) // 4)  # not scratch: who calls may have something there
        run(product_kernel, *meeting_of(rows, x, prepared), rows_address(rows), out.data_ptr())


def meeting_of(rows: Rows, x: Input, prepared: Tensor) -> tuple[int, ...]:
    """The numbers of a MEETING block of an input with rows of one format."""
    functions, _library = compiled_tile(rows.format.name)
    return *input_places(x), len(x), prepared.data_ptr(), *functions


def _activations(bank: NeuronBank, x: Input, rule: FfnRule, h: Tensor) -> Tensor:
    for tile in tiles(len(bank), bank.hidden):
        part = bank[tile]
        gate = None if part.gate is None else prompt_linear(part.gate, x, part.gate_bias)
        h[:, tile] = activate(gate, prompt_linear(part.up, x, part.up_bias), rule)
    return h


def _dense_down(h: Tensor, rows: Rows) -> Tensor:
    """h [T, n] · rows [n, H] -> float32 [T, H]."""
    out = torch.zeros(len(h), rows.k)
    for tile in tiles(len(rows), rows.k):
        out += combine(h[:, tile], decode(rows[tile]))
    return out


def _listed_down(h: Tensor, lists: Tensor, rows: Rows) -> Tensor:
    """The same through lists of what fires, which are written to `lists` [T · blocks · (2 · NEURONS + 1)]."""
    tokens, out = len(h), torch.empty(len(h), rows.k)
    entries = lists.data_ptr()
    counts = entries + tokens * -(-len(rows) // NEURONS) * NEURONS * ENTRY_BYTES
    widths = [COLUMNS * plane.shape[1] * plane.element_size() // rows.k for plane in rows.planes]
    weights_bytes, scales_bytes = widths if len(widths) == 2 else (*widths, 0)
    widen, _library = compiled_widen(rows.format.name)
    run(down_kernel, rows_address(rows), widen, weights_bytes, scales_bytes, tokens, h.data_ptr(), counts, entries, out.data_ptr())
    return out
