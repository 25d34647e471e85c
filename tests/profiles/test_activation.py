"""PowerInfer's folder of counts: by layer number, and nothing but counts of this model."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.errors import BadCheckpoint
from models.library import known_manifest
from models.manifest import Manifest
from profiles.activation import activation_folder, read_activation
from profiles.cli import main
from profiles.firing import load_profile
from profiles.shelf import profile_of, profile_path
from tests.checkpoints import make_llama
from tests.fuzz import Specimen, fuzz
from tests.gguf_files import Style, convert

LAYERS, NEURONS = 12, 96


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PowerInfer file of twelve layers, its counts beside it: neuron n of layer l fired 1000·l + n times."""
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "home"))
    folder = make_llama(tmp_path / "folder", {"num_hidden_layers": LAYERS})
    (tmp_path / "files" / "activation").mkdir(parents=True)
    path = convert(folder, tmp_path / "files" / "model.powerinfer.gguf", "llama", Style(powerinfer=True, pre="gpt-2"))
    for layer in range(LAYERS):
        torch.save(counts_of(layer), path.parent / "activation" / f"activation_{layer}.pt")
    return path


def counts_of(layer: int) -> torch.Tensor:
    return torch.arange(NEURONS) + 1000 * layer


def folder_of(manifest: Manifest) -> Path:
    found = activation_folder(manifest)
    assert found is not None
    return found


def test_layer_ten_gets_its_own_counts(model: Path) -> None:
    manifest = known_manifest(str(model))
    profile = read_activation(folder_of(manifest), manifest)
    assert (profile.fired == np.stack([counts_of(layer).numpy() for layer in range(LAYERS)])).all()
    assert profile.tokens == 11_000 + NEURONS - 1
    assert profile.fingerprint == manifest.fingerprint
    assert profile.order[10].tolist() == list(range(NEURONS))[::-1]
    assert np.isnan(profile.overlap()).all(), "there is no second text to compare with"


def test_shares_of_tokens_are_read_as_well(model: Path) -> None:
    manifest = known_manifest(str(model))
    folder = folder_of(manifest)
    for layer in range(LAYERS):
        torch.save(torch.full((NEURONS,), 0.25, dtype=torch.float16), folder / f"activation_{layer}.pt")
    assert (read_activation(folder, manifest).rate == 0.25).all()


def test_it_is_imported_as_the_models_profile(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(model)]) == 0
    printed = capsys.readouterr().out
    assert "12 layers × 96 neurons" in printed
    assert "PowerInfer's profiler" in printed
    assert main(["show", str(model)]) == 0
    assert "12 layers × 96 neurons" in capsys.readouterr().out
    manifest = known_manifest(str(model))
    kept = load_profile(profile_path(manifest.fingerprint), manifest.fingerprint)
    assert kept.fired[11, 95] == 11_095
    assert profile_of(manifest) is not None


def test_a_model_without_counts_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "home"))
    folder = make_llama(tmp_path / "folder")
    capsys.readouterr()
    (folder / "activation").mkdir()  # somebody else's
    assert main(["import", str(folder)]) == 2
    assert "'activation' is no folder beside" in (error := capsys.readouterr().err)
    assert error.count("\n") == 1


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("this must not run",))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, r"has no activation_3\.pt"),
        (torch.ones(NEURONS - 1), "is not a vector of 96 counts"),
        (torch.ones(NEURONS, 1), "is not a vector of 96 counts"),
        (torch.full((NEURONS,), -1), "below zero"),
        (torch.full((NEURONS,), float("nan")), "no numbers"),
        (torch.ones(100_000), "is too large"),
        ({"counts": torch.ones(NEURONS)}, "is not a vector"),
        (Evil(), "without running it"),
        (b"not an archive", "is damaged"),
    ],
)
def test_what_are_no_counts_of_this_model_is_named(value: object, why: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = known_manifest(str(model))
    path = folder_of(manifest) / "activation_3.pt"
    path.unlink()
    if isinstance(value, bytes):
        path.write_bytes(value)
    elif value is not None:
        torch.save(value, path)
    with pytest.raises(BadCheckpoint, match=why) as caught:
        read_activation(path.parent, manifest)
    assert "\n" not in str(caught.value)
    assert "must not run" not in capsys.readouterr().out


def test_a_layer_that_there_is_not_is_named(model: Path) -> None:
    manifest = known_manifest(str(model))
    torch.save(counts_of(12), folder_of(manifest) / "activation_12.pt")
    with pytest.raises(BadCheckpoint, match="the model does not have: its last is 11"):
        read_activation(folder_of(manifest), manifest)


def test_hostile_counts(model: Path) -> None:
    manifest = known_manifest(str(model))
    path = folder_of(manifest) / "activation_3.pt"
    data = path.read_bytes()
    tally = fuzz([Specimen(data, len(data))], path, lambda: read_activation(path.parent, manifest), range(300))
    assert tally.read
    assert tally.refused
