"""Rotary positions in a config: `rope_theta` + `rope_scaling` (older files) or `rope_parameters` (transformers 5), and their arithmetic."""

import math

import numpy as np
from numpy.typing import NDArray

from models.architectures.config import Config
from models.errors import BadConfig
from models.spec import Rope


def read_rope(config: Config, dim: int, context: int, theta: float = 10000.0) -> Rope:
    """The Rope a config describes; `theta` is the base where it names none.

    Scalings that depend on the length of the text (dynamic, longrope) are refused by name.
    """
    given = config.child("rope_parameters") or config.child("rope_scaling") or Config(config.path, {})
    config.get("rope_scaling"), config.get("rope_parameters")
    base = given.positive("rope_theta", config.positive("rope_theta", theta))
    given.expect("partial_rotary_factor", 1.0)
    kind = given.text("rope_type", given.text("type", "default"))
    given.get("type")
    readers = {"default": _plain, "linear": _linear, "llama3": _llama3, "yarn": _yarn}
    if kind not in readers:
        raise BadConfig(config.path, "rope_type", f"{kind!r} is not supported; supported: {', '.join(readers)}")
    rope = readers[kind](given, base, dim, context)
    given.finish()
    return rope


def _plain(given: Config, theta: float, dim: int, context: int) -> Rope:
    return Rope(theta, dim)


def _linear(given: Config, theta: float, dim: int, context: int) -> Rope:
    given.get("original_max_position_embeddings")
    return Rope(theta, dim, "linear", factor=given.positive("factor"))


def _llama3(given: Config, theta: float, dim: int, context: int) -> Rope:
    low, high = given.positive("low_freq_factor"), given.positive("high_freq_factor")
    if high <= low:
        raise BadConfig(given.path, "high_freq_factor", f"{high!r} must be above low_freq_factor {low!r}")
    return Rope(
        theta,
        dim,
        "llama3",
        factor=given.positive("factor"),
        original_context=given.count("original_max_position_embeddings"),
        low_frequency_factor=low,
        high_frequency_factor=high,
    )


def _yarn(given: Config, theta: float, dim: int, context: int) -> Rope:
    if theta <= 1:
        raise BadConfig(given.path, "rope_theta", f"{theta!r}: yarn needs a base above 1")
    factor = given.positive("factor")
    computed = _magnitude(factor)
    mscale, mscale_all = given.number("mscale", 0.0), given.number("mscale_all_dim", 0.0)
    if mscale and mscale_all:
        computed = _magnitude(factor, mscale) / _magnitude(factor, mscale_all)
    return Rope(
        theta,
        dim,
        "yarn",
        factor=factor,
        original_context=given.count("original_max_position_embeddings", context),
        beta_fast=given.positive("beta_fast", 32.0),
        beta_slow=given.positive("beta_slow", 1.0),
        attention_factor=given.positive("attention_factor", computed),
        truncate=given.flag("truncate", default=True),
    )


def _magnitude(factor: float, scale: float = 1.0) -> float:
    """How much yarn raises attention: 0.1·ln(factor) + 1."""
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0


def inverse_frequencies(rope: Rope) -> NDArray[np.float32]:
    """float32 [dim/2]: radians per position of each pair."""
    plain = 1.0 / rope.theta ** (np.arange(0, rope.dim, 2, dtype=np.float32) / np.float32(rope.dim))
    match rope.scaling:
        case "none":
            scaled = plain
        case "linear":
            scaled = plain / rope.factor
        case "llama3":
            scaled = _llama3_frequencies(plain, rope)
        case "yarn":
            scaled = _yarn_frequencies(plain, rope)
    return scaled.astype(np.float32)


def _llama3_frequencies(plain: NDArray[np.float32], rope: Rope) -> NDArray[np.float32]:
    """Wavelengths longer than the original context ÷ low are stretched, shorter than ÷ high are kept, in between blended."""
    turns = rope.original_context * plain / (2 * math.pi)
    keep = (turns - rope.low_frequency_factor) / (rope.high_frequency_factor - rope.low_frequency_factor)
    keep = np.clip(keep, 0.0, 1.0)
    return np.asarray(keep * plain + (1 - keep) * plain / rope.factor, dtype=np.float32)


def _yarn_frequencies(plain: NDArray[np.float32], rope: Rope) -> NDArray[np.float32]:
    """NTK by parts: pairs that turn more than beta_fast times over the original context are kept, fewer than beta_slow stretched."""

    def pair_that_turns(times: float) -> float:
        return rope.dim * math.log(rope.original_context / (times * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = pair_that_turns(rope.beta_fast), pair_that_turns(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.dim - 1)
    if low == high:
        high += 0.001
    stretch = np.clip((np.arange(rope.dim // 2, dtype=np.float32) - low) / (high - low), 0.0, 1.0)
    return np.asarray(stretch * plain / rope.factor + (1 - stretch) * plain, dtype=np.float32)
