"""A few words of vector IR, written with llvmlite's builder, that every row format shares.

Plain LLVM vectors are legalised to what the target has, so nothing here asks which CPU it is; float16 alone does.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llvmlite import ir

from cpu_ops.kernels.target import target_of

Builder = Any  # llvmlite's builder and values carry no types
Value = Any

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
F16, F32 = ir.HalfType(), ir.FloatType()
CACHE_LINE = 64
WIDENS_HALVES = ("f16c", "neon")  # without them LLVM would call a library that is not there


def vector(element: Any, lanes: int) -> Any:
    return ir.VectorType(element, lanes)


def constant(kind: Any, value: float) -> Value:
    """A scalar constant, or a vector with `value` in every lane."""
    if isinstance(kind, ir.VectorType):
        return ir.Constant(kind, [ir.Constant(kind.element, value)] * kind.count)
    return ir.Constant(kind, value)


def pointer(builder: Builder, address: Value, kind: Any) -> Value:
    """int64 address -> pointer to `kind`."""
    return builder.inttoptr(address, kind.as_pointer())


def load(builder: Builder, address: Value, kind: Any) -> Value:
    """Loads `kind` from any address, aligned or not."""
    return builder.load(pointer(builder, address, kind), align=1)


def store(builder: Builder, value: Value, address: Value) -> None:
    builder.store(value, pointer(builder, address, value.type), align=1)


def offset(builder: Builder, address: Value, index: Value, stride_bytes: int) -> Value:
    """address + index · stride."""
    return builder.add(address, builder.mul(index, constant(I64, stride_bytes)))


def splat(builder: Builder, scalar: Value, lanes: int) -> Value:
    kind = vector(scalar.type, lanes)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, constant(I32, 0))
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), constant(vector(I32, lanes), 0))


def pick(builder: Builder, a: Value, lanes: Sequence[int]) -> Value:
    """The lanes of `a` named by `lanes`."""
    mask = ir.Constant(vector(I32, len(lanes)), [ir.Constant(I32, lane) for lane in lanes])
    return builder.shuffle_vector(a, ir.Constant(a.type, ir.Undefined), mask)


def joined(builder: Builder, a: Value, b: Value) -> Value:
    """The lanes of `a`, then those of `b`, as many."""
    lanes = ir.Constant(vector(I32, 2 * a.type.count), [ir.Constant(I32, lane) for lane in range(2 * a.type.count)])
    return builder.shuffle_vector(a, b, lanes)


def pairs_added(builder: Builder, a: Value) -> Value:
    """[a0+a1, a2+a3, …]: half as many lanes."""
    lanes = a.type.count
    even, odd = pick(builder, a, range(0, lanes, 2)), pick(builder, a, range(1, lanes, 2))
    return builder.fadd(even, odd) if a.type.element == F32 else builder.add(even, odd)


def total(builder: Builder, a: Value) -> Value:
    """The sum of a vector's lanes, halving it in a fixed order."""
    added = builder.fadd if a.type.element == F32 else builder.add
    while (half := a.type.count // 2) >= 1:
        a = added(pick(builder, a, range(half)), pick(builder, a, range(half, 2 * half)))
    return builder.extract_element(a, constant(I32, 0))


def totals(builder: Builder, vectors: Sequence[Value]) -> Value:
    """Several float vectors -> the vector of their lanes' sums, each added in the order of `total`. Lanes are 2^n; of vectors that are not,
    the last is added up more than once."""
    parts, left = list(vectors), vectors[0].type.count  # lanes of each that are still to be added
    parts += [vectors[-1]] * ((1 << (len(vectors) - 1).bit_length()) - len(vectors))
    while len(parts) > 1:
        pairs = list(zip(parts[::2], parts[1::2], strict=True))
        parts = [joined(builder, a, b) if left == 1 else _halved(builder, a, b, left) for a, b in pairs]
        left = max(left // 2, 1)
    while left > 1:
        first, second = _halves(parts[0].type.count, left)
        parts = [builder.fadd(pick(builder, parts[0], first), pick(builder, parts[0], second))]
        left //= 2
    return parts[0]


def _halves(lanes: int, run: int) -> tuple[list[int], list[int]]:
    """The lanes of the first half of every run, and of the second."""
    half = run // 2
    first = [start + lane for start in range(0, lanes, run) for lane in range(half)]
    return first, [lane + half for lane in first]


def _halved(builder: Builder, a: Value, b: Value, run: int) -> Value:
    """The halves of every run of `a`, then of `b`, added."""

    def both(lanes: Sequence[int]) -> Value:
        mask = [ir.Constant(I32, lane + start) for start in (0, a.type.count) for lane in lanes]
        return builder.shuffle_vector(a, b, ir.Constant(vector(I32, len(mask)), mask))

    first, second = _halves(a.type.count, run)
    return builder.fadd(both(first), both(second))


def multiply_add(builder: Builder, a: Value, b: Value, c: Value) -> Value:
    """a·b + c, fused where the target has it. Never a call into a library."""
    lanes = f".v{a.type.count}f32" if isinstance(a.type, ir.VectorType) else ".f32"
    fmuladd = builder.module.declare_intrinsic("llvm.fmuladd" + lanes, fnty=ir.FunctionType(a.type, [a.type] * 3))
    return builder.call(fmuladd, (a, b, c))


def prefetch(builder: Builder, address: Value, level: int = 1, *, writing: bool = False) -> None:
    """Asks for one cache line, to be read or written soon, into the first cache or the second."""
    kind = ir.FunctionType(ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
    ask = builder.module.declare_intrinsic("llvm.prefetch.p0", fnty=kind)
    how, keep, data = constant(I32, int(writing)), constant(I32, 4 - level), constant(I32, 1)
    builder.call(ask, (pointer(builder, address, I8), how, keep, data))


def halves_to_floats(builder: Builder, bits: Value) -> Value:
    """float16 bits (uint16 vector) -> float32 vector."""
    lanes = bits.type.count
    if not any(target_of(builder).has(feature) for feature in WIDENS_HALVES):
        return _halves_by_integers(builder, bits)
    return builder.fpext(builder.bitcast(bits, vector(F16, lanes)), vector(F32, lanes))


def _halves_by_integers(builder: Builder, bits: Value) -> Value:
    """Shifted into place a half's exponent lacks 112; the multiplication adds it, subnormals included. 31 means infinity or NaN."""
    lanes = bits.type.count
    wide, floats = vector(I32, lanes), vector(F32, lanes)
    bits = builder.zext(bits, wide)
    sign = builder.shl(builder.and_(bits, constant(wide, 0x8000)), constant(wide, 16))
    size = builder.shl(builder.and_(bits, constant(wide, 0x7FFF)), constant(wide, 13))
    scaled = builder.bitcast(builder.fmul(builder.bitcast(size, floats), constant(floats, 2.0**112)), wide)
    special = builder.icmp_unsigned(">=", size, constant(wide, 0x7C00 << 13))
    finite_or_not = builder.select(special, builder.or_(size, constant(wide, 0x7F800000)), scaled)
    return builder.bitcast(builder.or_(finite_or_not, sign), floats)


def variable(builder: Builder, initial: Value) -> Value:
    """A place for one value, which LLVM turns into a register: only if it is made at the function's beginning."""
    with builder.goto_entry_block():
        at = builder.alloca(initial.type)
    builder.store(initial, at)
    return at


def repeat(builder: Builder, first: Value, last: Value, body: Callable[[Value], None]) -> None:
    """for index in range(first, last): body(index)."""
    function = builder.function
    head, inside, after = (function.append_basic_block(name) for name in ("head", "inside", "after"))
    entry = builder.block
    builder.branch(head)
    builder.position_at_end(head)
    index = builder.phi(I64)
    index.add_incoming(first, entry)
    builder.cbranch(builder.icmp_signed("<", index, last), inside, after)
    builder.position_at_end(inside)
    body(index)
    index.add_incoming(builder.add(index, constant(I64, 1)), builder.block)
    builder.branch(head)
    builder.position_at_end(after)


def choose(builder: Builder, number: Value, cases: Mapping[int, Callable[[], None]], otherwise: Callable[[], None]) -> None:
    """The case of a number, or what is done with every other."""
    done, other = (builder.append_basic_block(name) for name in ("done", "other"))
    chosen = builder.switch(number, other)
    blocks = [builder.append_basic_block(f"of_{case}") for case in cases]
    for (case, body), block in zip(cases.items(), blocks, strict=True):
        chosen.add_case(constant(I64, case), block)
        builder.position_at_end(block)
        body()
        builder.branch(done)
    builder.position_at_end(other)
    otherwise()
    builder.branch(done)
    builder.position_at_end(done)
