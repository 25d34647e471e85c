"""docs/formats.md says what the registries hold, no more and no less."""

import re
from collections.abc import Iterator
from pathlib import Path

from models.architectures import FAMILIES
from models.checkpoint.gguf_blocks import DECODERS, EXACT, OWN
from models.checkpoint.gguf_config import ARCHITECTURES
from models.checkpoint.gguf_tokenizer import SPLITS

DOCUMENT = Path(__file__).parents[2] / "docs" / "formats.md"
FLOATS = {("F32", "float32"), ("F16", "float32"), ("BF16", "float32"), ("BF16", "bf16")}  # encoding them loses nothing


def table(heading: str) -> Iterator[list[str]]:
    """Rows of the first table under a heading."""
    section = DOCUMENT.read_text(encoding="utf-8").split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    for line in lines[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_architectures_of_gguf() -> None:
    rows = list(table("GGUF: architectures"))
    assert [quoted(row[0])[0] for row in rows] == list(ARCHITECTURES)
    known = {name for family in FAMILIES for name in family.model_types}
    assert {name for row in rows for name in row[1].split(", ")} <= known


def test_block_types() -> None:
    rows = list(table("GGUF: block types"))
    assert {row[0] for row in rows} == set(DECODERS)
    assert {row[0] for row in rows if row[1] == "us"} == set(OWN)
    assert {(row[0], name) for row in rows for name in row[2].split(", ") if name} == set(EXACT) | FLOATS


def test_splits() -> None:
    groups = [quoted(row[1]) for row in table("GGUF: tokenizers")]
    assert sorted(name for names in groups for name in names) == sorted(SPLITS)
    assert all(len({SPLITS[name] for name in names}) == 1 for names in groups)
