"""Formats a row can be stored in. A new one is a file with a `Format`, a line below, and a line in `models/bits.py`."""

from models.bits import FormatName
from models.formats.base import Format, Input
from models.formats.bf16 import BF16
from models.formats.float32 import FLOAT32
from models.formats.int4 import INT4
from models.formats.int8 import INT8

FORMATS: dict[FormatName, Format] = {"float32": FLOAT32, "bf16": BF16, "int8": INT8, "int4": INT4}

__all__ = ["BF16", "FLOAT32", "FORMATS", "INT4", "INT8", "Format", "Input"]
