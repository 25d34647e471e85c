"""What the four commands share in reading their arguments. Torch-free; `models/command.py` is how they end."""

import argparse
import re
from collections.abc import Callable, Sequence
from typing import NoReturn

from models.errors import BadValue, ThermoclineError
from models.units import parse_bytes

NEGATIVE = re.compile(r"-\.?\d")


class Parser(argparse.ArgumentParser):
    """Complains in one line, like every other mistake."""

    def error(self, message: str) -> NoReturn:
        raise ThermoclineError(f"{message}; see `{self.prog} --help`")


def joined(argv: Sequence[str]) -> list[str]:
    """'--vram', '-1GB' -> '--vram=-1GB', which argparse would otherwise take for an option of its own."""
    words: list[str] = []
    for word in argv:
        if words and words[-1].startswith("--") and "=" not in words[-1] and NEGATIVE.match(word):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def size(name: str) -> Callable[[str], int]:
    """A parser of sizes that complains as `name`: a unit is required, and more than nothing."""

    def parse(text: str) -> int:
        try:
            count = parse_bytes(text)
        except (ValueError, OverflowError) as error:
            raise BadValue(name, text, str(error)) from None
        if count == 0:
            raise BadValue(name, text, "is nothing; leave the option out to use what there is")
        return count

    return parse


def count(name: str) -> Callable[[str], int]:
    """A parser of whole numbers from 1 that complains as `name`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"0*[1-9]\d{0,9}", text, re.ASCII):
            raise BadValue(name, text, "is not a whole number from 1")
        return int(text)

    return parse


def share(name: str) -> Callable[[str], float]:
    """A parser of shares from 0 to 1, '0.9' or '90%', that complains as `name`."""

    def parse(text: str) -> float:
        match = re.fullmatch(r"(\d{1,3}(?:\.\d{1,9})?|\.\d{1,9}) ?(%?)", text, re.ASCII)
        value = float(match[1]) / (100 if match[2] else 1) if match else -1.0
        if not 0.0 <= value <= 1.0:
            raise BadValue(name, text, "is not a share between 0 and 1, like 0.9 or 90%")
        return value

    return parse
