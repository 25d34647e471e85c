"""Guide: which tokens may come next, asked by the engine before every token of a text that must follow a grammar.

Knows no grammar: `server/grammars.py` makes them. A guide belongs to one sequence and is used by the engine's thread only.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class GuideFailed(Exception):
    """The grammar cannot go on: it became too complex in the middle, or no token of the vocabulary fits."""

    def __init__(self, why: str) -> None:
        super().__init__(f"response_format: {why}")
        self.why = why
        self.param = "response_format"


class Guide(Protocol):
    def allowed(self) -> NDArray[np.bool_]:
        """[V]: the tokens that may come next, the end of the text among them when it may end. GuideFailed when there is none."""

    def push(self, token: int) -> bool:
        """Takes one allowed token; True when nothing can follow it."""
