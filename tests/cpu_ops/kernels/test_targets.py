"""Code for CPUs that are not here: what it consists of, and what it computes.

A target's own instructions are looked for in cross-compiled assembly. Targets whose instructions this machine has run here; the one
instruction that it may lack is replaced by a function of the same meaning.
"""

import re
from functools import cache

import pytest
import torch
from llvmlite import binding, ir

from cpu_ops import prompt, tiles
from cpu_ops.describe import CODES
from cpu_ops.kernels.ir import I8, I32, pairs_added, vector
from cpu_ops.kernels.machine_code import Library, machine, object_code, optimised
from cpu_ops.kernels.row_code import addresses, emitted
from cpu_ops.kernels.target import Module, Target, numba_target
from cpu_ops.kernels.tile_code import tile_codes
from cpu_ops.kernels.tile_library import emitted_tile, tile_addresses
from cpu_ops.kernels.widen import emitted_widen, widen_address
from models.bits import FORMAT_NAMES, FormatName
from models.formats import Input
from models.rows import Rows
from tests.cpu_ops.kernels import calls
from tests.cpu_ops.kernels.examples import GROUPED, results, rows_and_input

X86, ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
VNNI = [
    Target(X86, "znver4", "+avx2,+fma,+f16c,+avx512f,+avx512bw,+avx512vl,+avx512vnni"),
    Target(X86, "sapphirerapids", "+avx2,+fma,+f16c,+avx512f,+avx512bw,+avx512vl,+avx512vnni,+avxvnni"),
    Target(X86, "alderlake", "+avx2,+fma,+f16c,+avxvnni"),
]
NARROW = [
    Target(X86, "x86-64", ""),
    Target(X86, "x86-64-v2", "+ssse3,+sse4.1,+sse4.2"),
    Target(X86, "haswell", "+avx2,+fma,-f16c"),
]
HERE = numba_target()
OURS = set(HERE.features.split(","))
# The name of a CPU brings features that nobody wrote down (a Sapphire Rapids has float16 arithmetic, a Zen 5 none).
RUN_HERE = [*NARROW, *(Target(X86, "x86-64-v3", each.features) for each in VNNI if set(each.features.split(",")) <= OURS)]
ARMS = [Target(ARM, "neoverse-n1", "+neon"), Target(ARM, "apple-m1", "+neon")]

SELDOM = ("sapphirerapids", "x86-64-v2", "x86-64-v3", "apple-m1")  # compiling takes up to two seconds; these differ little from the others


def for_each(targets: list[Target]) -> pytest.MarkDecorator:
    marked = [pytest.param(target, id=target.cpu, marks=[pytest.mark.slow] if target.cpu in SELDOM else []) for target in targets]
    return pytest.mark.parametrize("target", marked)


each_format = pytest.mark.parametrize("name", FORMAT_NAMES)
each_grouped = pytest.mark.parametrize("name", GROUPED)


@pytest.fixture(scope="module", autouse=True)
def _every_target() -> None:
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()


def modules(name: FormatName, target: Target) -> list[Module]:
    """Everything of a format."""
    tile = [emitted_tile(name, target)] if name in tile_codes() else []
    return [emitted(CODES[name], target), emitted_widen(name, target), *tile]


@cache
def assembly(name: FormatName, target: Target) -> str:
    return "".join(machine(target).emit_assembly(optimised(str(module), target)) for module in modules(name, target))


def leaves(text: str) -> list[str]:
    """Instructions that go elsewhere: calls, and jumps to anything but a label of our own."""
    return re.findall(r"^\t(?:call\w*|blr?|br)\t.*$|^\t(?:jmp\w*|b)\t(?!\.L).*$", text, re.MULTILINE)


@for_each(VNNI)
@each_grouped
def test_bytes_are_multiplied_and_added_by_one_instruction_where_there_is_one(name: FormatName, target: Target) -> None:
    text = assembly(name, target)
    assert "vpdpbusd" in text
    assert "vpmaddubsw" not in text
    assert leaves(text) == []


@for_each([VNNI[2], *NARROW[1:]])
@each_format
def test_nothing_is_called(name: FormatName, target: Target) -> None:
    assert leaves(assembly(name, target)) == []


