"""A container's limit counts where it is below the machine's memory."""

from pathlib import Path

import psutil
import pytest
import torch

from profiles.memory import available_bytes, ram_bytes

CPU = torch.device("cpu")
TOTAL = int(psutil.virtual_memory().total)


def test_without_a_container_it_is_the_machines(tmp_path: Path) -> None:
    assert ram_bytes(tmp_path) == TOTAL
    assert 0 < available_bytes(CPU, tmp_path) <= TOTAL


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_limit_of_either_version_counts(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(f"{TOTAL // 2}\n")
    assert ram_bytes(tmp_path) == TOTAL // 2
    assert 0 < available_bytes(CPU, tmp_path) < TOTAL // 2
    (tmp_path / name).write_text("1000\n")
    assert available_bytes(CPU, tmp_path) == 0


def test_no_limit_and_a_huge_limit_mean_the_machine(tmp_path: Path) -> None:
    for written in ("max\n", f"{2**63}\n"):
        (tmp_path / "memory.max").write_text(written)
        assert ram_bytes(tmp_path) == TOTAL
