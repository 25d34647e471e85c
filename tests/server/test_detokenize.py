"""Text that may leave: stories of stop strings and of characters in pieces."""

from hypothesis import given
from hypothesis import strategies as st

from models.tokenizer import IncrementalDecoder, Tokenizer
from server.detokenize import TextStream, overhang


class Pieces:
    """A decoder whose token i is the i-th of some strings."""

    def __init__(self, pieces: list[str], rest: str = "") -> None:
        self.pieces, self.rest = pieces, rest

    def push(self, token_id: int) -> str:
        return self.pieces[token_id]

    def finish(self) -> str:
        return self.rest


def run(pieces: list[str], stops: tuple[str, ...]) -> tuple[TextStream, list[str]]:
    """Pushes all pieces, taking what may leave after each; closes when nothing stopped it."""
    stream, left = TextStream(Pieces(pieces), stops), []
    for number in range(len(pieces)):
        if not stream.stopped:
            stream.push(number)
            left.append(stream.take()[0])
    stream.close()
    left.append(stream.take()[0])
    return stream, left


def slow_cut(text: str, stops: tuple[str, ...]) -> str:
    """Character by character: as soon as the text ends with a stop string, the longest such is taken off."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))]
    return text


texts = st.text(alphabet="ab🌊", max_size=12)
stop_sets = st.lists(st.text(alphabet="ab🌊", min_size=1, max_size=4), max_size=3).map(tuple)


@given(pieces=st.lists(st.text(alphabet="ab🌊", max_size=4), max_size=12), stops=stop_sets)
def test_however_the_text_is_cut_into_tokens_it_ends_at_the_same_place(pieces: list[str], stops: tuple[str, ...]) -> None:
    stream, left = run(pieces, stops)
    assert "".join(left) == stream.text == slow_cut("".join(pieces), stops)


@given(pieces=st.lists(st.text(alphabet="ab🌊", max_size=4), max_size=12), stops=stop_sets)
def test_what_has_left_is_never_taken_back(pieces: list[str], stops: tuple[str, ...]) -> None:
    """After every token, everything that could be the beginning of a stop string is still here, and nothing else is."""
    stream, sent = TextStream(Pieces(pieces), stops), ""
    for number in range(len(pieces)):
        stream.push(number)
        sent += stream.take()[0]
        if stream.stopped:
            break
        beginnings = [size for stop in stops for size in range(1, len(stop)) if stream.text.endswith(stop[:size])]
        assert len(stream.text) - len(sent) == max(beginnings, default=0)


@given(pieces=st.lists(st.text(alphabet="ab", max_size=3), min_size=1, max_size=10), stops=stop_sets)
def test_every_token_leaves_once_and_their_texts_join(pieces: list[str], stops: tuple[str, ...]) -> None:
    stream, pushed = TextStream(Pieces(pieces), stops), 0
    numbers: list[int] = []
    for number in range(len(pieces)):
        if not stream.stopped:
            stream.push(number)
            pushed += 1
            _, first, last = stream.take()
            numbers += range(first, last)
    stream.close()
    _, first, last = stream.take()
    numbers += range(first, last)
    assert numbers == list(range(pushed))
    assert "".join(stream.text[stream.start(i) : stream.ends[i]] for i in numbers) == stream.text


def test_a_beginning_of_a_stop_string_waits_and_leaves_when_it_turns_out_to_be_none() -> None:
    _, left = run(["one #", "#", "# two"], ("####",))
    assert left == ["one ", "", "### two", ""]


def test_at_the_end_a_half_stop_string_is_text() -> None:
    _, left = run(["one ##"], ("###",))
    assert left == ["one ", "##"]


def test_what_the_decoder_holds_back_belongs_to_the_last_token() -> None:
    stream = TextStream(Pieces(["a", ""], rest="\ufffd"))
    stream.push(0)
    stream.push(1)
    stream.close()
    assert stream.text == "a\ufffd"
    assert stream.ends == [1, 2]


@given(text=texts, stop=st.text(alphabet="ab", min_size=1, max_size=5))
def test_overhang_is_the_longest_end_that_begins_the_stop(text: str, stop: str) -> None:
    sizes = [size for size in range(len(stop)) if size <= len(text) and text[len(text) - size :] == stop[:size]]
    assert overhang(text, stop) == max(sizes)


@given(text=st.text(min_size=1, max_size=20))
def test_bytes_in_characters_out(tokenizer: Tokenizer, text: str) -> None:
    """One token per byte: only whole characters leave, and all of them do."""
    stream, left = TextStream(IncrementalDecoder(tokenizer)), []
    for byte in text.encode():
        stream.push(byte)
        left.append(stream.take()[0])
    stream.close()
    left.append(stream.take()[0])
    assert "".join(left) == text
    assert all(part in ("", *text) for part in left if "\ufffd" not in text)
