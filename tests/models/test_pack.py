"""Packing: streamed, resumable, whole or not at all, and counted."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
import torch

from cpu_ops.encode import encode
from models import pack as packing
from models import pack_files
from models.bits import FORMAT_NAMES, FormatName
from models.checkpoint.safetensors import open_safetensors
from models.errors import BadArtefact, BadCheckpoint, BadValue, DoesNotFit
from models.layout import Region, layer_file
from models.manifest import Formats, computed_sizes
from models.pack import pack, packed
from models.packed import PackedModel
from tests.checkpoints import OWN_VARIANTS, make_by_hand, make_llama
from tests.conftest import CheckpointOf, PackedOf

every_format = pytest.mark.parametrize("name", FORMAT_NAMES)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a packed folder but the lock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@every_format
@pytest.mark.parametrize("variant", ["relu", "everything", "bamboo"])
def test_bytes_counted_are_bytes_computed(variant: str, name: FormatName, packed_of: PackedOf) -> None:
    model = packed_of(variant, name)
    manifest = model.manifest
    assert not manifest.assumed
    assert manifest.sizes == computed_sizes(manifest.spec, Formats.of(name))
    spine, banks = model.load_spine(), [model.load_banks(layer) for layer in range(2)]
    assert sum(cold.nbytes for layer in banks for _, cold in layer) == manifest.neurons_bytes
    matrices = [part for layer in spine.layers for part in (layer.qkv, layer.o)]
    vectors = [part for layer in spine.layers for part in (layer.qkv_bias, layer.o_bias, layer.down_bias)]
    norms = [spine.norm, *(norm for layer in spine.layers for norm in (layer.attention_norm, layer.ffn_norm))]
    vectors += [part for norm in norms if norm is not None for part in (norm.gain, norm.bias)]
    kept = sum(part.nbytes for part in matrices) + sum(part.nbytes for part in vectors if part is not None)
    assert kept == manifest.sizes.spine
    assert spine.entrance.embed.nbytes + (0 if manifest.spec.tied_head else spine.head.nbytes) == manifest.sizes.embedding


def test_first_use_packs_and_the_second_finds_it(home: Path, checkpoint_of: CheckpointOf) -> None:
    first = packed(str(checkpoint_of("relu")), "int8", quiet=True)
    stamp = (first.folder / "spine.bin").stat().st_mtime_ns
    again = packed(str(checkpoint_of("relu")), "int8", quiet=True)
    assert (again.folder / "spine.bin").stat().st_mtime_ns == stamp
    assert again.folder == first.folder
    assert first.folder.is_relative_to(home)
    assert first.source == checkpoint_of("relu").resolve()


def test_another_format_is_another_folder(home: Path, checkpoint_of: CheckpointOf) -> None:
    folders = {packed(str(checkpoint_of("relu")), name, quiet=True).folder for name in FORMAT_NAMES}
    assert len(folders) == 4


def test_a_packed_folder_is_a_model_in_the_format_it_is_in(packed_of: PackedOf) -> None:
    model = packed_of("relu", "int4")
    assert packed(str(model.folder)).manifest == model.manifest
    with pytest.raises(BadValue, match="packed as int4"):
        packed(str(model.folder), "bf16")


def test_nothing_is_a_model(home: Path) -> None:
    with pytest.raises(BadCheckpoint):
        packed("no-such-model", quiet=True)
    assert not home.exists()


def test_rows_that_do_not_fit_a_format_are_refused_before_anything_is_written(home: Path, tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "odd", {"hidden_size": 80, "num_attention_heads": 5, "num_key_value_heads": 5})
    with pytest.raises(BadValue, match="multiple of 32"):
        packed(str(folder), "int4", quiet=True)
    assert not home.exists()
    assert packed(str(folder), "bf16", quiet=True).manifest.spec.hidden == 80


class Killed(BaseException):
    """Stands for the moment of a kill: nothing below catches it."""


def test_a_run_that_was_stopped_goes_on_where_it_was(
    checkpoint_of: CheckpointOf, packed_of: PackedOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    write_layer = pack_files.write_layer

    def stop_at_the_second(*args: object) -> None:
        written.append(int(str(args[2])))
        if len(written) == 2:
            raise Killed
        write_layer(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(packing, "write_layer", stop_at_the_second)
    checkpoint = open_safetensors(checkpoint_of("relu"))
    with pytest.raises(Killed):
        pack(checkpoint, tmp_path / "half", "int4", quiet=True)
    assert not (tmp_path / "half" / "manifest.json").exists()
    pack(checkpoint, tmp_path / "half", "int4", quiet=True)
    assert written == [0, 1, 1]
    assert contents(tmp_path / "half") == contents(packed_of("relu", "int4").folder)


def test_a_stopped_run_does_not_write_again_what_is_whole(
    checkpoint_of: CheckpointOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = open_safetensors(checkpoint_of("relu"))
    pack(checkpoint, tmp_path, "int4", quiet=True)
    whole, stamps = contents(tmp_path), {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.bin")}
    (tmp_path / "manifest.json").unlink()
    (tmp_path / layer_file(1)).unlink()
    pack(checkpoint, tmp_path, "int4", quiet=True)
    assert contents(tmp_path) == whole
    again = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.bin")}
    assert {name for name in stamps if again[name] != stamps[name]} == {layer_file(1)}


def test_a_spine_that_is_not_as_long_as_it_should_be_is_noticed(checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    checkpoint = open_safetensors(checkpoint_of("relu"))
    (tmp_path / "spine.bin").write_bytes(b"another's")
    with pytest.raises(BadArtefact, match="spine"):
        pack(checkpoint, tmp_path, "int4", quiet=True)
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize("quiet", [True, False])
def test_packing_shows_how_far_it_is(quiet: bool, checkpoint_of: CheckpointOf, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack(open_safetensors(checkpoint_of("relu")), tmp_path, "int4", quiet=quiet)
    shown = capsys.readouterr().err
    assert shown == "" if quiet else "packing relu as int4: 100%" in shown and "3/3" in shown


@every_format
@pytest.mark.parametrize("variant", ["relu", "everything", "bamboo", "mixtral"])
def test_kernels_pack_the_same_bytes(
    variant: str, name: FormatName, checkpoint_of: CheckpointOf, packed_of: PackedOf, tmp_path: Path
) -> None:
    pack(open_safetensors(checkpoint_of(variant)), tmp_path, name, encode=encode, quiet=True)
    assert contents(tmp_path) == contents(packed_of(variant, name).folder)


SLOW_PACKER = """
import sys, os
from pathlib import Path
from models import pack, pack_files
from models.checkpoint.safetensors import open_safetensors
pad_to, calls = pack_files.pad_to, 0
def stop_in_the_middle(file, offset):
    global calls
    calls += 1
    if calls == int(sys.argv[3]):
        file.flush()
        print("now", flush=True)
        sys.stdin.read()
    pad_to(file, offset)
