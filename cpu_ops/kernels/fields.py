"""A block of numbers, as code that is being written reads it."""

from typing import Any

import numpy as np

from cpu_ops.kernels.ir import I64, Builder, Value, constant, load


class Fields:
    """The int64 fields of a block of `kind` at an address, all read at once, as IR values by their names."""

    def __init__(self, builder: Builder, kind: np.dtype[Any], address: Value) -> None:
        names = kind.names or ()
        self.values = {name: load(builder, builder.add(address, constant(I64, 8 * place)), I64) for place, name in enumerate(names)}

    def __getitem__(self, name: str) -> Value:
        return self.values[name]
