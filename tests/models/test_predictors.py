"""PowerInfer's predictor folders: read in the order of their numbers, held to the model, packed beside it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models import predictors
from models.cli import main
from models.errors import BadArtefact, BadCheckpoint, WrongModel
from models.packed import PackedModel
from models.predictor import predicted
from models.predictor_folder import open_predictor_folder
from models.predictors import available, open_predictors, pack_predictors
from models.spec import FfnRule, ModelSpec
from tests.checkpoints import make_llama
from tests.conftest import PackedOf
from tests.models.test_params import MISTRAL

SMALL = replace(MISTRAL, n_layers=12, hidden=64, n_neurons=96)


def write_folder(folder: Path, pairs: list[tuple[Tensor, Tensor]], threshold: float | None = None) -> Path:
    """As PowerInfer's repositories have them."""
    folder.mkdir(parents=True, exist_ok=True)
    for layer, (inward, outward) in enumerate(pairs):
        torch.save({"fc1.weight": inward, "fc2.weight": outward}, folder / f"model_{layer}.pt")
    if threshold is not None:
        (folder / "config.json").write_text(json.dumps({"sparse_threshold": threshold}))
    return folder


def random_pairs(spec: ModelSpec, ranks: list[int]) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(r, spec.hidden, generator=generator), torch.randn(spec.n_neurons, r, generator=generator)) for r in ranks]


def test_layers_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    pairs = [(torch.full((8, 64), float(layer)), torch.zeros(96, 8)) for layer in range(12)]
    found = open_predictor_folder(write_folder(tmp_path, pairs, 0.25), SMALL)
    assert [float(found.matrices(layer, 0)[0][0, 0]) for layer in range(12)] == list(range(12))
    assert found.threshold == 0.25
    assert found.reads == "residual"


def test_without_a_config_the_threshold_is_zero(tmp_path: Path) -> None:
    assert open_predictor_folder(write_folder(tmp_path, random_pairs(SMALL, [8] * 12)), SMALL).threshold == 0.0


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda folder: (folder / "model_5.pt").unlink(), "predictors of 11 layers, the model has 12; layer 5"),
        (lambda folder: shutil.copy(folder / "model_5.pt", folder / "model_12.pt"), "predictors of 13 layers, the model has 12; layer 12"),
        (lambda folder: shutil.copy(folder / "model_5.pt", folder / "model_05.pt"), "layer 5 twice"),
        (lambda folder: [path.unlink() for path in folder.glob("*.pt")], "not a folder of predictors"),
        (lambda folder: (folder / "model_3.pt").write_bytes(b"\x80\x02."), "before version 1.6"),
        (lambda folder: (folder / "config.json").write_text('{"sparse_threshold": "high"}'), "sparse_threshold: 'high' is not a number"),
        (lambda folder: torch.save({"fc1.weight": torch.zeros(2, 2)}, folder / "model_3.pt"), "holds fc1.weight; a predictor is"),
        (
            lambda folder: torch.save({"fc1.weight": torch.zeros(8, 32), "fc2.weight": torch.zeros(96, 8)}, folder / "model_3.pt"),
            r"has shapes \[8, 32\] and \[96, 8\], where this model needs \[r, 64\] and \[96, r\]",
        ),
        (
            lambda folder: torch.save({"fc1.weight": torch.zeros(8, 64), "fc2.weight": torch.zeros(96, 4)}, folder / "model_3.pt"),
            r"has shapes \[8, 64\] and \[96, 4\]",
        ),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_in_one_line(spoil: object, complaint: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "predictors", random_pairs(SMALL, [8] * 12))
    assert callable(spoil)
    spoil(folder)
    with pytest.raises(BadCheckpoint, match=complaint) as caught:
        open_predictor_folder(folder, SMALL)
    assert str(caught.value).isprintable()


