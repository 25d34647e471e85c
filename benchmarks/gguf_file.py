"""The peer's model: a GGUF file of a given shape with random Q4_0 weights. Needs the `gguf` package; knows no peer.

Every matrix is Q4_0, embedding and head included: the least bytes llama.cpp can be given, so the fastest it can be. (A usual
Q4_0 file has its head in Q6_K: 1 % more bytes at 7B, 3 % at 1.1B.) The layers repeat one layer's data; each has its own copy in
the file and in memory. The activation is SiLU whatever the shape's rule says, since llama.cpp computes every neuron anyway.
"""

import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bits import GROUP
from models.paths import check_disk, whole_file
from models.spec import ModelSpec

BLOCK_BYTES = 2 + GROUP // 2  # a float16 scale, then two weights a byte
ROUGH_HEADER_BYTES = 1 << 20
Matrix = NDArray[np.uint8]


def write_gguf(name: str, spec: ModelSpec, path: Path, seed: int = 0) -> Path:
    """The file at `path`, written now if it is not there, or not of this size. DoesNotFit when the disk is too small."""
    if path.is_file() and 0 <= path.stat().st_size - tensor_bytes(spec) <= ROUGH_HEADER_BYTES:
        return path
    check_disk(path.parent, tensor_bytes(spec) + ROUGH_HEADER_BYTES)
    gguf: Any = importlib.import_module("gguf")
    with whole_file(path) as part:
        writer = gguf.GGUFWriter(part, "llama")
        add_metadata(writer, name, spec)
        add_tensors(writer, spec, np.random.default_rng(seed), gguf.GGMLQuantizationType.Q4_0)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return path


def tensor_bytes(spec: ModelSpec) -> int:
    """Of the matrices and of the norms, which are float32."""
    weights = spec.embedding_parameters + spec.attention_parameters + spec.neuron_parameters
    return weights // GROUP * BLOCK_BYTES + (2 * spec.n_layers + 1) * spec.hidden * 4


def add_metadata(writer: Any, name: str, spec: ModelSpec) -> None:
    """What the family "llama" asks for. "no_vocab" is a tokenizer of ids alone."""
    assert spec.rope is not None
    writer.add_name(name)
    writer.add_context_length(spec.context)
    writer.add_embedding_length(spec.hidden)
    writer.add_block_count(spec.n_layers)
    writer.add_feed_forward_length(spec.n_neurons)
    writer.add_head_count(spec.n_heads)
    writer.add_head_count_kv(spec.n_kv_heads)
    writer.add_rope_dimension_count(spec.rope.dim)
    writer.add_rope_freq_base(spec.rope.theta)
    writer.add_layer_norm_rms_eps(spec.norm_eps)
    writer.add_vocab_size(spec.vocab)
    writer.add_tokenizer_model("no_vocab")


def add_tensors(writer: Any, spec: ModelSpec, random: np.random.Generator, quants: object) -> None:
    norm = np.ones(spec.hidden, dtype=np.float32)
    layer = {name: random_blocks(random, rows, width) for name, (rows, width) in layer_shapes(spec).items()}
    writer.add_tensor("token_embd.weight", random_blocks(random, spec.vocab, spec.hidden), raw_dtype=quants)
    writer.add_tensor("output.weight", random_blocks(random, spec.vocab, spec.hidden), raw_dtype=quants)
    writer.add_tensor("output_norm.weight", norm)
    for i in range(spec.n_layers):
        writer.add_tensor(f"blk.{i}.attn_norm.weight", norm)
        writer.add_tensor(f"blk.{i}.ffn_norm.weight", norm)
        for name, blocks in layer.items():
            writer.add_tensor(f"blk.{i}.{name}.weight", blocks, raw_dtype=quants)


def layer_shapes(spec: ModelSpec) -> dict[str, tuple[int, int]]:
    """Rows and width of a layer's matrices, under the names of the file."""
    return {
        "attn_q": (spec.q_width, spec.hidden),
        "attn_k": (spec.kv_width, spec.hidden),
        "attn_v": (spec.kv_width, spec.hidden),
        "attn_output": (spec.hidden, spec.q_width),
        "ffn_gate": (spec.n_neurons, spec.hidden),
        "ffn_up": (spec.n_neurons, spec.hidden),
        "ffn_down": (spec.hidden, spec.n_neurons),
    }


def random_blocks(random: np.random.Generator, rows: int, width: int) -> Matrix:
    """[rows, width / 32 · 18]: weights of mean -½ step and variance 1 / width, so that states neither vanish nor overflow."""
    blocks = random.integers(0, 256, (rows, width // GROUP, BLOCK_BYTES), dtype=np.uint8)
    step = 1 / math.sqrt(width * (16**2 - 1) / 12)  # sixteen levels, evenly
    blocks[..., :2] = np.frombuffer(np.float16(step).tobytes(), np.uint8)
    return blocks.reshape(rows, -1)
