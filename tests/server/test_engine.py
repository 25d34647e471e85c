"""Stories of the engine over a model that remembers exactly what was put in each slot."""

from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.step import Step
from models.tokenizer import Tokenizer
from server.engine import Engine, StepFailed
from server.guide import GuideFailed
from server.numbers import Reading
from server.pace import Pace
from server.sampling import score
from server.scheduler import Scheduler
from server.sequence import Delta, Event, Failed, Params, Sequence
from server.slots import Slots
from tests.server.fakes import EOS, VOCAB, MemoryModel, build_engine, build_sequence, greedy, logits_after

GREEDY = Params(max_tokens=6, temperature=0)


def run(engine: Engine) -> None:
    while not engine.idle:
        engine.step()


def text_of(events: list[Event]) -> str:
    return "".join(cast(Delta, event).text for event in events)


def finish_of(events: list[Event]) -> str | None:
    return cast(Delta, events[-1]).finish


def start(engine: Engine, sequences: list[Sequence]) -> None:
    for sequence in sequences:
        engine.submit(sequence)


def test_greedy_text_is_the_models_own(tokenizer: Tokenizer) -> None:
    engine = build_engine(MemoryModel())
    sequence, events = build_sequence(tokenizer, [1, 2, 3], GREEDY)
    engine.submit(sequence)
    run(engine)
    assert sequence.output == greedy([1, 2, 3], 6)
    assert text_of(events) == bytes(sequence.output).decode()
    assert finish_of(events) == "length"


@settings(max_examples=25, deadline=None)
@given(
    prompts=st.lists(st.lists(st.integers(97, 122), min_size=1, max_size=30), min_size=1, max_size=7),
    slots=st.integers(1, 4),
    chunk=st.integers(4, 9),
    late=st.integers(0, 6),
)
def test_a_batch_writes_what_each_writes_alone(tokenizer: Tokenizer, prompts: list[list[int]], slots: int, chunk: int, late: int) -> None:
    """Whatever the slots, the chunks and the moment of arrival: slots are used again and nothing of an old text is seen."""
    engine = build_engine(MemoryModel(), slots=slots, chunk=chunk)
    built = [build_sequence(tokenizer, prompt, GREEDY, group=str(i % 3))[0] for i, prompt in enumerate(prompts)]
    start(engine, built[:late])
    for _ in range(late):
        if not engine.idle:
            engine.step()
    start(engine, built[late:])
    run(engine)
    assert [one.output for one in built] == [greedy(prompt, 6) for prompt in prompts]


def test_a_seed_gives_the_same_text_alone_and_in_a_crowd(tokenizer: Tokenizer) -> None:
    params = Params(max_tokens=12, temperature=1.0, top_p=0.9)

    def write(others: int) -> list[int]:
        engine = build_engine(MemoryModel(), slots=3)
        sequence, _ = build_sequence(tokenizer, [5, 6], params, seed=7)
        crowd = [build_sequence(tokenizer, [9, i], params, seed=i)[0] for i in range(others)]
        start(engine, [*crowd[:1], sequence, *crowd[1:]])
        run(engine)
        return sequence.output

    assert write(0) == write(2) == write(5)


def test_long_prompts_do_not_stall_a_writer(tokenizer: Tokenizer) -> None:
    """While a prompt of 40 tokens is read 8 at a time, the other sequence gets a token after every chunk."""
    model = MemoryModel()
    engine = build_engine(model)
    writer, events = build_sequence(tokenizer, [1], Params(max_tokens=20, temperature=0))
    engine.submit(writer)
    engine.step()
    reader, _ = build_sequence(tokenizer, list(range(40)), GREEDY)
    engine.submit(reader)
    written = []
    while reader.reads_prompt:
        engine.step()
        written.append(len(writer.output))
    assert max(len(step) for step in model.steps) == 8
    assert len(written) == 10
    assert written[-1] - written[0] >= 4
    assert len(events) == len(writer.output)


def test_the_end_of_text_token_ends_the_text_and_is_not_in_it(tokenizer: Tokenizer) -> None:
    engine = build_engine(MemoryModel())
    third = greedy([1], 3)[2]
    params = Params(max_tokens=9, temperature=0, stop_ids=frozenset({third, EOS}), logprobs=0)
    sequence, events = build_sequence(tokenizer, [1], params)
    engine.submit(sequence)
    run(engine)
    assert finish_of(events) == "stop"
    assert len(sequence.output) == sequence.output.index(third) + 1
    assert text_of(events) == bytes(sequence.output[:-1]).decode()
    assert [token.text for event in events for token in cast(Delta, event).tokens][-1] == ""


