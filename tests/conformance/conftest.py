"""One server for all tests of this folder that ask for it, and one independent model."""

from collections.abc import Iterator

import openai
import pytest

from models.paths import BUNDLED_MODEL
from models.tokenizer import Tokenizer
from profiles.hardware import HardwareProfile, save_hardware
from profiles.shelf import hardware_path
from tests.conformance.serving import CHATML, Independent, Running, serving
from tests.placement.makers import CPU


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A home of its own with a measured machine in it, and no GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THERMOCLINE_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        save_hardware(HardwareProfile(gpu=None, cpu=CPU), hardware_path())
        yield


@pytest.fixture(scope="session")
def server(home: None) -> Iterator[Running]:
    """Two slots of 512 tokens, a queue of two, and a chat template of ours."""
    with serving("--slots", "2", "--context", "512", "--queue", "2", "--chat-template", str(CHATML)) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def independent() -> Independent:
    return Independent()


@pytest.fixture(scope="session")
def tokens() -> Tokenizer:
    return Tokenizer.open(BUNDLED_MODEL)


@pytest.fixture(scope="module")
def small(home: None) -> Iterator[Running]:
    """Texts of 48 tokens at most, so that whatever is asked for is soon over."""
    with serving("--slots", "4", "--context", "48", "--queue", "500", "--chat-template", str(CHATML)) as running:
        yield running
