"""The page of what is supported names exactly what the registries have."""

import re
from pathlib import Path

from models.architectures import FAMILIES
from tests.checkpoints import LLAMA_VARIANTS, OWN_VARIANTS
from tests.families import ALL, REFERENCED

PAGE = Path(__file__).parent.parent / "docs" / "formats.md"


def rows_of(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, its own heading left out."""
    section = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def quoted(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`([^`]+)`", cell))


def test_the_families_are_those_of_the_registry() -> None:
    said = {(quoted(row[1]), quoted(row[2])) for row in rows_of("Families")}
    assert said == {(family.model_types, family.classes) for family in FAMILIES}


def test_every_family_has_rows_in_the_parity_test_and_every_row_a_family() -> None:
    rows = [quoted(row[5]) for row in rows_of("Families")]
    assert all(rows)
    assert sorted(name for names in rows for name in names) == sorted([*LLAMA_VARIANTS, *OWN_VARIANTS, *ALL])


def test_what_is_marked_is_what_the_numpy_reference_is_for() -> None:
    marked = {name for row in rows_of("Families") for name in re.findall(r"`([^`]+)`†", row[5])}
    assert marked == set(REFERENCED)
