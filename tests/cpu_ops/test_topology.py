import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest
import torch

from cpu_ops import topology

ONE_TEAM = """
import os
import time
import torch
from cpu_ops.norm import norm
from cpu_ops.topology import release_threads, set_threads, threading_layer

def threads_after(work):
    work()
    return set(os.listdir("/proc/self/task"))

torchs, ours = (lambda: torch.randn(2**20).exp()), (lambda: norm(torch.ones(64, 4096), torch.ones(4096), 1e-5))
assert set_threads(2) == 2
ours(), torchs()  # from here on nothing is loaded any more
released, beside_torchs, both = threads_after(release_threads), threads_after(torchs), threads_after(ours)
again, alone = threads_after(release_threads), threads_after(ours)
release_threads()
until = time.monotonic() + 10  # a thread that has ended is listed for a moment
while (left := set(os.listdir("/proc/self/task")) & (alone - again)) and time.monotonic() < until:
    time.sleep(0.01)
print(threading_layer(), bool(beside_torchs - released), len(both - beside_torchs), bool(alone - again), len(left))
"""


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def siblings(cpu: int) -> str:
    return f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"


def test_two_threads_of_one_core_count_once(tmp_path: Path) -> None:
    root = machine(tmp_path, {siblings(0): "0,2\n", siblings(2): "0,2\n", siblings(1): "1,3\n"})
    assert topology.physical_cores([0, 1, 2], root) == 2


def test_a_cpu_without_topology_is_a_core(tmp_path: Path) -> None:
    assert topology.physical_cores([0, 1, 5], tmp_path) == 3


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000", "sys/fs/cgroup/a/cpu.max": "50000 100000"}, 0.5),
        (
            {
                "proc/self/cgroup": "3:cpu:/x\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100",
            },
            None,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu:/x\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "300",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100",
            },
            3.0,
        ),
        ({}, None),
    ],
)
def test_quota_is_the_tightest_of_the_cgroups(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    assert topology.cpu_quota(machine(tmp_path, files)) == quota


def test_intels_performance_cores_are_the_fast_ones(tmp_path: Path) -> None:
    root = machine(tmp_path, {"sys/devices/cpu_core/cpus": "0-3,8\n"})
    assert topology.fast_cpus({0, 1, 2, 3, 4, 5, 8, 9}, root) == {0, 1, 2, 3, 8}
    assert topology.fast_cpus({2, 4}, root) == {2}


def test_slow_cores_are_used_where_nothing_else_is_allowed(tmp_path: Path) -> None:
    assert topology.fast_cpus({4, 5}, machine(tmp_path, {"sys/devices/cpu_core/cpus": "0-3"})) == {4, 5}


def strengths(name: str, values: list[int]) -> dict[str, str]:
    return {f"sys/devices/system/cpu/cpu{cpu}/{name}": f"{value}\n" for cpu, value in enumerate(values)}


def test_little_cores_are_left_out_and_middle_ones_are_not(tmp_path: Path) -> None:
    root = machine(tmp_path, strengths("cpu_capacity", [330, 330, 800, 1024]))
    assert topology.fast_cpus({0, 1, 2, 3}, root) == {2, 3}


def test_cores_that_differ_in_turbo_only_are_all_fast(tmp_path: Path) -> None:
    root = machine(tmp_path, strengths("cpufreq/cpuinfo_max_freq", [5_200_000, 5_000_000, 3_400_000]))
    assert topology.fast_cpus({0, 1, 2}, root) == {0, 1, 2}


def test_a_machine_that_says_nothing_of_speed_has_equal_cores(tmp_path: Path) -> None:
    assert topology.fast_cpus({0, 7}, tmp_path) == {0, 7}
    assert topology.fast_cpus(set(), tmp_path) == set()


def test_at_least_one_core_is_usable(tmp_path: Path) -> None:
    root = machine(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "20000 100000\n"})
    assert topology.usable_cores(root) == 1
    assert topology.usable_cores() >= 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_a_process_bound_to_one_cpu_uses_one_thread_in_both_pools() -> None:
    before, threads = os.sched_getaffinity(0), (numba.get_num_threads(), torch.get_num_threads())
    try:
        os.sched_setaffinity(0, {min(before)})
        assert topology.usable_cores() == 1
        assert topology.set_threads() == 1 == numba.get_num_threads() == torch.get_num_threads()
    finally:
        os.sched_setaffinity(0, before)
        numba.set_num_threads(threads[0])
        torch.set_num_threads(threads[1])


def test_threads_are_set_and_never_more_than_there_are() -> None:
    most = topology.set_threads()
    assert topology.set_threads(1) == 1 == numba.get_num_threads()
    assert topology.set_threads(10_000) >= most
    topology.set_threads()


def test_a_slow_threading_layer_is_said_aloud(caplog: pytest.LogCaptureFixture) -> None:
    topology.check_threading_layer("omp")
    assert not caplog.messages
    topology.check_threading_layer("workqueue")
    assert "workqueue" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
@pytest.mark.parametrize("first", ["import numba; numba.get_num_threads()", "import torch"])
def test_kernels_and_torch_share_one_team_whichever_was_loaded_first_and_it_can_be_released(first: str) -> None:
    """torch brings a libgomp of its own; were it another than Numba's, two teams of threads would wait awake on the same cores."""
    environment = os.environ | {"NUMBA_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", first + ONE_TEAM], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "omp True 0 True 0\n", done.stderr