pack_files.pad_to = stop_in_the_middle
pack.pack(open_safetensors(Path(sys.argv[1])), Path(sys.argv[2]), "int8", quiet=True)
"""


@pytest.mark.parametrize("moment", [2, 6, 12, 22])  # early and late in two files at a time: layers have 5 regions each, the spine 15 or so
def test_a_kill_leaves_no_half_file_and_the_next_run_ends_with_the_same_bytes(
    moment: int, checkpoint_of: CheckpointOf, packed_of: PackedOf, tmp_path: Path
) -> None:
    source, target = checkpoint_of("mlp_bias"), tmp_path / "packed"
    command = [sys.executable, "-c", SLOW_PACKER, str(source), str(target), str(moment)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"now\n"
        process.send_signal(signal.SIGKILL)
    whole = contents(packed_of("mlp_bias", "int8").folder)
    left = contents(target)
    assert "manifest.json" not in left
    assert all(data == whole[name] for name, data in left.items() if not name.endswith(".part"))
    pack(open_safetensors(source), target, "int8", quiet=True)
    assert contents(target) == whole


def fill_up_after(monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    """Makes the disk full at the nth region."""
    write_region, done = pack_files.write_region, []

    def full(file: IO[bytes], region: Region, parts: Iterator[torch.Tensor]) -> None:
        done.append(region)
        if len(done) > writes:
            file.write(b"some of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_region(file, region, parts)

    monkeypatch.setattr(pack_files, "write_region", full)


@pytest.mark.parametrize("writes", [0, 1, 3])
def test_a_disk_that_fills_up_leaves_no_half_file(
    writes: int, checkpoint_of: CheckpointOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_up_after(monkeypatch, writes)
    with pytest.raises(DoesNotFit, match="disk") as caught:
        pack(open_safetensors(checkpoint_of("relu")), tmp_path, "int4", quiet=True)
    assert "\n" not in str(caught.value)
    names = {path.name for path in tmp_path.iterdir()}
    assert not any(name.endswith(".part") for name in names)
    assert "manifest.json" not in names
    assert len([name for name in names if name.startswith("layer-")]) <= writes // 2


def test_a_disk_too_small_is_said_before_anything_is_packed(
    checkpoint_of: CheckpointOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 50_000})
    monkeypatch.setattr("models.paths.shutil.disk_usage", lambda folder: usage)
    with pytest.raises(DoesNotFit, match="disk") as caught:
        pack(open_safetensors(checkpoint_of("relu")), tmp_path, "bf16", quiet=True)
    assert caught.value.have_bytes == 50_000
    assert caught.value.need_bytes > 200_000
    assert not list(tmp_path.glob("*.bin"))


@pytest.mark.parametrize("name", ["manifest.json", "spine.bin", "layer-0001.bin"])
def test_a_packed_file_that_was_damaged_is_named_with_a_remedy(name: str, checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    pack(open_safetensors(checkpoint_of("relu")), tmp_path, "int8", quiet=True)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-2])
    with pytest.raises(BadArtefact, match=name) as caught:
        PackedModel.open(tmp_path)
    assert "models rm" in str(caught.value)
    (tmp_path / name).unlink()
    with pytest.raises(BadArtefact, match=name):
        PackedModel.open(tmp_path)


def test_a_packer_that_waited_finds_the_work_done(checkpoint_of: CheckpointOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = open_safetensors(checkpoint_of("relu"))
    pack(checkpoint, tmp_path, "int8", quiet=True)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name != ".lock"}
    pack(checkpoint, tmp_path, "int8", quiet=True)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name != ".lock"} == before


def test_an_old_version_is_told_what_to_do(checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    pack(open_safetensors(checkpoint_of("relu")), tmp_path, "int8", quiet=True)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": 1', '"version": 0'))
    with pytest.raises(BadArtefact, match="has format version 0, this program writes 1; remove it"):
        PackedModel.open(tmp_path)


MEASURED_PACKER = """
import sys
from pathlib import Path
import torch
from tests.models.running import peak_bytes
torch.set_num_threads(1)
from models.checkpoint.safetensors import open_safetensors
from models.pack import pack
before = peak_bytes()
pack(open_safetensors(Path(sys.argv[1])), Path(sys.argv[2]), "int4", quiet=True)
print(peak_bytes() - before)
"""


@pytest.mark.slow
def test_packing_takes_bounded_memory(tmp_path: Path) -> None:
    """150 MB of checkpoint, a largest matrix of 8 MB: memory follows the matrix and the chunk, not the model (16 MB are torch's code)."""
    big = {"model_type": "llama", "hidden_size": 512, "intermediate_size": 4096, "num_hidden_layers": 5, "vocab_size": 4096}
    folder = make_by_hand(tmp_path / "big", OWN_VARIANTS["fatrelu_wide"] | big)
    source_bytes = (folder / "model.safetensors").stat().st_size
    assert source_bytes > 150e6
    command = [sys.executable, "-c", MEASURED_PACKER, str(folder), str(tmp_path / "packed")]
    grown = int(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
    matrix_bytes, scratch_bytes = 4 * 512 * 4096, 60 * pack_files.CHUNK_WEIGHTS
    assert matrix_bytes < grown < 2 * matrix_bytes + scratch_bytes + 16e6 < source_bytes / 2
