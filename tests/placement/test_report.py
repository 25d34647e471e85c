"""The report: every byte on a line, and everything that was guessed named as such."""

import re

from models.units import format_rate
from placement.artefact import Placement
from placement.plan import solve
from placement.report import report
from profiles.hardware import HardwareProfile
from tests.placement.makers import CPU, MACHINE, NO_GPU, manifest_of, profile_of


def plan_on(hardware: HardwareProfile) -> Placement:
    return solve(manifest_of(), profile_of(), hardware, vram_bytes=None, ram_bytes=10**9, context=64, slots=2)


def test_the_lines_of_each_budget_add_up_to_its_limit() -> None:
    text = report(plan_on(MACHINE))
    vram, ram = text.split("\n\n")[1].split("RAM, 1.00 GB")
    assert vram.startswith("VRAM, 8.00 GB")
    for block, limit in ((vram, 8 * 10**9), (ram, 10**9)):
        counts = [int(count.replace(",", "")) for count in re.findall(r"([\d,]+) bytes", block)]
        assert sum(counts) == limit


def test_every_layer_and_their_sum_have_a_line() -> None:
    plan = plan_on(MACHINE)
    rows = re.findall(r"^ *(\d|all) +(\d+) +([\d.]+)%", report(plan), re.MULTILINE)
    assert [row[0] for row in rows] == ["0", "1", "2", "all"]
    assert [int(row[1]) for row in rows] == [*plan.hot_of_layer, sum(plan.hot)]


def test_it_says_what_to_expect_and_what_bounds_it() -> None:
    plan = plan_on(MACHINE)
    rate = format_rate(plan.expected.tokens_per_second)
    assert f"expected: {rate} tokens/s for one sequence, bounded by {plan.expected.bound}" in report(plan)


def test_nothing_is_called_assumed_when_all_was_measured() -> None:
    assert "assumed" not in report(plan_on(MACHINE))


def test_every_assumption_is_named() -> None:
    guessed = HardwareProfile(gpu=None, cpu=CPU.model_copy(update={"measured": False}))
    plan = solve(manifest_of(), None, guessed, vram_bytes=None, ram_bytes=10**9, context=64, slots=2)
    tail = report(plan).split("assumed, not measured:")[1]
    assert len(tail.strip().splitlines()) == len(plan.assumptions) == 2


def test_a_machine_without_a_gpu_is_said_to_be_one() -> None:
    text = report(plan_on(NO_GPU))
    assert "There is no GPU: every neuron is computed by the CPU." in text
    assert "VRAM" not in text
