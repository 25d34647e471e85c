"""Known GPU cards, from public spec sheets, for plans made without the card. Torch-free; knows nothing of this machine.

Every figure is assumed until `profiles hardware` measures it: a kernel is taken to reach REACHED of the memory bandwidth
printed on the sheet, and a copy the same share of its PCIe link.
"""

from difflib import get_close_matches
from typing import NamedTuple

from models.errors import BadValue
from profiles.hardware import Gpu

REACHED = 0.85
LAUNCH_SECONDS = 5e-6
SYNC_SECONDS = 10e-6
LANE_BYTES_PER_SECOND = {3: 0.985e9, 4: 1.969e9, 5: 3.938e9}  # one PCIe lane of that generation, one direction


class Card(NamedTuple):
    vram_gib: int
    gigabytes_per_second: float
    pcie: int
    lanes: int = 16


CARDS: dict[str, Card] = {
    "GTX 1050": Card(2, 112, 3),
    "GTX 1050 Ti": Card(4, 112, 3),
    "GTX 1060": Card(6, 192, 3),
    "GTX 1070": Card(8, 256, 3),
    "GTX 1070 Ti": Card(8, 256, 3),
    "GTX 1080": Card(8, 320, 3),
    "GTX 1080 Ti": Card(11, 484, 3),
    "GTX 1650": Card(4, 128, 3),
    "GTX 1650 SUPER": Card(4, 192, 3),
    "GTX 1660": Card(6, 192, 3),
    "GTX 1660 SUPER": Card(6, 336, 3),
    "GTX 1660 Ti": Card(6, 288, 3),
    "RTX 2060": Card(6, 336, 3),
    "RTX 2060 SUPER": Card(8, 448, 3),
    "RTX 2070": Card(8, 448, 3),
    "RTX 2070 SUPER": Card(8, 448, 3),
    "RTX 2080": Card(8, 448, 3),
    "RTX 2080 SUPER": Card(8, 496, 3),
    "RTX 2080 Ti": Card(11, 616, 3),
    "RTX 3050": Card(8, 224, 4, 8),
    "RTX 3060": Card(12, 360, 4),
    "RTX 3060 Ti": Card(8, 448, 4),
    "RTX 3070": Card(8, 448, 4),
    "RTX 3070 Ti": Card(8, 608, 4),
    "RTX 3080": Card(10, 760, 4),
    "RTX 3080 12GB": Card(12, 912, 4),
    "RTX 3080 Ti": Card(12, 912, 4),
    "RTX 3090": Card(24, 936, 4),
    "RTX 3090 Ti": Card(24, 1008, 4),
    "RTX 4060": Card(8, 272, 4, 8),
    "RTX 4060 Ti": Card(8, 288, 4, 8),
    "RTX 4060 Ti 16GB": Card(16, 288, 4, 8),
    "RTX 4070": Card(12, 504, 4),
    "RTX 4070 SUPER": Card(12, 504, 4),
    "RTX 4070 Ti": Card(12, 504, 4),
    "RTX 4070 Ti SUPER": Card(16, 672, 4),
    "RTX 4080": Card(16, 717, 4),
    "RTX 4080 SUPER": Card(16, 736, 4),
    "RTX 4090": Card(24, 1008, 4),
    "RTX 5050": Card(8, 320, 5, 8),
    "RTX 5060": Card(8, 448, 5, 8),
    "RTX 5060 Ti": Card(8, 448, 5, 8),
    "RTX 5060 Ti 16GB": Card(16, 448, 5, 8),
    "RTX 5070": Card(12, 672, 5),
    "RTX 5070 Ti": Card(16, 896, 5),
    "RTX 5080": Card(16, 960, 5),
    "RTX 5090": Card(32, 1792, 5),
    "Tesla T4": Card(16, 320, 3),
    "Tesla V100": Card(16, 900, 3),
    "L4": Card(24, 300, 4),
    "L40S": Card(48, 864, 4),
    "A10": Card(24, 600, 4),
    "A100 40GB": Card(40, 1555, 4),
    "A100 80GB": Card(80, 2039, 4),
    "H100 SXM": Card(80, 3350, 5),
}


def known_card(name: str) -> Gpu:
    """The card called `name` ('rtx 4090', 'NVIDIA GeForce RTX 4090', '4090'); BadValue lists the nearest names."""
    keys = {_key(known): known for known in CARDS}
    if _key(name) in keys:
        return _gpu(keys[_key(name)])
    known = ", ".join(_near(name)) or "GTX 1050 to RTX 5090"
    raise BadValue("--gpu", name, f"is not a card we know; near it: {known}; any other can be measured with `profiles hardware`")


def _near(name: str) -> list[str]:
    """At most four names: first the cards of the same number, then those spelled alike."""
    keys, words = {_key(known): known for known in CARDS}, _words(name)
    kin = [key for key in keys if words and key.startswith(words[0])]
    alike = get_close_matches(_key(name), keys, n=4, cutoff=0.4)
    return [keys[key] for key in dict.fromkeys(kin + alike)][:4]


def _key(name: str) -> str:
    """'NVIDIA GeForce RTX 4090' -> '4090'."""
    return "".join(_words(name))


def _words(name: str) -> list[str]:
    words = name.lower().replace("-", " ").replace("rtx", " ").replace("gtx", " ").split()
    return [word for word in words if word not in ("nvidia", "geforce", "tesla")]


def _gpu(name: str) -> Gpu:
    card = CARDS[name]
    link = REACHED * LANE_BYTES_PER_SECOND[card.pcie] * card.lanes
    return Gpu(
        name=name,
        measured=False,
        vram_bytes=card.vram_gib * 2**30,
        bandwidth=REACHED * card.gigabytes_per_second * 1e9,
        to_device=link,
        to_host=link,
        launch_seconds=LAUNCH_SECONDS,
        sync_seconds=SYNC_SECONDS,
    )
