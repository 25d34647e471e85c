"""The metadata of a GGUF file, asked for by type: each key that does not hold what it should is named. Torch-free."""

from dataclasses import dataclass, field
from pathlib import Path

from models.checkpoint.gguf_values import BOOL, FIXED, STRING, Array
from models.errors import BadCheckpoint

MOST = 1 << 31  # no count in a header is larger


@dataclass(frozen=True, slots=True)
class Metadata:
    """`asked` remembers what was read, so that `finish` can name what was not."""

    path: Path
    values: dict[str, object]
    asked: set[str] = field(default_factory=set)

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def get(self, key: str) -> object:
        """The value as it was read, or None."""
        self.asked.add(key)
        return self.values.get(key)

    def natural(self, key: str, default: int | None = None) -> int:
        """A whole number from 0; BadCheckpoint when it is missing and has no default."""
        value = self.get(key)
        value = default if value is None else value
        if value is None:
            raise BadCheckpoint(self.path, f"key {key!r} is missing")
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MOST:
            raise BadCheckpoint(self.path, f"key {key!r}: {shown(value)} is not a whole number below {MOST}")
        return value

    def count(self, key: str, default: int | None = None) -> int:
        """A whole number from 1."""
        value = self.natural(key, default)
        if value == 0:
            raise BadCheckpoint(self.path, f"key {key!r} is 0")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self.get(key)
        value = default if value is None else value
        if value is None:
            raise BadCheckpoint(self.path, f"key {key!r} is missing")
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
            raise BadCheckpoint(self.path, f"key {key!r}: {shown(value)} is not a number we can use")
        return float(value)

    def flag(self, key: str, *, default: bool) -> bool:
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise BadCheckpoint(self.path, f"key {key!r}: {shown(value)} is not true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self.get(key)
        value = default if value is None else value
        if not isinstance(value, str):
            raise BadCheckpoint(self.path, f"key {key!r} is missing" if value is None else f"key {key!r}: {shown(value)} is not a string")
        return value

    def strings(self, key: str) -> list[bytes] | None:
        """An array of strings, or None; their bytes, since nobody promised UTF-8."""
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, Array) or value.type != STRING:
            raise BadCheckpoint(self.path, f"key {key!r} is not an array of strings")
        return list(value.strings())

    def numbers(self, key: str) -> tuple[int | float, ...] | None:
        """An array of numbers, or None."""
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, Array) or value.type not in FIXED or value.type == BOOL:
            raise BadCheckpoint(self.path, f"key {key!r} is not an array of numbers")
        return value.numbers()

    def expect(self, key: str, *tested: object) -> None:
        """Refuses any value but those we have tested; absence counts as one."""
        value = self.get(key)
        if value is not None and value not in tested:
            wanted = " or ".join(map(repr, tested))
            raise BadCheckpoint(self.path, f"key {key!r}: {shown(value)} is not supported, only {wanted} has been tested")

    def finish(self, prefix: str) -> None:
        """BadCheckpoint for the first key under `prefix` that nobody asked for."""
        for key in sorted(self.values.keys() - self.asked):
            if key.startswith(prefix) and self.values[key] not in (False, 0):
                raise BadCheckpoint(
                    self.path, f"key {key!r}: {shown(self.values[key])}: a feature this program does not know; refused rather than ignored"
                )


def shown(value: object) -> str:
    """A value as a message may show it: short, and in one line."""
    if isinstance(value, Array):
        return f"an array of {value.count}"
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"
