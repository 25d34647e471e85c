"""Which cores this process may use, and the threads that kernels run on. Reads /proc and /sys; measures nothing."""

import ctypes
import logging
import os
from collections.abc import Iterable, Iterator, Set
from pathlib import Path
from typing import Any

import numba
import psutil
import torch

LOG = logging.getLogger(__name__)
ROOT = Path("/")
OMP_PAUSE_SOFT = 1  # settings stay
SLOW = 0.6  # of the fastest core's strength: little Arm cores have a third, turbo bins of equal cores differ by a tenth


def usable_cores(root: Path = ROOT) -> int:
    """Physical cores under the process's affinity, the fast ones of a hybrid machine, no more than its cgroup's quota; at least one."""
    cores = physical_cores(fast_cpus(set(_allowed_cpus()), root), root)
    quota = cpu_quota(root)
    return cores if quota is None else max(1, min(cores, int(quota)))


def _allowed_cpus() -> Iterable[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range(psutil.cpu_count(logical=False) or 1)


def fast_cpus(cpus: Set[int], root: Path = ROOT) -> Set[int]:
    """Those of `cpus` that are not a hybrid machine's slow ones; all of them where no fast one is allowed or nothing says.

    A region ends with its slowest thread and rows are dealt out evenly, so a slow core costs more than it brings.
    """
    performance = _read(root / "sys/devices/cpu_core/cpus")  # Intel's hybrids only
    if performance is not None:
        return cpus & set(cpu_list(performance)) or cpus
    strengths = {cpu: _strength(cpu, root) for cpu in cpus}
    most = max(strengths.values(), default=0)
    return {cpu for cpu, strength in strengths.items() if strength >= SLOW * most}


def cpu_list(text: str) -> Iterator[int]:
    """'0-3,8' -> 0, 1, 2, 3, 8."""
    for span in text.split(",") if text else ():
        first, _, last = span.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _strength(cpu: int, root: Path) -> int:
    """The scheduler's own number, or else the highest frequency; 0 when neither is told."""
    folder = root / f"sys/devices/system/cpu/cpu{cpu}"
    return int(_read(folder / "cpu_capacity") or _read(folder / "cpufreq/cpuinfo_max_freq") or 0)


def physical_cores(cpus: Iterable[int], root: Path = ROOT) -> int:
    """How many cores these logical CPUs lie on. A CPU that says nothing of its siblings counts as a core."""
    return len({_siblings(cpu, root) for cpu in cpus})


def _siblings(cpu: int, root: Path) -> str:
    listed = _read(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    return listed or str(cpu)


def cpu_quota(root: Path = ROOT) -> float | None:
    """CPUs' worth of time the process's cgroups (version 1 or 2) allow, the tightest of them; None without a limit."""
    limits = []
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _number, controllers, path = line.split(":", 2)
        if controllers == "" or "cpu" in controllers.split(","):
            limits += [limit for folder in _ancestors(root, controllers, path) if (limit := _folder_quota(folder)) is not None]
    return min(limits, default=None)


def _ancestors(root: Path, controllers: str, path: str) -> list[Path]:
    """The cgroup's folder and those above it, as far as they are mounted."""
    mount = root / "sys/fs/cgroup" / ("" if controllers == "" else "cpu")
    folder = mount / path.lstrip("/")
    return [folder, *(above for above in folder.parents if above.is_relative_to(mount))]


def _folder_quota(folder: Path) -> float | None:
    if limits := _read(folder / "cpu.max"):
        quota, period = limits.split()
        return None if quota == "max" else int(quota) / int(period)
    quota_us, period_us = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    return int(quota_us) / int(period_us) if quota_us and period_us and int(quota_us) > 0 else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def set_threads(count: int | None = None) -> int:
    """Sets the threads of kernels (for the calling thread, which Numba asks of each) and of torch; all usable cores by default."""
    count = min(count or usable_cores(), most_threads())
    numba.set_num_threads(count)
    torch.set_num_threads(count)
    return count


def release_threads() -> None:
    """Ends the calling thread's team; its next region makes a new one. Call it before another thread takes over computing.

    Kernels and torch share one OpenMP, which keeps a team for each thread that ever entered a region, and lets no team wait awake
    for its next region once all teams together outnumber the cores: 270 µs for a small product instead of 80.
    """
    release = getattr(ctypes.CDLL(None), "omp_pause_resource_all", None)  # OpenMP 5.0; torch puts its library where all can see it
    if release is not None:
        release(OMP_PAUSE_SOFT)


def most_threads() -> int:
    """As many as Numba has made: it can use fewer, no more."""
    settings: Any = numba.config  # its fields are made at run time
    return int(settings.NUMBA_NUM_THREADS)


def threading_layer() -> str:
    """The layer that kernels have begun to run on: "omp", "tbb" or "workqueue"."""
    loose: Any = numba
    return str(loose.threading_layer())


def check_threading_layer(layer: str | None = None) -> None:
    """Warns when parallel regions are entered through a slow layer: 1.3 µs with OpenMP, 80 µs with workqueue."""
    layer = layer or threading_layer()
    if layer != "omp":
        LOG.warning("kernels run on Numba's %r threads, which start much more slowly than OpenMP's: install libgomp", layer)
