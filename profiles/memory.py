"""How much memory this process may use: the machine's, or its container's when that is less."""

from pathlib import Path

import psutil
import torch

CGROUP = Path("/sys/fs/cgroup")
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # cgroup 2, cgroup 1


def ram_bytes(cgroup: Path = CGROUP) -> int:
    """All of it, used or not."""
    total = int(psutil.virtual_memory().total)
    limit = _limit(cgroup)
    return total if limit is None else min(total, limit)


def available_bytes(device: torch.device, cgroup: Path = CGROUP) -> int:
    """What `device` has left; in a container, at most what this process leaves of its limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    available = int(psutil.virtual_memory().available)
    limit = _limit(cgroup)
    return available if limit is None else max(0, min(available, limit - int(psutil.Process().memory_info().rss)))


def _limit(cgroup: Path) -> int | None:
    """Bytes the container may use; None when there is no limit ('max', or no such file)."""
    for name in _LIMITS:
        try:
            return int((cgroup / name).read_text())
        except (OSError, ValueError):
            continue
    return None
