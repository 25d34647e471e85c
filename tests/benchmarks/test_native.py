"""The benchmark of calls by address, end to end."""

import json

import pytest

from benchmarks import native


def test_it_ends_in_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert native.main(["--calls", "3"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(found["microseconds"]) == {"ordinary_call", "by_address", "on_a_foreign_thread", "a_foreign_thread_alone"}
    assert min(found["microseconds"].values()) > 0
