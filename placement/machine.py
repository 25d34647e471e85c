"""Which machine a plan is for: measured, taken from the table of cards, or a stated default. Measures nothing itself."""

import platform
from dataclasses import dataclass
from pathlib import Path

import psutil

from models.bits import FormatName
from models.errors import BadValue
from models.units import format_bytes
from profiles.cards import known_card
from profiles.hardware import (
    DENSITIES,
    MEASURED_FORMATS,
    WIDTHS,
    Around,
    Cpu,
    FormatPace,
    Gpu,
    HardwareProfile,
    Pace,
    WidthPace,
    load_hardware,
)
from profiles.shelf import hardware_path

DEFAULT_CARD = "RTX 3060"
ASSUMED_STREAMING = 40e9  # bytes/s: two channels of DDR4-3200 at 80 %
ASSUMED_GATHERING = 28e9  # bytes/s: scattered rows with prefetch, 70 % of that
ASSUMED_REGION_SECONDS = 10e-6
ASSUMED_BANK_SECONDS = 30e-6  # two regions, the merge
ASSUMED_LAYER_SECONDS = 30e-6  # norms, sums, attention over a short context
ASSUMED_STEP_SECONDS = 200e-6  # in Python


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user said of the machine; None where they said nothing. `gpu` is a card's name or a hardware file."""

    gpu: str | None
    vram_bytes: int | None


def machine(wish: Wish) -> HardwareProfile:
    """The hardware to plan for. BadValue for an unknown card, or more VRAM than the card has; BadArtefact for a bad file."""
    if wish.gpu is not None and is_file(wish.gpu):
        hardware = load_hardware(Path(wish.gpu))
    else:
        here = load_hardware(hardware_path()) if hardware_path().is_file() else None
        hardware = HardwareProfile(gpu=card(wish, here), cpu=here.cpu if here else assumed_cpu())
    check_vram(wish, hardware.gpu)
    return hardware


def is_file(gpu: str) -> bool:
    return gpu.endswith(".json") or Path(gpu).is_file()


def card(wish: Wish, here: HardwareProfile | None) -> Gpu | None:
    """The card that was named, else the measured one, else a default of the size that was asked for, else none."""
    if wish.gpu is not None:
        return known_card(wish.gpu)
    if here is not None and here.gpu is not None:
        return here.gpu
    if wish.vram_bytes is None:
        return None
    stand_in = {"name": f"a card like the {DEFAULT_CARD}", "vram_bytes": wish.vram_bytes}
    return known_card(DEFAULT_CARD).model_copy(update=stand_in)


def check_vram(wish: Wish, gpu: Gpu | None) -> None:
    if wish.vram_bytes is None:
        return
    if gpu is None:
        raise BadValue("--vram", format_bytes(wish.vram_bytes), f"but {wish.gpu} describes a machine without a GPU")
    if wish.vram_bytes > gpu.vram_bytes:
        raise BadValue("--vram", format_bytes(wish.vram_bytes), f"is more than the {format_bytes(gpu.vram_bytes)} of {gpu.name}")


def assumed_cpu() -> Cpu:
    """Cores and RAM of this machine, and bandwidths of a common desktop."""
    return Cpu(
        name=platform.processor() or platform.machine() or "unknown",
        measured=False,
        cores=psutil.cpu_count(logical=False) or psutil.cpu_count() or 1,
        ram_bytes=psutil.virtual_memory().total,
        formats=tuple(assumed_format(name) for name in MEASURED_FORMATS),
    )


def assumed_format(name: FormatName) -> FormatPace:
    """The same rates whatever the rows, from caches too."""
    pace = Pace(streaming=ASSUMED_STREAMING, scanning=ASSUMED_STREAMING, gathering=(ASSUMED_GATHERING,) * len(DENSITIES))
    width = WidthPace(width=WIDTHS[-1], region_seconds=ASSUMED_REGION_SECONDS, bank_seconds=ASSUMED_BANK_SECONDS, cached=pace, memory=pace)
    around = Around(layer_seconds=ASSUMED_LAYER_SECONDS, step_seconds=ASSUMED_STEP_SECONDS)
    return FormatPace(format=name, cached=around, memory=around, widths=(width,))
