"""The command `models`: pack, pull, list, rm, show, params.

What was recorded of a model's neurons is known two floors up, and how this CPU encodes fastest one: `main` is told how to ask for them
(`profiles/models_cli.py`).
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from models.arguments import Parser, count, share
from models.bits import FORMAT_NAMES
from models.checkpoint.gguf import is_gguf
from models.checkpoint.gguf_config import describe as describe_gguf
from models.checkpoint.gguf_report import report
from models.command import Subcommand, run_subcommand
from models.errors import BadValue, ThermoclineError
from models.library import DEFAULT_FORMAT, Entry, entries, find, is_packed, known_manifest, remove, shelf
from models.manifest import Manifest
from models.pack import packed
from models.pack_files import Encode, encode_plainly
from models.params import Activity, activity_at, every_neuron, parts_of, table
from models.paths import BUNDLED_NAME
from models.predictor_folder import open_predictor_folder
from models.predictors import HEADER, pack_predictors
from models.pull import pull
from models.pulled import Pulled, forget, pulled_models
from models.show import format_count, shown
from models.units import format_bytes

Recorded = Callable[[Manifest, Path | None], Activity | None]  # of a model, from the file named, or from where profiles are kept


def nothing_recorded(manifest: Manifest, path: Path | None) -> Activity | None:
    return None


def main(argv: Sequence[str] | None = None, recorded: Recorded = nothing_recorded, encode: Encode = encode_plainly) -> int:
    return run_subcommand(build_parser, commands(recorded, encode), argv)


def commands(recorded: Recorded, encode: Encode) -> dict[str, Subcommand]:
    return {
        "pack": partial(pack_command, encode),
        "pull": pull_command,
        "list": list_command,
        "rm": rm_command,
        "show": partial(show_command, recorded),
        "params": partial(params_command, recorded),
    }


def build_parser() -> Parser:
    parser = Parser(prog="models", description="The models on this machine: what was packed, and packing more.")
    commands = parser.add_subparsers(dest="command", required=True)
    pack = commands.add_parser("pack", help="turn a checkpoint into neuron-major storage (other commands do it by themselves)")
    pack.add_argument(
        "model", nargs="?", default=BUNDLED_NAME, metavar="MODEL", help="a GGUF file, or a folder with config.json and weights"
    )
    pack.add_argument("--format", choices=FORMAT_NAMES, help=f"how weights are stored (default: {DEFAULT_FORMAT})")
    pack.add_argument("--predictors", type=Path, metavar="FOLDER", help="PowerInfer's model_0.pt, …, packed beside the model")
    pulling = commands.add_parser("pull", help="fetch a model from a hub: only the files it needs, into the hub's own cache")
    pulling.add_argument("repo", metavar="REPO", help="owner/name; other commands then know it by that name")
    pulling.add_argument("--revision", metavar="NAME", help="a branch, a tag or a commit (default: the newest)")
    pulling.add_argument("--file", nargs="+", default=[], metavar="NAME", help="of several models in a repository, the one to fetch")
    commands.add_parser("list", help="show what was packed and what was pulled, with sizes")
    show = commands.add_parser("show", help="say what a model is: its shape, its bytes, what is sparse in it, what is missing")
    show.add_argument(
        "model", nargs="?", default=BUNDLED_NAME, metavar="MODEL", help="a GGUF file or a model folder; config.json alone will do"
    )
    params = commands.add_parser("params", help="count the parameters, and those that one token activates")
    params.add_argument(
        "model", nargs="?", default=BUNDLED_NAME, metavar="MODEL", help="a GGUF file or a model folder; config.json alone will do"
    )
    params.add_argument("--sparsity", type=share("--sparsity"), metavar="SHARE", help="of a layer's neurons that are silent, like 0.9")
    params.add_argument("--profile", type=Path, metavar="FILE", help="what was recorded (default: where `profiles record` writes)")
    params.add_argument("--predictor-rank", type=count("--predictor-rank"), metavar="R", help="mean over the layers, to count predictors")
    rm = commands.add_parser("rm", help="delete packed models, and links to pulled ones; their sources stay")
    rm.add_argument("names", nargs="+", metavar="NAME", help="as `models list` shows it")
    return parser


def pack_command(encode: Encode, args: argparse.Namespace) -> int:
    model = packed(args.model, args.format, encode=encode)
    if args.predictors is not None:
        pack_predictors(model, open_predictor_folder(args.predictors, model.manifest.spec))
    print(f"{model.folder.name}: {describe(model.manifest)}\n{model.folder}")
    if is_gguf(find(args.model)):
        print("\n".join(report(describe_gguf(find(args.model)), model.manifest.formats)))
    return 0


def pull_command(args: argparse.Namespace) -> int:
    folder = pull(args.repo, revision=args.revision, files=args.file)
    print(f"{args.repo} is in {folder}; `models show {args.repo}` says what it is")
    return 0


def list_command(args: argparse.Namespace) -> int:
    here, elsewhere = list(entries()), list(pulled_models())
    if not here and not elsewhere:
        print(f"Nothing is packed under {shelf()} yet.")
        return 0
    rows = [(entry.folder.name, entry.nbytes, told(entry)) for entry in here]
    if here:
        rows.append(("in all", sum(entry.nbytes for entry in here), f"under {shelf()}"))
    rows += [(one.repo, one.nbytes, told_pulled(one)) for one in elsewhere]
    width = max(len(name) for name, _, _ in rows)
    for name, nbytes, what in rows:
        print(f"{name:<{width}}  {format_bytes(nbytes):>8}  {what}")
    return 0


def told(entry: Entry) -> str:
    return describe(entry.manifest) if entry.manifest else "unfinished, or written by another version; pack again or remove"


def told_pulled(pulled: Pulled) -> str:
    """What it is, as far as its headers say: nothing of it is packed."""
    if pulled.missing:
        return f"pulled, but {pulled.missing} of its files are gone from {pulled.where}; `models pull {pulled.repo}` fetches them again"
    try:
        return f"pulled, {shape_told(known_manifest(pulled.repo))}, files in {pulled.where}"
    except ThermoclineError:
        return f"pulled, no model by itself (`models show {pulled.repo}` says why), files in {pulled.where}"


def rm_command(args: argparse.Namespace) -> int:
    for name in args.names:
        if "/" in name:
            print(f"forgot {name}; its files stay in {forget(name)}, the cache of the hub's library")
        else:
            print(f"removed {remove(name).folder.name}")
    return 0


def show_command(recorded: Recorded, args: argparse.Namespace) -> int:
    manifest = known_manifest(args.model)
    print(
        "\n".join(
            shown(manifest, recorded(manifest, None), predictors=has_predictors(args.model, manifest), packed=is_packed(find(args.model)))
        )
    )
    return 0


def has_predictors(model: str, manifest: Manifest) -> bool:
    """Whether there are any that selection can use: in the checkpoint, and no mask, or packed beside it."""
    return (manifest.spec.predictors is not None and not manifest.spec.masked) or (find(model) / HEADER).is_file()


def params_command(recorded: Recorded, args: argparse.Namespace) -> int:
    manifest = known_manifest(args.model)
    activity = chosen_activity(recorded, manifest, args)
    rank = f"; predictors of mean rank {args.predictor_rank:,}" if args.predictor_rank else ""
    print(f"{manifest.name}: {shape_of(manifest)}\nactivated: {activity.source}{rank}\n")
    for line in table(parts_of(manifest.spec, activity, args.predictor_rank)):
        print(line)
    return 0


def chosen_activity(recorded: Recorded, manifest: Manifest, args: argparse.Namespace) -> Activity:
    """As asked, else as recorded, else every neuron, and then why."""
    if args.sparsity is not None and args.profile is not None:
        raise BadValue("--sparsity", args.sparsity, "says what --profile says too; give one of them")
    if args.sparsity is not None:
        return activity_at(manifest.spec, args.sparsity)
    return recorded(manifest, args.profile) or every_neuron(manifest.spec)


def describe(manifest: Manifest) -> str:
    """'llama, 6.95 M parameters, 6 layers × 1024 neurons, bf16, from /models/x'."""
    return f"{shape_told(manifest)}, {manifest.formats.neurons}, from {manifest.source}"


def shape_told(manifest: Manifest) -> str:
    """'llama, 6.95 M parameters, 6 layers × 1024 neurons'."""
    return f"{manifest.spec.family}, {format_count(manifest.spec.parameters)} parameters, {shape_of(manifest)}"


def shape_of(manifest: Manifest) -> str:
    """'32 layers × 14336 neurons', '32 layers × 8 experts × 14336 neurons, 2 at a time'."""
    spec = manifest.spec
    experts = f" × {spec.n_experts} experts" if spec.n_experts > 1 else ""
    routed = f", {spec.experts_per_token} experts a token" if spec.n_experts > 1 else ""
    return f"{spec.n_layers} layers{experts} × {spec.n_neurons} neurons{routed}"
