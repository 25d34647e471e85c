"""Settings: every option of the server, once. Flags, environment variables, the TOML file and the help are all made from this table."""

import argparse
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.arguments import count, size
from models.bits import FORMAT_NAMES
from models.errors import BadValue
from models.paths import BUNDLED_NAME
from models.selection import SELECTIONS
from placement.budget import DEFAULT_CONTEXT, DEFAULT_SLOTS, PROMPT_CHUNK

Reader = Callable[[str], Callable[[str], Any]]  # the name to complain by -> text -> value

MODEL, MEMORY, NETWORK, LOAD, LOGS = "the model", "memory", "who may ask", "many at once", "logs"
GROUPS = (MODEL, MEMORY, NETWORK, LOAD, LOGS)
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9._\[\]:-]+")
LOADING = (MODEL, MEMORY)  # the groups that `server bench` and `server perplexity` have too


@dataclass(frozen=True, slots=True)
class Setting:
    """`name` as in `--name`; `field` of the Config. `many`: may be given several times, the value is a tuple. A `secret` is not shown."""

    name: str
    field: str
    group: str
    read: Reader
    help: str
    default: Any = None
    metavar: str | None = None
    many: bool = False
    secret: bool = False
    switch: bool = False

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        return "THERMOCLINE_" + self.name.upper().replace("-", "_")


def word(name: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not text.strip():
            raise BadValue(name, text, "is empty")
        return text

    return parse


def file(name: str) -> Callable[[str], Path]:
    return lambda text: Path(word(name)(text)).expanduser()


def port(name: str) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = 0 if text == "0" else count(name)(text)
        if number > 65535:
            raise BadValue(name, text, "is above 65535")
        return number

    return parse


def origin(name: str) -> Callable[[str], str]:
    """As browsers send it, or `*`: one that no browser ever sends would be waited for in vain."""

    def parse(text: str) -> str:
        if text != "*" and not ORIGIN.fullmatch(text):
            raise BadValue(name, text, "is no origin like https://app.example or http://localhost:3000 (small letters, no path), nor '*'")
        return text

    return parse


def one_of(*words: str) -> Reader:
    def reader(name: str) -> Callable[[str], str]:
        def parse(text: str) -> str:
            if text not in words:
                raise BadValue(name, text, f"is not one of {', '.join(words)}")
            return text

        return parse

    return reader


def yes_or_no(name: str) -> Callable[[str], bool]:
    def parse(text: str) -> bool:
        known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.lower() not in known:
            raise BadValue(name, text, "is neither true nor false")
        return known[text.lower()]

    return parse


SETTINGS = (
    Setting(
        "model",
        "model",
        MODEL,
        word,
        "a folder, a .gguf file, or a name out of `models list`; default: the bundled model",
        BUNDLED_NAME,
        "MODEL",
    ),
    Setting("name", "name", MODEL, word, "by which requests ask for it; default: its own, or owner/name of a pulled one"),
    Setting("format", "format", MODEL, one_of(*FORMAT_NAMES), f"of weights: {', '.join(FORMAT_NAMES)}; default: as packed, else bf16"),
    Setting("selection", "selection", MODEL, one_of(*SELECTIONS), f"of neurons: {', '.join(SELECTIONS)}; default: {{default}}", "exact"),
    Setting("predictors", "predictors", MODEL, file, "PowerInfer's model_0.pt, …, kept once they were given", metavar="FOLDER"),
    Setting("chat-template", "chat_template", MODEL, file, "Jinja, for /v1/chat/completions; default: the model's own", metavar="FILE"),
    Setting("threads", "threads", MODEL, count, "of the CPU; default: one per physical core", metavar="N"),
    Setting("vram", "vram_bytes", MEMORY, size, "of the card, like 8GB or 7.5GiB; default: all it has", metavar="SIZE"),
    Setting("ram", "ram_bytes", MEMORY, size, "of the machine; default: all it has", metavar="SIZE"),
    Setting("context", "context", MEMORY, count, f"of each slot; default: the model's, at most {DEFAULT_CONTEXT}", metavar="TOKENS"),
    Setting("slots", "slots", MEMORY, count, "texts written at once; default: {default}", DEFAULT_SLOTS, "N"),
    Setting("keep", "keep_bytes", MEMORY, size, "for the cache of old texts; default: 1 GiB, or what the plan leaves", metavar="SIZE"),
    Setting("host", "host", NETWORK, word, "address to listen on; default: {default}, this machine only", "127.0.0.1"),
    Setting(
        "allow-host",
        "allowed_hosts",
        NETWORK,
        word,
        "name by which requests may ask for this server besides localhost and --host, '*' for any; several may be given; "
        "default: none on this machine only, else any",
        (),
        "NAME",
        many=True,
    ),
    Setting("port", "port", NETWORK, port, "default: {default}; 0 takes any that is free", 8000),
    Setting(
        "api-key",
        "api_keys",
        NETWORK,
        word,
        "must come with a request; several may be given; default: none",
        (),
        "KEY",
        many=True,
        secret=True,
    ),
    Setting("api-key-file", "api_key_file", NETWORK, file, "keys, one a line", metavar="FILE"),
    Setting(
        "cors-origin",
        "cors_origins",
        NETWORK,
        origin,
        "whose pages may ask, '*' for all; several may be given; default: none",
        (),
        many=True,
    ),
    Setting("queue", "queue", LOAD, count, "choices that may wait; more are a 503; default: {default}", 64, "N"),
    Setting("max-prompt-chunk", "prompt_chunk", LOAD, count, "of prompts in one step; default: {default}", PROMPT_CHUNK, "TOKENS"),
    Setting("max-stall", "stall_ms", LOAD, count, "that a text waits for a piece of others' prompts; default: {default}", 200, "MS"),
    Setting("drain", "drain_seconds", LOAD, count, "to finish running requests when told to stop; default: {default}", 30, "SECONDS"),
    Setting("log-format", "log_format", LOGS, one_of("text", "json"), "text or json, a line an event; default: {default}", "text"),
    Setting("log-prompts", "log_prompts", LOGS, yes_or_no, "write prompts and answers into the log; default: never", False, switch=True),
)
BY_NAME = {setting.name: setting for setting in SETTINGS}


def add_flags(parser: argparse.ArgumentParser, groups: Iterable[str]) -> None:
    """A flag for every setting of `groups`, absent from the namespace unless given. The model is the argument without a flag."""
    for group in groups:
        shown = parser.add_argument_group(group)
        for setting in (one for one in SETTINGS if one.group == group):
            add_flag(shown, setting)
    parser.add_argument(
        "--config", metavar="FILE", help="a TOML file of these settings; default: ~/.config/thermocline/config.toml, if there"
    )


def add_flag(parser: argparse._ArgumentGroup, setting: Setting) -> None:
    told: dict[str, Any] = {"help": setting.help.format(default=setting.default), "default": argparse.SUPPRESS}
    if setting.name == "model":
        parser.add_argument("model", nargs="?", metavar=setting.metavar, **told)
    elif setting.switch:
        parser.add_argument(setting.flag, action="store_const", const="true", **told)
    else:
        action = "append" if setting.many else "store"
        parser.add_argument(setting.flag, metavar=setting.metavar or setting.name.split("-")[-1].upper(), action=action, **told)
