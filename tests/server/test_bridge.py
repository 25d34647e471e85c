"""From asyncio to the engine thread and back, with a model that waits for the test."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import pytest
from torch import Tensor

from models.step import Step
from models.tokenizer import Tokenizer
from server.bridge import Bridge, Closed, EngineLost, Job, QueueFull
from server.engine import Engine, StepFailed
from server.pace import Pace
from server.scheduler import Scheduler
from server.sequence import Delta, Params, Sequence
from server.slots import Slots
from tests.server.fakes import GatedModel, MemoryModel, build_sequence, greedy, running_service

LONG = Params(max_tokens=50, temperature=0)


def some(tokenizer: Tokenizer, count: int = 1, *, params: Params = LONG, first: int = 1) -> tuple[Sequence, ...]:
    return tuple(build_sequence(tokenizer, [first + number] * 3, params)[0] for number in range(count))


async def finished(job: Job) -> list[str | None]:
    """How each sequence ended, in the order of their endings."""
    return [delta.finish async for _, delta in job.events() if delta.finish is not None]


def within(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 20))


def test_events_come_back_in_order_for_every_sequence(tokenizer: Tokenizer) -> None:
    async def story(bridge: Bridge) -> None:
        sequences = some(tokenizer, 5, params=Params(max_tokens=9, temperature=0))
        texts = [""] * 5
        async for number, delta in bridge.submit(sequences).events():
            texts[number] += delta.text
        assert texts == [bytes(greedy(list(sequence.prompt), 9)).decode() for sequence in sequences]
        assert bridge.unfinished == 0

    with running_service(tokenizer, MemoryModel()) as service:
        within(story(service.bridge))


def test_a_cancelled_job_ends_before_the_next_step(tokenizer: Tokenizer) -> None:
    """One sequence is being computed, one has a slot, one waits; after the step that runs now there is no other."""
    model = GatedModel()

    async def story(bridge: Bridge) -> None:
        job = bridge.submit(some(tokenizer, 3))
        await asyncio.to_thread(model.entered.acquire)
        job.cancel()
        model.gate.release()
        assert await finished(job) == ["cancelled"] * 3
        assert bridge.unfinished == 0
        assert len(model.steps) == 1

    with running_service(tokenizer, model) as service:
        within(story(service.bridge))


def test_cancelling_in_the_middle_of_a_long_prompt_frees_the_slot_for_the_next(tokenizer: Tokenizer) -> None:
    model = GatedModel()

    async def story(bridge: Bridge) -> None:
        sequence, _ = build_sequence(tokenizer, [1] * 60, LONG)
        gone = bridge.submit((sequence,))
        await asyncio.to_thread(model.entered.acquire)
        waits = bridge.submit(some(tokenizer, 1, params=Params(max_tokens=1)))
        gone.cancel()
        model.gate.release(2)
        assert await finished(waits) == ["length"]
        assert await finished(gone) == ["cancelled"]
        assert sequence.cached == 8

    with running_service(tokenizer, model, slots=1) as service:
        within(story(service.bridge))


def test_a_full_queue_refuses_and_takes_again_when_there_is_room(tokenizer: Tokenizer) -> None:
    model = GatedModel()

    async def story(bridge: Bridge) -> None:
        jobs = [bridge.submit(some(tokenizer)) for _ in range(3)]
        with pytest.raises(QueueFull, match="2 choices"):
            bridge.submit(some(tokenizer))
        jobs[2].cancel()
        await asyncio.to_thread(model.entered.acquire)
        model.gate.release()
        assert await finished(jobs[2]) == ["cancelled"]
        bridge.submit(some(tokenizer))
        for job in jobs:
            job.cancel()
        model.gate.release(1000)

    with running_service(tokenizer, model, slots=1, queue_size=2) as service:
        within(story(service.bridge))


def test_a_failed_step_reaches_the_listener_and_ends_its_whole_job(tokenizer: Tokenizer) -> None:
    async def story(bridge: Bridge) -> None:
        with pytest.raises(StepFailed):
            await finished(bridge.submit(some(tokenizer, 6, first=13)))
        events = [delta async for _, delta in bridge.submit(some(tokenizer, 1, params=Params(max_tokens=2))).events()]
        assert isinstance(events[-1], Delta)
        assert bridge.unfinished == 0

    with running_service(tokenizer, MemoryModel(broken_token=13)) as service:
        within(story(service.bridge))


def test_a_stopped_bridge_takes_nothing(tokenizer: Tokenizer) -> None:
    async def story(bridge: Bridge) -> None:
        with pytest.raises(Closed):
            bridge.submit(some(tokenizer))

    with running_service(tokenizer, MemoryModel()) as service:
        assert service.bridge.alive
        assert service.bridge.stop(10)
        assert not service.bridge.alive
        within(story(service.bridge))


class WatchedEngine(Engine):
    """Counts how often the engine thread looks whether there is work."""

    looks = 0

    @property
    def idle(self) -> bool:
        self.looks += 1
        return super().idle


def test_the_engine_thread_sleeps_until_there_is_work_and_wakes_once_for_each_command(tokenizer: Tokenizer) -> None:
    async def story(bridge: Bridge) -> None:
        await finished(bridge.submit(some(tokenizer, 1, params=Params(max_tokens=1))))

    engine = WatchedEngine(MemoryModel(), Scheduler(Slots(2), Pace(8)), context=64)
    bridge = Bridge(engine, slots=2, queue_size=4, prepare=list)
    bridge.start()
    within(story(bridge))
    assert bridge.stop(10)
    assert engine.looks == 4  # asleep in the queue; is there a second command?; is a step due?; asleep again, until told to stop


def test_a_choice_that_nobody_reads_keeps_its_place_until_it_is_read_or_given_up(tokenizer: Tokenizer) -> None:
    async def story(bridge: Bridge) -> None:
        short = Params(max_tokens=2, temperature=0)
        unread, given_up, watched = (bridge.submit(some(tokenizer, params=short)) for _ in range(3))
        assert await finished(watched) == ["length"]
        while bridge.numbers.finished.get("length", 0) < 3:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        assert bridge.unfinished == 2
        given_up.cancel()
        assert bridge.unfinished == 1
        assert await finished(unread) == ["length"]
        assert bridge.unfinished == 0

    with running_service(tokenizer, MemoryModel(), slots=1) as service:
        within(story(service.bridge))


class Lost(MemoryModel):
    """A device that is gone after its first step, which waits until all have asked: nothing helps."""

    def __init__(self) -> None:
        super().__init__()
        self.all_asked = threading.Event()

    def __call__(self, step: Step) -> Tensor:
        assert self.all_asked.wait(10)
        if self.steps:
            raise RuntimeError("no such device")
        return super().__call__(step)


def gone() -> None:
    raise RuntimeError("still no such device")


def test_when_the_device_is_lost_everybody_hears_of_it_and_nobody_new_is_taken(tokenizer: Tokenizer) -> None:
    async def story(bridge: Bridge) -> None:
        running, *waiting = [bridge.submit(some(tokenizer)) for _ in range(4)]
        model.all_asked.set()
        with pytest.raises(StepFailed):
            await finished(running)
        for job in waiting:
            with pytest.raises(EngineLost, match="device no longer answers"):
                await finished(job)
        assert not bridge.alive
        with pytest.raises(EngineLost):
            bridge.submit(some(tokenizer))

    model = Lost()
    engine = Engine(model, Scheduler(Slots(1), Pace(8)), 64, recover=gone)
    bridge = Bridge(engine, slots=1, queue_size=4, prepare=list)
    bridge.start()
    within(story(bridge))


def test_whoever_is_not_finished_when_the_bridge_stops_is_told(tokenizer: Tokenizer) -> None:
    model = GatedModel()

    async def story(bridge: Bridge) -> None:
        job = bridge.submit(some(tokenizer, 3))
        await asyncio.to_thread(model.entered.acquire)
        stopping = asyncio.create_task(asyncio.to_thread(bridge.stop, 10))
        while bridge.alive:
            await asyncio.sleep(0.01)
        model.gate.release(9)  # the step under way, and those that come before the word to stop does: fewer than the text has
        assert await stopping
        with pytest.raises(Closed):
            await finished(job)

    with running_service(tokenizer, model, slots=1) as service:
        within(story(service.bridge))
