"""Texts become tokens in threads, so that the event loop does not wait: large ones one at a time.

A tokenizer takes some two hundred bytes for each token while it works. Ten large prompts at once would take what the model has left,
and what one took goes back to the system after it.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from server.memory import give_back
from server.service import Service

LARGE_CHARACTERS = 1 << 16

Read = TypeVar("Read")


async def in_a_thread(read: Callable[[], Read], characters: int, service: Service) -> Read:
    """What `read` makes of a text of so many characters. Small texts do not wait for large ones."""
    if characters <= LARGE_CHARACTERS:
        return await asyncio.to_thread(read)
    return await asyncio.get_running_loop().run_in_executor(service.large_texts, partial(and_give_back, read))


def and_give_back(read: Callable[[], Read]) -> Read:
    try:
        return read()
    finally:
        give_back()
