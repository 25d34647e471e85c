"""Where the profiles lie: one a model, by its fingerprint, and the one that ships with the bundled model. Torch-free."""

from pathlib import Path

from models.manifest import Manifest
from models.paths import BUNDLED_MODEL, home
from profiles.firing import FiringProfile, load_profile

BUNDLED_PROFILE = BUNDLED_MODEL / "profile.safetensors"


def profile_path(fingerprint: str) -> Path:
    """Where `profiles record` writes unless told otherwise. The format does not matter: every packing of a model shares it."""
    return home() / "profiles" / f"{fingerprint[:16]}.safetensors"


def picture_path(fingerprint: str) -> Path:
    return profile_path(fingerprint).with_suffix(".png")


def hardware_path() -> Path:
    return home() / "hardware.json"


def find_profile(manifest: Manifest) -> Path | None:
    """The profile of a model, or None when there is none."""
    return locate(manifest.fingerprint, Path(manifest.source))


def locate(fingerprint: str, source: Path) -> Path | None:
    """The profile recorded here, else the shipped one when `source` is the bundled model, else None."""
    own = profile_path(fingerprint)
    if own.is_file():
        return own
    is_bundled = source.resolve() == BUNDLED_MODEL.resolve()
    return BUNDLED_PROFILE if is_bundled and BUNDLED_PROFILE.is_file() else None


def profile_of(manifest: Manifest) -> FiringProfile | None:
    """The profile of a model, loaded, or None.

    WrongModel when the file is of another model; a manifest made from a config alone has no weights to compare with.
    """
    path = find_profile(manifest)
    return None if path is None else load_profile(path, None if manifest.assumed else manifest.fingerprint)
