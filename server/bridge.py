"""Bridge: between asyncio, where requests live, and the one thread that runs the engine. Knows no HTTP and no model.

Everything crosses by two queues: commands into the thread, events back to each job's loop. No state is shared, so no locks.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from server.engine import Engine
from server.numbers import Numbers
from server.sequence import Delta, Event, Failed, Sequence

Command = Callable[[Engine], None]
log = logging.getLogger("server.bridge")


class QueueFull(Exception):
    """As many choices are unfinished as there are slots and places in the queue."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"the queue is full: {waiting} choices are waiting; try again")
        self.waiting = waiting


class Closed(Exception):
    """The server is stopping."""

    def __init__(self) -> None:
        super().__init__("the server is stopping and takes no new requests")


class EngineLost(Exception):
    """The engine's thread has died: the device no longer answers, or the engine made a mistake."""

    def __init__(self) -> None:
        super().__init__(
            "the model has stopped, since its device no longer answers; the log says why, and the server must be started again"
        )


@dataclass(slots=True, eq=False)
class Job:
    """The sequences of one request and their events, in the order they happened."""

    sequences: tuple[Sequence, ...]
    send: Callable[[Command], None]
    arrived: asyncio.Queue[tuple[int, Event]] = field(default_factory=asyncio.Queue)
    unread: int = 0  # choices that are finished, and whose reader has not come to their end
    cancelled: bool = False

    async def events(self) -> AsyncIterator[tuple[int, Delta]]:
        """(number of the sequence, what became visible), until every sequence is finished. A failed step raises its error."""
        left = len(self.sequences)
        while left:
            number, event = await self.arrived.get()
            self.unread -= ends(event)
            if isinstance(event, Failed):
                self.cancel()
                raise event.error
            left -= event.finish is not None
            yield number, event

    def cancel(self) -> None:
        """Ends what is not finished, before the engine's next step."""
        if not self.cancelled:
            self.cancelled = True
            self.send(partial(cancel, self.sequences))


def ends(event: Event) -> bool:
    """Whether it is the last one of its sequence."""
    return isinstance(event, Failed) or event.finish is not None


def cancel(sequences: tuple[Sequence, ...], engine: Engine) -> None:
    for sequence in sequences:
        engine.cancel(sequence)


def submit(sequences: tuple[Sequence, ...], engine: Engine) -> None:
    """All at once, so that none has read its prompt before the others are known."""
    for sequence in sequences:
        engine.submit(sequence)


class Bridge:
    """Takes a request when fewer than `slots + queue_size` choices are unfinished; so a request of many choices can overshoot, once.

    A choice whose events nobody has read to their end counts as unfinished: that bounds what slow readers can make the server hold.

    `prepare` is called first on the engine's thread, for settings that belong to a thread.
    """

    def __init__(self, engine: Engine, *, slots: int, queue_size: int, prepare: Callable[[], object]) -> None:
        self._engine, self._prepare = engine, prepare
        self._slots, self._limit = slots, slots + queue_size
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._unfinished = 0  # touched by the event loop only, as are
        self._reading: set[Job] = set()  # jobs with choices that are finished and not read to their end
        self._closed = threading.Event()
        self._lost = False  # set before `_closed`, and never again

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._closed.is_set()

    @property
    def ended(self) -> Closed | EngineLost:
        """Why nothing is taken any more, when it is not alive."""
        return EngineLost() if self._lost else Closed()

    @property
    def unfinished(self) -> int:
        """Choices that wait or run, or are not read to their end."""
        self._reading = {job for job in self._reading if job.unread and not job.cancelled}
        return self._unfinished + sum(job.unread for job in self._reading)

    @property
    def numbers(self) -> Numbers:
        """What the engine has done, as of its last step."""
        return self._engine.numbers

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Ends the thread after its present step, and with it every sequence."""
        self._closed.set()
        self._commands.put(None)

    def stop(self, seconds: float) -> bool:
        """Closes, and waits; False when the present step took longer than `seconds`."""
        self.close()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def submit(self, sequences: tuple[Sequence, ...]) -> Job:
        """Hands all sequences of a request to the engine, or none: QueueFull, Closed, EngineLost."""
        if not self.alive:
            raise self.ended
        if self.unfinished >= self._limit:
            raise QueueFull(self.unfinished - self._slots)
        loop, job = asyncio.get_running_loop(), Job(sequences, self._commands.put)
        self._unfinished += len(sequences)
        for number, sequence in enumerate(sequences):
            sequence.emit = partial(post, loop, partial(self._deliver, job, number))
        self._commands.put(partial(submit, sequences))
        if self._closed.is_set():  # it may have closed before the command came, and then nobody will obey it
            raise self.ended
        return job

    def _deliver(self, job: Job, number: int, event: Event) -> None:
        """On the event loop."""
        if ends(event):
            self._unfinished -= 1
            job.unread += 1
            self._reading.add(job)
        job.arrived.put_nowait((number, event))

    def _run(self) -> None:
        """The engine thread: commands first, then a step; asleep when there is neither. However it ends, nobody waits for it in vain."""
        try:
            self._prepare()
            while self._obey():
                if not self._engine.idle:
                    self._engine.step()
        except Exception:
            log.exception("the engine has stopped")
            self._lost = True
        finally:
            self._closed.set()
            self._give_up()

    def _give_up(self) -> None:
        """Ends every sequence, those too that are still on their way here."""
        with suppress(queue.Empty):
            while True:
                command = self._commands.get_nowait()
                if command is not None:
                    command(self._engine)
        self._engine.abandon(self.ended)

    def _obey(self) -> bool:
        """Carries out all commands that have come, waiting for one when the engine is idle; False when told to stop."""
        try:
            while True:
                command = self._commands.get(block=self._engine.idle)
                if command is None:
                    return False
                command(self._engine)
        except queue.Empty:
            return True


def post(loop: asyncio.AbstractEventLoop, deliver: Callable[[Event], None], event: Event) -> None:
    """Calls `deliver(event)` on `loop`; when the loop is closed, nobody is listening."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(deliver, event)
