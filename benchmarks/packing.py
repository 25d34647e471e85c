"""How fast a checkpoint is packed, against how fast the disk gives and takes the same bytes, one JSON line at the end.

    python -m benchmarks.packing [--shape 1.1b|7b] [--layers N] [--format int4] [--work FOLDER] [--rounds N]

The source is a folder of safetensors in bfloat16 with random weights, a shard for each layer; --layers leaves most of a large model out.
In turn, each time another first: `read`, the source from the disk, through a buffer for each thread; `write`, as many bytes as packing
writes, synced; `cold`, packing with nothing of the source in the page cache; `warm`, with all of it there. What packing writes is synced,
file by file, before it is done. The bar is cold ÷ (read + write), of their medians: 1 is as fast as a disk that does one thing at a time.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.load import in_turn
from benchmarks.page_cache import forget
from benchmarks.shapes import SHAPES
from cpu_ops.encode import encode
from models.architectures.llama import NAMES
from models.bits import FORMAT_NAMES, FormatName
from models.checkpoint.base import layer_shapes
from models.checkpoint.headers import read_to
from models.checkpoint.safetensors import open_safetensors
from models.command import run
from models.pack import pack
from models.paths import check_disk
from models.reading import shared_out
from models.spec import ModelSpec

BUFFER_BYTES = 1 << 20  # what packing reads at once of bfloat16
DEVIATION = 0.02  # of the weights


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run(lambda: benchmark(args))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.packing", description="Packing, against what the disk does.")
    parser.add_argument("--shape", choices=("1.1b", "7b"), default="1.1b")
    parser.add_argument("--layers", type=int, help="of the source (default: as many as the shape has)")
    parser.add_argument("--format", choices=FORMAT_NAMES, default="int4")
    parser.add_argument("--work", type=Path, help="where the source is written and kept (default: a folder that is removed)")
    parser.add_argument("--rounds", type=int, default=3)
    return parser


def benchmark(args: argparse.Namespace) -> int:
    spec = SHAPES[args.shape]
    layers: int = args.layers or spec.n_layers
    with ExitStack() as stack:
        work = args.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="thermocline-")))
        source = write_source(spec, layers, work / f"source-{args.shape}-{layers}")
        room = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="thermocline-", dir=work)))
        packed_bytes = pack_into(source, room, args.format)
        seconds = measured(source, room, args.format, packed_bytes, args.rounds)
        told = {"shape": args.shape, "layers": layers, "format": args.format}
        print(json.dumps({"benchmark": "packing"} | told | figures(bytes_in(source), packed_bytes, seconds)))
    return 0


def measured(source: Path, room: Path, name: FormatName, packed_bytes: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each, by name."""
    rivals: dict[str, Callable[[], object]] = {
        "read": lambda: pass_all(source),
        "write": lambda: write_synced(room / "written", packed_bytes),
        "cold": lambda: pack_into(source, room, name),
        "warm": lambda: pack_into(source, room, name),
    }
    seconds: dict[str, list[float]] = {rival: [] for rival in rivals}
    for turn in range(rounds):
        for rival in in_turn(list(rivals), turn):
            if rival == "warm":
                pass_all(source)
            else:
                forget(source.iterdir())
            started = time.perf_counter()
            rivals[rival]()
            seconds[rival].append(time.perf_counter() - started)
    return seconds


def figures(source_bytes: int, packed_bytes: int, seconds: Mapping[str, Sequence[float]]) -> dict[str, object]:
    """Medians over the rounds, ranges, and gigabytes of source a second."""
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "source_bytes": source_bytes,
        "packed_bytes": packed_bytes,
        **{f"{name}_seconds": round(median, 3) for name, median in medians.items()},
        **{f"{name}_range": [round(min(times), 3), round(max(times), 3)] for name, times in seconds.items()},
        **{f"{name}_gb_per_second": round(source_bytes / medians[name] / 1e9, 3) for name in ("read", "cold", "warm")},
        "write_gb_per_second": round(packed_bytes / medians["write"] / 1e9, 3),
        "cold_over_disk": round(medians["cold"] / (medians["read"] + medians["write"]), 3),
    }


def write_source(spec: ModelSpec, layers: int, folder: Path) -> Path:
    """A LLaMA of that shape, written now if it is not there. All layers hold the same numbers."""
    if (folder / "config.json").is_file():
        return folder
    layer_parameters = (spec.attention_parameters + spec.neuron_parameters) // spec.n_layers
    check_disk(folder, 2 * (spec.embedding_parameters + layers * layer_parameters) + (1 << 20))
    generator = torch.Generator().manual_seed(0)

    def random(shape: tuple[int, ...]) -> Tensor:
        return (torch.randn(shape, generator=generator) * DEVIATION).to(torch.bfloat16)

    table, layer = (spec.vocab, spec.width), {name: random(shape) for name, shape in layer_shapes(spec, 0)}
    ends = {"embed": random(table), "head": random(table), "norm": random((spec.hidden,))}
    shards = [{str(NAMES[name]): tensor for name, tensor in ends.items()}]
    for i in range(layers):
        shards.append({foreign(name, i): tensor for name, tensor in layer.items()})
    found = {name: f"model-{number:05}.safetensors" for number, shard in enumerate(shards) for name in shard}
    for shard in shards:
        save_file(shard, folder / found[next(iter(shard))])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": found}))
    (folder / "config.json").write_text(json.dumps(config(spec, layers)))
    return folder


def foreign(name: str, layer: int) -> str:
    """'experts.0.up' -> its name in a LLaMA's files."""
    return str(NAMES[f"layers.{{layer}}.{name.replace('experts.0', 'experts.{expert}')}"]).format(layer=layer, expert=0)


def config(spec: ModelSpec, layers: int) -> dict[str, object]:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_act": spec.rule.activation,
        "hidden_size": spec.hidden,
        "intermediate_size": spec.n_neurons,
        "num_hidden_layers": layers,
        "num_attention_heads": spec.n_heads,
        "num_key_value_heads": spec.n_kv_heads,
        "max_position_embeddings": spec.context,
        "vocab_size": spec.vocab,
        "rms_norm_eps": spec.norm_eps,
    }


def pack_into(source: Path, room: Path, name: FormatName) -> int:
    """Packs, removes what was packed, and says how many bytes it had."""
    target = room / "packed"
    pack(open_safetensors(source), target, name, encode=encode, quiet=True)
    packed_bytes = bytes_in(target)
    shutil.rmtree(target)
    return packed_bytes


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def pass_all(folder: Path) -> None:
    """Every byte of a folder's files, in the pieces and on as many threads as packing reads them: one thread gets less from this disk."""
    shared_out(_pass, sorted(folder.iterdir()))


def _pass(path: Path) -> None:
    buffer, count = memoryview(bytearray(BUFFER_BYTES)), path.stat().st_size
    for at in range(0, count, BUFFER_BYTES):
        read_to(path, at, buffer[: count - at])


def write_synced(path: Path, count: int) -> None:
    """`count` bytes that no disk can leave out."""
    block = os.urandom(BUFFER_BYTES)
    with path.open("wb", buffering=0) as file:
        for at in range(0, count, BUFFER_BYTES):
            file.write(memoryview(block)[: count - at])
        os.fsync(file.fileno())
    path.unlink()


if __name__ == "__main__":
    raise SystemExit(main())
