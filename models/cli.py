"""The command `models`: pack, list, rm."""

import argparse
from collections.abc import Sequence

from models.arguments import Parser
from models.bits import FORMAT_NAMES
from models.command import run_subcommand
from models.library import DEFAULT_FORMAT, entries, remove, shelf
from models.manifest import Manifest
from models.pack import packed
from models.paths import BUNDLED_NAME
from models.units import format_bytes


def main(argv: Sequence[str] | None = None) -> int:
    return run_subcommand(build_parser, COMMANDS, argv)


def build_parser() -> Parser:
    parser = Parser(prog="models", description="The models on this machine: what was packed, and packing more.")
    commands = parser.add_subparsers(dest="command", required=True)
    pack = commands.add_parser("pack", help="turn a checkpoint into neuron-major storage (other commands do it by themselves)")
    pack.add_argument("model", nargs="?", default=BUNDLED_NAME, metavar="MODEL", help="a folder with config.json and safetensors files")
    pack.add_argument("--format", choices=FORMAT_NAMES, help=f"how weights are stored (default: {DEFAULT_FORMAT})")
    commands.add_parser("list", help="show what was packed, with sizes")
    rm = commands.add_parser("rm", help="delete packed models; their sources stay")
    rm.add_argument("names", nargs="+", metavar="NAME", help="as `models list` shows it")
    return parser


def pack_command(args: argparse.Namespace) -> int:
    model = packed(args.model, args.format)
    print(f"{model.folder.name}: {describe(model.manifest)}\n{model.folder}")
    return 0


def list_command(args: argparse.Namespace) -> int:
    found = list(entries())
    if not found:
        print(f"Nothing is packed under {shelf()} yet.")
        return 0
    width = max(len(entry.folder.name) for entry in found)
    for entry in found:
        what = describe(entry.manifest) if entry.manifest else "unfinished, or written by another version; pack again or remove"
        print(f"{entry.folder.name:<{width}}  {format_bytes(entry.nbytes):>8}  {what}")
    print(f"{'in all':<{width}}  {format_bytes(sum(entry.nbytes for entry in found)):>8}  under {shelf()}")
    return 0


def rm_command(args: argparse.Namespace) -> int:
    for name in args.names:
        gone = remove(name)
        print(f"removed {gone.folder.name}")
    return 0


def describe(manifest: Manifest) -> str:
    """'llama, 6.95 M parameters, 6 layers × 1024 neurons, bf16, from /models/x'."""
    spec = manifest.spec
    millions = spec.parameters / 1e6
    size = f"{millions:.2f} M" if millions < 1000 else f"{millions / 1000:.2f} B"
    shape = f"{spec.n_layers} layers × {spec.n_neurons} neurons"
    return f"{spec.family}, {size} parameters, {shape}, {manifest.formats.neurons}, from {manifest.source}"


COMMANDS = {"pack": pack_command, "list": list_command, "rm": rm_command}
