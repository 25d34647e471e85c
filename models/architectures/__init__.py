"""Families of models: `config.json` -> ModelSpec, and what each tensor is called in the family's checkpoints. Torch-free.

A family is a file with a `Family`; it states only how it differs from its nearest relative, and gets a line below.
"""

from pathlib import Path

from models.architectures import (
    bamboo,
    falcon,
    llama,
    minicpm,
    mistral,
    opt,
    prosparse,
    qwen2,
    qwen3,
    qwen3_moe,
    smallthinker,
    turbosparse,
)
from models.architectures.config import Config, read_config
from models.architectures.family import Family
from models.bits import BITS, FormatName
from models.checkpoint.headers import fingerprint
from models.checkpoint.weights import read_headers
from models.errors import BadConfig, BadValue
from models.manifest import Formats, Manifest, computed_sizes
from models.spec import ModelSpec

FAMILIES: tuple[Family, ...] = (
    llama.FAMILY,
    prosparse.FAMILY,
    minicpm.FAMILY,
    mistral.FAMILY,
    bamboo.FAMILY,
    turbosparse.MIXTRAL,
    turbosparse.FAMILY,
    qwen2.FAMILY,
    qwen3.FAMILY,
    qwen3_moe.FAMILY,
    smallthinker.FAMILY,
    opt.FAMILY,
    falcon.FAMILY,
)


def family_of(config: Config) -> Family:
    """Looks at `model_type` and at the class name together; one alone has been seen to lie."""
    model_type, classes = config.get("model_type"), config.strings("architectures")
    if model_type is None:
        candidates = [family for family in FAMILIES if family.marks and set(family.marks) <= config.data.keys() and classes]
    else:
        candidates = [family for family in FAMILIES if config.text("model_type") in family.model_types]
    if not candidates:
        known = dict.fromkeys(name for family in FAMILIES for name in family.model_types)
        found = "is missing" if model_type is None else f"{model_type!r} is not a family we know"
        raise BadConfig(config.path, "model_type", f"{found}; known: {', '.join(sorted(known))}")
    for family in candidates:
        if set(classes) <= set(family.classes):
            return family
    allowed = " or ".join(name for family in candidates for name in family.classes)
    raise BadConfig(config.path, "architectures", f"{classes} is not {allowed}, which {model_type!r} models are")


def read_spec(folder: Path) -> ModelSpec:
    """The spec that `folder/config.json` describes; BadConfig names the first key that is missing, wrong or untested."""
    config = read_config(folder)
    return family_of(config).spec(config)


def check_format(spec: ModelSpec, name: FormatName) -> None:
    """Raises BadValue when rows of this model cannot be stored as `name`."""
    ranks = () if spec.predictors is None else spec.predictors.ranks
    for k in (spec.hidden, spec.q_width, spec.width, *ranks):
        if BITS[name].grouped and k % 32:
            raise BadValue("--format", name, f"needs rows of a multiple of 32 weights, and this model has rows of {k}; use bf16")


def manifest_from_config(path: Path, name: FormatName) -> Manifest:
    """A manifest from `config.json` alone (the file, or its folder), bound to the config and marked as assumed."""
    return _manifest(path, name, has_weights=False)


def manifest_from_folder(folder: Path, name: FormatName) -> Manifest:
    """A manifest from the config and the weights' headers and samples: bound to the weights, though none was read."""
    return _manifest(folder, name, has_weights=True)


def _manifest(path: Path, name: FormatName, *, has_weights: bool) -> Manifest:
    config = read_config(path)
    folder = config.path.parent.resolve()
    family, entries = family_of(config), read_headers(folder) if has_weights else {}
    spec = family.refined(family.spec(config), {entry: found.shape for entry, found in entries.items()})
    check_format(spec, name)
    formats = Formats.of(name)
    return Manifest(
        name=folder.name,
        source=str(folder),
        fingerprint=fingerprint(config.digest(), entries) if has_weights else f"config:{config.digest()}",
        assumed=not has_weights,
        spec=spec,
        formats=formats,
        sizes=computed_sizes(spec, formats),
    )
