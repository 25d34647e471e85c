"""What was measured, held against what is wanted: rows, and how they print. Starts nothing, times nothing."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

Value = float | None


@dataclass(frozen=True, slots=True)
class Row:
    """`values`: one a round, none where a peer was missing. `seconds`: what the contest it comes from took."""

    shape: str
    what: str
    goal: Value
    values: tuple[float, ...]
    seconds: float
    at_most: bool = False  # the goal is a ceiling

    @property
    def reached(self) -> Value:
        return statistics.median(self.values) if self.values else None

    @property
    def met(self) -> bool | None:
        """None when there is no goal or no value."""
        if self.goal is None or self.reached is None:
            return None
        return self.reached <= self.goal if self.at_most else self.reached >= self.goal

    def to_json(self) -> dict[str, object]:
        values = [round(value, 4) for value in self.values]
        return asdict(self) | {"values": values, "reached": rounded(self.reached), "met": self.met, "seconds": round(self.seconds, 1)}


TITLES = ("shape", "what", "goal", "reached", "range", "met", "took")


def render(rows: Sequence[Row]) -> str:
    """A Markdown table, its columns aligned."""
    cells = [TITLES, *(row_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(TITLES))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def row_cells(row: Row) -> tuple[str, ...]:
    goal = "–" if row.goal is None else f"{'≤' if row.at_most else '≥'} {row.goal:.2f}"
    span = f"{min(row.values):.2f}–{max(row.values):.2f}" if row.values else "–"
    reached = "no peer" if row.reached is None else f"{row.reached:.2f}"
    return row.shape, row.what, goal, reached, span, {None: "", True: "yes", False: "NO"}[row.met], f"{row.seconds:.0f} s"


def rounded(value: Value) -> Value:
    return None if value is None else round(value, 4)
