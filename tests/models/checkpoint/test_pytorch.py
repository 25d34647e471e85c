"""`pytorch_model.bin`: the same model as in safetensors, and nothing but tensors is ever taken out of one."""

import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from models.checkpoint.archive import read_table
from models.checkpoint.base import tensor_shapes
from models.checkpoint.opened import open_foreign
from models.checkpoint.pytorch import map_tensors
from models.checkpoint.safetensors import open_safetensors
from models.errors import BadCheckpoint
from models.library import known_manifest
from models.pack import packed
from tests.checkpoints import make_by_hand, make_llama
from tests.fuzz import Specimen, fuzz


def to_pytorch(folder: Path, shards: int = 1) -> Path:
    """Rewrites a safetensors folder the way repositories of 2022 look."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if shards == 1:
        torch.save(tensors, folder / "pytorch_model.bin")
        return folder
    names, where = sorted(tensors), dict[str, str]()
    for shard in range(shards):
        file = f"pytorch_model-{shard + 1:05d}-of-{shards:05d}.bin"
        torch.save({name: tensors[name] for name in names[shard::shards]}, folder / file)
        where |= dict.fromkeys(names[shard::shards], file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    return folder


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_it_is_the_same_model_as_in_safetensors(tmp_path: Path, shards: int, dtype: torch.dtype) -> None:
    new = open_safetensors(make_by_hand(tmp_path / "new", dtype=dtype, changes={"model_type": "llama"}))
    old = open_foreign(to_pytorch(make_by_hand(tmp_path / "old", dtype=dtype, changes={"model_type": "llama"}), shards))
    assert old.spec == new.spec
    for name, _ in tensor_shapes(new.spec):
        assert torch.equal(old.stored(name), new.stored(name))
        assert old.stored(name).dtype == dtype
        assert torch.equal(old.stored(name, 1, 3), new.stored(name, 1, 3))


def test_it_packs_and_is_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "home"))
    folder = to_pytorch(make_llama(tmp_path / "old"))
    before = known_manifest(str(folder), "int8")
    after = packed(str(folder), "int8", quiet=True)
    assert not before.assumed
    assert (before.fingerprint, before.sizes) == (after.manifest.fingerprint, after.manifest.sizes)
    other = packed(str(make_llama(tmp_path / "new")), "int8", quiet=True)
    assert (after.folder / "spine.bin").read_bytes() == (other.folder / "spine.bin").read_bytes()
    assert after.manifest.fingerprint == other.manifest.fingerprint  # the tensors are what counts, not the container


def test_views_parameters_and_attributes_are_read_as_torch_does(tmp_path: Path) -> None:
    whole, path = torch.arange(24.0).view(4, 6), tmp_path / "m.bin"
    module = torch.nn.Linear(3, 2)
    held: dict[str, Any] = {"tail": whole[2:], "one": whole[3], "again": whole, "p": torch.nn.Parameter(whole), "empty": torch.zeros(0, 3)}
    torch.save(module.state_dict() | held, path)
    found, expected = map_tensors(path), torch.load(path, weights_only=True)
    assert {name: tensor.tolist() for name, tensor in found.items()} == {name: tensor.tolist() for name, tensor in expected.items()}
    torch.save(module.state_dict(), path)  # an OrderedDict that carries `_metadata`
    assert torch.equal(map_tensors(path)["weight"], module.weight)


class Shell:
    """What an attack looks like."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/thermocline-was-here",)


class Hog:
    def __reduce__(self) -> tuple[Any, ...]:
        return bytearray, (1 << 40,)


def write_archive(path: Path, program: bytes, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", program)
        for name, data in members.items():
            archive.writestr(f"m/data/{name}", data)
    return path


@pytest.mark.parametrize(
    ("held", "complaint"),
    [
        ({"w": Shell()}, "is not run: it names 'posix system'"),
        ({"w": Hog()}, "is not run: it names '__builtin__ bytearray'"),
        ({"w": 1}, "no tensor, as 'w'"),
        ([1, 2], "does not hold tensors by name"),
        ({1: 2}, "something else than a dict of names"),
        ({"a\nb": 1}, "no tensor"),
    ],
)
def test_whatever_is_no_dict_of_tensors_is_refused(tmp_path: Path, held: object, complaint: str) -> None:
    path = write_archive(tmp_path / "m.bin", pickle.dumps(held, protocol=2))
    with pytest.raises(BadCheckpoint, match=complaint):
        map_tensors(path)
    assert not Path("/tmp/thermocline-was-here").exists()


def save(path: Path, tensors: dict[str, Tensor]) -> Path:
    torch.save(tensors, path)
    return path


def test_what_cannot_be_used_is_said(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    for tensor, complaint in (
        (torch.zeros(2, dtype=torch.float64), "DoubleStorage; supported: FloatStorage"),
        (torch.zeros(3, 2).T, "not stored row by row"),
        (torch.zeros(1).expand(1 << 30), "not stored row by row"),
    ):
        with pytest.raises(BadCheckpoint, match=complaint):
            read_table(save(path, {"w": tensor}))
    torch.save({"w": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(BadCheckpoint, match=r"from before version 1\.6"):
        read_table(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", b"0" * 100)
    with pytest.raises(BadCheckpoint, match="compressed"):
        read_table(path)


def specimens(folder: Path) -> list[Specimen]:
    """The pickle stands first, the directory of the archive last: all of a small file is header."""
    files = ({"w": torch.ones(2, 3)}, torch.nn.Linear(2, 2).state_dict(), {"a": torch.ones(3).half(), "b": torch.ones(2, 2).bfloat16()})
    data = [save(folder / "specimen.bin", dict(held)).read_bytes() for held in files]
    return [Specimen(one, len(one)) for one in data]


def check_hostile(folder: Path, cases: range) -> None:
    path = folder / "case.bin"
    tally = fuzz(specimens(folder), path, lambda: [tensor.sum() for tensor in map_tensors(path).values()], cases)
    assert tally.refused > len(cases) // 4
    assert tally.read > len(cases) // 20


def test_hostile_files(tmp_path: Path) -> None:
    check_hostile(tmp_path, range(600))


@pytest.mark.slow
def test_hostile_files_at_length(tmp_path: Path) -> None:
    check_hostile(tmp_path, range(600, 10600))
