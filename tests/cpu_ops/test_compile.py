import os
import tempfile
from pathlib import Path

import pytest

from cpu_ops.kernels import compile as compiling


@pytest.fixture(autouse=True)
def forget_the_folder() -> None:
    compiling.cache_folder.cache_clear()


def test_machine_code_lives_in_our_home_under_the_hash_of_its_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path))
    folder = compiling.cache_folder()
    assert folder.is_dir()
    assert folder.parent == tmp_path / "kernels"


def test_a_home_that_cannot_be_written_does_not_stop_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "file"))
    folder = compiling.cache_folder()
    assert folder.is_dir()
    assert not folder.is_relative_to(tmp_path)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs owners of folders")
def test_what_others_may_write_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The temporary folder is everybody's: who comes first could leave machine code under our name."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    shared = tmp_path / "thermocline"
    assert compiling.cache_folder().is_relative_to(shared)
    shared.chmod(0o777)
    compiling.cache_folder.cache_clear()
    assert not compiling.cache_folder().is_relative_to(shared)
    shared.rename(tmp_path / "theirs")
    shared.symlink_to(tmp_path / "theirs")
    compiling.cache_folder.cache_clear()
    assert not compiling.cache_folder().is_relative_to(shared)
