"""Config: what `server run` was told, once, and never changed. Knows what a flag may be; knows no model."""

import argparse
from dataclasses import dataclass

from models.bits import FormatName
from models.errors import BadValue
from placement.budget import PROMPT_CHUNK

DEFAULT_STALL_MS = 200


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

    def __post_init__(self) -> None:
        if self.port > 65535:
            raise BadValue("--port", self.port, "is above 65535")
        if not self.slots <= self.prompt_chunk <= PROMPT_CHUNK:
            why = f"must be between --slots, which is {self.slots}, and {PROMPT_CHUNK}, for which the plan keeps memory"
            raise BadValue("--max-prompt-chunk", self.prompt_chunk, why)


def read_config(args: argparse.Namespace) -> Config:
    """From the parsed flags of `server run`."""
    return Config(
        model=args.model,
        format=args.format,
        host=args.host,
        port=args.port,
        vram_bytes=args.vram,
        ram_bytes=args.ram,
        context=args.context,
        slots=args.slots,
        threads=args.threads,
        queue=args.queue,
        prompt_chunk=args.max_prompt_chunk,
        drain_seconds=args.drain,
        stall_ms=args.max_stall,
        keep_bytes=args.keep,
    )
