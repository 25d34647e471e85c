"""Real models through the engine: greedy text is the same alone and in any crowd, to the margin that a prompt's rounding has."""

import textwrap
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cpu_ops
from models.kv_cache import KvCache
from models.packed import PackedModel
from models.paths import BUNDLED_MODEL
from models.tokenizer import Tokenizer
from models.transformer import Transformer
from server.engine import Engine, Forward
from server.pace import Pace
from server.scheduler import Scheduler
from server.sequence import Params, Sequence
from server.slots import Slots
from tests.conftest import PackedOf
from tests.models.conftest import one_torch_thread
from tests.server.fakes import build_sequence
from tests.server.test_split_ffn import split

__all__ = ["one_torch_thread"]
MARGIN = 0.02  # of log probability: a text may part from its solo run where the two best tokens were closer than this
CONTEXT, TOKENS, SLOTS, CHUNK = 320, 16, 3, 48
STEMS = (0, 400, 700)  # places of the text where prompts begin


@dataclass(frozen=True)
class Solo:
    """`gaps`: how much likelier than the second best each token was."""

    output: list[int]
    gaps: list[float]


@dataclass(frozen=True, eq=False)
class World:
    """One model, whose every run has the cache for itself."""

    tokenizer: Tokenizer
    tokens: list[int]
    model: Transformer
    cache: KvCache

    @property
    def forward(self) -> Forward:
        return partial(self.model.forward, cache=self.cache)

    def engine(self, slots: int, keep_bytes: int, *, reuse: bool) -> Engine:
        return Engine(self.forward, Scheduler(Slots(slots, self.cache if reuse else None, keep_bytes), Pace(CHUNK)), CONTEXT)

    def prompt(self, stem: int, length: int, tail: int) -> list[int]:
        return [*self.tokens[stem : stem + length], *self.tokens[-1 - tail :]]

    def sequence(self, prompt: list[int]) -> Sequence:
        return build_sequence(self.tokenizer, prompt, Params(max_tokens=TOKENS, temperature=0, logprobs=2))[0]

    def solo(self, prompt: tuple[int, ...]) -> Solo:
        sequence = self.sequence(list(prompt))
        run(self.engine(1, 0, reuse=False), [sequence])
        return Solo(sequence.output, [one.top[0][1] - one.top[1][1] for one in sequence.scores])


def run(engine: Engine, sequences: list[Sequence]) -> None:
    for sequence in sequences:
        engine.submit(sequence)
    while not engine.idle:
        engine.step()


def build_world(packed: PackedModel) -> World:
    tokenizer, spec = Tokenizer.open(BUNDLED_MODEL), packed.manifest.spec
    model = split(packed, [0] * spec.n_layers)
    played = Transformer(spec, model.spine, model.ffn, cpu_ops, repeat=cpu_ops.replayed)
    tokens = tokenizer.encode(Path(textwrap.__file__).read_text())
    return World(tokenizer, tokens, played, KvCache(spec, slots=SLOTS, context=CONTEXT))


@pytest.fixture(scope="module", params=["bf16", "int4"])
def world(request: pytest.FixtureRequest, packed_of: PackedOf) -> World:
    return build_world(packed_of("bundled", request.param))


@cache
def alone(world: World, prompt: tuple[int, ...]) -> Solo:
    return world.solo(prompt)


def check(world: World, sequence: Sequence) -> None:
    """The output is that of the solo run, up to a token that was a close choice there."""
    solo = alone(world, sequence.prompt)
    parted = next((i for i, (mine, its) in enumerate(zip(sequence.output, solo.output, strict=False)) if mine != its), None)
    assert parted is None or solo.gaps[parted] < MARGIN, (parted, solo.gaps[parted], sequence.reused)
    assert sequence.finish == "cancelled" or len(sequence.output) == TOKENS


prompts = st.tuples(st.sampled_from(STEMS), st.integers(1, 200), st.integers(0, 3))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), slots=st.integers(1, SLOTS), keep=st.sampled_from([0, 1 << 21]))
def test_arrivals_cancels_and_shared_beginnings_change_no_text(world: World, data: st.DataObject, slots: int, keep: int) -> None:
    engine, live = world.engine(slots, keep, reuse=True), list[Sequence]()
    for _ in range(data.draw(st.integers(1, 6))):
        live.append(world.sequence(world.prompt(*data.draw(prompts))))
        engine.submit(live[-1])
        for _ in range(data.draw(st.integers(0, 12))):
            engine.step()
        if data.draw(st.integers(0, 4)) == 0:
            engine.cancel(data.draw(st.sampled_from(live)))
    run(engine, [])
    for sequence in live:
        check(world, sequence)


def test_a_decoding_token_has_the_same_bits_in_any_crowd(world: World) -> None:
    """Once prompts are read alone, log probabilities are equal to the last bit, whoever writes beside."""
    asked = [world.prompt(stem, 40, 0) for stem in STEMS]
    lone = [world.sequence(prompt) for prompt in asked]
    for sequence in lone:
        run(world.engine(SLOTS, 0, reuse=False), [sequence])
    engine, crowd = world.engine(SLOTS, 0, reuse=False), [world.sequence(prompt) for prompt in asked]
    for sequence in crowd:
        engine.submit(sequence)
        engine.step()  # reads this prompt, whole and alone
        if sequence is not crowd[-1]:
            engine.step()
    run(engine, [])
    assert [one.output for one in crowd] == [one.output for one in lone]
    assert [one.scores for one in crowd] == [one.scores for one in lone]


def test_choices_of_one_prompt_are_equal_when_greedy_and_read_it_once(world: World) -> None:
    engine = world.engine(2, 0, reuse=True)
    first, *others = (world.sequence(world.prompt(0, 150, 0)) for _ in range(4))
    for other in others:
        other.twin = first
    run(engine, [first, *others])
    assert all(other.output == first.output for other in others)
    assert engine.numbers.prompt_tokens == len(first.prompt)
    check(world, first)
