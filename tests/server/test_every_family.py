"""Every family goes the whole way: packed, profiled, placed and split, over prompts and decoding, it equals dense."""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import cpu_ops
from gpu_ops.transfer import Staging
from models.bits import FormatName
from models.kv_cache import KvCache
from models.packed import PackedModel
from models.step import Step
from placement.budget import smallest_limit, spine_lines, total_of
from placement.plan import Placement, ask, counts, solve
from placement.rates import recorded
from profiles.corpus import Chunk, Text
from profiles.firing import FiringProfile
from profiles.record import record
from server.load import load_model
from server.watching import Layout, Watch
from tests.conftest import PackedOf
from tests.families import ALL
from tests.models.running import Part, dense
from tests.placement.makers import MACHINE

TOLERANCE = 1e-4  # of the largest logit: float32 rounding through a few layers
A_STEP = 2e-2  # the same where rounding moved a key, a value or an input by one step of bf16 or int8
PLENTY = 10**10
QUANTISED = ("opt", "falcon_7b", "mixtral_relu", "qwen3_moe", "prosparse", "minicpm_s", "turbosparse_mixtral", "smallthinker")
STEPS: Sequence[Sequence[Part]] = (
    [Part(0, 0, list(range(40, 62))), Part(1, 0, [7, 8, 9])],  # a prompt through the matrix products, another beside it
    [Part(1, 3, list(range(100, 109)))],
    *([Part(0, 22 + i, [200 + i])] for i in range(4)),  # decoded; where nothing is hot, from a tape
    *([Part(0, 26 + i, [250 + i]), Part(1, 12 + i, [30 + i])] for i in range(3)),
)


def profile_of(packed: PackedModel) -> FiringProfile:
    return _profile_of(packed.folder)


@cache
def _profile_of(folder: Path) -> FiringProfile:
    packed = PackedModel.open(folder)
    drawn = torch.randint(0, 290, (4, 60), generator=torch.Generator().manual_seed(5))
    return record(packed, Text(tuple(Chunk(tuple(row.tolist()), i % 2 == 0) for i, row in enumerate(drawn)), "dice"), quiet=True)


def plan_for(packed: PackedModel, share: float) -> Placement:
    """What the solver makes of a card with room for that share of the neurons."""
    manifest, room = packed.manifest, {"ram_bytes": PLENTY, "context": 64, "slots": 2}
    demand = ask(manifest, None, MACHINE, vram_bytes=1, **room).demand
    neurons = int(share * manifest.spec.n_banks * manifest.spec.n_neurons)
    vram_bytes = smallest_limit(total_of(spine_lines(manifest, demand)) + neurons * manifest.sizes.neuron)
    return solve(manifest, profile_of(packed), MACHINE, vram_bytes=vram_bytes, **room)


def with_hottest(packed: PackedModel, plan: Placement, share: float) -> Placement:
    """The plan with that share of every layer hot, hottest first over all its experts."""
    spec, rates = packed.manifest.spec, recorded(profile_of(packed), packed.manifest.spec)
    hot = np.full(spec.n_layers, int(share * spec.n_experts * spec.n_neurons))
    return plan.model_copy(update={"hot": counts(rates.order, hot, spec.n_experts)})


def step_of(parts: Sequence[Part]) -> Step:
    tokens = [token for part in parts for token in part.tokens]
    positions = [part.start + i for part in parts for i in range(len(part.tokens))]
    slots = [part.slot for part in parts for _ in part.tokens]
    return Step(*(torch.tensor(numbers) for numbers in (tokens, positions, slots, range(len(tokens)))))


def split_logits(packed: PackedModel, plan: Placement) -> Tensor:
    staging = Staging(torch.device("cpu"), tokens=64, hidden=packed.manifest.spec.hidden)
    forward = load_model(packed, profile_of(packed), plan, staging, Watch(Layout.of(plan)))[0]
    return torch.cat([forward(step_of(parts)) for parts in STEPS])


def dense_logits(packed: PackedModel) -> Tensor:
    model = dense(packed, cpu_ops)
    kept = KvCache(model.spec, slots=2, context=64)
    return torch.cat([model.forward(step_of(parts), kept) for parts in STEPS])


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Products this small take several times as long when they are shared out."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("name", "format_name"), [*((name, "float32") for name in ALL), *((name, "int8") for name in QUANTISED)])
def test_split_at_any_share_it_equals_dense(name: str, format_name: FormatName, packed_of: PackedOf) -> None:
    packed = packed_of(name, format_name)
    wanted, plan = dense_logits(packed), plan_for(packed_of(name, "int8"), 0.5)
    for share in (0.0, 0.37, 1.0):
        got = split_logits(packed, with_hottest(packed, plan, share))
        apart = (got - wanted).abs().amax(1) / wanted.abs().max()
        assert apart.median() <= TOLERANCE, share
        assert apart.max() <= A_STEP, share


@pytest.mark.parametrize("name", ALL)
def test_what_is_counted_could_have_happened(name: str, packed_of: PackedOf) -> None:
    packed = packed_of(name, "int8")
    spec, profile = packed.manifest.spec, profile_of(packed)
    assert profile.fired.shape == (spec.n_banks, spec.n_neurons)
    reached = profile.routed.reshape(spec.n_layers, spec.n_experts).sum(1)
    assert (reached == profile.tokens * spec.experts_per_token).all()
    assert (profile.fired <= profile.routed[:, None]).all()
    assert 0 < profile.rate.mean() <= spec.experts_per_token / spec.n_experts
    if not spec.rule.is_sparse and not spec.masked:
        assert (profile.fired == profile.routed[:, None]).all()


@pytest.mark.parametrize("name", ALL)
def test_a_plan_for_half_of_the_neurons_counts_them_by_bank(name: str, packed_of: PackedOf) -> None:
    packed = packed_of(name, "int8")
    spec, plan = packed.manifest.spec, plan_for(packed, 0.5)
    assert len(plan.hot) == spec.n_banks
    assert plan.vram is not None
    assert plan.vram.free_bytes >= 0
    assert sum(plan.hot) <= spec.n_banks * spec.n_neurons // 2
