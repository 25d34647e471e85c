"""The command `server`, and `thermocline`, which is all commands under one name."""

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import placement.cli
import profiles.cli
import profiles.models_cli
from cpu_ops.topology import set_threads
from models.arguments import Parser, count, size
from models.bits import FORMAT_NAMES
from models.command import run, run_subcommand
from models.errors import ThermoclineError
from models.paths import BUNDLED_NAME
from placement.budget import DEFAULT_CONTEXT, DEFAULT_SLOTS, PROMPT_CHUNK
from placement.report import report
from server.api.app import Door
from server.api.serve import serve
from server.bridge import Bridge
from server.config import DEFAULT_STALL_MS, read_config
from server.grammars import Grammars
from server.listening import listening, url_of
from server.load import Ready, load
from server.service import Service


def main(argv: Sequence[str] | None = None) -> int:
    return run_subcommand(build_parser, {"run": run_command}, argv)


def build_parser() -> Parser:
    parser = Parser(prog="server", description="Serve a model over HTTP, its hot neurons on the GPU and its cold ones in CPU memory.")
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("run", help="pack, profile and place what is missing, then serve")
    serving.add_argument("model", nargs="?", default=BUNDLED_NAME, metavar="MODEL", help="a model folder; default: the bundled model")
    serving.add_argument("--host", default="127.0.0.1", help="address to listen on; default: %(default)s, this machine only")
    serving.add_argument("--port", type=port, default=8000, help="default: %(default)s; 0 takes any that is free")
    add_memory_flags(serving)
    serving.add_argument("--format", choices=FORMAT_NAMES, help="how weights are stored; default: as packed, else bf16")
    serving.add_argument("--threads", type=count("--threads"), metavar="N", help="of the CPU; default: one per physical core")
    serving.add_argument("--queue", type=count("--queue"), default=64, metavar="N", help="choices that may wait; default: %(default)s")
    serving.add_argument(
        "--max-prompt-chunk",
        type=count("--max-prompt-chunk"),
        default=PROMPT_CHUNK,
        metavar="TOKENS",
        help="of prompts in one step, between the steps of others; default: %(default)s",
    )
    serving.add_argument(
        "--max-stall",
        type=count("--max-stall"),
        default=DEFAULT_STALL_MS,
        metavar="MS",
        help="that a text being written waits for a piece of others' prompts; default: %(default)s",
    )
    serving.add_argument(
        "--keep", type=size("--keep"), metavar="SIZE", help="RAM for the cache of old texts; default: 1 GiB, or what the plan leaves"
    )
    serving.add_argument(
        "--drain", type=count("--drain"), default=30, metavar="SECONDS", help="to finish running requests when told to stop; default: 30"
    )
    return parser


def add_memory_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vram", type=size("--vram"), metavar="SIZE", help="like 8GB or 7.5GiB; default: all the card has")
    parser.add_argument("--ram", type=size("--ram"), metavar="SIZE", help="default: all the machine has")
    parser.add_argument(
        "--context", type=count("--context"), metavar="TOKENS", help=f"of each slot; default: the model's, at most {DEFAULT_CONTEXT}"
    )
    parser.add_argument(
        "--slots", type=count("--slots"), default=DEFAULT_SLOTS, metavar="N", help="sequences at once; default: %(default)s"
    )


def port(text: str) -> int:
    return 0 if text == "0" else count("--port")(text)


def run_command(args: argparse.Namespace) -> int:
    """The port first, so that a port in use is known before a long load."""
    config = read_config(args)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    with listening(config.host, config.port) as taken:
        ready = load(config)
        print(report(ready.plan))
        bridge = Bridge(ready.engine, slots=config.slots, queue_size=config.queue, prepare=partial(set_threads, config.threads))
        bridge.start()
        print(f"\n{welcome(url_of(taken), ready)}", flush=True)
        serve(service_of(ready, bridge), taken, Door(), config.drain_seconds)
        bridge.stop(config.drain_seconds)
    return 0


def service_of(ready: Ready, bridge: Bridge) -> Service:
    spec = ready.manifest.spec
    return Service(
        model=ready.manifest.name,
        created=int(time.time()),
        tokenizer=ready.tokenizer,
        bridge=bridge,
        context=ready.plan.question.context,
        vocab=spec.vocab,
        eos=frozenset(spec.eos),
        expected_per_second=ready.plan.expected.tokens_per_second,
        grammars=Grammars(ready.tokenizer, spec.vocab, frozenset(spec.eos)),
        watch=ready.watch,
    )


def welcome(url: str, ready: Ready) -> str:
    """The last words before the first request."""
    body = '{"prompt": "import os\\n", "max_tokens": 60, "temperature": 0}'
    return f"{ready.manifest.name} is ready at {url}/v1. Try:\n  curl {url}/v1/completions -H 'Content-Type: application/json' -d '{body}'"


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "models": profiles.models_cli.main,
    "profiles": profiles.cli.main,
    "placement": placement.cli.main,
    "server": main,
}


def umbrella(argv: Sequence[str] | None = None) -> int:
    """`thermocline models list` is `models list`, for a PATH that has such names already."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(f"usage: thermocline {{{','.join(COMMANDS)}}} …\n\nEach is also a command of its own; add --help to one to see what it does.")
        return 0
    return run(lambda: command_named(words[0])(words[1:]))


def command_named(name: str) -> Callable[[Sequence[str]], int]:
    if name not in COMMANDS:
        raise ThermoclineError(f"{name!r} is not a command of thermocline; there are {', '.join(COMMANDS)}")
    return COMMANDS[name]
