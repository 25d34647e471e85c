"""How many queries are taken together, and the code of each such tile, chosen when it is called. Knows no arithmetic."""

from collections.abc import Callable, Sequence
from functools import partial

from cpu_ops.kernels.compile import exact_inner
from cpu_ops.kernels.ir import Builder, Value, choose
from cpu_ops.kernels.pairs import Pairs, by_element, lanes, lanes_of

TILES = (8, 4, 1)  # queries
MOST_QUERIES = max(TILES)


@exact_inner
def tile_of(queries: int) -> int:
    """How many of so many queries are taken together: eight only where a vector has two lanes for each."""
    if queries >= 8 and lanes() >= 16:
        return 8
    return 4 if queries >= 4 else 1


def tiles_of(builder: Builder) -> list[int]:
    """What `tile_of` may give."""
    return [tile for tile in TILES if 2 * tile <= lanes_of(builder)]


def by_tile(builder: Builder, tile: Value, emit: Callable[[int], None]) -> None:
    """The code of a tile."""
    *most, last = tiles_of(builder)
    choose(builder, tile, {queries: partial(emit, queries) for queries in most}, partial(emit, last))


def by_tile_and_element(builder: Builder, arguments: Sequence[Value], emit: Callable[[int, Pairs, Builder, Sequence[Value]], None]) -> None:
    """The code of a tile and a cache's elements, which the first two arguments tell; it is given the others."""
    tile, element_bytes, *rest = arguments
    by_tile(builder, tile, lambda queries: by_element(builder, element_bytes, lambda pairs: emit(queries, pairs, builder, rest)))
