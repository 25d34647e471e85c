"""A synthetic model as `server run` takes one: with a tokenizer, whose every token is a word of its own, and a flat firing profile.

The files of `benchmarks.synthetic` under other names beside it, so nothing large is written twice. Recording a profile would take
minutes and tell what was planted.
"""

from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers

from benchmarks.planted import FIRING, PASSING
from benchmarks.shapes import SHAPES
from benchmarks.synthetic import build, is_written, link_or_copy
from models.layout import MANIFEST_FILE, SPINE_FILE, layer_file
from models.manifest import Manifest
from models.paths import whole_file
from models.tokenizer import TOKENIZER_FILE
from profiles.firing import FiringProfile, save_profile
from profiles.shelf import profile_path

PROFILE_TOKENS = 1000


def served(shape: str, work: Path) -> Path:
    """The folder to serve, under `work`, made where it is missing; the profile goes where the server looks for it."""
    model, folder = build(shape, SHAPES[shape], work / f"synthetic-{shape}"), work / f"served-{shape}"
    own = model.manifest.model_copy(update={"fingerprint": f"{shape}:served:{model.manifest.fingerprint}", "source": str(folder)})
    if not is_written(folder, own.spec, own.fingerprint):
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
    """Every neuron fires, and every gate passes, as often as was planted on the average."""
    spec = manifest.spec
    passing = PASSING if spec.rule.kind == "gated_both" else FIRING
    fired, passed = (np.full((spec.n_banks, spec.n_neurons), round(rate * PROFILE_TOKENS), np.uint32) for rate in (FIRING, passing))
    routed = np.full(spec.n_banks, PROFILE_TOKENS, np.uint32)
    return FiringProfile(fired, passed, routed, PROFILE_TOKENS, fired // 2, manifest.fingerprint, "none: as it was planted")
