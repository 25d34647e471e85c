"""What is asked for while rows are read: those `far` rows ahead, and at their end what comes after them.

A part's keys, its values and the next part's keys are read one after the other, a stream that the hardware does not see across their ends.
"""

from typing import NamedTuple

from cpu_ops.kernels.ir import CACHE_LINE, I64, Builder, Value, constant, prefetch


class Stream(NamedTuple):
    """`count` rows, `stride` bytes from one to the next; `after` is the address of what comes next."""

    rows: Value
    stride: Value
    count: Value
    after: Value
    far: Value

    def ahead(self, builder: Builder, row: Value) -> Value:
        """The address of what is asked for while a row is read."""
        place = builder.add(row, self.far)
        over = builder.sub(place, self.count)
        inside = builder.add(self.rows, builder.mul(place, self.stride))
        beyond = builder.add(self.after, builder.mul(over, self.stride))
        return builder.select(builder.icmp_signed("<", over, constant(I64, 0)), inside, beyond)


def ask(builder: Builder, address: Value, nbytes: int) -> None:
    """Prefetches the cache lines of `nbytes`. What lies beyond the memory that is ours does no harm."""
    for at in range(0, nbytes, CACHE_LINE):
        prefetch(builder, builder.add(address, constant(I64, at)))
