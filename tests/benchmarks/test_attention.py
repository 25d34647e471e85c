"""The attention benchmark end to end, on a footprint of nothing."""

import json

import pytest

from benchmarks import attention, contest


def test_a_line_for_each_shape_and_context(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(attention, "set_threads", lambda: 1)
    monkeypatch.setattr(attention, "probe", lambda: lambda: 2e9)
    monkeypatch.setattr(attention, "FOOTPRINT", 2**18)
    monkeypatch.setattr(attention, "REPEATS_SECONDS", 0.0)
    monkeypatch.setattr(contest, "SETTLE_SECONDS", 0.0)
    assert attention.main(["--context", "5", "600", "--heads", "4:4:32", "4:1:64", "--rounds", "1"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    rows = json.loads(last)["rows"]
    assert [(row["heads"], row["context"]) for row in rows] == [("4:4:32", 5), ("4:4:32", 600), ("4:1:64", 5), ("4:1:64", 600)]
    assert len(lines) == 4
    assert all(row["layer_us"] > 0 and row["share"] > 0 for row in rows)


def test_layers_are_as_many_as_the_footprint_takes() -> None:
    spec = attention.spec_of("8:2:64", 100)
    assert 0 <= attention.FOOTPRINT - 100 * spec.kv_bytes_per_token() < 100 * spec.kv_bytes_per_token() / spec.n_layers


@pytest.mark.parametrize("wrong", ["8", "8:3:64", "a:b:c", "8:0:64", "4:4:40"])
def test_heads_that_are_none_are_refused_in_one_line(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert attention.main(["--heads", wrong, "--context", "5"]) == 2
    assert "--heads" in capsys.readouterr().err
