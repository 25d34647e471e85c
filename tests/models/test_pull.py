"""`models pull`, from a small hub on loopback: what is fetched, what is not, and what is said when it cannot be."""

import errno
import os
import re
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from models.checkpoint.opened import open_foreign
from models.cli import main
from models.errors import BadCheckpoint, BadValue, DoesNotFit, ThermoclineError, Unavailable
from models.library import find, known_manifest
from models.pack import packed
from models.pull import Hub, needed, pull
from tests.checkpoints import make_llama
from tests.gguf_files import Style, convert
from tests.hub import SmallHub, serving

ROOT = Path(__file__).parents[2]
REPO = "some-lab/Small.1"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallHub:
    """A sharded model, and files that nobody needs."""
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    folder = make_llama(tmp_path / "model", shard_bytes=60_000)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    unneeded = {"README.md": b"# it", "pytorch_model.bin": b"old", "onnx/model.onnx": b"x", "original/consolidated.00.pth": b"y"}
    return SmallHub({REPO: files | unneeded, "some-lab/private": {}, "some-lab/gated": {}, "some-lab/empty": {"README.md": b""}})


def pulled(hub: SmallHub, repo: str = REPO, **told: Any) -> Path:
    return pull(repo, hub=Hub(hub.url, Path(os.environ["THERMOCLINE_HOME"]) / "cache"), **told)


def test_only_what_is_needed_is_fetched_and_the_name_is_known_from_then_on(hub: SmallHub, tmp_path: Path) -> None:
    with serving(hub):
        folder = pulled(hub)
    names = {path.name for path in folder.iterdir()}
    assert names == {path.name for path in (tmp_path / "model").iterdir()}
    assert len([name for name in names if name.startswith("model-")]) > 1
    assert sorted(name for name, _ in hub.fetched) == sorted(names)
    assert find(REPO) == folder
    assert known_manifest(REPO).fingerprint == open_foreign(tmp_path / "model").fingerprint
    assert known_manifest(REPO).name == "Small.1"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A GGUF model in three files, by the gguf package."""
    folder = tmp_path_factory.mktemp("gguf")
    first = convert(make_llama(folder / "model"), folder / "small.gguf", "llama", Style(pre="gpt-2", shard_tensors=9))
    return {path.name: path.read_bytes() for path in first.parent.glob("*.gguf")}


GGUF_REPO = "some-lab/Small-GGUF"


def test_a_pulled_gguf_is_the_model_of_its_name(hub: SmallHub, shards: dict[str, bytes], tmp_path: Path) -> None:
    """The file stands for the repository: its header is read, its tensors packed, in shards as in one file."""
    hub.repos = {GGUF_REPO: shards | {"README.md": b"# it", "params": b"{}"}}
    with serving(hub):
        folder = pulled(hub, GGUF_REPO)
    assert {path.name for path in folder.iterdir()} == set(shards)
    assert len(shards) > 1
    assert find(GGUF_REPO) == folder.resolve() / min(shards)
    (tmp_path / "own").mkdir()
    for name, data in shards.items():
        (tmp_path / "own" / name).write_bytes(data)
    own = open_foreign(tmp_path / "own" / min(shards))
    assert known_manifest(GGUF_REPO).fingerprint == own.fingerprint
    model = packed(GGUF_REPO, "float32", quiet=True)
    assert model.manifest.fingerprint == own.fingerprint
    assert packed(GGUF_REPO, "float32", quiet=True).folder == model.folder
    assert torch.equal(model.load_spine(torch.device("cpu")).head.decode(), own.read("head"))


def test_what_was_pulled_is_listed_and_forgotten_by_its_name(
    hub: SmallHub, shards: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    """The files stay in the cache, which is other programs' too; a second pull links them again and fetches nothing."""
    several = {"some-lab/predictors": {"model_0.pt": b"x"}, GGUF_REPO: shards, "../x": {}}
    hub.repos = {**hub.repos, **several}
    with serving(hub):
        for repo in (REPO, GGUF_REPO, "some-lab/predictors"):
            pulled(hub, repo)
        (pulled(hub).parent / ".Small.1.77.part").mkdir()  # of a pull that was killed
        fetched = len(hub.fetched)
        assert main(["list"]) == 0
        rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
        assert set(rows) == {REPO, GGUF_REPO, "some-lab/predictors"}
        assert "llama, " in rows[REPO]
        assert "2 layers × 96 neurons" in rows[GGUF_REPO]
        assert "no model by itself" in rows["some-lab/predictors"]
        for wrong in ("some-lab/nothing", "../../home", "some-lab/.Small.1.77.part", "some-lab/"):
            assert main(["rm", wrong]) == 2
            assert "was not pulled" in capsys.readouterr().err
        assert main(["rm", REPO, "some-lab/predictors"]) == 0
        said = capsys.readouterr().out
        assert f"forgot {REPO}; its files stay in " in said
        assert Path(said.splitlines()[0].split(" stay in ")[1].split(", the cache")[0]).is_dir()
        with pytest.raises(BadCheckpoint, match="pulled one"):
            find(REPO)
        assert main(["list"]) == 0
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [GGUF_REPO]
        assert known_manifest(str(pulled(hub))).name == "Small.1"
    assert len(hub.fetched) == fetched


