"""The command `profiles`: record, import, show, hardware."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from cpu_ops.encode import encode
from models.arguments import Parser, count
from models.bits import FORMAT_NAMES
from models.checkpoint.gguf import is_gguf
from models.command import run_subcommand
from models.errors import BadArtefact, BadValue
from models.library import known_manifest
from models.pack import packed
from models.packed import PackedModel
from models.paths import BUNDLED_NAME
from models.tokenizer import Tokenizer
from profiles.activation import FOLDER, activation_folder, read_activation
from profiles.corpus import DEFAULT_TOKENS, Text, read_files, read_standard_library
from profiles.firing import FiringProfile, load_profile, save_profile
from profiles.hardware import save_hardware
from profiles.others import Others, warning
from profiles.picture import draw
from profiles.probe import described, measure_hardware
from profiles.record import record
from profiles.report import table
from profiles.shelf import hardware_path, picture_path, profile_of, profile_path


def main(argv: Sequence[str] | None = None) -> int:
    return run_subcommand(build_parser, COMMANDS, argv)


def build_parser() -> Parser:
    parser = Parser(prog="profiles", description="What is known of a model's neurons, and of this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="run a text through a model and count how often each neuron fires")
    add_model(recording, "a model folder or GGUF file (default: the bundled model)")
    recording.add_argument("--corpus", nargs="+", type=Path, metavar="FILE", help="UTF-8 text (default: Python's standard library)")
    recording.add_argument(
        "--tokens", type=count("--tokens"), default=DEFAULT_TOKENS, metavar="N", help="stop after so many (default: %(default)s)"
    )
    recording.add_argument("--format", choices=FORMAT_NAMES, help="pack the model so, where it is not packed yet")
    recording.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to write (default: where all commands look)")
    importing = commands.add_parser("import", help="take over the counts that PowerInfer keeps beside its models, as a profile")
    add_model(importing, "a model with a folder `activation` beside it")
    importing.add_argument("--activation", type=Path, metavar="FOLDER", help="another folder with files activation_0.pt and so on")
    showing = commands.add_parser("show", help="print a profile layer by layer, and draw it")
    add_model(showing, "a model folder, a GGUF file, or a profile's file (default: the bundled model)")
    showing.add_argument("--png", type=Path, metavar="FILE", help="where to draw (default: beside the profiles)")
    hardware = commands.add_parser("hardware", help="measure this machine, in seconds")
    hardware.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to write (default: where all commands look)")
    return parser


def add_model(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("model", nargs="?", default=BUNDLED_NAME, metavar="MODEL", help=what)


def record_command(args: argparse.Namespace) -> int:
    if args.output is not None:
        check_writable("--output", args.output)
    model = packed(args.model, args.format, encode=encode)
    text = read_text(model, args.corpus, args.tokens)
    print(f"text: {text.description}; {text.tokens:,} tokens" + ("" if args.corpus else " (another: --corpus FILE)"))
    path = args.output or profile_path(model.manifest.fingerprint)
    partial = path.with_name(path.name + ".partial")
    profile = record(model, text, state=partial, device="cuda" if torch.cuda.is_available() else "cpu")
    save_profile(profile, path)
    partial.unlink(missing_ok=True)
    print(f"{table(profile)}\n\n{path}")
    return 0


def read_text(model: PackedModel, corpus: Sequence[Path] | None, tokens: int) -> Text:
    """The files of `corpus`, or the standard library when there is none."""
    spec = model.manifest.spec
    encode, context = Tokenizer.open(model.folder, spec.vocab).encode, spec.context
    if corpus is None:
        return read_standard_library(encode, tokens=tokens, context=context)
    return read_files(corpus, encode, tokens=tokens, context=context)


def import_command(args: argparse.Namespace) -> int:
    manifest = known_manifest(args.model)
    folder = args.activation or activation_folder(manifest)
    if folder is None or not folder.is_dir():
        raise BadValue("--activation", str(folder or FOLDER), f"is no folder beside {manifest.source}; name one")
    profile, path = read_activation(folder, manifest), profile_path(manifest.fingerprint)
    save_profile(profile, path)
    print(f"{table(profile)}\n\n{path}")
    return 0


def show_command(args: argparse.Namespace) -> int:
    if args.png is not None:
        check_writable("--png", args.png)
    profile = find_named(args.model)
    picture = args.png or picture_path(profile.fingerprint)
    draw(profile, picture)
    print(f"{table(profile)}\n\n{picture}")
    return 0


def find_named(model: str) -> FiringProfile:
    """A profile by its file, or by the model it was recorded from."""
    if Path(model).is_file() and not is_gguf(Path(model)):
        return load_profile(Path(model))
    manifest = known_manifest(model)
    profile = profile_of(manifest)
    if profile is None:
        raise BadArtefact(profile_path(manifest.fingerprint), "no such file", f"record it with `profiles record {model}`")
    return profile


def hardware_command(args: argparse.Namespace) -> int:
    if args.output is not None:
        check_writable("--output", args.output)
    path = args.output or hardware_path()
    others = Others.beginning()
    profile = measure_hardware()
    disturbed = warning(others.share())
    save_hardware(profile, path)
    print("\n\n".join([described(profile), *([disturbed] if disturbed else []), str(path)]))
    return 0


def check_writable(flag: str, path: Path) -> None:
    """Raises BadValue when a file cannot be written there, before any work is done for it."""
    if path.is_dir():
        raise BadValue(flag, str(path), "is a folder; name a file")
    there = path.absolute().parent
    while not there.exists():
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise BadValue(flag, str(path), f"cannot be written: no right to write in {there}")


COMMANDS = {"record": record_command, "import": import_command, "show": show_command, "hardware": hardware_command}
