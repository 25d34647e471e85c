"""HardwareProfile: what a machine can do. The type, its file, and a table of known cards; measuring is `profiles/probe.py`. Torch-free."""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.errors import BadArtefact
from models.manifest import first_line, read_json_artefact
from models.paths import whole_file

VERSION = 1
REMEDY = "measure again with `profiles hardware`"


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


class Cpu(BaseModel):
    """`streaming` reads rows in order, `gathering` reads scattered rows; both with every core, in bytes per second."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: str
    measured: bool
    cores: int = Field(gt=0)
    ram_bytes: int = Field(gt=0)
    streaming: float = Field(ge=1)
    gathering: float = Field(ge=1)
    region_seconds: float = Field(ge=0)


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
