"""What a server says before it is ready, and that nothing is in its way afterwards."""

import socket

import httpx
import openai
import pytest

from models.tokenizer import Tokenizer
from server.api.loading import answering_meanwhile
from tests.server.api.asking import checked
from tests.server.api.live import live_server
from tests.server.fakes import MemoryModel, running_service


def test_whatever_is_asked_while_the_model_loads_is_a_503_that_says_when_to_come_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with answering_meanwhile(taken):
            for path in ("/health", "/v1/models", "/nothing"):
                answer = httpx.get(url + path, verify=False)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
                assert checked(answer)["code"] == "loading"
            with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client, pytest.raises(openai.InternalServerError):
                client.completions.create(model="x", prompt="x")


def test_the_socket_goes_on_to_the_server(tokenizer: Tokenizer) -> None:
    with running_service(tokenizer, MemoryModel()) as service, socket.create_server(("127.0.0.1", 0)) as taken:
        with answering_meanwhile(taken):
            assert httpx.get(f"http://127.0.0.1:{taken.getsockname()[1]}/health", verify=False).status_code == 503
        with live_server(service, taken=taken) as url:
            assert httpx.get(f"{url}/health", verify=False).status_code == 200
