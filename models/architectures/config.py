"""A foreign config.json, read strictly: every key is asked for by type, and a key nobody asked for is refused by name."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.errors import BadCheckpoint, BadConfig

MOST_BYTES = 1 << 20
MOST = 1 << 31  # no count in a config is larger

# Keys that say nothing about the forward pass at inference.
HARMLESS = frozenset(
    """_name_or_path architectures attention_dropout auto_map chunk_size_feed_forward dtype id2label label2id initializer_range
    is_decoder is_encoder_decoder model_type output_attentions output_hidden_states pad_token_id problem_type resid_pdrop
    embd_pdrop return_dict return_dict_in_generate task_specific_params torch_dtype transformers_version use_cache
    tokenizer_class unk_token_id output_scores hidden_dropout activation_dropout dropout init_std layerdrop max_length model_name
    output_router_logits prefix repetition_penalty router_aux_loss_coef router_jitter_noise temperature top_k top_p""".split()
)


@dataclass(frozen=True, slots=True)
class Config:
    """One JSON object. `asked` remembers the keys that were read, so that `finish` can name what was not."""

    path: Path
    data: dict[str, Any]
    asked: set[str] = field(default_factory=set)

    def get(self, key: str, default: Any = None) -> Any:
        """The raw value; an explicit null counts as absent."""
        self.asked.add(key)
        value = self.data.get(key)
        return default if value is None else value

    def count(self, key: str, default: int | None = None) -> int:
        """A positive integer; BadConfig when it is missing and has no default."""
        value = self.get(key, default)
        if value is None:
            raise BadConfig(self.path, key, "is missing")
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < MOST:
            raise BadConfig(self.path, key, f"{value!r} is not a positive whole number below {MOST}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self.get(key, default)
        if value is None:
            raise BadConfig(self.path, key, "is missing")
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
            raise BadConfig(self.path, key, f"{value!r} is not a number we can use")
        return float(value)

    def positive(self, key: str, default: float | None = None) -> float:
        value = self.number(key, default)
        if value <= 0:
            raise BadConfig(self.path, key, f"{value!r} must be above zero")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise BadConfig(self.path, key, f"{value!r} is not true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self.get(key, default)
        if not isinstance(value, str):
            raise BadConfig(self.path, key, "is missing" if value is None else f"{value!r} is not a string")
        return value

    def strings(self, key: str) -> list[str]:
        value = self.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise BadConfig(self.path, key, f"{value!r} is not a list of strings")
        return value

    def marks(self, key: str, count: int) -> tuple[bool, ...]:
        """A list of `count` zeros and ones; none when absent."""
        value = self.get(key, [])
        if not isinstance(value, list) or len(value) not in (0, count) or not all(item in (0, 1) for item in value):
            raise BadConfig(self.path, key, f"{value!r} is not a list of {count} zeros and ones")
        return tuple(bool(item) for item in value)

    def token_ids(self, key: str) -> tuple[int, ...]:
        """One id or a list of them; none when absent."""
        value = self.get(key, [])
        ids = value if isinstance(value, list) else [value]
        if not all(isinstance(item, int) and not isinstance(item, bool) and 0 <= item < MOST for item in ids):
            raise BadConfig(self.path, key, f"{value!r} is not a token id or a list of them")
        return tuple(ids)

    def child(self, key: str) -> "Config | None":
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise BadConfig(self.path, key, f"{value!r} is not an object")
        return Config(self.path, value)

    def expect(self, key: str, tested: object) -> None:
        """Refuses any value but the one we have tested; absence counts as that value."""
        if (value := self.get(key, tested)) != tested:
            raise BadConfig(self.path, key, f"{value!r} is not supported, only {tested!r} has been tested")

    def finish(self) -> None:
        """BadConfig for the first key that nobody asked for and that says something (not null, not false)."""
        for key in sorted(self.data.keys() - self.asked - HARMLESS):
            if self.data[key] not in (None, False):
                raise BadConfig(self.path, key, f"{self.data[key]!r}: a feature this program does not know; refused rather than ignored")

    def digest(self) -> str:
        canonical = json.dumps(self.data, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def read_config(path: Path) -> Config:
    """`config.json`, named itself or by its folder; BadCheckpoint when there is none, BadConfig when it is not JSON."""
    if path.is_dir():
        path = path / "config.json"
    elif path.name != "config.json" and not path.exists():
        raise BadCheckpoint(path, "no such directory")
    if not path.is_file():
        raise BadCheckpoint(
            path.parent, f"is not a model directory: it has no {path.name}" if path.parent.is_dir() else "no such directory"
        )
    if path.stat().st_size > MOST_BYTES:
        raise BadConfig(path, "file", f"is larger than {MOST_BYTES} bytes")
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise BadConfig(path, "file", f"is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise BadConfig(path, "file", "is not a JSON object")
    return Config(path, data)
