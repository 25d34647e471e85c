"""What every format promises, whichever it is; a new one is tested by standing in FORMATS."""

import pytest
import torch

from models.bits import BITS, FORMAT_NAMES, GROUP, FormatName
from models.formats import FORMATS
from models.formats.base import quantise_input
from models.rows import Rows
from tests.models.formats.weights import gaussian

every_format = pytest.mark.parametrize("name", FORMAT_NAMES)


def test_the_table_of_bits_and_the_table_of_formats_name_the_same() -> None:
    assert set(FORMATS) == set(BITS) == set(FORMAT_NAMES)
    assert all(FORMATS[name].name == name for name in FORMAT_NAMES)


@every_format
@pytest.mark.parametrize(("n", "k"), [(0, 32), (1, 32), (5, 96)])
def test_planes_have_the_types_and_bytes_they_say(name: FormatName, n: int, k: int) -> None:
    rows = Rows.encode(name, torch.from_numpy(gaussian(n, k, seed=0)))
    assert sum(plane.nbytes for plane in rows.planes) == rows.nbytes == n * BITS[name].row_bytes(k)
    assert rows.decode().shape == (n, k)


@every_format
def test_encoding_what_was_decoded_changes_nothing(name: FormatName) -> None:
    once = Rows.encode(name, torch.from_numpy(gaussian(9, 64, seed=3))).decode()
    assert torch.equal(Rows.encode(name, once).decode(), once)


@every_format
def test_a_row_keeps_its_values_among_any_others(name: FormatName) -> None:
    weights = torch.from_numpy(gaussian(7, 64, seed=4))
    together = Rows.encode(name, weights).decode()
    assert all(torch.equal(Rows.encode(name, weights[i : i + 1]).decode()[0], together[i]) for i in range(7))


@pytest.mark.parametrize(("name", "percent"), [("float32", 0.0), ("bf16", 0.2), ("int8", 0.6), ("int4", 9.0)])
def test_error_is_what_the_bits_allow(name: FormatName, percent: float) -> None:
    """Root-mean-square error of Gaussian weights: 2⁻⁹·0.83 for bf16, max/(127·√12) and max/(8·√12) with max ≈ 2.1 σ in a group of 32."""
    weights = torch.from_numpy(gaussian(64, 512, seed=5))
    error = (Rows.encode(name, weights).decode() - weights).pow(2).mean().sqrt()
    assert error <= percent / 100


@every_format
def test_takes_width_says_which_rows_fit(name: FormatName) -> None:
    assert FORMATS[name].takes_width(64)
    assert FORMATS[name].takes_width(GROUP + 1) == (not BITS[name].grouped)


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_grouped_formats_quantise_their_input(name: FormatName) -> None:
    x = torch.from_numpy(gaussian(3, 64, seed=6))
    made = FORMATS[name].input(x)
    assert made.values.dtype == torch.int8
    step = x.unflatten(-1, (-1, GROUP)).abs().amax(-1) / 127
    assert ((made.decode() - x).abs().unflatten(-1, (-1, GROUP)) <= step.unsqueeze(-1) * 0.5001).all()


def test_an_input_of_zeros_stays_zero() -> None:
    assert not quantise_input(torch.zeros(2, 64)).decode().any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_input_cannot_pass_unseen(bad: float) -> None:
    x = torch.ones(2, 64)
    x[1, 5] = bad
    decoded = quantise_input(x).decode()
    assert decoded[1, :32].isnan().all()
    assert decoded[0].isfinite().all()
    assert decoded[1, 32:].isfinite().all()
