from collections.abc import Iterator
from ctypes import CFUNCTYPE, c_int64
from pathlib import Path

import pytest
from llvmlite import ir

from cpu_ops.kernels import compile as compiling
from cpu_ops.kernels import machine_code
from cpu_ops.kernels.ir import I64
from cpu_ops.kernels.machine_code import Library, library
from cpu_ops.kernels.target import Module, Target, numba_target
from models.errors import DiskFilled


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path))
    compiling.cache_folder.cache_clear()
    yield tmp_path
    compiling.cache_folder.cache_clear()


def doubling(target: Target) -> Module:
    module = Module("doubling", target)
    function = ir.Function(module, ir.FunctionType(I64, [I64]), "double")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(builder.add(*function.args * 2))
    return module


def never(target: Target) -> Module:
    raise AssertionError("it is on the disk")


def doubled(made: Library, value: int) -> int:
    return int(CFUNCTYPE(c_int64, c_int64)(made.address("double"))(value))


def test_code_is_made_once_and_read_afterwards() -> None:
    assert doubled(library("doubling", doubling), 21) == 42
    assert doubled(library("doubling", never), 4) == 8


def test_another_cpu_does_not_read_our_code(monkeypatch: pytest.MonkeyPatch) -> None:
    library("doubling", doubling)
    narrower = numba_target()._replace(cpu="generic", features="")
    monkeypatch.setattr(machine_code, "numba_target", lambda: narrower)
    with pytest.raises(AssertionError, match="on the disk"):
        library("doubling", never)


def test_code_is_used_though_the_disk_is_full(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise DiskFilled(path.parent, 0)

    monkeypatch.setattr(machine_code, "whole_file", full)
    assert doubled(library("doubling", doubling), 21) == 42
    assert list(home.rglob("*.o")) == []
