"""Text comes in pieces, files taking turns, and is cut to a number of tokens. A character stands for a token here."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import BadValue, Unavailable
from profiles.corpus import CHUNK_TOKENS, PIECE_BYTES, Text, pieces, read_files, read_piece, read_standard_library, standard_library


def letters(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def read(*paths: Path, tokens: int = 100_000, context: int = 4096) -> Text:
    return read_files(paths, letters, tokens=tokens, context=context)


def spelled(text: Text) -> str:
    return "".join(chr(token) for chunk in text.chunks for token in chunk.tokens)


def test_a_short_file_is_one_chunk(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("héllo")
    text = read(tmp_path / "a.txt")
    assert spelled(text) == "héllo"
    assert text.tokens == 5
    assert text.description.startswith("a.txt, 6 bytes, sha256 ")


@pytest.mark.parametrize("context", [7, CHUNK_TOKENS, 10 * CHUNK_TOKENS])
def test_chunks_are_no_longer_than_the_context_and_a_bound(tmp_path: Path, context: int) -> None:
    (tmp_path / "a.txt").write_text("word " * 3000)
    text = read(tmp_path / "a.txt", context=context)
    assert max(len(chunk.tokens) for chunk in text.chunks) == min(context, CHUNK_TOKENS)
    assert spelled(text) == "word " * 3000


def test_files_take_turns_so_that_a_budget_reaches_all_of_them(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_text(f"{name}\n" * PIECE_BYTES)
    order = [piece[0] for piece in pieces([tmp_path / name for name in "abc"])]
    assert order == list("abcabc")
    text = read(*(tmp_path / name for name in "abc"), tokens=2 * PIECE_BYTES + 5)
    assert text.tokens == 2 * PIECE_BYTES + 5
    assert spelled(text).endswith("c\nc\nc")


def test_the_halves_are_interleaved_and_even(tmp_path: Path) -> None:
    (tmp_path / "long").write_text("line\n" * 20_000)
    chunks = read(tmp_path / "long").chunks
    first = sum(len(chunk.tokens) for chunk in chunks if chunk.in_first_half)
    assert abs(2 * first - 100_000) <= PIECE_BYTES
    assert chunks[0].in_first_half
    assert not chunks[PIECE_BYTES // CHUNK_TOKENS + 1].in_first_half


def test_the_same_text_has_the_same_name_and_another_has_another(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    first = read(tmp_path / "a")
    assert read(tmp_path / "a") == first
    (tmp_path / "a").write_text("two")
    assert read(tmp_path / "a").description != first.description


def test_many_files_are_counted_rather_than_named(tmp_path: Path) -> None:
    for name in "abcde":
        (tmp_path / name).write_text("x")
    assert read(*sorted(tmp_path.iterdir())).description.startswith("a, b, c and 2 more, 5 bytes")


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1), copies=st.integers(1, 4000))
def test_no_piece_ends_inside_a_character(tmp_path_factory: pytest.TempPathFactory, text: str, copies: int) -> None:
    path = tmp_path_factory.mktemp("corpus") / "text"
    data = (text * copies).encode()[: 3 * PIECE_BYTES]
    whole = data.decode(errors="ignore")
    path.write_bytes(whole.encode())
    assert "".join(pieces([path])) == whole


def test_a_piece_ends_after_a_line_where_it_can(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * (PIECE_BYTES - 10) + b"\n" + b"y" * 100)
    assert read_piece(tmp_path / "a", 0) == b"x" * (PIECE_BYTES - 10) + b"\n"
    assert read_piece(tmp_path / "a", PIECE_BYTES - 9) == b"y" * 100


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"", "is empty"), (b"fine\xff", r"is not UTF-8 text \(byte 4\)"), (b"x" * 9000 + b"\xe4", r"is not UTF-8 text \(byte 9000\)")],
)
def test_a_file_that_is_no_text(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(BadValue, match=f"--corpus: .*bad.* {complaint}"):
        read(tmp_path / "bad")


def test_a_file_that_is_not_there_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="cannot be read: No such file"):
        read(tmp_path / "none")
    with pytest.raises(BadValue, match="is a folder; name the text files in it"):
        read(tmp_path)


@pytest.mark.parametrize("tokens", [0, -5])
def test_a_budget_is_at_least_a_token(tmp_path: Path, tokens: int) -> None:
    (tmp_path / "a").write_text("x")
    with pytest.raises(BadValue, match="--tokens"):
        read(tmp_path / "a", tokens=tokens)


def test_without_files_the_standard_library_speaks() -> None:
    text = read_standard_library(letters, tokens=30_000, context=512)
    assert text.tokens == 30_000
    assert "standard library of CPython" in text.description
    assert read_standard_library(letters, tokens=30_000, context=512) == text


def test_the_standard_library_leaves_its_tests_out_and_is_shuffled() -> None:
    names = [path.name for path in standard_library()]
    assert "argparse.py" in names
    assert not any("test" in path.parts or "site-packages" in path.parts for path in standard_library())
    assert names != sorted(names)


def test_a_python_without_sources_is_told_to_name_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(Unavailable, match="name a text with --corpus"):
        standard_library()