def test_a_stop_string_never_shows_not_even_half_of_it(tokenizer: Tokenizer) -> None:
    whole = bytes(greedy([1], 10)).decode()
    stop = whole[4:7]
    engine = build_engine(MemoryModel())
    sequence, events = build_sequence(tokenizer, [1], Params(max_tokens=10, temperature=0, logprobs=1), stops=(stop,))
    engine.submit(sequence)
    run(engine)
    assert text_of(events) == whole[: whole.index(stop)]
    assert finish_of(events) == "stop"
    tokens = [token for event in events for token in cast(Delta, event).tokens]
    assert len(tokens) == len(sequence.output)
    assert "".join(token.text for token in tokens) == text_of(events)


def test_the_context_ends_the_text_when_it_is_full(tokenizer: Tokenizer) -> None:
    engine = build_engine(MemoryModel(), context=8)
    sequence, events = build_sequence(tokenizer, [1, 2, 3, 4, 5], Params(max_tokens=100, temperature=0))
    engine.submit(sequence)
    run(engine)
    assert len(sequence.output) == 3
    assert finish_of(events) == "length"


def test_a_scored_prompt_has_the_logits_of_every_position(tokenizer: Tokenizer) -> None:
    """Over chunk borders (8 tokens a step), with nothing written."""
    prompt = list(b"the cold neurons of a model")
    engine = build_engine(MemoryModel())
    sequence, events = build_sequence(tokenizer, prompt, Params(max_tokens=0, logprobs=2, score_prompt=True))
    engine.submit(sequence)
    run(engine)
    wanted = [None] + [score(logits_after(prompt[:i]), prompt[i], 2) for i in range(1, len(prompt))]
    assert sequence.prompt_scores == wanted
    assert sequence.output == []
    assert finish_of(events) == "length"


def test_scoring_a_prompt_does_not_change_what_is_written(tokenizer: Tokenizer) -> None:
    engine = build_engine(MemoryModel())
    params = Params(max_tokens=4, temperature=0, logprobs=0, score_prompt=True)
    sequences = [build_sequence(tokenizer, [n] * (5 + 3 * n), params)[0] for n in range(1, 5)]
    start(engine, sequences)
    run(engine)
    assert [one.output for one in sequences] == [greedy(list(one.prompt), 4) for one in sequences]
    assert all(len(one.prompt_scores) == len(one.prompt) for one in sequences)


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_cancelling_frees_the_slot_at_once(tokenizer: Tokenizer, steps: int) -> None:
    """Waiting, in the middle of its prompt, or writing."""
    engine = build_engine(MemoryModel(), slots=1)
    gone, events = build_sequence(tokenizer, [3] * 20, GREEDY)
    engine.submit(gone)
    for _ in range(steps):
        engine.step()
    next_one, _ = build_sequence(tokenizer, [4], GREEDY)
    engine.submit(next_one)
    engine.cancel(gone)
    engine.cancel(gone)
    assert finish_of(events) == "cancelled"
    engine.step()
    assert len(next_one.output) == 1
    run(engine)
    assert next_one.output == greedy([4], 6)


