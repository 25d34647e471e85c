"""GET /props: the model, its slots, and the placement as it was planned and as it is measured, side by side."""

from fastapi import APIRouter, Request
from pydantic import BaseModel

from placement.artefact import Placement
from placement.budget import Budget
from server.held import Held
from server.measured import Measured
from server.service import Service

router = APIRouter()
Bytes = dict[str, int]


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
    """Means over all steps. The GPU works beside the CPU; what the CPU computes and its waiting are the step."""

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
    model: str
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
    expected = plan.expected
    return Planned(
        tokens_per_second=expected.tokens_per_second,
        hot_share=plan.served_in_all,
        hot_neurons=plan.hot_of_layer,
        vram_bytes=None if plan.vram is None else spent(plan.vram),
        ram_bytes=spent(plan.ram),
        seconds=StepSeconds(gpu=expected.gpu_seconds, cpu=expected.cpu_seconds, waiting=expected.transfer_seconds),
        assumptions=plan.assumptions,
    )


def spent(budget: Budget) -> Bytes:
    return {line.name: line.bytes for line in budget.lines} | {"in all": budget.used_bytes, "limit": budget.limit_bytes}


def measured(seen: Measured, plan: Placement | None) -> Side:
    """Lines have the plan's names; what is one number in the plan and nobody's tensor (workspace, margin) is in the sum only."""
    numbers, held, memory = seen.numbers, seen.held, seen.memory
    spine = {} if held is None else {"spine": held.spine_bytes, "KV cache": held.kv_bytes}
    on_gpu = None if memory.vram is None or held is None else {**spine, **hot_bytes(held), "in all": memory.vram}
    ram = {"in all": memory.resident} if held is None else {**cold_bytes(held), "in all": memory.resident}
    return Side(
        tokens_per_second=seen.sequence_tokens_per_second,
        hot_share=seen.hot_share,
        hot_neurons=None if held is None else layers(held.hot, 1 if plan is None else plan.n_experts),
        vram_bytes=on_gpu,
        ram_bytes=ram if on_gpu is not None else spine | ram,
        seconds=StepSeconds(
            gpu=seen.per_step(numbers.gpu_seconds), cpu=seen.per_step(numbers.cpu_seconds), waiting=seen.per_step(numbers.waiting_seconds)
        ),
    )


def hot_bytes(held: Held) -> Bytes:
    return {"hot neurons": held.hot_bytes} | ({"predictors": held.mask_bytes} if held.mask_bytes else {})


def cold_bytes(held: Held) -> Bytes:
    return {"cold neurons": held.cold_bytes} | ({"predictors": held.predictor_bytes} if held.predictor_bytes else {})


def layers(hot: tuple[int, ...], n_experts: int) -> list[int]:
    return [sum(hot[first : first + n_experts]) for first in range(0, len(hot), n_experts)]
