"""Makers of GGUF files: headers byte by byte, to be wrong in any way, and whole models by the gguf package's writer."""

import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.quants import quantize
from safetensors.torch import load_file
from torch import Tensor

U32, F32, BOOL, STRING, ARRAY, U64 = 4, 6, 7, 8, 9, 10


def string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def u32_key(name: str, value: int) -> bytes:
    return string(name) + struct.pack("<II", U32, value)


def text_key(name: str, value: str | bytes) -> bytes:
    return string(name) + struct.pack("<I", STRING) + string(value)


def strings_key(name: str, values: Sequence[str]) -> bytes:
    return string(name) + struct.pack("<IIQ", ARRAY, STRING, len(values)) + b"".join(map(string, values))


def tensor_info(name: str, dimensions: Sequence[int], kind: int = 0, offset: int = 0) -> bytes:
    """Dimensions fastest first, as they stand in the file."""
    return string(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, offset)


@dataclass
class Raw:
    """A file as it is written, each part of which a test may put wrong."""

    keys: Sequence[bytes] = ()
    tensors: Sequence[bytes] = ()
    data: bytes = b""
    magic: bytes = b"GGUF"
    version: int = 3
    n_keys: int | None = None
    n_tensors: int | None = None
    alignment: int = field(default=32)

    def write(self, path: Path) -> Path:
        n_tensors = len(self.tensors) if self.n_tensors is None else self.n_tensors
        n_keys = len(self.keys) if self.n_keys is None else self.n_keys
        header = self.magic + struct.pack("<IQQ", self.version, n_tensors, n_keys) + b"".join([*self.keys, *self.tensors])
        path.write_bytes(header + bytes(-len(header) % self.alignment) + self.data)
        return path


# ---------------------------------------------------------------- whole models


Config = dict[str, Any]
Tensors = dict[str, Tensor]
PACKAGE_NAME = {"bamboo": "llama"}  # of architectures that only PowerInfer has: the table of names to look in


@dataclass(frozen=True)
class Style:
    """How a model is written: `kind` is the type of what has two dimensions or more, `kinds` that of tensors whose names end so."""

    kind: str = "F32"
    kinds: Mapping[str, str] = field(default_factory=dict)
    powerinfer: bool = False  # its magic, and the down projection turned
    shard_tensors: int = 0
    keys: Mapping[str, object] = field(default_factory=dict)  # further metadata of the architecture


PLAIN = Style()


def convert(folder: Path, path: Path, architecture: str, style: Style = PLAIN) -> Path:
    """A Hugging Face folder of a small checkpoint as a GGUF file, by the package's writer and its table of names.

    What llama.cpp's converter does beside that is done here: the halves of LLaMA's heads are interleaved, experts stacked,
    Falcon's fused rows sorted.
    """
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=style.shard_tensors)
    write_config(writer, config)
    for key, value in style.keys.items():
        add: Any = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
        add(f"{architecture}.{key}", value)
    for name, tensor in converted(architecture, config, load_folder(folder)).items():
        write_tensor(writer, name, tensor, style)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if style.powerinfer:
        with path.open("r+b") as file:
            file.write(b"PWRI")
    return path


def load_folder(folder: Path) -> Tensors:
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def write_config(writer: gguf.GGUFWriter, config: Config) -> None:
    heads = config["num_attention_heads"]
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    if config.get("bos_token_id") is not None:
        writer.add_bos_token_id(config["bos_token_id"])
    if config.get("eos_token_id") is not None:
        writer.add_eos_token_id(config["eos_token_id"])
    dim = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_rope_dimension_count(dim)
    if dim != config["hidden_size"] // heads:
        writer.add_key_length(dim)
        writer.add_value_length(dim)
    write_rope(writer, config, dim)


def write_rope(writer: gguf.GGUFWriter, config: Config, dim: int) -> None:
    rope = config.get("rope_parameters") or {"rope_type": "default", "rope_theta": config["rope_theta"]}
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_divisors(rope, dim))


def llama3_divisors(rope: Config, dim: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """What llama.cpp's converter writes for Llama 3.1's stretching, wavelength by wavelength."""
    old = rope["original_max_position_embeddings"]
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    divisors = []
    for pair in range(0, dim, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (pair / dim)
        smooth = min(max((old / wavelength - low) / (high - low), 0.0), 1.0)
        divisors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(divisors, dtype=np.float32)


def converted(architecture: str, config: Config, tensors: Tensors) -> Tensors:
    """The tensors under GGUF's names and in its places."""
    package = PACKAGE_NAME.get(architecture, architecture)
    known = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == package)
    names = gguf.get_tensor_name_map(known, config["num_hidden_layers"])
    found: Tensors = {}
    for name, tensor in stacked(tensors).items():
        own = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert own is not None, name
        if package == "llama" and (match := re.search(r"\.attn_([qk])\.", own)):
            tensor = interleaved(tensor, config["num_attention_heads" if match[1] == "q" else "num_key_value_heads"])
        found[own] = tensor
    return found


def interleaved(tensor: Tensor, heads: int) -> Tensor:
    """Of every head, the rows of both halves by turns."""
    by_turns: Tensor = tensor.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
    return by_turns


def stacked(tensors: Tensors) -> Tensors:
    """Matrices of numbered experts as one tensor [E, …] each."""
    whole: Tensors = {}
    experts: dict[str, dict[int, Tensor]] = {}
    for name, tensor in tensors.items():
        if match := re.fullmatch(r"(.*\.experts)\.(\d+)(\..*)", name):
            experts.setdefault(f"{match[1]}{match[3]}", {})[int(match[2])] = tensor
        else:
            whole[name] = tensor
    return whole | {name: torch.stack([parts[number] for number in sorted(parts)]) for name, parts in experts.items()}


def write_tensor(writer: gguf.GGUFWriter, name: str, tensor: Tensor, style: Style) -> None:
    if style.powerinfer and "ffn_down" in name:
        name, tensor = name.replace("ffn_down", "ffn_down_t"), tensor.t()
    kind = next((kind for end, kind in style.kinds.items() if name.endswith(end)), "F32" if tensor.ndim == 1 else style.kind)
    number = gguf.GGMLQuantizationType[kind]
    data = tensor.float().contiguous().numpy()
    if kind.endswith("_K"):
        data = random_blocks(tensor, kind)
    elif kind != "F32":
        data = quantize(data, number)
    writer.add_tensor(name, data, raw_dtype=number)


SCALES_AT = {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}  # where the float16 scales of a block are


def random_blocks(like: Tensor, kind: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Blocks of a K type, which the package reads and does not write: any bytes, with scales as large as weights have them."""
    weights, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    blocks = np.random.default_rng(like.numel()).integers(0, 256, (like.shape[0], like.shape[1] // weights, nbytes), dtype=np.uint8)
    for at in SCALES_AT[kind]:
        blocks[..., at : at + 2] = np.frombuffer(np.float16(0.0005).tobytes(), np.uint8)
    return blocks.reshape(like.shape[0], -1)
