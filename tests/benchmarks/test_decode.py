"""The benchmark end to end on a small shape, and the bytes it counts."""

import json
from pathlib import Path

import pytest

from benchmarks import contest, decode
from benchmarks.activity import Activity, decode_bytes, prompt_bytes
from benchmarks.shapes import SHAPES
from benchmarks.synthetic import build
from tests.benchmarks.test_synthetic import SMALL


def test_dense_touches_everything_but_the_embedding_and_sparse_touches_less(tmp_path: Path) -> None:
    manifest = build("small", SMALL, tmp_path).manifest
    dense, sparse = decode_bytes(manifest, Activity(1.0, 1.0), 0), decode_bytes(manifest, Activity(0.1, 0.1), 0)
    head = manifest.sizes.embedding // 2
    assert dense == manifest.sizes.spine + head + head // SMALL.vocab + manifest.neurons_bytes
    assert sparse == pytest.approx(dense - 0.9 * 2 / 3 * manifest.neurons_bytes, abs=1)
    assert decode_bytes(manifest, Activity(1.0, 1.0), 10) - dense == 10 * SMALL.kv_bytes_per_token()
    assert prompt_bytes(manifest, 64) < dense / 32


def test_it_ends_in_one_json_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(SHAPES, "1.1b", SMALL)
    monkeypatch.setattr(decode, "set_threads", lambda: 1)
    monkeypatch.setattr(decode, "probe", lambda: lambda: 2e9)
    monkeypatch.setattr(contest, "SETTLE_SECONDS", 0.0)
    assert decode.main(["--shape", "1.1b", "--work", str(tmp_path), "--tokens", "3", "--rounds", "2"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["benchmark"] == "decode"
    assert last["fired"] == pytest.approx(0.1, abs=0.03)
    assert last["split"]["decode_bytes_per_token"] < 0.7 * last["dense"]["decode_bytes_per_token"]
    for kind in ("dense", "split"):
        slowest, fastest = last[kind]["decode_range"]
        assert 0 < slowest <= last[kind]["decode_tokens_per_second"] <= fastest
        assert last[kind]["roofline_gb_per_second"] == 2.0


def test_a_disk_too_small_is_one_line_and_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("models.paths.shutil.disk_usage", lambda folder: usage)
    assert decode.main(["--shape", "7b", "--work", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
