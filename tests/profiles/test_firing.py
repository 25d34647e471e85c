"""A profile comes back as it was saved; anything else in that place is one clear error."""

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from models.errors import BadArtefact, WrongModel
from profiles.firing import FiringProfile, load_profile, save_profile
from tests.profiles.making import FINGERPRINT, make_profile


def write_by_hand(path: Path, profile: FiringProfile, **changes: object) -> None:
    """A file such as `save_profile` writes, with some fields of its description changed; None leaves one out."""
    described = {"version": 1, "tokens": profile.tokens, "fingerprint": profile.fingerprint, "corpus": "x", "n_experts": 1} | changes
    arrays = {"fired": profile.fired, "gate_passed": profile.gate_passed, "routed": profile.routed, "first_half": profile.first_half}
    kept = {name: value for name, value in described.items() if value is not None}
    save_file(arrays, path, metadata={"thermocline.firing": json.dumps(kept)})


@pytest.mark.parametrize("experts", [1, 4])
def test_a_profile_survives_its_file(tmp_path: Path, experts: int) -> None:
    profile = make_profile(experts=experts)
    save_profile(profile, tmp_path / "p.safetensors")
    loaded = load_profile(tmp_path / "p.safetensors", FINGERPRINT)
    for field in fields(FiringProfile):
        assert np.array_equal(getattr(loaded, field.name), getattr(profile, field.name)), field.name


def test_rates_and_order_are_those_of_the_counts() -> None:
    fired = np.array([[1, 9, 0, 9]], np.uint32)
    profile = FiringProfile(fired, fired, np.array([10], np.uint32), 10, fired // 2, "f", "c")
    assert profile.rate.tolist() == [[0.1, 0.9, 0.0, 0.9]]
    assert profile.order.tolist() == [[1, 3, 0, 2]]
    assert profile.sparsity == pytest.approx([1 - 19 / 40])
    assert profile.second_half.tolist() == [[1, 5, 0, 5]]


def test_another_models_profile_names_both(tmp_path: Path) -> None:
    save_profile(make_profile(), tmp_path / "p.safetensors")
    with pytest.raises(WrongModel, match=f"{FINGERPRINT}.*another"):
        load_profile(tmp_path / "p.safetensors", "another")


def test_a_file_that_is_missing_or_no_profile(tmp_path: Path) -> None:
    with pytest.raises(BadArtefact, match="no such file; record it again"):
        load_profile(tmp_path / "none.safetensors")
    (tmp_path / "text").write_text("not a tensor file at all")
    save_file({"x": np.zeros(1)}, tmp_path / "other")
    for name in ("text", "other", "."):
        with pytest.raises(BadArtefact, match="is not a firing profile"):
            load_profile(tmp_path / name)


def test_a_truncated_profile(tmp_path: Path) -> None:
    save_profile(make_profile(), tmp_path / "p.safetensors")
    data = (tmp_path / "p.safetensors").read_bytes()
    for length in (0, 4, 100, len(data) - 1):
        (tmp_path / "short").write_bytes(data[:length])
        with pytest.raises(BadArtefact, match="is not a firing profile"):
            load_profile(tmp_path / "short")


def test_an_older_version_says_what_to_do(tmp_path: Path) -> None:
    write_by_hand(tmp_path / "p", make_profile(), version=0)
    with pytest.raises(BadArtefact, match="format version 0, this program writes 1; record it again with `profiles record`"):
        load_profile(tmp_path / "p")


@pytest.mark.parametrize(
    "changes", [{"tokens": None}, {"tokens": "many"}, {"n_experts": 0}, {"n_experts": 3}, {"n_experts": "2"}, {"tokens": float("inf")}]
)
def test_a_description_that_makes_no_sense(tmp_path: Path, changes: dict[str, object]) -> None:
    write_by_hand(tmp_path / "p", make_profile(), **changes)
    with pytest.raises(BadArtefact, match="is not a firing profile"):
        load_profile(tmp_path / "p")


def test_impossible_counts_are_refused(tmp_path: Path) -> None:
    profile = make_profile()
    write_by_hand(tmp_path / "few", profile, tokens=3)
    write_by_hand(tmp_path / "more", replace(profile, fired=profile.gate_passed + np.uint32(1)))
    for name in ("few", "more"):
        with pytest.raises(BadArtefact, match="more firings than tokens"):
            load_profile(tmp_path / name)


def test_counts_of_a_wrong_type_or_shape_are_refused(tmp_path: Path) -> None:
    profile = make_profile()
    arrays = {"fired": profile.fired, "gate_passed": profile.gate_passed, "routed": profile.routed, "first_half": profile.first_half}
    described = {"version": 1, "tokens": 1000, "fingerprint": "f", "corpus": "c", "n_experts": 1}
    wrong: dict[str, np.ndarray] = {
        "fired": profile.fired.astype(np.int64),
        "routed": profile.routed[:1],
        "first_half": profile.first_half[:, :3],
    }
    for name, array in wrong.items():
        save_file({**arrays, name: array}, tmp_path / name, metadata={"thermocline.firing": json.dumps(described)})
        with pytest.raises(BadArtefact, match="wrong type or shape"):
            load_profile(tmp_path / name)
