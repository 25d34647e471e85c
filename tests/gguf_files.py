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
    transposed: str = ""  # tensors with this in their names are written turned, under the same names
    numbered_experts: bool = False
    ranks: Sequence[int] = ()  # of the predictors that PowerInfer puts beside the neurons, a layer each
    threshold: float | None = None
    end_of_turn: int | None = None
    pre: str | None = None  # the split of a byte-level BPE, when the folder's tokenizer is to come along
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
        if style.numbered_experts and tensor.ndim == 3:
            for number, one in enumerate(tensor):
                write_tensor(writer, name.replace("_exps.", f".{number}."), one, style)
        else:
            write_tensor(writer, name, tensor, style)
    for layer, rank in enumerate(style.ranks):
        neurons = config.get("intermediate_size") or config.get("ffn_dim") or config["ffn_hidden_size"]
        for name, tensor in predictor_tensors(layer, rank, config["hidden_size"], neurons).items():
            write_tensor(writer, name, tensor, style)
    if style.end_of_turn is not None:
        writer.add_eot_token_id(style.end_of_turn)
    if style.threshold is not None:
        writer.add_float32("powerinfer.sparse_threshold", style.threshold)
    if style.pre is not None:
        write_vocabulary(writer, folder, style.pre)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if style.powerinfer:
        with path.open("r+b") as file:
            file.write(b"PWRI")
    return path


def predictor_tensors(layer: int, rank: int, hidden: int, neurons: int) -> Tensors:
    generator = torch.Generator().manual_seed(layer)
    shapes = {f"blk.{layer}.fc1.weight": (rank, hidden), f"blk.{layer}.fc2.weight": (neurons, rank)}
    return {name: torch.randn(shape, generator=generator) / shape[1] ** 0.5 for name, shape in shapes.items()}


def load_folder(folder: Path) -> Tensors:
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def write_config(writer: gguf.GGUFWriter, config: Config) -> None:
    """What the families' configs say, whatever they call it."""

    def first(*keys: str) -> Any:
        return next((config[key] for key in keys if config.get(key) is not None), None)

    heads = config["num_attention_heads"]
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(first("intermediate_size", "ffn_hidden_size", "ffn_dim", "moe_ffn_hidden_size"))
    writer.add_head_count(heads)
    if config["model_type"] != "opt":
        writer.add_head_count_kv(kv_heads(config))
    if "rms_norm_eps" in config:
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    if "layer_norm_epsilon" in config:
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    for add, keys in (
        (writer.add_bos_token_id, ("bos_token_id",)),
        (writer.add_eos_token_id, ("eos_token_id",)),
        (writer.add_expert_count, ("num_local_experts", "num_experts", "moe_num_primary_experts")),
        (writer.add_expert_used_count, ("num_experts_per_tok", "moe_num_active_primary_experts")),
        (writer.add_expert_feed_forward_length, ("moe_intermediate_size", "moe_ffn_hidden_size")),
    ):
        if (value := first(*keys)) is not None:
            add(value)
    if config["model_type"] != "opt":
        write_rope(writer, config)
    if config["model_type"] == "smallthinker":
        softmax = config.get("moe_primary_router_apply_softmax", False)
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SOFTMAX if softmax else gguf.ExpertGatingFuncType.SIGMOID)
        if any(config["sliding_window_layout"]):
            writer.add_sliding_window(config["sliding_window_size"])


def write_vocabulary(writer: gguf.GGUFWriter, folder: Path, pre: str) -> None:
    """The folder's byte-level BPE as llama.cpp's converter writes one."""
    written = json.loads((folder / "tokenizer.json").read_text())
    special = {token["id"]: token["content"] for token in written["added_tokens"]}
    tokens = {number: text for text, number in written["model"]["vocab"].items()} | special
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([tokens[number] for number in range(len(tokens))])
    writer.add_token_types([gguf.TokenType.CONTROL if number in special else gguf.TokenType.NORMAL for number in range(len(tokens))])
    writer.add_token_merges([" ".join(pair) for pair in written["model"]["merges"]])


def kv_heads(config: Config) -> int:
    if config["model_type"] != "falcon":
        return int(config.get("num_key_value_heads") or config["num_attention_heads"])
    if config["new_decoder_architecture"]:
        return int(config["num_kv_heads"])
    return 1 if config["multi_query"] else int(config["num_attention_heads"])


def write_rope(writer: gguf.GGUFWriter, config: Config) -> None:
    usual = config["hidden_size"] // config["num_attention_heads"]
    dim = config.get("head_dim") or usual
    writer.add_rope_dimension_count(dim)
    if dim != usual:
        writer.add_key_length(dim)
        writer.add_value_length(dim)
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
    found: Tensors = {}
    for name, tensor in stacked(tensors).items():
        own = gguf_name(architecture, config, name)
        if architecture in ("llama", "bamboo") and (match := re.search(r"\.attn_([qk])\.", own)):
            tensor = interleaved(tensor, config["num_attention_heads" if match[1] == "q" else "num_key_value_heads"])
        found[own] = sorted_rows(tensor, config) if ".attn_qkv." in own else tensor
    return found


OPT_NAMES = {
    "embed_tokens": "token_embd",
    "embed_positions": "position_embd",
    "final_layer_norm": "output_norm",
    "layers.{}.self_attn_layer_norm": "blk.{}.attn_norm",
    "layers.{}.self_attn.q_proj": "blk.{}.attn_q",
    "layers.{}.self_attn.k_proj": "blk.{}.attn_k",
    "layers.{}.self_attn.v_proj": "blk.{}.attn_v",
    "layers.{}.self_attn.out_proj": "blk.{}.attn_output",
    "layers.{}.final_layer_norm": "blk.{}.ffn_norm",
    "layers.{}.fc1": "blk.{}.ffn_up",
    "layers.{}.fc2": "blk.{}.ffn_down",
}


def gguf_name(architecture: str, config: Config, name: str) -> str:
    """By the package's table; by PowerInfer's for OPT, which the package has not."""
    if architecture == "opt":
        module, _, kind = name.removeprefix("model.decoder.").rpartition(".")
        layer = next((part for part in module.split(".") if part.isdigit()), "")
        return f"{OPT_NAMES[module.replace(layer, '{}', 1) if layer else module].format(layer)}.{kind}"
    package = PACKAGE_NAME.get(architecture, architecture)
    known = next(arch for arch, known_name in gguf.MODEL_ARCH_NAMES.items() if known_name == package)
    found = gguf.get_tensor_name_map(known, config["num_hidden_layers"]).get_name(name, try_suffixes=(".weight", ".bias"))
    assert found is not None, name
    return str(found)


def sorted_rows(tensor: Tensor, config: Config) -> Tensor:
    """Falcon's fused rows, group by group: first all queries, then all keys, then all values."""
    groups = kv_heads(config)
    of_group = tensor.unflatten(0, (groups, config["num_attention_heads"] // groups + 2, -1))
    return torch.cat([part.flatten(0, 2) for part in (of_group[:, :-2], of_group[:, -2:-1], of_group[:, -1:])])


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
    if style.transposed and style.transposed in name:
        tensor = tensor.transpose(-1, -2)
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
