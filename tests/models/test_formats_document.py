"""docs/formats.md says what the registries hold, no more and no less."""

import re
from collections.abc import Iterator
from pathlib import Path

from models.architectures import FAMILIES
from models.checkpoint.gguf_blocks import DECODERS, OWN
from models.checkpoint.gguf_config import ARCHITECTURES
from models.checkpoint.gguf_report import KEPT, STATED_ERROR
from models.checkpoint.gguf_tokenizer import SPLITS
from tests.checkpoints import LLAMA_VARIANTS, OWN_VARIANTS
from tests.families import ALL, REFERENCED

DOCUMENT = Path(__file__).parents[2] / "docs" / "formats.md"


def table(heading: str) -> Iterator[list[str]]:
    """Rows of the first table under a heading."""
    section = DOCUMENT.read_text(encoding="utf-8").split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    for line in lines[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_families_are_those_of_the_registry() -> None:
    said = {(tuple(quoted(row[1])), tuple(quoted(row[2]))) for row in table("Families")}
    assert said == {(family.model_types, family.classes) for family in FAMILIES}


def test_every_family_has_rows_in_the_parity_test_and_every_row_a_family() -> None:
    rows = [quoted(row[5]) for row in table("Families")]
    assert all(rows)
    assert sorted(name for names in rows for name in names) == sorted([*LLAMA_VARIANTS, *OWN_VARIANTS, *ALL])


def test_what_is_marked_is_what_the_numpy_reference_is_for() -> None:
    marked = {name for row in table("Families") for name in re.findall(r"`([^`]+)`†", row[5])}
    assert marked == set(REFERENCED)


def test_architectures_of_gguf() -> None:
    rows = list(table("GGUF: architectures"))
    assert [quoted(row[0])[0] for row in rows] == list(ARCHITECTURES)
    known = {name for family in FAMILIES for name in family.model_types}
    assert {name for row in rows for name in row[1].split(", ")} <= known


def test_block_types() -> None:
    rows = list(table("GGUF: block types"))
    assert {row[0] for row in rows} == set(DECODERS)
    assert {row[0] for row in rows if row[1] == "us"} == set(OWN)
    assert {(row[0], name) for row in rows for name in row[2].split(", ") if name} == KEPT


def test_stated_errors() -> None:
    said = {name: float(percent) / 100 for percent, name in re.findall(r"([\d.]+) % in (\w+)", DOCUMENT.read_text(encoding="utf-8"))}
    assert said == {name: STATED_ERROR[name] for name in ("bf16", "int8", "int4")}


def test_splits() -> None:
    groups = [quoted(row[1]) for row in table("GGUF: tokenizers")]
    assert sorted(name for names in groups for name in names) == sorted(SPLITS)
    assert all(len({SPLITS[name] for name in names}) == 1 for names in groups)
