"""The command `server`, and `thermocline`, which is all commands under one name."""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import placement.cli
import profiles.cli
import profiles.models_cli
from cpu_ops.topology import set_threads
from models.arguments import Parser, count
from models.command import run, run_subcommand
from models.errors import ThermoclineError
from models.library import is_pulled
from placement.report import report
from server.api.app import Door
from server.api.hosts import names_to_answer
from server.api.loading import answering_meanwhile
from server.api.serve import serve
from server.bench import Plan, bench
from server.bridge import Bridge
from server.config import Config, build, choose, read_config, read_keys
from server.grammars import Grammars
from server.listening import listening, url_of
from server.load import Ready, load, settle
from server.logs import start_logging
from server.offline import variants
from server.perplexity import perplexity
from server.service import Service
from server.settings import GROUPS, LOADING, add_flags

WHERE_FROM = (
    "Each of these is also a variable (--max-stall: THERMOCLINE_MAX_STALL) and a line of the TOML file (max-stall = 200); "
    "a flag wins over a variable, a variable over the file."
)


def main(argv: Sequence[str] | None = None) -> int:
    return run_subcommand(build_parser, SUBCOMMANDS, argv)


def build_parser() -> Parser:
    parser = Parser(prog="server", description="Serve a model over HTTP, its hot neurons on the GPU and its cold ones in CPU memory.")
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("run", help="pack, profile and place what is missing, then serve", epilog=WHERE_FROM)
    showing = commands.add_parser("config", help="show every setting, and where its value comes from", epilog=WHERE_FROM)
    for command in (serving, showing):
        add_flags(command, GROUPS)
    add_bench(commands.add_parser("bench", help="measure tokens per second, for each format and split"))
    add_perplexity(commands.add_parser("perplexity", help="score a text, for each format and split: what a choice costs in quality"))
    return parser


def add_bench(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompt", type=lengths("--prompt"), default=(64, 512), metavar="N,N", help="lengths to read; default: 64,512")
    parser.add_argument("--depth", type=lengths("--depth"), default=(16, 512), metavar="N,N", help="to write after; default: 16,512")
    parser.add_argument("--write", type=count("--write"), default=64, metavar="N", help="tokens to write; default: %(default)s")
    parser.add_argument("--rounds", type=count("--rounds"), default=3, metavar="N", help="default: %(default)s")
    add_variants(parser)


def add_perplexity(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="a text in UTF-8")
    parser.add_argument("--tokens", type=count("--tokens"), default=16384, metavar="N", help="of the text, at most; default: %(default)s")
    add_variants(parser)


def add_variants(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--formats", type=names, metavar="A,B", help="every one of these; default: that of --format")
    parser.add_argument("--vrams", type=names, metavar="SIZE,SIZE", help="every one of these; default: that of --vram")
    add_flags(parser, LOADING)


def names(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def lengths(flag: str) -> Callable[[str], tuple[int, ...]]:
    return lambda text: tuple(count(flag)(word) for word in names(text))


def bench_command(args: argparse.Namespace) -> int:
    plan = Plan(args.prompt, args.depth, args.write, args.rounds)
    return tell(bench(variants(read_config(args), args.formats, args.vrams), plan))


def perplexity_command(args: argparse.Namespace) -> int:
    return tell(perplexity(variants(read_config(args), args.formats, args.vrams), args.file, args.tokens))


def tell(lines: Iterable[str]) -> int:
    for line in lines:
        print(line)
    return 0


def config_command(args: argparse.Namespace) -> int:
    """Checks the settings together, too."""
    found = choose(args)
    build(found)
    rows = [(one.setting.name, one.shown, one.origin) for one in found]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, shown, origin in rows:
        print(f"{name:<{widths[0]}}  {shown:<{widths[1]}}  {origin}")
    return 0


def run_command(args: argparse.Namespace) -> int:
    """The port first, so that a port in use is known before a long load."""
    config = read_config(args)
    start_logging(config.log_format)
    keys = read_keys(config)
    with listening(config.host, config.port) as taken:
        door = Door(keys, config.cors_origins, hosts=names_to_answer(taken.getsockname()[0], config.host, config.allowed_hosts))
        with answering_meanwhile(taken):
            ready = load(config)
        settle()
        print(report(ready.plan))
        bridge = Bridge(ready.engine, slots=config.slots, queue_size=config.queue, prepare=partial(set_threads, config.threads))
        bridge.start()
        print(f"\n{welcome(url_of(taken), served_name(config, ready), locked=bool(keys))}", flush=True)
        serve(service_of(ready, bridge, config), taken, door, config.drain_seconds)
        bridge.stop(config.drain_seconds)
    return 0


def service_of(ready: Ready, bridge: Bridge, config: Config) -> Service:
    spec = ready.manifest.spec
    return Service(
        model=served_name(config, ready),
        created=int(time.time()),
        tokenizer=ready.tokenizer,
        bridge=bridge,
        context=ready.plan.question.context,
        vocab=spec.vocab,
        eos=frozenset(spec.eos),
        expected_per_second=ready.plan.expected.tokens_per_second,
        grammars=Grammars(ready.tokenizer, spec.vocab, frozenset(spec.eos)),
        watch=ready.watch,
        chat=ready.chat,
        log_prompts=config.log_prompts,
        plan=ready.plan,
        held=ready.held,
    )


def served_name(config: Config, ready: Ready) -> str:
    """What a client calls the model: as it was told, else as it was pulled, else as the model calls itself."""
    return config.name or (config.model if is_pulled(config.model) else ready.manifest.name)


def welcome(url: str, model: str, *, locked: bool) -> str:
    """The last words before the first request. With keys, the one that $KEY holds is sent; none is shown."""
    body = '{"prompt": "import os\\n", "max_tokens": 60, "temperature": 0}'
    hint, key = (" (with one of your keys in $KEY)", '-H "Authorization: Bearer $KEY" ') if locked else ("", "")
    return f"{model} is ready at {url}/v1. Try{hint}:\n  curl {url}/v1/completions {key}-H 'Content-Type: application/json' -d '{body}'"


SUBCOMMANDS = {"run": run_command, "config": config_command, "bench": bench_command, "perplexity": perplexity_command}
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
