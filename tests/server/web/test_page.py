"""The page in a real browser: type, stream, stop, reload, and a map that moves."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Request, expect

from models.chat import ChatTemplate
from models.tokenizer import Tokenizer
from profiles.hardware import HardwareProfile, save_hardware
from profiles.shelf import hardware_path
from server.api.app import Door
from server.held import Held
from server.service import Service
from server.watching import Firing
from tests.placement.makers import CPU
from tests.server.api.live import live_server
from tests.server.fakes import GatedModel, MemoryModel, greedy, running_service
from tests.server.test_process import running
from tests.server.web.browser import browser, needs_chromium, watched_page

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    """What the page's console and network say; a test that expects some takes them out."""
    found: list[str] = []
    yield found
    assert found == []


@pytest.fixture
def service(tokenizer: Tokenizer) -> Iterator[Service]:
    with running_service(tokenizer, MemoryModel(), context=64) as running:
        yield running


def settled(page: Page, url: str) -> Page:
    """The page, when it knows its model and has its map."""
    page.goto(url)
    expect(page.locator("#model")).to_contain_text("fake")
    expect(page.locator("#map-text")).to_contain_text("2 layers, 20 neurons, 15.0 % of them on the GPU")
    return page


def set_sampling(page: Page, **values: str) -> None:
    page.locator("#controls > summary").click()
    for name, value in values.items():
        page.locator(f"#{name}").fill(value)
        page.locator(f"#{name}").blur()


def test_a_text_is_gone_on_with_and_survives_a_reload(chromium: Browser, complaints: list[str], service: Service) -> None:
    wanted = "once upon" + bytes(greedy(list(b"once upon"), 20)).decode()
    with live_server(service) as url:
        page = settled(watched_page(chromium, complaints), url)
        set_sampling(page, temperature="0", max_tokens="20")
        page.locator("#prompt").fill("once upon")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#log")).to_have_text(wanted)
        expect(page.locator("#speed")).to_have_text(re.compile(r"20 tokens, [\d.]+ tokens/s \(expected 42.0\)"))
        expect(page.locator("#send")).to_be_enabled()
        page.reload()
        expect(page.locator("#log")).to_have_text(wanted)
        expect(page.locator("#temperature")).to_have_value("0")
        page.locator("#prompt").press("Control+Enter")  # nothing typed: it goes on
        more = bytes(greedy(list(wanted.encode()), 20)).decode()
        expect(page.locator("#log")).to_have_text(wanted + more)


@pytest.mark.parametrize("by_key", [True, False])
def test_stop_ends_a_running_text_and_frees_its_slot(chromium: Browser, complaints: list[str], tokenizer: Tokenizer, by_key: bool) -> None:
    """By Escape, or by the button."""
    model = GatedModel()
    with running_service(tokenizer, model, context=64) as service, live_server(service) as url:
        page = settled(watched_page(chromium, complaints), url)
        page.locator("#prompt").fill("abc")
        page.locator("#send").click()
        for _ in range(4):
            model.gate.release()
        expect(page.locator("#log")).to_have_text(re.compile("abc.{3,4}$"))
        expect(page.locator("#send")).to_be_disabled()
        if by_key:
            page.keyboard.press("Escape")
        else:
            page.locator("#stop").click()
        expect(page.locator("#stop")).to_be_disabled()
        model.gate.release(60)  # the steps that come before the server notices
        page.wait_for_function("async () => (await (await fetch('/health')).json()).unfinished === 0")
        expect(page.locator("#log")).to_have_text(re.compile("abc.{3,8}$"))


def test_the_map_moves_as_neurons_fire(chromium: Browser, complaints: list[str], service: Service) -> None:
    with live_server(service) as url:
        page = settled(watched_page(chromium, complaints), url)
        before = page.evaluate("document.querySelector('#cells').toDataURL()")
        cells = np.zeros((2, 10), np.uint8)
        cells[0, 1], cells[1, 9] = 255, 255
        service.watch.publish(Firing(tokens=1, cells=cells, fired_hot=1, fired_cold=1))
        expect(page.locator("#map-text")).to_contain_text("2 neurons fired per token, 50.0 % of them on the GPU")
        assert page.evaluate("document.querySelector('#cells').toDataURL()") != before
        colours = page.evaluate(
            "[[1, 0], [9, 1], [5, 0]].map(([x, y]) => [...document.querySelector('#cells').getContext('2d').getImageData(x, y, 1, 1).data])"
        )
        (red, _, blue, _), (cold_red, _, cold_blue, _), silent = colours
        assert red > blue  # hot, by the GPU
        assert cold_blue > cold_red
        assert sum(silent[:3]) < cold_blue


