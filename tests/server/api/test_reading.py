"""Large texts are read one at a time, and small ones do not wait for them."""

import asyncio
import threading
import time

from models.tokenizer import Tokenizer
from server.api.reading import LARGE_CHARACTERS, in_a_thread
from server.service import Service
from tests.server.fakes import MemoryModel, running_service


def test_large_texts_are_read_one_at_a_time_and_small_ones_beside_them(tokenizer: Tokenizer) -> None:
    at_once, most, gate = 0, 0, threading.Event()

    def read() -> str:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        assert gate.wait(10)
        time.sleep(0.01)
        at_once -= 1
        return "large"

    async def story(service: Service) -> None:
        large = [asyncio.create_task(in_a_thread(read, LARGE_CHARACTERS + 1, service)) for _ in range(8)]
        assert await in_a_thread(lambda: "small", LARGE_CHARACTERS, service) == "small"
        gate.set()
        assert await asyncio.gather(*large) == ["large"] * 8

    with running_service(tokenizer, MemoryModel()) as service:
        asyncio.run(asyncio.wait_for(story(service), 20))
    assert most == 1
