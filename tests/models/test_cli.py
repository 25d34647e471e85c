"""`models`, as it is typed. The checkpoint is a small random one."""

import fcntl
import os
from pathlib import Path

import pytest

from models.cli import main
from models.library import LOCK_FILE, entries, known_manifest
from tests.checkpoints import make_llama


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "home"))
    return make_llama(tmp_path / "small")


def test_pack_list_remove(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert "Nothing is packed" in capsys.readouterr().out
    assert main(["pack", str(checkpoint), "--format", "int8"]) == 0
    (entry,) = entries()
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert entry.folder.name in listed
    assert "int8" in listed
    assert main(["rm", entry.folder.name]) == 0
    assert list(entries()) == []
    assert checkpoint.is_dir()


def test_an_unfinished_folder_is_listed_and_can_be_removed(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["pack", str(checkpoint)])
    (entry,) = entries()
    (entry.folder / "manifest.json").unlink()
    main(["list"])
    assert "unfinished" in capsys.readouterr().out
    assert main(["rm", entry.folder.name]) == 0


def test_a_manifest_of_another_version_says_what_to_do(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["pack", str(checkpoint)])
    (entry,) = entries()
    path = entry.folder / "manifest.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 0', 1))
    assert main(["pack", str(entry.folder)]) == 2
    assert "format version 0" in (message := capsys.readouterr().err)
    assert "models rm" in message


@pytest.mark.parametrize(
    "arguments",
    [["pack", "/no/such/folder"], ["pack", "a" * 5000], ["pack", "~nobody/here"], ["rm", "nobody"], ["rm", "../home"]],
)
def test_a_mistake_is_one_line_and_exit_2(arguments: list[str], checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_what_is_known_before_packing_is_counted_after(checkpoint: Path) -> None:
    before = known_manifest(str(checkpoint), "int8")
    main(["pack", str(checkpoint), "--format", "int8"])
    (entry,) = entries()
    after = known_manifest(entry.folder.name)
    assert (before.sizes, before.fingerprint, before.assumed) == (after.sizes, after.fingerprint, False)


def test_without_weights_the_manifest_says_it_is_assumed(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    manifest = known_manifest(str(checkpoint), "int8")
    assert manifest.assumed
    assert manifest.fingerprint.startswith("config:")


def test_a_model_that_is_being_packed_is_not_removed(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["pack", str(checkpoint)])
    (entry,) = entries()
    with (entry.folder / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["rm", entry.folder.name]) == 2
    assert "is being packed" in capsys.readouterr().err
    assert known_manifest(entry.folder.name) == entry.manifest


@pytest.mark.parametrize("name", ["odd näme ★ $(x)", "two\nlines", "n" * 250])
def test_any_name_of_a_folder_can_be_packed_and_removed(name: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pack", str(checkpoint.rename(checkpoint.with_name(name)))]) == 0
    (entry,) = entries()
    assert entry.folder.name.isprintable()
    assert main(["rm", entry.folder.name]) == 0


def test_a_name_that_is_not_utf8_is_refused(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = os.fsdecode(os.fsencode(checkpoint) + b"\xff")
    checkpoint.rename(named)
    capsys.readouterr()
    assert main(["pack", named]) == 2
    assert "not UTF-8" in capsys.readouterr().err


def test_a_home_that_is_a_file_is_one_line(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkpoint.parent / "home").write_text("")
    capsys.readouterr()
    assert main(["pack", str(checkpoint)]) == 2
    assert "Not a directory" in (error := capsys.readouterr().err)
    assert error.count("\n") == 1
