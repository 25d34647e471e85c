"""Bytes and seconds as people write them. Knows no models."""

import re

_DECIMAL = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BINARY = {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_UNITS = _DECIMAL | _BINARY
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def parse_bytes(text: str) -> int:
    """'8GB' -> 8_000_000_000, '8GiB' -> 8 * 2**30, any case. A unit is required: ValueError says what is wrong."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError("is not a size; write it like 8GB or 7.5GiB")
    number, unit = match.groups()
    if not unit:
        raise ValueError(f"has no unit; write {number}GB or {number}GiB")
    if unit.upper() not in _UNITS:
        raise ValueError(f"has an unknown unit {unit!r}; use one of B, KB, MB, GB, TB, KiB, MiB, GiB, TiB")
    return round(float(number) * _UNITS[unit.upper()])


def format_bytes(count: int) -> str:
    """1_500_000_000 -> '1.50 GB' (decimal units, three significant digits)."""
    if count < 0:
        return "-" + format_bytes(-count)
    for unit in ("TB", "GB", "MB", "KB"):
        if count >= _DECIMAL[unit]:
            value = count / _DECIMAL[unit]
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    return f"{count} B"


def format_seconds(seconds: float) -> str:
    """0.0000123 -> '12.3 µs'."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def format_rate(per_second: float) -> str:
    """2034.5 -> '2,034', 16.72 -> '16.7', 0.3456 -> '0.346'."""
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"
