"""What benchmarks share in reading their arguments: numbers that make sense, and which model."""

import argparse
from pathlib import Path

from benchmarks.shapes import SHAPES
from models.bits import FORMAT_NAMES


def positive_whole(text: str) -> int:
    """A whole number from 1."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def positive(text: str) -> float:
    """A number greater than 0, but no endless one."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number greater than 0")
    return number


def add_model(parser: argparse.ArgumentParser) -> None:
    """--shape, --format and --work, which `decode.open_model` takes."""
    parser.add_argument("--shape", choices=("bundled", *SHAPES), default="bundled")
    parser.add_argument("--format", choices=FORMAT_NAMES, help="of the bundled model; synthetic ones are int4")
    parser.add_argument("--work", type=Path, help="where synthetic models are written and kept (default: a folder that is removed)")
