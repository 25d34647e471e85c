"""The command `placement`: solve, show. Needs no GPU, no torch and no weights."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from models.arguments import Parser, count, size
from models.bits import FORMAT_NAMES
from models.command import run_subcommand
from models.errors import BadValue
from models.library import known_manifest
from models.manifest import Manifest
from models.paths import BUNDLED_NAME
from placement.artefact import Placement, default_path, load_placement, save_placement
from placement.budget import DEFAULT_CONTEXT, DEFAULT_SLOTS
from placement.machine import Wish, machine
from placement.picture import draw
from placement.plan import solve
from placement.report import report
from profiles.firing import FiringProfile, load_profile
from profiles.shelf import profile_of


def main(argv: Sequence[str] | None = None) -> int:
    return run_subcommand(build_parser, COMMANDS, argv)


def build_parser() -> Parser:
    parser = Parser(prog="placement", description="Which neurons belong on the GPU, within a budget of memory.")
    commands = parser.add_subparsers(dest="command", required=True)
    ask = commands.add_parser("solve", help="find the placement of least predicted seconds per token")
    ask.add_argument(
        "model",
        nargs="?",
        default=BUNDLED_NAME,
        metavar="MODEL",
        help="a folder, a GGUF file, or a config.json; default: the bundled model",
    )
    ask.add_argument("--vram", type=size("--vram"), metavar="SIZE", help="like 8GB or 7.5GiB; default: all the card has")
    ask.add_argument("--ram", type=size("--ram"), metavar="SIZE", help="default: all the machine has")
    ask.add_argument(
        "--context", type=count("--context"), metavar="TOKENS", help=f"of each slot; default: the model's, at most {DEFAULT_CONTEXT}"
    )
    ask.add_argument("--slots", type=count("--slots"), default=DEFAULT_SLOTS, help="sequences at once; default: %(default)s")
    ask.add_argument("--format", choices=FORMAT_NAMES, help="how neurons are stored; default: as packed")
    ask.add_argument("--profile", type=Path, metavar="FILE", help="firing counts; default: the model's own, else a power law is assumed")
    card = ask.add_mutually_exclusive_group()
    card.add_argument("--gpu", metavar="CARD", help="a known card such as 'RTX 4090', or a file that `profiles hardware` wrote")
    card.add_argument("--hardware", dest="gpu", metavar="FILE", help="a file that `profiles hardware` wrote")
    ask.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to keep the plan; default: where the server looks")
    show = commands.add_parser("show", help="read a plan back")
    show.add_argument("plan", type=Path, metavar="FILE")
    for command in (ask, show):
        command.add_argument("--picture", type=png, metavar="FILE.png", help="draw layers × share")
    return parser


def png(text: str) -> Path:
    if not text.lower().endswith(".png"):
        raise BadValue("--picture", text, "does not end in .png, the only kind there is")
    return Path(text)


def solve_command(args: argparse.Namespace) -> int:
    manifest = known_manifest(args.model, args.format)
    hardware = machine(Wish(args.gpu, args.vram))
    plan = solve(
        manifest,
        chosen_profile(args.profile, manifest),
        hardware,
        vram_bytes=args.vram,
        ram_bytes=args.ram or hardware.cpu.ram_bytes,
        context=chosen_context(args.context, manifest.spec.context),
        slots=args.slots,
    )
    path = args.output or default_path(plan.question)
    save_placement(plan, path)
    return tell(plan, args.picture, f"plan: {path}")


def show_command(args: argparse.Namespace) -> int:
    return tell(load_placement(args.plan), args.picture, "")


def tell(plan: Placement, picture: Path | None, where: str) -> int:
    print(report(plan))
    if picture is not None:
        draw(plan, picture)
        where = f"{where}\npicture: {picture}"
    if where:
        print(f"\n{where.strip()}")
    return 0


def chosen_context(asked: int | None, most: int) -> int:
    if asked is None:
        return min(most, DEFAULT_CONTEXT)
    if asked > most:
        raise BadValue("--context", asked, f"is more than the {most} tokens the model was made for")
    return asked


def chosen_profile(path: Path | None, manifest: Manifest) -> FiringProfile | None:
    """The profile that was named, else the model's own, else none. A config alone has no weights to check a profile against."""
    if path is None:
        return profile_of(manifest)
    return load_profile(path, None if manifest.assumed else manifest.fingerprint)


COMMANDS = {"solve": solve_command, "show": show_command}
