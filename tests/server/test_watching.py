"""The live map counts what fires, changes no text, and rests while nobody looks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import cpu_ops
from models.step import Step
from models.transformer import Transformer
from profiles.recording import RecordingFfn, Tally, nothing_yet
from server.split_ffn import SplitBank, SplitFfn
from server.watching import MOST_CELLS, MOST_TOKENS, MOST_WATCHERS, Firing, Layout, TooManyWatchers, Watch, Watched, WatchingFfn
from tests.conftest import PackedOf
from tests.models.running import Part, cache_for, run_step
from tests.server.test_split_ffn import on_the_cpu, shuffled

LAYOUT = Layout(n_layers=2, n_experts=1, n_neurons=10, hot=(3, 0))


@pytest.mark.parametrize("name", ["relu", "sparsellama", "bamboo", "silu", "opt", "mixtral", "turbosparse_mixtral"])
@pytest.mark.parametrize("hot", [0, 5, 10**9])
def test_the_map_counts_what_the_profiler_counts(name: str, hot: int, packed_of: PackedOf) -> None:
    packed = packed_of(name, "float32")
    spec, order = packed.manifest.spec, shuffled(packed)
    hot = min(hot, spec.n_neurons)
    banks = [[SplitBank(*pair) for pair in packed.load_banks(layer, own, [hot] * spec.n_experts)] for layer, own in enumerate(order)]
    layout = Layout(spec.n_layers, spec.n_experts, spec.n_neurons, (hot,) * spec.n_banks)
    ffn = WatchingFfn(SplitFfn(spec.rule, banks, on_the_cpu(packed)), layout)
    tally = Tally(nothing_yet(spec, "", ""))
    whole = {layer: [cold for _, cold in packed.load_banks(layer)] for layer in range(spec.n_layers)}
    text = Part(0, 0, torch.randint(0, spec.vocab, (7,), generator=torch.Generator().manual_seed(3)).tolist())
    for counting in (ffn, RecordingFfn(spec.rule, whole, tally)):
        model = Transformer(spec, packed.load_spine(), counting, cpu_ops)
        run_step(model, cache_for(model), [text])
    orders = torch.cat(order).numpy()  # [L·E, N]
    counted = np.take_along_axis(tally.fired, orders, axis=1)  # in the bank's order
    firing = ffn.take(7)
    wanted = [np.add.reduceat(row, layout.edges[:-1]) / np.diff(layout.edges) / 7 for row in counted]
    np.testing.assert_allclose(firing.cells / 255, wanted, atol=1 / 255)
    assert (firing.fired_hot, firing.fired_cold) == (counted[:, :hot].sum(), counted[:, hot:].sum())
    assert (ffn.fired_hot, ffn.fired_cold) == (firing.fired_hot, firing.fired_cold)
    assert ffn.take(7).fired_cold == 0  # begun anew


def test_a_large_model_gets_fewer_columns_and_every_neuron_has_one() -> None:
    layout = Layout(n_layers=48, n_experts=128, n_neurons=768, hot=(0,) * 48 * 128)
    assert len(layout.hot) * layout.columns <= MOST_CELLS
    assert layout.edges[0] == 0
    assert layout.edges[-1] == 768
    assert replace(LAYOUT, n_neurons=3).edges == [0, 1, 2, 3]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def step_of(tokens: int) -> Step:
    zeros = torch.zeros(tokens, dtype=torch.int64)
    return Step(zeros, zeros, zeros, torch.tensor([0]))


def test_nobody_looks_so_nothing_is_watched_and_then_few_steps_are() -> None:
    clock, taken, seen = Clock(), list[str](), list[Firing | None]()

    def way(name: str) -> Tensor:
        taken.append(name)
        return torch.zeros(1)

    class Counted:
        def take(self, tokens: int) -> Firing:
            return Firing(tokens, np.zeros((2, 10), np.uint8), 1, 2)

    watch = Watch(replace(LAYOUT, hot=(0, 0)), clock)
    forward = Watched(lambda step: way("plain"), lambda step: way("watching"), Counted(), watch)  # type: ignore[arg-type]
    forward(step_of(1))
    watch.subscribe(seen.append)
    for now in (1.0, 1.01, 1.2):
        clock.now = now
        forward(step_of(2))
    clock.now = 5.0
    forward(step_of(MOST_TOKENS + 1))
    watch.unsubscribe(seen.append)
    forward(step_of(1))
    assert taken == ["plain", "watching", "plain", "watching", "plain", "plain"]
    assert [each.tokens for each in seen if each] == [2, 2]


def test_where_some_neurons_are_hot_a_step_now_and_then_is_watched_for_the_meter() -> None:
    clock = Clock()
    watch = Watch(LAYOUT, clock)
    assert watch.due()
    watch.took(0.001)
    for now, due in ((1.0, False), (4.9, False), (5.1, True)):
        clock.now = now
        assert watch.due() is due


def test_slow_watching_is_done_less_often() -> None:
    clock = Clock()
    watch = Watch(LAYOUT, clock)
    watch.subscribe(lambda firing: None)
    watch.took(0.5)
    clock.now = 4.9
    assert not watch.due()
    clock.now = 5.1
    assert watch.due()


def test_one_watcher_too_many_is_refused() -> None:
    watch = Watch(LAYOUT)
    for _ in range(MOST_WATCHERS):
        watch.subscribe(lambda firing: None)
    with pytest.raises(TooManyWatchers):
        watch.subscribe(lambda firing: None)
