"""`ffn` on the CPU: for few tokens, only the neurons that fire or are predicted to; many are a prompt."""

from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from cpu_ops.describe import CODES, Block, check_meets, input_places, rows_block
from cpu_ops.input import input
from cpu_ops.kernels.activation import rule_codes
from cpu_ops.kernels.bank import BANK, parts_of, run_of
from cpu_ops.kernels.ffn import ffn as ffn_kernel
from cpu_ops.kernels.rows import ROWS
from cpu_ops.linear import linear
from cpu_ops.prompt import ffn_by_tiles, prompt_ffn
from cpu_ops.relu import relu
from cpu_ops.scratch import scratch
from cpu_ops.tape import fresh, keep, run
from models.bank import NeuronBank
from models.formats import Input
from models.predictor import Predictor
from models.spec import FfnRule

FEW_TOKENS = 16  # up to here the kernel wins
Places = tuple[int, int, int, int]  # the numbers of an INPUT block
NOTHING: Places = (0, 0, 0, 0)  # where no predictor's input lies


def ffn(bank: NeuronBank, x: Input, rule: FfnRule) -> Tensor:
    """What the neurons of `bank` add: x [T, H] -> float32 [T, H]. Up to FEW_TOKENS tokens each one's bits are its own."""
    if len(bank) == 0 or len(x) == 0:
        return torch.zeros(len(x), bank.hidden)
    if bank.up.format.name not in CODES:
        return ffn_by_tiles(bank, x, rule)
    if len(x) > FEW_TOKENS:
        return prompt_ffn(bank, x, rule, describe(bank, rule, None).address)
    if bank.mask is not None:
        return _predicted(bank, x, rule, bank.mask, x)
    return _by_selection(bank, x, rule, None, NOTHING)


def predicted_ffn(bank: NeuronBank, x: Input, rule: FfnRule, predictor: Predictor, state: Tensor) -> Tensor:
    """`ffn` of the neurons that `predictor` names for each token from its `state` float32 [T, H]; above FEW_TOKENS tokens, of all."""
    if len(x) > FEW_TOKENS or len(x) * len(bank) == 0:
        return ffn(bank, x, rule)
    return _predicted(bank, x, rule, predictor, input(predictor.inward.format, state))


def _predicted(bank: NeuronBank, x: Input, rule: FfnRule, predictor: Predictor, read: Input) -> Tensor:
    made = input(predictor.outward.format, relu(linear(predictor.inward, read)))
    check_meets(predictor.outward, made)
    return _by_selection(bank, x, rule, predictor, input_places(made))


def _by_selection(bank: NeuronBank, x: Input, rule: FfnRule, predictor: Predictor | None, inside: Places) -> Tensor:
    check_meets(bank.up, x)
    out = fresh(len(x), bank.hidden)
    described = describe(bank, rule, predictor)
    room = scratch(described.room_floats(len(x)))
    run(ffn_kernel, *described.call(input_places(x), inside, room, out), 0)
    return out


class Described:
    """The BANK block of a bank under a rule and a predictor, what it was made for, and the calls it takes."""

    __slots__ = ("address", "block", "inside_bytes", "parts", "predictor", "prepared_bytes", "raw_floats", "rule")

    def __init__(self, bank: NeuronBank, rule: FfnRule, predictor: Predictor | None) -> None:
        self.rule, self.predictor = rule, predictor
        self.block = describe_bank(bank, rule, predictor)
        self.address = self.block.ctypes.data
        self.parts = parts_of(len(bank))
        self.raw_floats = int(self.block["down"]["raw_floats"][0])
        self.prepared_bytes, self.inside_bytes = (int(self.block[name]["prepared_bytes"][0]) for name in ("first", "outward"))

    def room_floats(self, tokens: int) -> int:
        """float32 numbers that a call needs while it lasts."""
        return tokens * (self.parts * self.raw_floats + (self.prepared_bytes + self.inside_bytes) // 4)

    def call(self, x: Places, inside: Places, room: Tensor, out: Tensor) -> tuple[int, ...]:
        """The numbers of a CALL block but the last: tokens prepared in `room`, or taken where they lie, then the parts' sums."""
        tokens, at = len(out), room.data_ptr()
        prepared = (at, self.prepared_bytes) if self.prepared_bytes else x[:2]
        at += tokens * self.prepared_bytes
        inside_prepared = (at, self.inside_bytes) if self.inside_bytes else inside[:2]
        at += tokens * self.inside_bytes
        return self.address, *x, *inside, *prepared, *inside_prepared, tokens, self.parts, at, out.data_ptr()


_BANKS: WeakKeyDictionary[NeuronBank, list[Described]] = WeakKeyDictionary()


def describe(bank: NeuronBank, rule: FfnRule, predictor: Predictor | None) -> Described:
    """What kernels need of a bank. Kept as long as the bank is, whatever it is described for later: tapes hold its address."""
    known = _BANKS.setdefault(keep(bank), [])
    for one in known:
        if one.predictor is predictor and (one.rule is rule or one.rule == rule):
            return one
    known.append(Described(bank, rule, predictor))
    return known[-1]


def describe_bank(bank: NeuronBank, rule: FfnRule, predictor: Predictor | None) -> Block:
    """One BANK record."""
    first, biases = (bank.up, (bank.up_bias, None)) if bank.gate is None else (bank.gate, (bank.gate_bias, bank.up_bias))
    assert first.format is bank.up.format is bank.down.format
    block = np.zeros(1, BANK)
    block["first"], block["second"], block["down"] = rows_block(first), rows_block(bank.up), rows_block(bank.down)
    block["outward"] = np.zeros(1, ROWS) if predictor is None else rows_block(predictor.outward)
    for name, bias in zip(("first_bias", "second_bias"), biases, strict=True):
        assert bias is None or bias.is_contiguous()
        block[name] = 0 if bias is None else bias.data_ptr()
    block["n"], block["run"] = len(bank), run_of(max(len(bank), 1))
    block["kind"], block["activation"] = rule_codes(rule)
    block["threshold"] = rule.threshold
    block["predicted_from"] = 0.0 if predictor is None else predictor.threshold
    return block
