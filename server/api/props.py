"""GET /props: the model, its slots, and the placement as it was planned and as it is measured, side by side."""

from fastapi import APIRouter, Request
from pydantic import BaseModel

from placement.artefact import Placement
from server.measured import Bytes, Measured, planned_bytes, planned_seconds
from server.service import Service

router = APIRouter()


class Slots(BaseModel):
    total: int
    busy: int
    waiting: int
    unfinished: int


class Cache(BaseModel):
    """Of prompts: tokens read and tokens that were there already; old texts outside the slots."""

    prompt_tokens: int
    cached_tokens: int
    cached_share: float | None
    kept_texts: int
    kept_bytes: int
    kept_limit_bytes: int


class StepSeconds(BaseModel):
    """Of a decode step, the mean. The GPU works beside the CPU; what the CPU computes and its waiting are the step."""

    gpu: float | None
    cpu: float | None
    waiting: float | None


class Side(BaseModel):
    """One placement, planned or measured; null is what is not known. `hot_neurons`: on the GPU, layer by layer."""

    tokens_per_second: float | None
    hot_share: float | None
    hot_neurons: list[int] | None
    vram_bytes: Bytes | None
    ram_bytes: Bytes | None
    seconds: StepSeconds


class Planned(Side):
    assumptions: list[str]


class PlacementProps(BaseModel):
    planned: Planned | None
    measured: Side


class Props(BaseModel):
    """`device`: the card's name, or "cpu" where there is none and every neuron is computed by the CPU."""

    model: str
    device: str | None
    format: str | None
    context: int
    vocab: int
    chat: bool
    total_slots: int
    slots: Slots
    cache: Cache
    placement: PlacementProps


@router.get("/props")
async def props(request: Request) -> Props:
    """The model, its slots, and the placement planned and measured."""
    service: Service = request.app.state.service
    seen = Measured.look(service)
    return Props(
        model=service.model,
        device=None if service.held is None else service.held.device,
        format=None if service.plan is None else service.plan.question.format,
        context=service.context,
        vocab=service.vocab,
        chat=service.chat is not None,
        total_slots=seen.numbers.slots,
        slots=slots(seen),
        cache=cache(seen),
        placement=PlacementProps(planned=None if service.plan is None else planned(service.plan), measured=measured(seen, service.plan)),
    )


def slots(seen: Measured) -> Slots:
    numbers = seen.numbers
    return Slots(total=numbers.slots, busy=numbers.slots_busy, waiting=numbers.waiting, unfinished=seen.unfinished)


def cache(seen: Measured) -> Cache:
    numbers = seen.numbers
    return Cache(
        prompt_tokens=numbers.prompt_tokens,
        cached_tokens=numbers.cached_tokens,
        cached_share=seen.cache_share,
        kept_texts=numbers.kept_texts,
        kept_bytes=numbers.kept_bytes,
        kept_limit_bytes=numbers.kept_limit_bytes,
    )


def planned(plan: Placement) -> Planned:
    return Planned(
        tokens_per_second=plan.expected.tokens_per_second,
        hot_share=plan.served_in_all,
        hot_neurons=plan.hot_of_layer,
        vram_bytes=None if plan.vram is None else planned_bytes(plan.vram),
        ram_bytes=planned_bytes(plan.ram),
        seconds=StepSeconds(**planned_seconds(plan)),
        assumptions=plan.assumptions,
    )


def measured(seen: Measured, plan: Placement | None) -> Side:
    return Side(
        tokens_per_second=seen.sequence_tokens_per_second,
        hot_share=seen.hot_share,
        hot_neurons=None if seen.held is None else layers(seen.held.hot, 1 if plan is None else plan.n_experts),
        vram_bytes=seen.vram_bytes,
        ram_bytes=seen.ram_bytes,
        seconds=StepSeconds(**seen.step_seconds),
    )


def layers(hot: tuple[int, ...], n_experts: int) -> list[int]:
    return [sum(hot[first : first + n_experts]) for first in range(0, len(hot), n_experts)]