def test_a_model_that_predictors_mean_nothing_to_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, random_pairs(SMALL, [8] * 12))
    with pytest.raises(BadCheckpoint, match="with silu all of them do"):
        open_predictor_folder(folder, replace(SMALL, rule=FfnRule("gated", "silu")))
    with pytest.raises(BadCheckpoint, match="8 experts"):
        open_predictor_folder(folder, replace(SMALL, n_experts=8, experts_per_token=2))
    with pytest.raises(BadCheckpoint, match="no such directory"):
        open_predictor_folder(tmp_path / "nowhere", SMALL)


def own(model: PackedModel, folder: Path) -> PackedModel:
    """A copy that a test may write into."""
    return PackedModel.open(Path(shutil.copytree(model.folder, folder)))


def test_what_is_packed_beside_a_model_names_the_same_neurons(packed_of: PackedOf, tmp_path: Path) -> None:
    model = own(packed_of("relu", "float32"), tmp_path / "model")
    pairs = random_pairs(model.manifest.spec, [32, 24])
    assert available(model) is None
    pack_predictors(model, open_predictor_folder(write_folder(tmp_path / "p", pairs, 0.5), model.manifest.spec), quiet=True)
    found = available(model)
    assert found is not None
    assert found.nbytes == (model.folder / predictors.DATA).stat().st_size
    state = torch.randn(5, 64)
    for layer, (inward, outward) in enumerate(pairs):
        (predictor,) = found.load(layer)
        assert predictor.reads == "residual"
        assert torch.equal(predicted(predictor, state), (state @ inward.T).relu() @ outward.T >= 0.5)


def test_groups_that_do_not_fit_a_rank_are_kept_wider(packed_of: PackedOf, tmp_path: Path) -> None:
    model = own(packed_of("relu", "int4"), tmp_path / "model")
    folder = write_folder(tmp_path / "p", random_pairs(model.manifest.spec, [32, 24]))
    packed = pack_predictors(model, open_predictor_folder(folder, model.manifest.spec), quiet=True)
    formats = [(one.inward.format.name, one.outward.format.name) for layer in range(2) for one in packed.load(layer)]
    assert formats == [("int4", "int4"), ("int4", "bf16")]


def test_predictors_of_a_checkpoint_are_available_and_a_mask_is_no_choice(packed_of: PackedOf) -> None:
    found = available(packed_of("turbosparse_mistral", "float32"))
    assert found is not None
    assert found.load(0)[0].reads == "normed"
    assert available(packed_of("turbosparse_mixtral", "float32")) is None


def test_what_lies_beside_a_model_is_checked(packed_of: PackedOf, tmp_path: Path) -> None:
    model = own(packed_of("relu", "float32"), tmp_path / "model")
    pack_predictors(
        model, open_predictor_folder(write_folder(tmp_path / "p", random_pairs(model.manifest.spec, [8, 8])), model.manifest.spec)
    )
    path = model.folder / predictors.HEADER
    good = path.read_text()
    for old, new, kind in (
        (model.manifest.fingerprint, "another", WrongModel),
        ('"version": 1', '"version": 9', BadArtefact),
        ('"reads": "residual"', '"reads": "tea leaves"', BadArtefact),
        ('"rows": 96', '"rows": 95', BadArtefact),
        ('"format": "float32"', '"format": "int4"', BadArtefact),
        ("layers.1.", "layers.7.", BadArtefact),
    ):
        path.write_text(good.replace(old, new))
        with pytest.raises(kind):
            open_predictors(model)
    path.write_text(good)
    (model.folder / predictors.DATA).write_bytes(b"short")
    with pytest.raises(BadArtefact, match="has not its"):
        open_predictors(model)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "home"))
    model = str(make_llama(tmp_path / "model"))
    spec = replace(SMALL, n_layers=2)
    folder = write_folder(tmp_path / "p", random_pairs(spec, [8, 8]))
    assert main(["pack", model, "--predictors", str(folder)]) == 0
    (packed,) = (tmp_path / "home" / "packed").iterdir()
    assert main(["show", packed.name]) == 0
    assert "selection predictor" in (said := capsys.readouterr().out)
    assert "missing: predictors" not in said
    assert main(["pack", model, "--predictors", model]) == 2
    assert "not a folder of predictors" in (error := capsys.readouterr().err.splitlines()[-1])
    assert error.startswith("error: ")