class Unlucky(MemoryModel):
    """Raises in its third step, whatever is in it."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def __call__(self, step: Step) -> torch.Tensor:
        logits = super().__call__(step)
        if len(self.steps) == 3:
            raise self.error
        return logits


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("a kernel"), ZeroDivisionError()]
)
def test_after_any_failure_the_next_request_works(tokenizer: Tokenizer, error: Exception) -> None:
    """Those of the step are told, one that waits is not harmed, and the device is asked whether it still answers."""
    asked = []
    engine = build_engine(Unlucky(error), slots=2)
    engine._recover = lambda: asked.append(error)
    built = [build_sequence(tokenizer, [1, n], GREEDY) for n in range(3)]
    start(engine, [sequence for sequence, _ in built])
    run(engine)
    for _, events in built[:2]:
        assert isinstance(events[-1], Failed)
        assert isinstance(events[-1].error, StepFailed)
        assert events[-1].error.cause is error
    assert built[2][0].output == greedy([1, 2], 6)
    assert asked == [error]
    assert engine.numbers.failed == 2
    assert (engine.numbers.slots_busy, engine.numbers.waiting) == (0, 0)


def test_a_slot_that_cannot_be_filled_ends_its_sequence_only(tokenizer: Tokenizer) -> None:
    """No memory to copy what could be used again."""

    class Narrow(MemoryModel):
        def copy(self, source: int, slot: int, count: int) -> None:
            raise MemoryError

    engine = build_engine(Narrow(), slots=2)
    first, _ = build_sequence(tokenizer, [1] * 30, Params(max_tokens=20, temperature=0))
    second, events = build_sequence(tokenizer, [1] * 30, GREEDY)
    start(engine, [first, second])
    run(engine)
    assert isinstance(events[-1], Failed)
    assert first.output == greedy([1] * 30, 20)


def test_a_step_that_raises_ends_its_own_sequences_only(tokenizer: Tokenizer) -> None:
    model = MemoryModel(broken_token=13)
    engine = build_engine(model)
    writer, _ = build_sequence(tokenizer, [1], GREEDY)
    engine.submit(writer)
    engine.step()
    broken, events = build_sequence(tokenizer, [13], GREEDY)
    engine.submit(broken)
    run(engine)
    assert writer.output == greedy([1], 6)
    assert isinstance(events[-1], Failed)
    assert isinstance(events[-1].error, StepFailed)
    after, _ = build_sequence(tokenizer, [2], GREEDY)
    engine.submit(after)
    run(engine)
    assert after.output == greedy([2], 6)


def test_logits_that_are_not_numbers_are_a_failure_and_not_a_token(tokenizer: Tokenizer) -> None:
    engine = build_engine(lambda step: torch.full((len(step.wanted), 258), float("nan")))
    sequence, events = build_sequence(tokenizer, [1], GREEDY)
    engine.submit(sequence)
    run(engine)
    assert isinstance(events[-1], Failed)
    assert sequence.output == []


@dataclass
class Digits:
    """Allows digits only, until `most` were written; from the place `fails` on there is none."""

    most: int
    fails: int = 1000
    written: list[int] = field(default_factory=list)

    def allowed(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        if len(self.written) >= self.fails:
            raise GuideFailed("nothing fits")
        return np.isin(np.arange(VOCAB), np.frombuffer(b"0123456789", dtype=np.uint8))

    def push(self, token: int) -> bool:
        self.written.append(token)
        return len(self.written) == self.most


@pytest.mark.parametrize("params", [GREEDY, replace(GREEDY, temperature=1.5), replace(GREEDY, temperature=1.0, top_k=40, top_p=0.5)])
def test_a_guide_decides_what_may_be_written_and_when_it_ends(tokenizer: Tokenizer, params: Params) -> None:
    """Digits are far less likely than letters in this model."""
    engine = build_engine(MemoryModel())
    guided, events = build_sequence(tokenizer, [1], params)
    guided.guide = Digits(4)
    free, _ = build_sequence(tokenizer, [2], GREEDY)
    start(engine, [guided, free])
    run(engine)
    assert text_of(events).isdigit()
    assert len(text_of(events)) == 4
    assert finish_of(events) == "stop"
    assert free.output == greedy([2], 6)


def test_a_guide_that_cannot_go_on_ends_its_own_sequence_only(tokenizer: Tokenizer) -> None:
    engine = build_engine(MemoryModel())
    guided, events = build_sequence(tokenizer, [1], GREEDY)
    guided.guide = Digits(4, fails=2)
    free, _ = build_sequence(tokenizer, [2], GREEDY)
    start(engine, [guided, free])
    run(engine)
    assert isinstance(events[-1], Failed)
    assert isinstance(events[-1].error, GuideFailed)
    assert free.output == greedy([2], 6)


def read_tokens(model: MemoryModel) -> int:
    """Tokens that went through the model."""
    return sum(len(step) for step in model.steps)


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_choices_of_one_prompt_compute_it_once(tokenizer: Tokenizer, slots: int) -> None:
    """Whether they run at once or one after the other; the greedy ones are equal, those with dice are not."""
    model = MemoryModel()
    engine = build_engine(model, slots=slots)
    prompt = list(b"what the choices begin with")
    params = Params(max_tokens=6, temperature=1.0)
    twins = choices_of(tokenizer, prompt, params, count=4)
    start(engine, twins)
    run(engine)
    assert read_tokens(model) == len(prompt) + 4 * 5
    assert len({tuple(one.output) for one in twins}) == 4
    assert [one.reused for one in twins] == [0, len(prompt), len(prompt), len(prompt)]
    assert engine.numbers.cached_tokens == 3 * len(prompt)


def choices_of(tokenizer: Tokenizer, prompt: list[int], params: Params, *, count: int) -> list[Sequence]:
    first, *others = (build_sequence(tokenizer, prompt, params, seed=i, group="one")[0] for i in range(count))
    for other in others:
        other.twin = first
    return [first, *others]


@pytest.mark.parametrize("max_tokens", [0, 1, 4])
def test_choices_of_a_scored_prompt_share_its_scores(tokenizer: Tokenizer, max_tokens: int) -> None:
    model = MemoryModel()
    engine = build_engine(model, slots=2)
    prompt = list(b"the cold neurons of a model")
    twins = choices_of(tokenizer, prompt, Params(max_tokens=max_tokens, temperature=0, logprobs=1, score_prompt=True), count=3)
    start(engine, twins)
    run(engine)
    wanted = [None] + [score(logits_after(prompt[:i]), prompt[i], 1) for i in range(1, len(prompt))]
    assert all(one.prompt_scores == wanted for one in twins)
    assert [one.output for one in twins] == [greedy(prompt, max_tokens)] * 3
    assert read_tokens(model) == len(prompt) + 3 * max(0, max_tokens - 1)


@pytest.mark.parametrize("steps", [0, 1, 2, 5, 9])
def test_when_the_first_choice_is_cancelled_the_others_go_on(tokenizer: Tokenizer, steps: int) -> None:
    engine = build_engine(MemoryModel(), slots=3)
    prompt = list(b"what the choices begin with")
    twins = choices_of(tokenizer, prompt, GREEDY, count=3)
    start(engine, twins)
    for _ in range(steps):
        engine.step()
    engine.cancel(twins[0])
    run(engine)
    assert [one.output for one in twins[1:]] == [greedy(prompt, 6)] * 2


def test_whoever_hears_of_an_end_sees_it_in_the_numbers(tokenizer: Tokenizer) -> None:
    """Of a text that ends, one that fails, one that is cancelled, and all that are given up."""
    engine = build_engine(MemoryModel(broken_token=13))
    seen: list[tuple[int, int, int]] = []

    def look(event: Event) -> None:
        numbers = engine.numbers
        seen.append((numbers.slots_busy, numbers.written_tokens, numbers.failed + sum(numbers.finished.values())))

    for token in (1, 13, 2, 3):
        sequence, _ = build_sequence(tokenizer, [token], GREEDY)
        sequence.emit = look
        engine.submit(sequence)
        if token in (1, 13):
            run(engine)
        engine.step()
        if token == 2:
            engine.cancel(sequence)
    engine.abandon(RuntimeError())
    assert seen[:6] == [(int(n < 6), n, int(n == 6)) for n in range(1, 7)]
    assert seen[6:] == [(0, 6, 2), (1, 7, 2), (0, 7, 3), (1, 8, 3), (0, 8, 4)]


TICK = 2**-10  # seconds


class SplitModel(MemoryModel):
    """A step takes four ticks, of which it waits one, or three where it writes; the GPU works two. It had counted before."""

    now = 100.0
    counted = Reading(50.0, 60.0, 7, 8)

    def __call__(self, step: Step) -> torch.Tensor:
        self.now += 4 * TICK
        waited = TICK if len(step) > 1 else 3 * TICK
        old = self.counted
        self.counted = Reading(old.waiting_seconds + waited, old.gpu_seconds + 2 * TICK, old.fired_hot + 3, old.fired_cold + 1)
        return super().__call__(step)

    def read(self) -> Reading:
        return self.counted


def test_the_time_of_steps_is_split_into_gpu_cpu_and_waiting(tokenizer: Tokenizer) -> None:
    """A prompt of 20 tokens in three steps, five more for six tokens; what a failed one took is nobody's."""
    model = SplitModel(broken_token=13)
    engine = Engine(model, Scheduler(Slots(2), Pace(8)), 64, clock=lambda: model.now, meter=model)
    start(engine, [build_sequence(tokenizer, [1] * 20, GREEDY)[0]])
    run(engine)
    start(engine, [build_sequence(tokenizer, [13, 1], GREEDY)[0]])
    run(engine)
    found = engine.numbers
    assert (found.prompt_steps, found.decode_steps) == (3, 5)
    assert (found.prompt_seconds, found.decode_seconds) == (12 * TICK, 20 * TICK)
    assert (found.waiting_seconds, found.gpu_seconds, found.cpu_seconds) == (18 * TICK, 16 * TICK, 14 * TICK)
    assert (found.decode_waiting_seconds, found.decode_gpu_seconds, found.decode_cpu_seconds) == (15 * TICK, 10 * TICK, 5 * TICK)
    assert (found.fired_hot, found.fired_cold, found.hot_share) == (24, 8, 0.75)


