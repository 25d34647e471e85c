"""The port is taken first, and what is wrong with it is one line."""

import socket

import pytest

from models.errors import Unavailable
from server.listening import listening, url_of


def test_a_free_port_is_taken_and_connections_wait() -> None:
    with listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert url_of(taken) == f"http://127.0.0.1:{port}"
        with socket.create_connection(("127.0.0.1", port)):
            pass


@pytest.mark.parametrize(("host", "shown"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]")])
def test_the_address_shown_is_one_that_can_be_asked(host: str, shown: str) -> None:
    with listening(host, 0) as taken:
        assert url_of(taken) == f"http://{shown}:{taken.getsockname()[1]}"


def test_a_port_in_use_says_so() -> None:
    with (
        listening("127.0.0.1", 0) as taken,
        pytest.raises(Unavailable, match=r"127\.0\.0\.1:\d+: the port is in use; .*--port"),
        listening("127.0.0.1", taken.getsockname()[1]),
    ):
        pass


def test_an_address_that_is_not_ours_says_so() -> None:
    with pytest.raises(Unavailable, match="--host"), listening("192.0.2.1", 0):
        pass


def test_a_host_that_is_none_says_so() -> None:
    with pytest.raises(Unavailable, match=r"no such host\.invalid"), listening("no such host.invalid", 0):
        pass
