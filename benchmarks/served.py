"""A synthetic model as `server run` takes one: with a tokenizer, whose every token is a word of its own, and a flat firing profile.

The files of `benchmarks.synthetic` under other names beside it, so nothing large is written twice. Recording a profile would take
minutes and tell what was planted.
"""

from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers

from benchmarks.planted import FIRING
from benchmarks.shapes import SHAPES
from benchmarks.synthetic import build, link_or_copy
from models.layout import MANIFEST_FILE, SPINE_FILE, layer_file
from models.manifest import Manifest
from models.packed import PackedModel
from models.paths import whole_file
from models.tokenizer import TOKENIZER_FILE
from profiles.firing import FiringProfile, save_profile
from profiles.shelf import profile_path

PROFILE_TOKENS = 1000


def served(shape: str, work: Path) -> Path:
    """The folder to serve, under `work`, made where it is missing; the profile goes where the server looks for it."""
    model, folder = build(shape, SHAPES[shape], work / f"synthetic-{shape}"), work / f"served-{shape}"
    own = model.manifest.model_copy(update={"fingerprint": f"{shape}:served:{model.manifest.fingerprint}", "source": str(folder)})
    if not (folder / MANIFEST_FILE).is_file() or PackedModel.open(folder).manifest.fingerprint != own.fingerprint:
        for name in (SPINE_FILE, *(layer_file(layer) for layer in range(own.spec.n_layers))):
            with whole_file(folder / name) as part:
                link_or_copy(model.folder / name, part)
        with whole_file(folder / TOKENIZER_FILE) as part:
            tokenizer_of_words(own.spec.vocab).save(str(part))
        with whole_file(folder / MANIFEST_FILE) as part:
            part.write_text(own.model_dump_json(indent=1))
    save_profile(flat_profile(own), profile_path(own.fingerprint))
    return folder


def word(token: int) -> str:
    return f"w{token}"


def tokenizer_of_words(vocab: int) -> tokenizers.Tokenizer:
    """Token i is the word `wi`; any other word is the first one. Words are parted by spaces."""
    core = tokenizers.Tokenizer(models.WordLevel({word(token): token for token in range(vocab)}, unk_token=word(0)))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return core


def flat_profile(manifest: Manifest) -> FiringProfile:
    """Every neuron fires as often as was planted."""
    spec = manifest.spec
    fired = np.full((spec.n_banks, spec.n_neurons), round(FIRING * PROFILE_TOKENS), np.uint32)
    routed = np.full(spec.n_banks, PROFILE_TOKENS, np.uint32)
    return FiringProfile(fired, fired, routed, PROFILE_TOKENS, fired // 2, manifest.fingerprint, "none: as it was planted")
