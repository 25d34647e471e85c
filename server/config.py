"""Config: what the server was told, once, and never changed. A flag wins over a variable, that over the TOML file, that over a default."""

import argparse
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.bits import FormatName
from models.errors import BadArtefact, BadValue, ThermoclineError
from models.selection import Selection
from placement.budget import PROMPT_CHUNK
from server.settings import BY_NAME, SETTINGS, Setting

DEFAULT_STALL_MS = BY_NAME["max-stall"].default
PREFIX = "THERMOCLINE_"
ELSEWHERE = {"THERMOCLINE_HOME", "THERMOCLINE_CONFIG"}  # where files are
REMEDY = "correct it, or name another file with --config"
LARGEST_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Config:
    """None: what the machine, the card or the model offers."""

    model: str
    format: FormatName | None
    host: str
    port: int
    vram_bytes: int | None
    ram_bytes: int | None
    context: int | None
    slots: int
    threads: int | None
    queue: int
    prompt_chunk: int
    drain_seconds: int
    stall_ms: int = DEFAULT_STALL_MS  # that a text being written may wait for a chunk of others' prompts
    keep_bytes: int | None = None  # RAM for keys and values of old texts, outside the slots
    name: str | None = None
    chat_template: Path | None = None
    api_keys: tuple[str, ...] = ()
    api_key_file: Path | None = None
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    log_format: str = "text"
    log_prompts: bool = False
    selection: Selection = "exact"
    predictors: Path | None = None  # a folder of PowerInfer's, to pack beside the model

    def __post_init__(self) -> None:
        if not self.slots <= self.prompt_chunk <= PROMPT_CHUNK:
            why = f"must be between --slots, which is {self.slots}, and {PROMPT_CHUNK}, for which the plan keeps memory"
            raise BadValue("--max-prompt-chunk", self.prompt_chunk, why)
        if self.predictors is not None and self.selection != "predictor":
            raise BadValue("--predictors", str(self.predictors), "is used by --selection predictor only")


class UnknownVariable(ThermoclineError):
    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is no setting of ours; `server config` lists them")


@dataclass(frozen=True, slots=True)
class Chosen:
    """The value of a setting, and where it comes from."""

    setting: Setting
    value: Any
    origin: str

    @property
    def shown(self) -> str:
        """For a person; secrets are only counted."""
        if self.setting.secret:
            return f"({len(self.value)} of them)" if self.value else "–"
        value = ", ".join(self.value) if isinstance(self.value, tuple) else self.value
        return "–" if value in (None, "") else str(value).lower() if isinstance(value, bool) else str(value)


def read_config(args: argparse.Namespace) -> Config:
    """From the parsed flags, the environment and the file. BadValue and BadArtefact name what is wrong, and where."""
    return build(choose(args))


def build(chosen: list[Chosen]) -> Config:
    return Config(**{one.setting.field: one.value for one in chosen})


def choose(args: argparse.Namespace, environment: Mapping[str, str] | None = None) -> list[Chosen]:
    """Every setting, in the order of the table."""
    variables = os.environ if environment is None else environment
    check_variables(variables)
    path = file_of(args, variables)
    written = {} if path is None else read_file(path)
    return [choose_one(setting, vars(args), variables, written, path) for setting in SETTINGS]


def choose_one(
    setting: Setting, flags: Mapping[str, Any], variables: Mapping[str, str], written: Mapping[str, list[str]], path: Path | None
) -> Chosen:
    name = setting.name.replace("-", "_")
    if name in flags:
        given = flags[name]
        return chosen(setting, given if isinstance(given, list) else [given], "MODEL" if setting.name == "model" else setting.flag)
    if setting.variable in variables:
        text = variables[setting.variable]
        return chosen(setting, [one.strip() for one in text.split(",")] if setting.many else [text], setting.variable)
    if setting.name in written:
        return chosen(setting, written[setting.name], f"{path}: {setting.name}")
    return Chosen(setting, setting.default, "default")


def chosen(setting: Setting, texts: list[str], origin: str) -> Chosen:
    parse = setting.read(setting.flag if origin == setting.flag else origin)
    values = tuple(parse(text) for text in texts)
    return Chosen(setting, values if setting.many else values[-1], origin)


def check_variables(variables: Mapping[str, str]) -> None:
    """A variable of ours that nobody reads is a mistake. Its value is not told: it may be a key under a wrong name."""
    known = {setting.variable for setting in SETTINGS} | ELSEWHERE
    for name in variables:
        if name.startswith(PREFIX) and name not in known:
            raise UnknownVariable(name)


def file_of(args: argparse.Namespace, variables: Mapping[str, str]) -> Path | None:
    """The file that was named, or the usual one if it is there."""
    named = getattr(args, "config", None) or variables.get("THERMOCLINE_CONFIG")
    if named:
        return Path(named).expanduser()
    folder = variables.get("XDG_CONFIG_HOME")
    usual = (Path(folder) if folder else Path.home() / ".config") / "thermocline" / "config.toml"
    return usual if usual.is_file() else None


def read_file(path: Path) -> dict[str, list[str]]:
    """Names of settings -> their values as texts."""
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise BadArtefact(path, f"is larger than {LARGEST_FILE_BYTES} bytes", REMEDY)
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # TOML's errors, and UTF-8's
        raise BadArtefact(path, f"is not TOML: {error}", REMEDY) from None
    return dict(entries(path, table))


def entries(path: Path, table: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    for name, value in table.items():
        setting = BY_NAME.get(name)
        if setting is None:
            raise BadArtefact(path, f"{name!r} is no setting of ours", REMEDY)
        values = value if isinstance(value, list) and setting.many else [value]
        if not all(isinstance(one, str | int | bool) for one in values):
            shown = name if setting.secret else f"{name}: {value!r}"
            raise BadArtefact(path, f"{shown} is neither a text nor a whole number", REMEDY)
        yield name, [str(one) for one in values]


def read_keys(config: Config) -> tuple[str, ...]:
    """All keys, those of the file too: one a line, without blank lines and lines that begin with #."""
    path = config.api_key_file
    if path is None:
        return config.api_keys
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError:
        raise BadArtefact(path, "is not UTF-8", "write one key a line") from None
    found = tuple(line for line in lines if line and not line.startswith("#"))
    if not found:
        raise BadArtefact(path, "holds no key", "write one key a line")
    return config.api_keys + found