def test_a_cache_that_was_cleared_is_told(hub: SmallHub, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(hub):
        folder = pulled(hub)
    shutil.rmtree((folder / "config.json").resolve().parent)
    assert main(["list"]) == 0
    count = len(list(folder.iterdir()))
    assert f"{count} of its files are gone" in capsys.readouterr().out
    assert main(["rm", REPO]) == 0
    assert not folder.exists()


def test_a_second_pull_fetches_nothing(hub: SmallHub) -> None:
    with serving(hub):
        pulled(hub)
        before = len(hub.fetched)
        pulled(hub)
    assert len(hub.fetched) == before


def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub: SmallHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 10)
    shard = "model-00002-of-" + next(name for name in hub.repos[REPO] if name.startswith("model-00001")).removeprefix("model-00001-of-")
    hub.cuts[shard] = 2
    with serving(hub):
        folder = pulled(hub)
    starts = [first for name, first in hub.fetched if name == shard]
    assert starts[0] == 0
    assert 0 < starts[1] < starts[2]
    assert (folder / shard).read_bytes() == (tmp_path / "model" / shard).read_bytes()


def test_after_a_failure_finished_files_are_not_fetched_again(hub: SmallHub) -> None:
    hub.cuts["config.json"] = 100
    with serving(hub):
        with pytest.raises(Unavailable, match="run the same command again"):
            pulled(hub)
        done = {name for name, _ in hub.fetched} - {"config.json"}
        hub.cuts.clear()
        hub.fetched.clear()
        assert (pulled(hub) / "config.json").is_file()
    assert "config.json" in {name for name, _ in hub.fetched}
    assert len(done & {name for name, _ in hub.fetched}) < len(done)


@pytest.mark.parametrize(
    ("repo", "told", "kind", "complaint"),
    [
        ("some-lab/nothing", {}, Unavailable, "does not exist, or is private"),
        ("some-lab/private", {}, Unavailable, "does not exist, or is private"),
        ("some-lab/gated", {}, Unavailable, "accepted its terms"),
        ("a/b/c", {}, BadValue, "is not the name of a repository"),
        ("../../etc", {}, BadValue, "is not the name of a repository"),
        ("some-lab/empty", {}, BadValue, "holds no weights that we can read"),
        (REPO, {"revision": "v9"}, Unavailable, "has no revision 'v9'"),
        (REPO, {"files": ["model.gguf"]}, BadValue, "is not in some-lab/Small.1"),
    ],
)
def test_what_cannot_be_pulled_is_one_line(
    repo: str, told: dict[str, Any], kind: type[ThermoclineError], complaint: str, hub: SmallHub
) -> None:
    hub.private.add("some-lab/private")
    hub.gated.add("some-lab/gated")
    with serving(hub), pytest.raises(kind, match=complaint) as caught:
        pulled(hub, repo, **told)
    assert str(caught.value).isprintable()


def test_no_network_and_a_hub_that_is_ill_are_one_line(hub: SmallHub) -> None:
    hub.status = 404
    with serving(hub), pytest.raises(Unavailable, match="the hub answered 404"):
        pulled(hub)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        hub.url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(Unavailable, match="no network"):
            pulled(hub)


def test_a_disk_without_room_is_said_before_and_one_that_fills_up_is_said_then(hub: SmallHub, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    with serving(hub), monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: usage(1 << 20, 1 << 20, 1000))
        with pytest.raises(DoesNotFit, match="set HF_HOME to another disk"):
            pulled(hub)
    assert hub.fetched == []

    def full(*args: object, **told: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with serving(hub), pytest.raises(Unavailable, match="filled up; free some space"):
        pulled(hub)


GGUFS = ["a.Q4_0.gguf", "a.Q8_0.gguf"]
PARTS = ["a-00001-of-00002.gguf", "a-00002-of-00002.gguf"]


@pytest.mark.parametrize(
    ("names", "files", "found"),
    [
        (["model.safetensors", "pytorch_model.bin"], [], ["model.safetensors"]),
        (
            ["pytorch_model.bin", "vocab.json", "merges.txt"],
            [],
            ["merges.txt", "pytorch_model.bin", "vocab.json"],
        ),
        (
            ["pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin", "model-00001-of-00001.safetensors"],
            [],
            ["pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json"],
        ),
        (["model_0.pt", "model_10.pt", "config.json", "x.pt"], [], ["config.json", "model_0.pt", "model_10.pt"]),
        (["a.gguf", "activation/activation_0.pt", "activation/x"], [], ["a.gguf", "activation/activation_0.pt"]),
        (PARTS, [], PARTS),
        (GGUFS, GGUFS[1:], GGUFS[1:]),
    ],
)
def test_which_files_a_repository_is_needed_for(names: list[str], files: list[str], found: list[str]) -> None:
    assert needed("a/b", names, files) == found


def test_of_several_models_one_has_to_be_named() -> None:
    with pytest.raises(BadValue, match=re.escape("a.Q4_0.gguf, a.Q8_0.gguf; choose with --file NAME")):
        needed("a/b", GGUFS)


def test_as_it_is_typed(hub: SmallHub, tmp_path: Path) -> None:
    """The library's own settings say where the hub is, and where its cache."""
    program = "import sys; from profiles.models_cli import main; sys.exit(main(sys.argv[1:]))"
    with serving(hub) as url:
        environment = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hf"), "THERMOCLINE_HOME": str(tmp_path / "home")}
        run: Callable[..., Any] = subprocess.run
        done = run([sys.executable, "-c", program, "pull", REPO], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"`models show {REPO}`" in done.stdout
    assert (tmp_path / "home" / "pulled" / REPO / "config.json").resolve().is_relative_to(tmp_path / "hf")


def test_without_the_library_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert huggingface_hub.__version__
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(Unavailable, match=r"pip install 'thermocline\[pull\]'"):
        pull(REPO)
