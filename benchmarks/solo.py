"""Solo: what a request's greedy text is when nobody else is there, and whether another text is the same to the rounding of a prompt.

A prompt's logits depend a little on how it was cut into chunks and on what of it was there already (docs/http.md). So a text may
leave its solo run, but only at a token where the two likeliest ones were closer than MARGIN.
"""

import json
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.wire import connected, post

MARGIN = 0.02  # of log probability
Verdict = Literal["equal", "near", "different"]


@dataclass(frozen=True, slots=True)
class Solo:
    """`offsets`: where each token of `text` begins; `margins`: how much likelier than the second best it was."""

    asked: Mapping[str, Any]
    text: str
    offsets: tuple[int, ...]
    margins: tuple[float, ...]

    def judge(self, text: str) -> Verdict:
        if text == self.text:
            return "equal"
        place = next((i for i, (mine, its) in enumerate(zip(text, self.text, strict=False)) if mine != its), min(len(text), len(self.text)))
        last = bisect_right(self.offsets, place)  # tokens up to this one may be where the texts part
        near = self.margins[max(0, last - 2) : last]
        return "near" if near and min(near) < MARGIN else "different"


async def solo(url: str, path: str, asked: Mapping[str, Any]) -> Solo | None:
    """The text alone; None when the server does not take the request."""
    async with connected(url) as wire:
        await wire.send(post(path, json.dumps({**asked, "logprobs": 2}).encode()))
        if await wire.head() != 200:
            return None
        (choice, *_) = json.loads(await wire.body())["choices"]
    logprobs = choice["logprobs"]
    return Solo(asked, choice["text"], tuple(logprobs["text_offset"]), tuple(map(gap, logprobs["top_logprobs"])))


def gap(top: Mapping[str, float]) -> float:
    """Between the two likeliest tokens; none when they show alike, as then nobody can tell them apart by their names."""
    best = sorted(top.values(), reverse=True)[:2]
    return best[0] - best[1] if len(best) == 2 else 0.0
