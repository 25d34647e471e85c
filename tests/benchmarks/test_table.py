"""Rows know whether their goal was met, and line up."""

from benchmarks.table import Row, render


def test_a_goal_is_met_from_above_or_from_below() -> None:
    assert Row("7b", "speed", 1.5, (1.4, 1.6, 1.7), 1.0).met
    assert not Row("7b", "speed", 1.5, (1.4, 1.4, 1.7), 1.0).met
    assert Row("7b", "memory", 1.1, (1.05,), 1.0, at_most=True).met
    assert not Row("7b", "memory", 1.1, (1.15,), 1.0, at_most=True).met
    assert Row("7b", "speed", None, (1.0,), 1.0).met is None


def test_without_a_peer_a_ratio_has_no_value() -> None:
    row = Row("7b", "speed", 1.5, (), 1.0)
    assert row.met is None
    assert row.to_json()["reached"] is None
    assert "no peer" in render([row])


def test_the_table_is_as_wide_on_every_line() -> None:
    table = render([Row("7b", "short", 1.5, (1.6,), 61.4), Row("mistral", "rather longer", None, (0.5, 0.7), 3.0)])
    assert len({len(line) for line in table.splitlines()}) == 1
    assert "| 7b      | short         | ≥ 1.50 | 1.60    | 1.60–1.60 | yes | 61 s |" in table
    assert "0.60" in table
