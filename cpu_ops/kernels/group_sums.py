"""What products of groups add up to, scaled."""

from collections.abc import Sequence

from cpu_ops.kernels.ir import F32, I32, Builder, Value, constant, joined, multiply_add, totals, variable, vector


class GroupSums:
    """What one product has added up to so far: a chain as wide as vectors, and one for groups by themselves."""

    def __init__(self, builder: Builder, lanes: int, group_words: int) -> None:
        self._wide, self._narrow = (variable(builder, constant(vector(F32, count), 0.0)) for count in (lanes, group_words))

    def add(self, builder: Builder, product: Value, scale: Value) -> None:
        at = self._wide if product.type.count == self._wide.type.pointee.count else self._narrow
        builder.store(multiply_add(builder, builder.sitofp(product, scale.type), scale, builder.load(at)), at)

    def lanes(self, builder: Builder) -> Value:
        """What is left to be added up, lane by lane."""
        wide, narrow = builder.load(self._wide), builder.load(self._narrow)
        while narrow.type.count < wide.type.count:
            narrow = joined(builder, narrow, constant(narrow.type, 0.0))
        return builder.fadd(wide, narrow)


def totals_of(builder: Builder, sums: Sequence[GroupSums]) -> list[Value]:
    """Each one's sum, as many shuffles for all as for one."""
    both = totals(builder, [sum_of.lanes(builder) for sum_of in sums])
    return [builder.extract_element(both, constant(I32, place)) for place in range(len(sums))]
