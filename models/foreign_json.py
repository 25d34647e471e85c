"""A small foreign JSON file that may be missing. Torch-free."""

import json
from pathlib import Path
from typing import Any

from models.errors import BadCheckpoint

MOST_BYTES = 1 << 26  # the largest are vocabularies: 256,000 pieces take 8 MB


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty when there is no such file; BadCheckpoint when it is something else."""
    if not path.is_file():
        return {}
    if path.stat().st_size > MOST_BYTES:
        raise BadCheckpoint(path, f"is larger than {MOST_BYTES} bytes")
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadCheckpoint(path, f"is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise BadCheckpoint(path, "is not a JSON object")
    return data
