"""The command `models`, told how to ask what was recorded, and to encode by kernels: `models/` itself sees no profile and no kernel."""

from collections.abc import Sequence
from pathlib import Path

import models.cli
from cpu_ops.encode import encode
from models.errors import BadValue
from models.manifest import Manifest
from models.params import Activity
from profiles.firing import FiringProfile, load_profile
from profiles.shelf import profile_of


def main(argv: Sequence[str] | None = None) -> int:
    return models.cli.main(argv, recorded, encode)


def recorded(manifest: Manifest, path: Path | None) -> Activity | None:
    """What fires at a token on average, as recorded in `path`, or in the model's profile; None when there is none.

    WrongModel when the profile is of another model.
    """
    if path is not None:
        return activity_of(load_profile(path, None if manifest.assumed else manifest.fingerprint), manifest)
    profile = profile_of(manifest)
    return None if profile is None else activity_of(profile, manifest)


def activity_of(profile: FiringProfile, manifest: Manifest) -> Activity:
    """Firings per token, over all banks. BadValue when a model of another shape was recorded."""
    spec = manifest.spec
    if profile.fired.shape != (spec.n_banks, spec.n_neurons) or profile.n_experts != spec.n_experts:
        raise BadValue("--profile", list(profile.fired.shape), f"banks × neurons, but this model has {[spec.n_banks, spec.n_neurons]}")
    return Activity(float(profile.rate.sum()), f"as recorded over {profile.tokens:,} tokens of {profile.corpus}")
