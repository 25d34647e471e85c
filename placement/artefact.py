"""Placement: the answer to one question, how many neurons of each bank are hot, and the file it is kept in.

The question holds everything the answer depends on. A plan is of use only where the same question would be asked again:
whoever loads one compares `plan.question` with its own. Knows not how an answer is found.
"""

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.bits import FormatName
from models.errors import BadArtefact, WrongModel
from models.manifest import first_line, read_json_artefact
from models.paths import home, whole_file
from placement.budget import Budget, Demand
from profiles.hardware import HardwareProfile

VERSION = 2  # 1 held hardware with one rate for all formats
REMEDY = "make it again with `placement solve`"


class Question(BaseModel):
    """What a plan was asked. `profile` is the fingerprint of the counts, None for the assumed power law."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    fingerprint: str
    format: FormatName
    weights_assumed: bool
    profile: str | None
    hardware: HardwareProfile
    vram_bytes: int | None = Field(gt=0)
    ram_bytes: int = Field(gt=0)
    context: int = Field(gt=0)
    slots: int = Field(gt=0)
    predictor_bytes: int = Field(ge=0, default=0)  # of predictors that selection uses; 0 for exact selection

    @property
    def demand(self) -> Demand:
        return Demand(self.context, self.slots, self.vram_bytes, self.ram_bytes, self.predictor_bytes)


class Expected(BaseModel):
    """Seconds per decoded token of one sequence, each layer counted where it waits. `full_context_seconds` comes on top of them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    gpu_seconds: float = Field(ge=0)
    cpu_seconds: float = Field(ge=0)
    transfer_seconds: float = Field(ge=0)
    full_context_seconds: float = Field(ge=0)

    @model_validator(mode="after")
    def _takes_time(self) -> "Expected":
        if not self.seconds > 0:
            raise ValueError("a token takes no time")
        return self

    @property
    def seconds(self) -> float:
        return self.gpu_seconds + self.cpu_seconds + self.transfer_seconds

    @property
    def tokens_per_second(self) -> float:
        return 1.0 / self.seconds

    @property
    def bound(self) -> str:
        """What most of the time goes to."""
        parts = {"the GPU": self.gpu_seconds, "the CPU": self.cpu_seconds, "transfers": self.transfer_seconds}
        return max(parts, key=lambda name: parts[name])


class Placement(BaseModel):
    """`hot` [L·E]: neurons of each bank on the GPU, the first of its order. `served` [L]: share of a layer's firings they make."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    version: int = VERSION
    model: str
    corpus: str | None  # what the profile was recorded on
    question: Question
    n_layers: int = Field(gt=0)
    n_experts: int = Field(gt=0)
    n_neurons: int = Field(gt=0)
    group: int = Field(gt=0)
    hot: tuple[int, ...]
    served: tuple[Annotated[float, Field(ge=0, le=1)], ...]
    served_in_all: float = Field(ge=0, le=1)
    vram: Budget | None
    ram: Budget
    expected: Expected
    status: Literal["optimal"]
    gap: float = Field(ge=0)
    solve_seconds: float = Field(ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> "Placement":
        if len(self.hot) != self.n_layers * self.n_experts or len(self.served) != self.n_layers:
            raise ValueError(f"has {len(self.hot)} counts for {self.n_layers} layers of {self.n_experts} experts")
        if any(not 0 <= count <= self.n_neurons for count in self.hot):
            raise ValueError(f"has a count of hot neurons outside 0 to {self.n_neurons}")
        return self

    @property
    def hot_of_layer(self) -> list[int]:
        """int [L]: hot neurons of each layer, all experts together."""
        return [sum(self.hot[first : first + self.n_experts]) for first in range(0, len(self.hot), self.n_experts)]

    @property
    def assumptions(self) -> list[str]:
        """What nobody measured, a line each; empty when the plan stands on measurements alone."""
        asked, lines = self.question, []
        if asked.weights_assumed:
            lines.append("the model: only its config.json was read; bytes are computed, not counted")
        if asked.profile is None:
            lines.append("firing: no profile; a power law stands in (`profiles record` counts)")
        if asked.predictor_bytes:
            lines.append("how many neurons predictors name: seconds are those of exact selection")
        if asked.hardware.gpu is not None and not asked.hardware.gpu.measured:
            lines.append(f"the GPU: {asked.hardware.gpu.name}, from its data sheet (`profiles hardware` measures)")
        if not asked.hardware.cpu.measured:
            lines.append("the CPU: bandwidths of a common desktop (`profiles hardware` measures)")
        return lines


def default_path(question: Question) -> Path:
    """Where the plan for a model and a format is kept unless told otherwise."""
    return home() / "plans" / f"{question.fingerprint.replace(':', '-')[:16]}-{question.format}.json"


def save_placement(plan: Placement, path: Path) -> None:
    with whole_file(path) as part:
        part.write_text(plan.model_dump_json(indent=1) + "\n")


def load_placement(path: Path, fingerprint: str | None = None) -> Placement:
    """Reads a plan; WrongModel when `fingerprint` is given and is not the one it was solved for."""
    data = read_json_artefact(path, VERSION, REMEDY)
    try:
        plan = Placement.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise BadArtefact(path, first_line(error), REMEDY) from None
    if fingerprint is not None and plan.question.fingerprint != fingerprint:
        raise WrongModel(path, plan.question.fingerprint, fingerprint, REMEDY)
    return plan