@for_each(ARMS)
@each_format
def test_arm_gets_vectors_and_none_of_anothers_instructions(name: FormatName, target: Target) -> None:
    try:
        machine(target)
    except RuntimeError:
        pytest.skip("this build of llvmlite has no code for Arm")
    assert all("llvm.x86" not in str(module) for module in modules(name, target))
    text = assembly(name, target)
    assert re.search(r"\bv\d+\.(16b|8h|4s)", text)
    assert leaves(text) == []


def test_an_instruction_is_asked_for_only_where_the_features_name_it() -> None:
    """The name of a CPU, and the CPU that this runs on, say nothing."""
    for features in ("", "+avx512vnni", "+avx2,+avx512vl"):
        assert all("vpdpbusd" not in str(module) for module in modules("int4", Target(X86, "znver4", features)))


def use(monkeypatch: pytest.MonkeyPatch, name: FormatName, texts: list[str], target: Target, meant: Target) -> None:
    """From here on these modules, written for `meant`, are the format's code, as `target` can run it."""
    libraries = [Library(object_code(text, target), target) for text in texts]
    monkeypatch.setattr(calls, "functions", lambda _: addresses(CODES[name], libraries[0]))
    widen = widen_address(name, libraries[1]), libraries[1]
    for module in (prompt, tiles):
        monkeypatch.setattr(module, "compiled_widen", lambda _: widen)
    if name in tile_codes():
        monkeypatch.setattr(prompt, "compiled_tile", lambda _: (tile_addresses(name, libraries[2], meant), libraries[2]))


here = pytest.mark.skipif(HERE.triple != X86 or not HERE.has("avx2"), reason="needs a CPU with AVX2 to run on")


@here
@for_each(RUN_HERE)
@each_format
def test_a_narrower_target_gives_the_same_numbers(name: FormatName, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = {exact: rows_and_input(name, exact=exact) for exact in (True, False)}
    expected = {exact: results(*example) for exact, example in examples.items()}
    use(monkeypatch, name, [str(module) for module in modules(name, target)], target, target)
    assert torch.equal(results(*examples[True]), expected[True])
    torch.testing.assert_close(results(*examples[False]), expected[False], rtol=1e-5, atol=1e-5)


def with_portable_vnni(module: Module) -> str:
    """Its text, the instruction replaced by a function that does what the manual says of it."""
    text = re.sub(r"^declare .*vpdpbusd.*$", "", str(module), flags=re.MULTILINE)
    meanings = ir.Module("meanings")
    for lanes in (4, 8, 16):
        kind = vector(I32, lanes)
        function = ir.Function(meanings, ir.FunctionType(kind, [kind] * 3), f"meaning_of_vpdpbusd_{32 * lanes}")
        builder = ir.IRBuilder(function.append_basic_block())
        sums, unsigned, signed = function.args
        bytes_, wide = vector(I8, 4 * lanes), vector(I32, 4 * lanes)
        first, second = builder.zext(builder.bitcast(unsigned, bytes_), wide), builder.sext(builder.bitcast(signed, bytes_), wide)
        builder.ret(builder.add(sums, pairs_added(builder, pairs_added(builder, builder.mul(first, second)))))
    definitions = "\n".join(str(function) for function in meanings.functions)
    return text.replace("llvm.x86.avx512.vpdpbusd.", "meaning_of_vpdpbusd_") + definitions


def byte_examples(name: FormatName) -> list[tuple[Rows, Input]]:
    """Random ones, and every sign of the largest."""
    rows, x = rows_and_input(name, exact=False)
    extreme = [(rows, x)]
    for weight in {"int4": (0, 255), "int8": (-128, 127)}[name]:
        for value in (-127, 127):
            quants = torch.full_like(rows.planes[0], weight)
            extreme.append((Rows(rows.format, rows.k, (quants, rows.planes[1])), Input(torch.full_like(x.values, value), x.scales)))
    return extreme


@here
@each_grouped
def test_what_the_one_instruction_means_gives_the_bits_of_two(name: FormatName, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = byte_examples(name)
    expected = [results(*example) for example in examples]
    target = numba_target()
    with_it = target._replace(features=target.features + ",+avxvnni")
    rows, _widen, tile = texts = [with_portable_vnni(module) for module in modules(name, with_it)]
    assert all(re.search(r"= call .*meaning_of_vpdpbusd", each) for each in (rows, tile))
    use(monkeypatch, name, texts, target, with_it)
    for example, wanted in zip(examples, expected, strict=True):
        assert torch.equal(results(*example), wanted)
