"""The file a plan is kept in: read back whole, or refused with one clear line."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from models.errors import BadArtefact, WrongModel
from placement.artefact import Expected, Placement, default_path, load_placement, save_placement
from placement.plan import solve
from tests.placement.makers import MACHINE, manifest_of, profile_of


@pytest.fixture
def plan() -> Placement:
    return solve(manifest_of(), profile_of(), MACHINE, vram_bytes=4_000_000, ram_bytes=10**9, context=64, slots=2)


@pytest.fixture
def saved(plan: Placement, tmp_path: Path) -> Path:
    save_placement(plan, tmp_path / "plan.json")
    return tmp_path / "plan.json"


def changed(path: Path, **fields: object) -> Path:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return path


def test_a_plan_is_read_back_as_it_was(plan: Placement, saved: Path) -> None:
    assert load_placement(saved, plan.question.fingerprint) == plan
    assert [path.name for path in saved.parent.iterdir()] == ["plan.json"]


def test_a_plan_for_another_model_names_both(saved: Path) -> None:
    with pytest.raises(WrongModel, match=r"made from model f+, but the model here is abc.*placement solve"):
        load_placement(saved, "abc")


def test_an_older_version_says_what_to_do(saved: Path) -> None:
    with pytest.raises(BadArtefact, match=r"format version 0, this program writes 2; make it again with `placement solve`"):
        load_placement(changed(saved, version=0))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"hot": [1, 2]}, "has 2 counts for 3 layers of 1 experts"),
        ({"hot": [1, 2, 321]}, "outside 0 to 320"),
        ({"hot": [1, 2, -1]}, "outside 0 to 320"),
        ({"hot": "many"}, "hot"),
        ({"hot": [1.5, 2, 3]}, "hot"),
        ({"served": []}, "has 3 counts"),
        ({"served": [1e12, 0, 0]}, "served"),
        ({"served": [float("nan"), 0, 0]}, "served"),
        ({"gap": float("nan")}, "gap"),
        ({"solve_seconds": float("inf")}, "solve_seconds"),
        ({"surprise": 1}, "surprise"),
        ({"question": None}, "question"),
        ({"served_in_all": float("nan")}, "served_in_all"),
    ],
)
def test_a_damaged_plan_is_refused(saved: Path, fields: dict[str, object], why: str) -> None:
    with pytest.raises(BadArtefact, match=why):
        load_placement(changed(saved, **fields))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"hot": []}', b"[" * 100_000])
def test_what_is_no_plan_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(BadArtefact):
        load_placement(tmp_path / "plan.json")


def test_a_missing_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadArtefact, match="no such file"):
        load_placement(tmp_path / "plan.json")


def test_a_token_that_takes_no_time_is_refused() -> None:
    with pytest.raises(ValidationError, match="takes no time"):
        Expected(gpu_seconds=0, cpu_seconds=0, transfer_seconds=0, full_context_seconds=1)


def test_a_plan_is_kept_by_model_and_format(plan: Placement, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path))
    assert default_path(plan.question) == tmp_path / "plans" / ("f" * 16 + "-int8.json")
    assumed = plan.question.model_copy(update={"fingerprint": "config:0123456789abcdef"})
    assert ":" not in default_path(assumed).name