def test_the_next_turn_reads_only_what_is_new(tokenizer: Tokenizer) -> None:
    model = MemoryModel()
    engine = build_engine(model)
    first, _ = build_sequence(tokenizer, list(b"a question?"), GREEDY)
    engine.submit(first)
    run(engine)
    before = read_tokens(model)
    turn = [*first.prompt, *first.output, *b" and another?"]
    second, _ = build_sequence(tokenizer, turn, GREEDY)
    engine.submit(second)
    run(engine)
    assert second.output == greedy(turn, 6)
    assert second.reused == len(first.prompt) + len(first.output) - 1  # the last token of an answer never went through the model
    assert read_tokens(model) - before == len(turn) - second.reused + 5


def test_the_same_prompt_again_reads_its_last_token_only(tokenizer: Tokenizer) -> None:
    model = MemoryModel()
    engine = build_engine(model)
    for _ in range(2):
        sequence, _ = build_sequence(tokenizer, list(b"again and again"), GREEDY)
        engine.submit(sequence)
        run(engine)
    assert sequence.reused == len(sequence.prompt) - 1
    assert sequence.output == greedy(list(sequence.prompt), 6)


def test_what_a_failed_step_wrote_is_not_used_again(tokenizer: Tokenizer) -> None:
    engine = build_engine(MemoryModel(broken_token=13), slots=1)
    broken, _ = build_sequence(tokenizer, [5] * 20 + [13], GREEDY)
    engine.submit(broken)
    run(engine)
    after, _ = build_sequence(tokenizer, [5] * 20 + [6], GREEDY)
    engine.submit(after)
    run(engine)
    assert after.reused == 0
    assert after.output == greedy([5] * 20 + [6], 6)


