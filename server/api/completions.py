"""POST /v1/completions: validate, encode, submit, and answer, whole or as a stream."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from server.api.answers import Answers
from server.api.asked import ask
from server.api.errors import body_of
from server.api.schemas import CompletionRequest
from server.api.sse import DONE, EventStream, event, watch
from server.bridge import Job
from server.engine import StepFailed
from server.sequence import Delta
from server.service import Service
from server.timings import Timings, told

router = APIRouter()
log = logging.getLogger("server.api")
Events = AsyncIterator[tuple[int, Delta]]


@router.post("/v1/completions")
async def completions(body: CompletionRequest, request: Request) -> Response:
    service: Service = request.app.state.service
    asked = await ask(body, service)
    job = service.bridge.submit(asked.sequences)
    watcher, answers = watch(request.receive, job), Answers(asked, service)
    try:
        return await (stream(answers, job, watcher) if body.stream else whole(answers, job, watcher))
    except BaseException:  # a failed step, or the server stopping
        watcher.cancel()
        job.cancel()
        raise


async def whole(answers: Answers, job: Job, watcher: asyncio.Task[None]) -> Response:
    """Everything in one object, when all choices are finished."""
    deltas: list[list[Delta]] = [[] for _ in job.sequences]
    async for number, delta in job.events():
        deltas[number].append(delta)
    watcher.cancel()
    choices = [answers.whole(number, deltas[number], index) for index, number in answers.best()]
    return JSONResponse(answers.frame(choices, int(time.time())) | {"usage": answers.usage(), "timings": timings_of(answers)})


def timings_of(answers: Answers) -> Timings:
    """The finished request's timings, which the log is told too."""
    found = answers.timings()
    log.info("%s %s", answers.asked.id, told(found))
    return found


async def stream(answers: Answers, job: Job, watcher: asyncio.Task[None]) -> Response:
    """Waits for the first event, so that a failure before it is a status."""
    events = job.events()
    first = await anext(events)
    return EventStream(chunks(answers, first, events), job, watcher)


async def chunks(answers: Answers, first: tuple[int, Delta], events: Events) -> AsyncIterator[str]:
    """One event per delta, usage if it was asked for, [DONE]. A step that fails in the middle is an error event, and the end."""
    created, begun, left = int(time.time()), set[int](), len(answers.asked.sequences)
    usage: dict[str, Any] = {"usage": None} if answers.asked.body.wants_usage else {}
    try:
        async for number, delta in chain(first, events):
            left -= delta.finish is not None
            choice = answers.chunk(number, delta, first=number not in begun)
            begun.add(number)
            last = {"timings": timings_of(answers)} if not left else {}
            yield event(answers.frame([choice], created) | usage | last)
    except StepFailed as error:
        yield event(body_of(error))
        return
    if usage:
        yield event(answers.frame([], created) | {"usage": answers.usage()})
    yield DONE


async def chain(first: tuple[int, Delta], rest: Events) -> Events:
    yield first
    async for item in rest:
        yield item