def test_a_refusal_is_told_and_the_next_request_works(chromium: Browser, complaints: list[str], service: Service) -> None:
    with live_server(service) as url:
        page = settled(watched_page(chromium, complaints), url)
        page.locator("#prompt").fill("x" * 70)
        page.locator("#send").click()
        expect(page.get_by_role("alert")).to_contain_text("exceeds the available context size of 64 tokens")
        page.locator("#clear").click()
        page.locator("#prompt").fill("abc")
        page.locator("#send").click()
        expect(page.locator("#log")).to_have_text(re.compile("^abc.+"))
    complaints[:] = [line for line in complaints if "400 (Bad Request)" not in line]


def test_every_control_is_sent_and_nothing_but_the_public_api_is_asked(chromium: Browser, complaints: list[str], service: Service) -> None:
    """A field that is empty is left out: the server has the default."""
    sent, asked = list[str](), set[str]()

    def note(request: Request) -> None:
        asked.add(urlsplit(request.url).path)
        if request.method == "POST":
            sent.append(request.post_data or "")

    with live_server(service) as url:
        page = watched_page(chromium, complaints)
        page.on("request", note)
        settled(page, url)
        values = {
            "max_tokens": "3",
            "temperature": "0.5",
            "top_p": "0.6",
            "top_k": "7",
            "min_p": "0.08",
            "repetition_penalty": "1.1",
            "seed": "12",
        }
        for controls in (values | {"stop_text": "zz"}, values | {"seed": "", "stop_text": ""}):
            page.locator("#controls").evaluate("details => { details.open = false }")
            set_sampling(page, **controls)
            page.locator("#prompt").fill("abc")
            page.locator("#send").click()
            expect(page.locator("#speed")).to_contain_text("expected")
            expect(page.locator("#send")).to_be_enabled()
        public = httpx.get(f"{url}/openapi.json").json()["paths"]
    first, second = (json.loads(body) for body in sent)
    assert {name: first[name] for name in values} == {name: float(value) for name, value in values.items()}
    assert (first["stop"], first["stream"], first["model"]) == ("zz", True, "fake")
    assert not second.keys() & {"seed", "stop"}
    assert {path for path in asked if path != "/" and not path.startswith(("/web/", "image/"))} <= public.keys()
    assert {"/map", "/props", "/v1/completions"} <= asked


@pytest.mark.parametrize(("device", "shown"), [("cpu", "no GPU"), ("NVIDIA RTX 9", "NVIDIA RTX 9")])
def test_where_it_runs_is_told(chromium: Browser, complaints: list[str], service: Service, device: str, shown: str) -> None:
    """A card that is not used is what people are most surprised by."""
    held = Held(device=device, spine_bytes=1, hot_bytes=1, cold_bytes=1, kv_bytes=1, hot=(3, 0))
    with live_server(replace(service, held=held)) as url:
        page = settled(watched_page(chromium, complaints), url)
        expect(page.locator("#model")).to_have_text(f"fake · 64 tokens of context · {shown}")


def test_a_stream_that_breaks_off_is_told(chromium: Browser, complaints: list[str], service: Service) -> None:
    """What had come stays."""
    event = {"choices": [{"index": 0, "text": "so far", "finish_reason": None}]}
    with live_server(service) as url:
        page = settled(watched_page(chromium, complaints), url)
        page.route(
            "**/v1/completions", lambda route: route.fulfill(content_type="text/event-stream", body=f"data: {json.dumps(event)}\n\n")
        )
        page.locator("#prompt").fill("abc ")
        page.locator("#send").click()
        expect(page.get_by_role("alert")).to_contain_text("went away in the middle")
        expect(page.locator("#log")).to_contain_text("abc so far")
        expect(page.locator("#send")).to_be_enabled()


def test_a_chat_takes_turns_by_enter_alone(chromium: Browser, complaints: list[str], service: Service) -> None:
    template = ChatTemplate.build("{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}a:", {}, Path("none"))
    with live_server(replace(service, chat=template)) as url:
        page = settled(watched_page(chromium, complaints), url)
        set_sampling(page, temperature="0", max_tokens="5")
        page.get_by_role("radio", name="Chat").check()
        first = bytes(greedy(list(b"u:hi;a:"), 5)).decode()
        page.locator("#prompt").fill("hi")
        page.locator("#prompt").press("Enter")
        expect(page.locator("#log")).to_have_text(f"Youhifake{first}")
        expect(page.locator("#send")).to_be_enabled()
        second = bytes(greedy(list(f"u:hi;a:{first};u:so;a:".encode()), 5)).decode()
        page.locator("#prompt").fill("so")
        page.locator("#prompt").press("Enter")
        expect(page.locator("#log")).to_have_text(f"Youhifake{first}Yousofake{second}")


