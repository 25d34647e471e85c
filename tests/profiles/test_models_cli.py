"""`models params`, as it is typed: from a config alone, at a given sparsity, and from what was recorded."""

import json
from pathlib import Path

import pytest

from models.library import known_manifest
from profiles.firing import save_profile
from profiles.models_cli import main
from profiles.shelf import profile_path
from tests.checkpoints import make_llama
from tests.profiles.making import make_profile

Capture = pytest.CaptureFixture[str]
TURBOSPARSE_MISTRAL = {
    "architectures": ["BambooForCausalLM"],
    "model_type": "bamboo",
    "hidden_act": "relu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
    "vocab_size": 32000,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "sliding_window": 4096,
}


MISTRAL = TURBOSPARSE_MISTRAL | {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu"}
EXPERTS = {"num_local_experts": 8, "num_experts_per_tok": 2, "rope_theta": 1e6, "sliding_window": None, "router_aux_loss_coef": 0.02}
MIXTRAL = MISTRAL | EXPERTS | {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}
TURBOSPARSE_MIXTRAL = MIXTRAL | {
    "architectures": ["TurboSparseMixtralForCausalLM"],
    "model_type": "turbosparsemixtral",
    "hidden_act": "relu",
    "vocab_size": 57024,
}
RANK = ["--predictor-rank", "1036"]


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THERMOCLINE_HOME", str(tmp_path / "home"))


def activated(said: str, row: str) -> tuple[float, float]:
    """Total and activated of one row of the table."""
    (line,) = [line for line in said.splitlines() if line.startswith(row)]
    total, active = line.removeprefix(row).split()[:2]
    return float(total.replace(",", "")), float(active.replace(",", ""))


@pytest.mark.parametrize(
    ("flags", "without", "with_both"),
    [
        (["--sparsity", "0.9"], 1.906, 2.168),
        (["--sparsity", "90%", "--predictor-rank", "1024"], 2.510, 2.772),
        (["--sparsity", "0.9", "--predictor-rank", "1260"], 2.649, 2.911),
        ([], 6.980, 7.242),
    ],
)
def test_a_config_alone_gives_the_published_figures(
    flags: list[str], without: float, with_both: float, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(TURBOSPARSE_MISTRAL))
    assert main(["params", str(path), *flags]) == 0
    said = capsys.readouterr().out
    assert activated(said, "without embedding and head")[1] == pytest.approx(without, abs=0.001)
    assert activated(said, "with embedding and head")[1] == pytest.approx(with_both, abs=0.001)
    assert activated(said, "embedding")[0] == activated(said, "head")[0] == pytest.approx(0.1311, abs=0.0001)


@pytest.mark.parametrize(
    ("config", "flags", "row", "published"),
    [
        (MISTRAL, [], "with embedding and head", (7.24, 7.24)),
        (MIXTRAL, [], "with embedding and head", (46.70, 12.88)),
        (TURBOSPARSE_MIXTRAL, ["--sparsity", "85%"], "without embedding and head", (None, 3.03)),
        (TURBOSPARSE_MIXTRAL, ["--sparsity", "85%", *RANK], "without embedding and head", (None, 4.26)),
        (TURBOSPARSE_MIXTRAL | {"vocab_size": 32000}, ["--sparsity", ".85", *RANK], "with embedding and head", (None, 4.52)),
    ],
)
def test_the_figures_of_mistral_and_mixtral_from_their_configs(
    config: dict[str, object], flags: list[str], row: str, published: tuple[float | None, float], tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main(["params", str(tmp_path), *flags]) == 0
    total, active = activated(capsys.readouterr().out, row)
    assert active == pytest.approx(published[1], abs=0.005)
    assert published[0] is None or total == pytest.approx(published[0], abs=0.005)


def test_what_was_recorded_is_used_without_being_asked_for(tmp_path: Path, capsys: Capture) -> None:
    model = str(make_llama(tmp_path / "small"))
    profile = make_profile(layers=2, neurons=96, fingerprint=known_manifest(model).fingerprint)
    main(["params", model])
    everything = capsys.readouterr().out
    assert "every neuron" in everything
    save_profile(profile, profile_path(profile.fingerprint))
    assert main(["params", model]) == 0
    said = capsys.readouterr().out
    assert "as recorded over 1,000 tokens of a text" in said
    fired = profile.fired.sum() / 1000
    assert activated(said, "FFN") == pytest.approx((2 * 96 * 3 * 64 / 1e6, fired * 3 * 64 / 1e6), abs=1e-4)
    assert activated(everything, "FFN")[1] == activated(said, "FFN")[0]


def test_show_knows_what_was_recorded(tmp_path: Path, capsys: Capture) -> None:
    assert main(["show"]) == 0
    assert "as recorded over 200,000 tokens" in capsys.readouterr().out
    path = tmp_path / "config.json"
    path.write_text(json.dumps(TURBOSPARSE_MISTRAL))
    assert main(["show", str(path)]) == 0
    said = capsys.readouterr().out
    assert "or of up" in said
    assert "missing: weights" in said
    assert "missing: a profile" in said


@pytest.mark.parametrize("sparsity", ["1.01", "-0.1", "90", "101%", "nan", "", "0.9.9"])
def test_a_sparsity_is_a_share(sparsity: str, capsys: Capture) -> None:
    assert main(["params", "--sparsity", sparsity]) == 2
    assert "is not a share" in capsys.readouterr().err


def test_a_profile_that_is_not_of_this_model_is_refused(tmp_path: Path, capsys: Capture) -> None:
    folder = make_llama(tmp_path / "small")
    path = tmp_path / "other.safetensors"
    save_profile(make_profile(layers=2, neurons=96), path)
    assert main(["params", str(folder), "--profile", str(path)]) == 2
    assert "made from model" in capsys.readouterr().err
    (folder / "model.safetensors").unlink()  # nothing to compare fingerprints with
    assert main(["params", str(folder), "--profile", str(path)]) == 0
    save_profile(make_profile(layers=3, neurons=96), path)
    assert main(["params", str(folder), "--profile", str(path)]) == 2
    assert "[3, 96] banks × neurons, but this model has [2, 96]" in capsys.readouterr().err
    assert main(["params", str(folder), "--profile", str(path), "--sparsity", "0.5"]) == 2
