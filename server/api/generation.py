"""A request that runs, from its submission to its last byte: whole or as a stream, and ended when its client goes away."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, TypeVar

from fastapi.responses import JSONResponse, Response
from starlette.types import Receive

from server.api.answers import Request, Shape
from server.api.errors import body_of
from server.api.sse import DONE, EventStream, event, watch
from server.bridge import Closed, EngineLost, Job
from server.engine import StepFailed
from server.guide import GuideFailed
from server.sequence import Delta, Sequence
from server.timings import Timings, told

MANY_ENTRIES = 256
Made = TypeVar("Made")
log = logging.getLogger("server.api")
ENDS = (StepFailed, GuideFailed, Closed, EngineLost)  # of a text, in the middle of it
Events = AsyncIterator[tuple[int, Delta]]


async def answer(shape: Shape, receive: Receive) -> Response:
    """Submits the request's sequences and answers; whatever ends them goes to the table of errors."""
    if shape.request.service.log_prompts:
        log.info("%s asks %r", shape.request.asked.id, [prompt.text for prompt in shape.request.asked.prompts])
    job = shape.request.service.bridge.submit(shape.request.asked.sequences)
    watcher = watch(receive, job)
    try:
        return await (stream(shape, job, watcher) if shape.request.asked.body.stream else whole(shape, job, watcher))
    except BaseException:  # a failed step, or the server stopping
        watcher.cancel()
        job.cancel()
        raise


async def whole(shape: Shape, job: Job, watcher: asyncio.Task[None]) -> Response:
    """Everything in one object, when all choices are finished."""
    deltas: list[list[Delta]] = [[] for _ in job.sequences]
    async for number, delta in job.events():
        deltas[number].append(delta)
    watcher.cancel()
    told = {"usage": shape.request.usage(), "timings": timings_of(shape.request)}

    def made() -> JSONResponse:
        choices = [shape.whole(number, deltas[number], index) for index, number in shape.request.best()]
        return JSONResponse(shape.frame(choices, int(time.time()), streamed=False) | told)

    return await beside(made, sum(map(entries, shape.request.asked.sequences)))


async def beside(make: Callable[[], Made], count: int) -> Made:
    """What `make` makes; in a thread, where so many tokens have an entry of their own (4,096 with 20 alternatives: 70 ms)."""
    return await asyncio.to_thread(make) if count > MANY_ENTRIES else make()


def entries(sequence: Sequence) -> int:
    """Tokens whose log probabilities are told."""
    scored = len(sequence.prompt) if sequence.params.score_prompt else 0
    return scored + (0 if sequence.params.logprobs is None else len(sequence.output))


def timings_of(request: Request) -> Timings:
    """The finished request's timings, which the log is told too."""
    found = request.timings()
    log.info("%s %s", request.asked.id, told(found), extra={"facts": {"id": request.asked.id} | found})
    if request.service.log_prompts:
        log.info("%s says %r", request.asked.id, [sequence.stream.text for sequence in request.asked.sequences])
    return found


async def stream(shape: Shape, job: Job, watcher: asyncio.Task[None]) -> Response:
    """Waits for the first event, so that a failure before it is a status."""
    events = job.events()
    first = await anext(events)
    return EventStream(chunks(shape, first, events), job, watcher)


async def chunks(shape: Shape, first: tuple[int, Delta], events: Events) -> AsyncIterator[str]:
    """Events for every delta, usage if it was asked for, [DONE]. A step that fails in the middle is an error event, and the end."""
    created, begun, left = int(time.time()), set[int](), len(shape.request.asked.sequences)
    wants_usage = shape.request.asked.body.wants_usage
    usage: dict[str, Any] = {"usage": None} if wants_usage else {}
    try:
        async for number, delta in chain(first, events):
            left -= delta.finish is not None
            make = partial(shape.chunks, number, delta, first=number not in begun)
            made = await beside(make, 0 if number in begun else entries(shape.request.asked.sequences[number]))
            begun.add(number)
            for place, choice in enumerate(made):
                last = {"timings": timings_of(shape.request)} if not left and place == len(made) - 1 else {}
                yield event(shape.frame([choice], created, streamed=True) | usage | last)
    except ENDS as error:
        yield event(body_of(error))
        return
    if wants_usage:
        yield event(shape.frame([], created, streamed=True) | {"usage": shape.request.usage()})
    yield DONE


async def chain(first: tuple[int, Delta], rest: Events) -> Events:
    yield first
    async for item in rest:
        yield item
