"""What is wanted of each shape, and how a contest's runs become rows of the table. Starts nothing, times nothing."""

from benchmarks.contest import Measured
from benchmarks.ours import Facts
from benchmarks.table import Row

PEER = "peer"
DECODE_MODES = ("dense", "exact", "predictor")
BATCH = 8
GOALS = {
    ("1.1b", "dense share"): 0.9,
    ("1.1b", "exact share"): 0.85,
    ("1.1b", "prompt 64"): 1.0,
    ("1.1b", "prompt 512"): 1.0,
    ("7b", "dense share"): 0.9,
    ("7b", "exact share"): 0.85,
    ("7b", "exact"): 1.55,
    ("7b", "predictor"): 1.9,
    ("7b", "prompt 64"): 1.0,
    ("7b", "prompt 512"): 1.0,
    ("7b", "batch"): 1.0,
    ("mistral", "exact"): 1.8,
    ("mistral", "predictor"): 2.4,
    ("bamboo", "exact"): 1.6,
}
MEMORY_GOAL = 1.1
NAMES = {
    "dense": "dense decode",
    "exact": "exact decode",
    "predictor": "predictor decode",
    "batch": f"batch {BATCH} decode, total",
    "prompt 64": "prompt of 64",
    "prompt 512": "prompt of 512",
}

Found = dict[str, list[Measured]]


def speed(measured: Measured) -> float:
    return measured.decode_speed if measured.task.tokens else measured.prompt_speed


def rows_of(shape: str, found: Found, facts: Facts, seconds: float) -> list[Row]:
    """Shares of the roofline of dense and exact decode; the ratio to the peer of everything but dense."""
    rows = []
    for name in (name for name in found if name != PEER):
        if name in DECODE_MODES:
            shares = tuple(each.share(facts.token_bytes(each.task)) for each in found[name])
            rows.append(Row(shape, f"{NAMES[name]}, share of bandwidth", GOALS.get((shape, f"{name} share")), shares, seconds))
        if name != "dense":
            rows.append(Row(shape, f"{NAMES[name]} ÷ llama.cpp", GOALS.get((shape, name)), ratios(found, name), seconds))
    return rows


def ratios(found: Found, name: str) -> tuple[float, ...]:
    """Ours ÷ the peer's, round by round; nothing without a peer."""
    return tuple(speed(ours) / speed(peer) for ours, peer in zip(found[name], found.get(PEER, []), strict=False))
