"""GGUF headers: read as the gguf package writes them, and every way they can be wrong is one line and no crash."""

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from models.checkpoint.gguf import is_gguf, read_gguf, read_ggufs
from models.checkpoint.gguf_values import Array
from models.errors import BadCheckpoint
from tests.gguf_files import Raw, string, strings_key, tensor_info, text_key, u32_key

WEIGHTS = np.arange(96, dtype=np.float32).reshape(3, 32)


def written(path: Path, **options: object) -> Path:
    """One of every kind of value and two tensors, by the package."""
    writer = gguf.GGUFWriter(path, "llama", **options)  # type: ignore[arg-type]
    writer.add_uint8("a.u8", 255)
    writer.add_int8("a.i8", -128)
    writer.add_uint16("a.u16", 65535)
    writer.add_int16("a.i16", -32768)
    writer.add_uint32("a.u32", 2**32 - 1)
    writer.add_int32("a.i32", -(2**31))
    writer.add_uint64("a.u64", 2**64 - 1)
    writer.add_int64("a.i64", -(2**63))
    writer.add_float32("a.f32", 0.5)
    writer.add_float64("a.f64", 1e-300)
    writer.add_bool("a.yes", True)
    writer.add_string("a.text", "naïve 🐍\n")
    writer.add_array("a.strings", ["one", "", "drei ß"])
    writer.add_array("a.numbers", [1.5, -2.0])
    writer.add_tensor("first.weight", WEIGHTS)
    writer.add_tensor("second.weight", WEIGHTS.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_package_and_we_read_the_same(tmp_path: Path) -> None:
    path = written(tmp_path / "a.gguf")
    found, reader = read_gguf(path), gguf.GGUFReader(path)
    assert {name.split(".")[1]: value for name, value in found.metadata.values.items() if not isinstance(value, Array)} == {
        "architecture": "llama", "u8": 255, "i8": -128, "u16": 65535, "i16": -32768, "u32": 2**32 - 1, "i32": -(2**31),
        "u64": 2**64 - 1, "i64": -(2**63), "f32": 0.5, "f64": 1e-300, "yes": True, "text": "naïve 🐍\n",
    }  # fmt: skip
    assert found.metadata.strings("a.strings") == [b"one", b"", "drei ß".encode()]
    assert found.metadata.numbers("a.numbers") == (1.5, -2.0)
    for theirs in reader.tensors:
        ours = found.tensors[theirs.name]
        assert (ours.kind, ours.shape, ours.offset) == (theirs.tensor_type.name, tuple(theirs.shape[::-1]), theirs.data_offset)
        assert path.read_bytes()[ours.offset : ours.offset + ours.nbytes] == theirs.data.tobytes()


def test_version_2_and_powerinfers_magic_are_read_too(tmp_path: Path) -> None:
    data = bytearray(written(tmp_path / "a.gguf").read_bytes())
    data[4:8] = struct.pack("<I", 2)
    data[:4] = b"PWRI"
    (tmp_path / "b.gguf").write_bytes(data)
    one, two = read_gguf(tmp_path / "a.gguf"), read_gguf(tmp_path / "b.gguf")
    assert (one.magic, two.magic) == (b"GGUF", b"PWRI")
    assert [(tensor.offset, tensor.shape) for tensor in one.tensors.values()] == [(t.offset, t.shape) for t in two.tensors.values()]


def test_another_alignment_is_kept(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_custom_alignment(256)
    writer.add_tensor("a", WEIGHTS)
    writer.add_tensor("b", WEIGHTS)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    offsets = [tensor.offset for tensor in read_gguf(tmp_path / "a.gguf").tensors.values()]
    assert offsets == [tensor.data_offset for tensor in gguf.GGUFReader(tmp_path / "a.gguf").tensors]
    assert all(offset % 256 == 0 for offset in offsets)


def test_what_is_a_gguf_file(tmp_path: Path) -> None:
    (tmp_path / "no-suffix").write_bytes(b"PWRI....")
    (tmp_path / "config.json").write_text("{}")
    assert is_gguf(tmp_path / "no-suffix")
    assert is_gguf(tmp_path / "missing.gguf")
    assert not is_gguf(tmp_path / "config.json")
    assert not is_gguf(tmp_path)


# ---------------------------------------------------------------- shards


def shards(folder: Path) -> list[Path]:
    """Three files with a tensor each, by the package."""
    writer = gguf.GGUFWriter(folder / "m.gguf", "llama", split_max_tensors=1)
    for name in "abc":
        writer.add_tensor(name, WEIGHTS)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("m-*.gguf"))


def test_any_shard_stands_for_all(tmp_path: Path) -> None:
    paths = shards(tmp_path)
    assert len(paths) == 3
    for path in paths:
        found = read_ggufs(path)
        assert [(name, tensor.path) for name, tensor in found.tensors.items()] == list(zip("abc", paths, strict=True))
        assert found.metadata.text("general.architecture") == "llama"


def test_a_missing_a_renamed_and_a_doubled_shard_are_named(tmp_path: Path) -> None:
    first, second, third = shards(tmp_path)
    third_bytes = third.read_bytes()
    third.write_bytes(second.read_bytes())
    with pytest.raises(BadCheckpoint, match="mixed up"):
        read_ggufs(first)
    third.unlink()
    with pytest.raises(BadCheckpoint, match=third.name):
        read_ggufs(first)
    third.write_bytes(third_bytes)
    other = first.rename(tmp_path / "other.gguf")
    with pytest.raises(BadCheckpoint, match="must be named"):
        read_ggufs(other)


def split_keys(number: int, count: int, tensors: int) -> list[bytes]:
    return [u32_key("split.no", number), u32_key("split.count", count), u32_key("split.tensors.count", tensors)]


def test_shards_that_hold_too_few_or_the_same_tensors_are_refused(tmp_path: Path) -> None:
    def pair(names: tuple[str, str], told: int) -> Path:
        for number, name in enumerate(names):
            raw = Raw(split_keys(number, 2, told), [tensor_info(name, [4])], bytes(16))
            raw.write(tmp_path / f"x-{number + 1:05d}-of-00002.gguf")
        return tmp_path / "x-00001-of-00002.gguf"

    assert len(read_ggufs(pair(("a", "b"), 2)).tensors) == 2
    with pytest.raises(BadCheckpoint, match="hold 2 tensors, and should hold 3"):
        read_ggufs(pair(("a", "b"), 3))
    with pytest.raises(BadCheckpoint, match="in another shard too"):
        read_ggufs(pair(("a", "a"), 2))


def test_shards_without_end_are_not_counted_out(tmp_path: Path) -> None:
    path = Raw(split_keys(0, 2**31 - 1, 1), [tensor_info("a", [4])], bytes(16)).write(tmp_path / "x-00001-of-2147483647.gguf")
    with pytest.raises(BadCheckpoint, match="must be named"):
        read_ggufs(path)


# ---------------------------------------------------------------- what is wrong is one line

ONE = [tensor_info("a", [4])]
HUGE = 2**63
WRONG = {
    "nothing": (Raw(magic=b""), "not a GGUF file|truncated"),
    "another magic": (Raw(magic=b"GGML"), "not a GGUF file"),
    "version 1": (Raw(version=1), "version 1; supported: 2, 3"),
    "version 4": (Raw(version=4), "version 4"),
    "big-endian": (Raw(version=3 << 24), "big-endian"),
    "keys without end": (Raw(n_keys=2**64 - 1), "claims 0 tensors and 18446744073709551615 keys"),
    "tensors without end": (Raw(n_tensors=HUGE), "claims 9223372036854775808 tensors"),
    "more keys than there is room for": (Raw([text_key("a", "b")], n_keys=50_000), "claims"),
    "more tensors than there are": (Raw(tensors=ONE, n_tensors=2, data=bytes(64)), "a tensor has a name of 0 bytes"),
    "a key that stands twice": (Raw([u32_key("a", 1), u32_key("a", 1)]), "key 'a' twice"),
    "a key without a name": (Raw([u32_key("", 1)]), "a name of 0 bytes"),
    "a key with an endless name": (Raw([struct.pack("<Q", HUGE)], data=bytes(64)), "a name of 9223372036854775808 bytes"),
    "a key that is not UTF-8": (Raw([string(b"\xff\xfe") + struct.pack("<II", 4, 1)]), "not UTF-8"),
    "a key over two lines": (Raw([u32_key("a\nb", 1)]), "cannot be printed"),
    "a value of no type": (Raw([string("a") + struct.pack("<II", 13, 0)]), "key 'a' is of type 13"),
    "neither true nor false": (Raw([string("a") + struct.pack("<IB", 7, 2)]), "neither true nor false"),
    "an endless string": (Raw([string("a") + struct.pack("<IQ", 8, 2**62)]), "a string of 4611686018427387904 bytes"),
    "a string past the end": (Raw([string("a") + struct.pack("<IQ", 8, 5000)]), "truncated or corrupt: 5000 bytes wanted"),
    "an endless array": (Raw([string("a") + struct.pack("<IIQ", 9, 4, HUGE)]), "key 'a' claims 9223372036854775808 items"),
    "an array past the end": (Raw([string("a") + struct.pack("<IIQ", 9, 0, 5000)]), "key 'a' claims 5000 items"),
    "an endless array of strings": (Raw([string("a") + struct.pack("<IIQ", 9, 8, HUGE)]), "claims 9223372036854775808 items"),
    "a string of an array past the end": (Raw([string("a") + struct.pack("<IIQQ", 9, 8, 1, HUGE)]), "truncated or corrupt"),
    "an array of arrays": (Raw([string("a") + struct.pack("<IIQ", 9, 9, 1)]), "an array of type 9"),
    "no dimensions": (Raw(tensors=[tensor_info("a", [])], data=bytes(64)), "'a' has 0 dimensions"),
    "too many dimensions": (Raw(tensors=[tensor_info("a", [1] * 5)], data=bytes(64)), "'a' has 5 dimensions"),
    "dimensions without end": (Raw(tensors=[string("a") + struct.pack("<I", 2**32 - 1)], data=bytes(64)), "4294967295 dimensions"),
    "a dimension of nothing": (Raw(tensors=[tensor_info("a", [4, 0])], data=bytes(64)), r"'a' of shape \[0, 4\]"),
    "more weights than bytes": (Raw(tensors=[tensor_info("a", [2**40, 2**40])], data=bytes(64)), "'a' ends at byte"),
    "a shape that overflows": (Raw(tensors=[tensor_info("a", [2**32, 2**32])], data=bytes(64)), "'a' ends at byte"),
    "half a block": (Raw(tensors=[tensor_info("a", [48], kind=8)], data=bytes(64)), "cannot be stored as Q8_0"),
    "a type we do not read": (Raw(tensors=[tensor_info("a", [256], kind=16)], data=bytes(999)), "stored as IQ2_XXS; supported: F32"),
    "a type that is none": (Raw(tensors=[tensor_info("a", [256], kind=77)], data=bytes(999)), "stored as type 77"),
    "bytes past the end": (Raw(tensors=[tensor_info("a", [4], offset=64)], data=bytes(64)), "'a' ends at byte 144, the file at 128"),
    "an offset without end": (Raw(tensors=[tensor_info("a", [4], offset=2**64 - 32)], data=bytes(64)), "'a' ends at byte"),
    "an offset out of step": (Raw(tensors=[tensor_info("a", [4], offset=5)], data=bytes(64)), "'a' begins at 5"),
    "a name that stands twice": (Raw(tensors=ONE * 2, data=bytes(64)), "tensor 'a' twice"),
    "shared bytes": (Raw(tensors=[*ONE, tensor_info("b", [4])], data=bytes(64)), "'a' and 'b' share bytes"),
    "an alignment of nothing": (Raw([u32_key("general.alignment", 0)]), "general.alignment"),
    "an odd alignment": (Raw([u32_key("general.alignment", 24)]), "no power of two"),
    "an endless alignment": (Raw([u32_key("general.alignment", 1 << 30)]), "no power of two up to"),
    "an alignment that is text": (Raw([text_key("general.alignment", "32")]), "'32' is not a whole number"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_header_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    raw, why = WRONG[name]
    with pytest.raises(BadCheckpoint, match=why) as caught:
        read_gguf(raw.write(tmp_path / "a.gguf"))
    assert "\n" not in str(caught.value)


def test_no_beginning_of_a_file_is_taken_for_the_whole(tmp_path: Path) -> None:
    data = written(tmp_path / "a.gguf").read_bytes()
    for kept in range(0, len(data), 13):
        (tmp_path / "cut.gguf").write_bytes(data[:kept])
        with pytest.raises(BadCheckpoint):
            read_gguf(tmp_path / "cut.gguf")


def test_a_folder_and_nothing_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing.gguf"):
        with pytest.raises(BadCheckpoint, match="cannot be read"):
            read_gguf(path)


# ---------------------------------------------------------------- metadata


def test_a_key_that_does_not_hold_what_it_should_is_named(tmp_path: Path) -> None:
    keys = [text_key("text", "x" * 1000), u32_key("large", 2**31), strings_key("list", ["a"]), text_key("odd", b"\xff")]
    metadata = read_gguf(Raw(keys).write(tmp_path / "a.gguf")).metadata
    for ask, why in (
        (lambda: metadata.count("text"), "key 'text': 'xxx.*… is not a whole number"),
        (lambda: metadata.count("large"), "2147483648 is not a whole number below"),
        (lambda: metadata.count("absent"), "'absent' is missing"),
        (lambda: metadata.number("list"), "an array of 1 is not a number"),
        (lambda: metadata.text("odd"), "is not a string"),
        (lambda: metadata.text("absent"), "'absent' is missing"),
        (lambda: metadata.flag("large", default=True), "not true or false"),
        (lambda: metadata.numbers("list"), "'list' is not an array of numbers"),
        (lambda: metadata.strings("text"), "'text' is not an array of strings"),
        (lambda: metadata.expect("large", 1, 2), "only 1 or 2 has been tested"),
    ):
        with pytest.raises(BadCheckpoint, match=why):
            ask()


def test_a_key_nobody_asked_for_is_named_unless_it_says_nothing(tmp_path: Path) -> None:
    keys = [u32_key("llama.known", 1), u32_key("llama.nothing", 0), u32_key("other.thing", 5), u32_key("llama.strange", 5)]
    metadata = read_gguf(Raw(keys).write(tmp_path / "a.gguf")).metadata
    metadata.count("llama.known")
    with pytest.raises(BadCheckpoint, match=r"'llama\.strange': 5: a feature this program does not know"):
        metadata.finish("llama.")
