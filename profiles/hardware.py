"""HardwareProfile: what a machine can do. The type, its file, and a table of known cards; measuring is `profiles/probe.py`. Torch-free."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.bits import FormatName
from models.errors import BadArtefact
from models.manifest import first_line, read_json_artefact
from models.paths import whole_file

VERSION = 2  # 1 knew one rate for all formats and widths
REMEDY = "measure again with `profiles hardware`"

MEASURED_FORMATS: tuple[FormatName, ...] = ("int4", "int8", "bf16")  # float32 is for tests, and takes bf16's rates
WIDTHS = (256, 1024, 4096)  # weights of a row: short rows are bound by computing, long ones by memory
DENSITIES = (0.03, 0.1, 0.3, 1.0)  # shares of a bank's neurons that fire
Level = Literal["cached", "memory"]
LEVEL_BYTES: dict[Level, int] = {"cached": 12 << 20, "memory": 256 << 20}  # read again and again: what most last caches hold, and none
Rate = Annotated[float, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0)]


class Gpu(BaseModel):
    """Sizes in bytes, rates in bytes per second, times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: str
    measured: bool
    vram_bytes: int = Field(gt=0)
    bandwidth: float = Field(ge=1)
    to_device: float = Field(ge=1)
    to_host: float = Field(ge=1)
    launch_seconds: float = Field(ge=0)
    sync_seconds: float = Field(ge=0)


class Pace(BaseModel):
    """Bytes per second, with every core.

    streaming: a matrix times a vector. scanning: a bank of which nothing fires, its gate rows. gathering: the rows of up and
    down that firing adds, at each of DENSITIES.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    streaming: Rate
    scanning: Rate
    gathering: tuple[Rate, ...] = Field(min_length=len(DENSITIES), max_length=len(DENSITIES))


class WidthPace(BaseModel):
    """Of rows of `width` weights: what a matrix and a bank take besides their bytes, and the rates of both levels."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    width: int = Field(gt=0)
    region_seconds: Seconds
    bank_seconds: Seconds
    cached: Pace
    memory: Pace


class Around(BaseModel):
    """What a layer takes besides its two matrices and its bank, and a step besides its layers and the head."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    layer_seconds: Seconds
    step_seconds: Seconds


class FormatPace(BaseModel):
    """Of one format: `cached` is around a model of next to no weights, `memory` around one whose weights pass through the caches."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    format: FormatName
    cached: Around
    memory: Around
    widths: tuple[WidthPace, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _rising(self) -> Self:
        widths = [each.width for each in self.widths]
        if any(a >= b for a, b in pairwise(widths)):
            raise ValueError(f"its widths {widths} do not rise")
        return self


class Cpu(BaseModel):
    """`formats`: what the kernels make of each; a format that was not measured takes the last one's rates."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: str
    measured: bool
    cores: int = Field(gt=0)
    ram_bytes: int = Field(gt=0)
    formats: tuple[FormatPace, ...] = Field(min_length=1)

    def of(self, name: FormatName) -> FormatPace:
        return next((each for each in self.formats if each.format == name), self.formats[-1])


class HardwareProfile(BaseModel):
    """`gpu` is None on a machine without one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    version: int = VERSION
    gpu: Gpu | None
    cpu: Cpu


def save_hardware(profile: HardwareProfile, path: Path) -> None:
    with whole_file(path) as part:
        part.write_text(profile.model_dump_json(indent=2) + "\n")


def load_hardware(path: Path) -> HardwareProfile:
    data = read_json_artefact(path, VERSION, REMEDY)
    try:
        return HardwareProfile.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise BadArtefact(path, first_line(error), REMEDY) from None
