"""How much of the machine other processes took while something was measured here: a disturbed measurement makes a wrong plan."""

import os
from dataclasses import dataclass

import psutil

DISTURBED = 0.1  # a parallel region waits for its slowest thread, so a core's tenth taken away costs more than a tenth
IDLE = ("idle", "iowait")
INSIDE = ("guest", "guest_nice")  # counted in user and nice time already


@dataclass(frozen=True, slots=True)
class Others:
    """From its making on."""

    busy_seconds: float
    all_seconds: float
    own_seconds: float

    @classmethod
    def beginning(cls) -> "Others":
        return cls(*spent(), own())

    def share(self) -> float:
        """Of the time of the cores this process may use, what others had; what a hypervisor kept for itself counts too."""
        busy, everything = spent()
        taken = busy - self.busy_seconds - (own() - self.own_seconds)
        return min(max(taken / max(everything - self.all_seconds, 1e-9), 0.0), 1.0)


def spent() -> tuple[float, float]:
    """Seconds of the cores this process may use, since the machine was started: busy, and in all."""
    cores = psutil.cpu_times(percpu=True)
    times = [cores[i]._asdict() for i in os.sched_getaffinity(0) if i < len(cores)]
    whole = sum(seconds for core in times for name, seconds in core.items() if name not in INSIDE)
    return whole - sum(core.get(name, 0.0) for core in times for name in IDLE), whole


def own() -> float:
    """CPU seconds of this process, all threads."""
    times = psutil.Process().cpu_times()
    return float(times.user + times.system)


def warning(share: float) -> str | None:
    """A line for the user; None when the machine was quiet enough."""
    if share <= DISTURBED:
        return None
    return (
        f"Other programs took {share:.0%} of this machine's cores while it was measured, so predictions from it will be too low: "
        "measure again with `profiles hardware` when it is quiet."
    )
