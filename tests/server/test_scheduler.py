"""Who gets a slot and how a step is shared."""

from hypothesis import given
from hypothesis import strategies as st

from models.tokenizer import Tokenizer
from server.pace import Pace
from server.scheduler import MOST_WRITERS, SCORED_ROWS, Scheduler, share
from server.sequence import Params, Sequence
from server.slots import Slots
from tests.server.fakes import MemoryModel, build_sequence


def waiting(tokenizer: Tokenizer, *, group: str = "", prompt: int = 4, params: Params | None = None) -> Sequence:
    return build_sequence(tokenizer, [0] * prompt, params or Params(), group=group)[0]


def build(slots: int, chunk: int) -> Scheduler:
    return Scheduler(Slots(slots), Pace(chunk))


def begun(scheduler: Scheduler) -> list[Sequence]:
    """Those who got a slot now."""
    admitted = scheduler.admit()
    for sequence in admitted:
        scheduler.begin(sequence)
    return admitted


def test_requests_take_turns_for_free_slots(tokenizer: Tokenizer) -> None:
    """A request of five choices does not make a later request of one wait for all of them."""
    scheduler = build(1, 8)
    crowd = [waiting(tokenizer, group="crowd") for _ in range(5)]
    single = waiting(tokenizer, group="single")
    for sequence in [*crowd, single]:
        scheduler.add(sequence)
    served = []
    while not scheduler.idle:
        served += begun(scheduler)
        scheduler.remove(served[-1])
    assert served == [crowd[0], single, *crowd[1:]]


def test_a_slot_belongs_to_one_sequence_at_a_time(tokenizer: Tokenizer) -> None:
    scheduler = build(3, 8)
    sequences = [waiting(tokenizer) for _ in range(5)]
    for sequence in sequences:
        scheduler.add(sequence)
    assert len(begun(scheduler)) == 3
    assert [sequence.slot for sequence in sequences] == [0, 1, 2, None, None]
    freed = sequences[1].slot
    scheduler.remove(sequences[1])
    assert begun(scheduler) == [sequences[3]]
    assert sequences[3].slot == freed
    scheduler.remove(sequences[4])
    for sequence in (sequences[0], sequences[2], sequences[3]):
        scheduler.remove(sequence)
    assert scheduler.idle


def test_prompts_and_writers_alternate(tokenizer: Tokenizer) -> None:
    scheduler = build(2, 4)
    writer, reader = waiting(tokenizer, prompt=1), waiting(tokenizer, prompt=100)
    for sequence in (writer, reader):
        scheduler.add(sequence)
    begun(scheduler)
    writer.cached, writer.output = 1, [5]
    kinds = []
    for _ in range(6):
        works = scheduler.schedule()
        kinds.append([work.sequence.reads_prompt for work in works])
        for work in works:
            work.sequence.cached += work.count
            writer.output += [5] * (work.sequence is writer)
    assert kinds == [[True], [False]] * 3


def test_a_step_never_mixes_prompts_and_writers(tokenizer: Tokenizer) -> None:
    scheduler = build(3, 8)
    assert scheduler.schedule() == []
    for prompt in (1, 20, 3):
        scheduler.add(waiting(tokenizer, prompt=prompt))
    begun(scheduler)
    for _ in range(12):
        works = scheduler.schedule()
        assert len({work.sequence.reads_prompt for work in works}) == 1
        for work in works:
            if work.completes:
                work.sequence.output.append(1)
            work.sequence.cached += work.count


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6), budget=st.integers(6, 40))
def test_a_chunk_is_shared_evenly_and_fully(tokenizer: Tokenizer, lengths: list[int], budget: int) -> None:
    """All advance, nothing is left over while somebody wants more, and nobody gets less than an equal part it could use."""
    prompts = [waiting(tokenizer, prompt=length) for length in lengths]
    works = share(prompts, budget)
    counts = [work.count for work in works]
    assert [work.sequence for work in works] == prompts
    assert sum(counts) == min(budget, sum(lengths))
    assert all(min(length, budget // len(lengths)) <= count <= length for count, length in zip(counts, lengths, strict=True))


def test_a_scored_prompt_asks_for_a_bounded_number_of_rows(tokenizer: Tokenizer) -> None:
    scored = waiting(tokenizer, prompt=1000, params=Params(score_prompt=True))
    plain = waiting(tokenizer, prompt=1000)
    assert [work.count for work in share([scored, plain], 500)] == [SCORED_ROWS, 500 - SCORED_ROWS]


def test_more_writers_than_one_step_takes_have_turns_and_a_chunk_waits_for_all_of_them(tokenizer: Tokenizer) -> None:
    scheduler = build(40, 64)
    writers = [waiting(tokenizer, prompt=1) for _ in range(2 * MOST_WRITERS + 3)]
    for sequence in writers:
        scheduler.add(sequence)
    begun(scheduler)
    for sequence in writers:
        sequence.cached, sequence.output = 1, [5]
    reader = waiting(tokenizer, prompt=300)
    scheduler.add(reader)
    begun(scheduler)
    (chunk,) = scheduler.schedule()
    for _ in range(3):
        reader.cached += chunk.count
        turns = [scheduler.schedule() for _ in range(3)]
        stepped = [work.sequence for works in turns for work in works]
        assert [len(works) for works in turns[:2]] == [MOST_WRITERS] * 2
        assert len(set(stepped[: len(writers)])) == len(writers)
        (chunk,) = scheduler.schedule()
        assert chunk.sequence is reader


def test_whoever_begins_like_one_that_is_being_read_waits_until_that_is_read(tokenizer: Tokenizer) -> None:
    """And no longer; another prompt does not wait."""
    scheduler = Scheduler(Slots(3, MemoryModel()), Pace(8))
    leader, follower, other = (build_sequence(tokenizer, prompt, Params())[0] for prompt in ([1] * 40, [1] * 24 + [2] * 9, [3] * 40))
    for sequence in (leader, follower, other):
        scheduler.add(sequence)
    assert begun(scheduler) == [leader, other]
    leader.cached = 23
    assert scheduler.admit() == []
    leader.cached = 24
    assert scheduler.admit() == [follower]


def test_whoever_waits_for_one_that_goes_away_goes_on_alone(tokenizer: Tokenizer) -> None:
    scheduler = Scheduler(Slots(2, MemoryModel()), Pace(8))
    leader, follower = (build_sequence(tokenizer, [1] * 40, Params())[0] for _ in range(2))
    for sequence in (leader, follower):
        scheduler.add(sequence)
    assert begun(scheduler) == [leader]
    scheduler.remove(leader)
    assert begun(scheduler) == [follower]
    assert [work.sequence for work in scheduler.schedule()] == [follower]
