"""Where a model's profile is looked for: recorded here first, then shipped."""

from pathlib import Path

import pytest

from models.architectures import manifest_from_config
from models.errors import WrongModel
from models.manifest import Manifest
from profiles import shelf
from profiles.firing import save_profile
from profiles.shelf import find_profile, profile_of, profile_path
from tests.checkpoints import make_by_hand
from tests.profiles.making import make_profile


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """Of a model whose folder is taken for the bundled one."""
    folder = make_by_hand(tmp_path / "model", {"model_type": "llama"})
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(shelf, "BUNDLED_MODEL", folder)
    monkeypatch.setattr(shelf, "BUNDLED_PROFILE", folder / "profile.safetensors")
    return manifest_from_config(folder, "bf16").model_copy(update={"fingerprint": "f" * 64, "assumed": False})


def test_no_profile_is_none(manifest: Manifest) -> None:
    assert find_profile(manifest) is None
    assert profile_of(manifest) is None


def test_the_shipped_profile_is_found_and_an_own_one_comes_first(manifest: Manifest) -> None:
    save_profile(make_profile(tokens=10, fingerprint="f" * 64), shelf.BUNDLED_PROFILE)
    found = profile_of(manifest)
    assert found is not None
    assert found.tokens == 10
    save_profile(make_profile(tokens=20, fingerprint="f" * 64), profile_path("f" * 64))
    own = profile_of(manifest)
    assert own is not None
    assert own.tokens == 20


def test_the_shipped_profile_is_no_other_models(manifest: Manifest) -> None:
    save_profile(make_profile(fingerprint="f" * 64), shelf.BUNDLED_PROFILE)
    assert find_profile(manifest.model_copy(update={"source": "/elsewhere"})) is None


def test_a_profile_of_other_weights_is_refused_but_a_config_has_none_to_compare(manifest: Manifest) -> None:
    save_profile(make_profile(fingerprint="e" * 64), shelf.BUNDLED_PROFILE)
    with pytest.raises(WrongModel):
        profile_of(manifest)
    assert profile_of(manifest.model_copy(update={"assumed": True})) is not None
