"""A bank's fused region as a C function and its argument: callable from any thread, without Python and without the GIL.

So it can be a host node of a CUDA graph (`cudaLaunchHostFunc` takes just these two). Knows nothing of CUDA.
"""

from array import array

import torch
from torch import Tensor

from cpu_ops.describe import check_meets, input_places
from cpu_ops.ffn import FEW_TOKENS, NOTHING, describe
from cpu_ops.kernels.ffn import ffn_pointer
from cpu_ops.topology import most_threads
from models.bank import NeuronBank
from models.formats import Input
from models.spec import FfnRule


class NativeFfn:
    """`function(argument)`, void (int64), adds up the neurons of `bank` over the vectors in `x` and leaves the sum in `out`.

    Both are fixed buffers: `x` as the bank's format takes it, T ≤ FEW_TOKENS tokens; `out` float32 [T, H]. Whoever calls sees to it
    that nobody else enters a parallel region meanwhile. The object must outlive its last call.
    """

    def __init__(self, bank: NeuronBank, rule: FfnRule, x: Input, threads: int) -> None:
        assert bank.mask is None  # nobody asks it here
        assert len(x) <= FEW_TOKENS, len(x)
        assert 1 <= threads <= most_threads(), threads  # the function sets them unseen
        check_meets(bank.up, x)
        self.bank, self.rule, self.x = bank, rule, x
        self.out = torch.zeros(len(x), bank.hidden)
        described = describe(bank, rule, None)
        self._room: Tensor = torch.empty(described.room_floats(len(x)))
        self._call = array("q", (*described.call(input_places(x), NOTHING, self._room, self.out), threads))

    @property
    def function(self) -> int:
        """The address of a C function."""
        return ffn_pointer()

    @property
    def argument(self) -> int:
        """The address of what it takes."""
        return self._call.buffer_info()[0]
