"""What others take is told apart from what this process takes itself."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from profiles import others
from profiles.others import Others, warning

SPIN = "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"


class Core:
    def __init__(self, **seconds: float) -> None:
        self.seconds = seconds

    def _asdict(self) -> dict[str, float]:
        return self.seconds


@pytest.mark.parametrize(
    ("busy", "own", "share"), [(0.0, 0.0, 0.0), (10.0, 10.0, 0.0), (10.0, 5.0, 0.25), (10.0, 0.0, 0.5), (0.0, 5.0, 0.0)]
)
def test_the_share_is_what_others_had_of_our_cores(busy: float, own: float, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """One core of ours and one that is not; 20 seconds pass."""
    times = {"user": 100.0, "guest": 50.0, "idle": 100.0, "iowait": 0.0, "steal": 0.0}
    ours, mine = [Core(**times)], [1.0]
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: [ours[0], Core(user=time.monotonic(), idle=0.0)])
    monkeypatch.setattr(others, "own", lambda: mine[0])
    begun = Others.beginning()
    ours[0], mine[0] = Core(**times | {"steal": busy, "idle": 110.0, "iowait": 10.0 - busy}), 1.0 + own
    assert begun.share() == pytest.approx(share)


@pytest.mark.slow
def test_a_process_that_spins_on_our_core_is_noticed() -> None:
    core = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        with subprocess.Popen([sys.executable, "-c", SPIN]) as spinning:
            time.sleep(0.5)
            begun = Others.beginning()
            time.sleep(2)
            share = begun.share()
            spinning.kill()
    finally:
        os.sched_setaffinity(0, before)
    assert share > 0.5


def test_a_quiet_machine_is_not_complained_of() -> None:
    assert warning(0.05) is None
    assert "30%" in (warning(0.3) or "")