STEMS = [list(b"the first of the beginnings, "), list(b"the first of all, and then the "), list(b"another "), []]


@settings(max_examples=40, deadline=None)
@given(data=st.data(), slots=st.integers(1, 4), keep=st.sampled_from([0, 300, 5000]))
def test_arrivals_cancels_and_shared_beginnings_change_no_text(tokenizer: Tokenizer, data: st.DataObject, slots: int, keep: int) -> None:
    """Requests of one to three choices come and go at any step; every text that is left is what the model writes alone."""
    engine = build_engine(MemoryModel(), slots=slots, keep_bytes=keep)
    live: list[Sequence] = []
    for number in range(data.draw(st.integers(1, 8))):
        stem, tail = data.draw(st.sampled_from(STEMS)), data.draw(st.lists(st.sampled_from(b"abc"), min_size=1, max_size=4))
        params = Params(max_tokens=data.draw(st.integers(1, 7)), temperature=0)
        twins = choices_of(tokenizer, [*stem, *tail], params, count=data.draw(st.integers(1, 3)))
        for twin in twins:
            twin.group = str(number)
        start(engine, twins)
        live += twins
        for _ in range(data.draw(st.integers(0, 6))):
            engine.step()
        for sequence in list(live):
            if data.draw(st.integers(0, 9)) == 0:
                engine.cancel(sequence)
    run(engine)
    for sequence in live:
        alone = greedy(list(sequence.prompt), sequence.params.max_tokens)
        assert sequence.output == alone[: len(sequence.output)]
        assert sequence.finish == "cancelled" or sequence.output == alone
    assert (engine.numbers.slots_busy, engine.numbers.waiting) == (0, 0)
    assert engine.numbers.prompt_tokens + engine.numbers.cached_tokens <= sum(len(one.prompt) for one in live)
    assert engine.numbers.written_tokens == sum(len(one.output) for one in live)
    assert sum(engine.numbers.finished.values()) == len(live)
