"""Rotary positions in GGUF metadata, as `rope_parameters` of a config. Torch-free.

Llama 3.1's stretching has no keys there: its converter writes what it comes to, a divisor for every frequency, as the tensor
`rope_freqs.weight`. Those parameters are looked for that give these divisors; none are taken that do not.
"""

import struct
from typing import Any

import numpy as np

from models.architectures.rope import inverse_frequencies
from models.checkpoint.gguf import GgufFile
from models.checkpoint.headers import read_exactly
from models.errors import BadCheckpoint
from models.spec import Rope

FREQUENCIES = "rope_freqs.weight"
CONTEXTS = tuple(1 << power for power in range(3, 21))  # that a model may have been stretched from
LOW, HIGH = 1.0, 4.0  # in every Llama 3
TOLERANCE = 1e-4


def rope_of(file: GgufFile, architecture: str, head_dim: int) -> dict[str, Any]:
    """BadCheckpoint when it is a scaling that we do not have."""
    metadata, at = file.metadata, f"{architecture}.rope"
    dim = metadata.count(f"{at}.dimension_count", head_dim)
    if dim != head_dim:
        raise BadCheckpoint(file.path, f"key '{at}.dimension_count' is {dim}; only whole heads, of {head_dim}, have been tested")
    theta = metadata.number(f"{at}.freq_base", 10000.0)
    kind = metadata.text(f"{at}.scaling.type", "none")
    linear = metadata.number(f"{at}.scale_linear", 1.0)  # in files of 2023
    metadata.get(f"{at}.scaling.finetuned"), metadata.get(f"{at}.scaling.original_context_length")
    factor = metadata.number(f"{at}.scaling.factor", linear)
    if FREQUENCIES in file.tensors:
        return _llama3(file, Rope(theta, dim))
    if kind == "yarn":
        return _yarn(file, at, theta, factor)
    if kind not in ("none", "linear"):
        raise BadCheckpoint(file.path, f"key '{at}.scaling.type': {kind!r} is not supported; supported: none, linear, yarn")
    if factor in (0.0, 1.0) or (kind == "none" and f"{at}.scaling.type" in metadata):
        return {"rope_type": "default", "rope_theta": theta}
    return {"rope_type": "linear", "rope_theta": theta, "factor": factor}


def _yarn(file: GgufFile, at: str, theta: float, factor: float) -> dict[str, Any]:
    found = {"rope_type": "yarn", "rope_theta": theta, "factor": factor}
    found["original_max_position_embeddings"] = file.metadata.count(f"{at}.scaling.original_context_length")
    file.metadata.expect(f"{at}.scaling.yarn_ext_factor", 1.0)
    file.metadata.expect(f"{at}.scaling.attn_factor", 1.0)
    file.metadata.expect(f"{at}.scaling.yarn_attn_factor", 1.0)
    return found | {
        "beta_fast": file.metadata.number(f"{at}.scaling.yarn_beta_fast", 32.0),
        "beta_slow": file.metadata.number(f"{at}.scaling.yarn_beta_slow", 1.0),
    }


def _llama3(file: GgufFile, plain: Rope) -> dict[str, Any]:
    """The parameters whose frequencies are the plain ones divided by the tensor's numbers."""
    wanted = inverse_frequencies(plain) / _divisors(file, plain.dim // 2)
    factor = float(np.max(inverse_frequencies(plain) / wanted))
    for context in CONTEXTS:
        tried = Rope(plain.theta, plain.dim, "llama3", factor, context, LOW, HIGH)
        if np.allclose(inverse_frequencies(tried), wanted, rtol=TOLERANCE, atol=0):
            return {
                "rope_type": "llama3",
                "rope_theta": plain.theta,
                "factor": factor,
                "low_freq_factor": LOW,
                "high_freq_factor": HIGH,
                "original_max_position_embeddings": context,
            }
    raise BadCheckpoint(
        file.path, f"tensor {FREQUENCIES!r} stretches rotary positions in a way we do not know; only Llama 3's is supported"
    )


def _divisors(file: GgufFile, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    stored = file.tensors[FREQUENCIES]
    if stored.shape != (count,) or stored.kind != "F32":
        raise BadCheckpoint(
            file.path, f"tensor {FREQUENCIES!r} is {stored.kind} of shape {list(stored.shape)}, and should be F32 of [{count}]"
        )
    divisors = np.array(struct.unpack(f"<{count}f", read_exactly(stored.path, stored.offset, stored.nbytes)), dtype=np.float32)
    if not np.all((divisors >= 1) & (divisors < 1e6)):
        raise BadCheckpoint(file.path, f"tensor {FREQUENCIES!r} holds numbers that divide no frequency")
    return divisors
