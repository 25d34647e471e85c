"""A file is there whole, or not at all."""

import errno
from pathlib import Path

import pytest

from models.errors import DoesNotFit
from models.paths import check_disk, home, whole_file


def test_a_file_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    with whole_file(tmp_path / "deep" / "plan.json") as part:
        part.write_text("{}")
        assert not (tmp_path / "deep" / "plan.json").exists()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["plan.json"]


def begin(target: Path, error: Exception) -> None:
    """Writes half of a file, and fails."""
    with whole_file(target) as part:
        part.write_text("half of the n")
        raise error


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "plan.json"
    target.write_text("old")
    with pytest.raises(RuntimeError):
        begin(target, RuntimeError())
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_a_disk_that_fills_up_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFit, match="filled up"):
        begin(tmp_path / "plan.json", OSError(errno.ENOSPC, "No space left on device"))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_too_small_is_known_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFit, match="missing") as caught:
        check_disk(tmp_path / "packed", 10**18)
    assert caught.value.need_bytes == 10**18


def test_home_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("THERMOCLINE_HOME", raising=False)
    assert home() == tmp_path / "thermocline"
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "mine"))
    assert home() == tmp_path / "mine"