def test_a_model_without_a_chat_template_says_so(chromium: Browser, complaints: list[str], service: Service) -> None:
    with live_server(service) as url:
        page = settled(watched_page(chromium, complaints), url)
        expect(page.get_by_role("radio", name="Chat")).to_be_disabled()
        expect(page.locator("#mode-note")).to_have_text("This model has no chat template.")


def test_a_server_with_a_key_is_asked_with_the_key(chromium: Browser, complaints: list[str], service: Service) -> None:
    with live_server(service, Door(keys=("secret",))) as url:
        page = watched_page(chromium, complaints)
        page.goto(url)
        expect(page.locator("#model")).to_contain_text("API key")
        set_sampling(page, key="secret", temperature="0")
        expect(page.locator("#model")).to_contain_text("fake")
        page.locator("#prompt").fill("abc")
        page.locator("#send").click()
        expect(page.locator("#log")).to_have_text(re.compile("^abc.+"))
        expect(page.locator("#map-text")).to_contain_text("2 layers")
    complaints[:] = [line for line in complaints if "401 (Unauthorized)" not in line]


def test_markup_in_a_text_stays_text(chromium: Browser, complaints: list[str], service: Service) -> None:
    markup = "<img src=x onerror=alert(1)><b>"
    with live_server(service) as url:
        page = settled(watched_page(chromium, complaints), url)
        page.locator("#prompt").fill(markup)
        page.locator("#send").click()
        expect(page.locator("#log")).to_contain_text(markup)
        assert page.locator("#log img, #log b").count() == 0


def test_everything_can_be_reached_by_keyboard(chromium: Browser, complaints: list[str], service: Service) -> None:
    with live_server(service) as url:
        page = settled(watched_page(chromium, complaints), url)
        expect(page.locator("#prompt")).to_be_focused()
        reached = []
        for _ in range(5):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        assert reached == ["send", "clear", "SUMMARY", "A", "A"]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("phone", [False, True])
def test_nothing_sticks_out_of_a_narrow_screen(
    chromium: Browser, complaints: list[str], service: Service, tmp_path: Path, dark: bool, phone: bool
) -> None:
    with live_server(service) as url:
        page = settled(watched_page(chromium, complaints, dark=dark, phone=phone), url)
        page.locator("#prompt").fill("a long word " + "w" * 30)
        page.locator("#send").click()
        expect(page.locator("#speed")).to_contain_text("expected")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        back, front = page.evaluate("(({backgroundColor, color}) => [backgroundColor, color])(getComputedStyle(document.body))")
        assert (brightness(back) < brightness(front)) is dark
        page.screenshot(path=tmp_path / "page.png", full_page=True)


def brightness(colour: str) -> int:
    return sum(int(part) for part in re.findall(r"\d+", colour)[:3])


def test_the_page_forbids_itself_everything_from_elsewhere(service: Service) -> None:
    with live_server(service) as url, httpx.Client(base_url=url) as client:
        for path, kind in (("/", "text/html"), ("/web/page.css", "text/css"), ("/web/page.js", "text/javascript")):
            answer = client.get(path)
            assert answer.headers["content-type"].startswith(kind)
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert "http://" not in answer.text
            assert "https://" not in answer.text
        assert "<script>" not in client.get("/").text


@pytest.mark.slow
def test_on_the_bundled_model_the_map_follows_what_is_written(
    chromium: Browser, complaints: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    save_hardware(HardwareProfile(gpu=None, cpu=CPU), hardware_path())
    with running("--port", "0") as (_, url):
        page = watched_page(chromium, complaints)
        page.goto(url.removesuffix("/v1"))
        expect(page.locator("#map-text")).to_contain_text("6 layers, 6,144 neurons, 0.0 % of them on the GPU. No token yet.")
        page.locator("#prompt").fill("import os\n")
        page.locator("#send").click()
        expect(page.locator("#map-text")).to_contain_text("neurons fired per token")
        expect(page.locator("#speed")).to_have_text(re.compile(r"^\d+ tokens, "), timeout=60_000)  # 200, or fewer where the text ends
        assert int(page.locator("#cells").get_attribute("data-steps") or 0) >= 1
