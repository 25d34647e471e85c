"""Rows of a tensor that holds several: Falcon's q, k and v, group by group."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from models.architectures import falcon
from models.checkpoint.base import rows_between
from models.checkpoint.safetensors import open_safetensors
from tests.conftest import CheckpointOf

Runs = st.lists(
    st.tuples(st.integers(0, 50), st.integers(1, 9)).map(lambda pair: range(pair[0], pair[0] + pair[1])), min_size=1, max_size=5
)


@given(Runs, st.integers(0, 45), st.integers(0, 45))
def test_a_stretch_of_rows_is_found_over_all_runs(runs: list[range], start: int, length: int) -> None:
    every = [row for run in runs for row in run]
    found = [row for run in rows_between(runs, start, start + length) for row in run]
    assert found == every[start : start + length]
    assert [row for run in rows_between(runs, start, None) for row in run] == every[start:]


def test_the_three_parts_share_the_whole_without_overlap(checkpoint_of: CheckpointOf) -> None:
    for name in ("falcon_7b", "falcon_40b", "falcon_sequential"):
        checkpoint = open_safetensors(checkpoint_of(name))
        names, spec = falcon.names(checkpoint.spec), checkpoint.spec
        rows: list[int] = []
        for part in (names[f"layers.{{layer}}.{one}"] for one in "qkv"):
            assert not isinstance(part, str)
            rows += [row for run in part.rows(spec) for row in run]
        assert sorted(rows) == list(range(falcon.fused_height(spec)))


def test_pieces_of_a_part_are_those_of_the_whole(checkpoint_of: CheckpointOf) -> None:
    checkpoint = open_safetensors(checkpoint_of("falcon_40b"))
    whole = checkpoint.read("layers.0.q")
    assert checkpoint.shape("layers.0.q") == tuple(whole.shape) == (checkpoint.spec.q_width, checkpoint.spec.hidden)
    pieces = [checkpoint.read("layers.0.q", start, start + 7) for start in range(0, len(whole), 7)]
    assert torch.equal(torch.cat(pieces), whole)
    first_group = 2 * checkpoint.spec.head_dim  # two queries, a key and a value in each
    fused = checkpoint.source.read("transformer.h.0.self_attention.query_key_value.weight")
    assert torch.equal(whole[:first_group], fused[:first_group])
