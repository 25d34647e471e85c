"""What a file of PyTorch's holds (`pytorch_model.bin`, `model_3.pt`), without reading it: where each tensor lies. Torch-free.

The format, of PyTorch 1.6 and later: a zip archive, nothing compressed. `NAME/data.pkl` is a pickle that builds a dict of tensors,
`NAME/data/KEY` are their bytes. The file is hostile: the pickle is followed by `pickled.py`, and every bound is checked.
"""

import zipfile
from pathlib import Path

from models.checkpoint.headers import MOST_HEADER_BYTES, MOST_NAME, Entry, is_name, read_exactly
from models.checkpoint.pickled import Interpreter, Member
from models.errors import BadCheckpoint

MAGIC = b"PK\x03\x04"
LOCAL_HEADER_BYTES = 30
MOST_MEMBERS = 1 << 16


def read_table(path: Path) -> dict[str, Entry]:
    """Every tensor of one file, by name, its bounds checked; BadCheckpoint says what is wrong."""
    members = read_members(path)
    pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise BadCheckpoint(path, "is not a file of PyTorch's: it has no data.pkl")
    member = members[pickles[0]]
    if member.nbytes > MOST_HEADER_BYTES:
        raise BadCheckpoint(path, f"describes its tensors in {member.nbytes} bytes, and more than {MOST_HEADER_BYTES} make no sense")
    folder = pickles[0].removesuffix("/data.pkl")
    if (order := members.get(f"{folder}/byteorder")) and bytes(read_exactly(path, order.offset, min(order.nbytes, 8))) != b"little":
        raise BadCheckpoint(path, "is in another byte order than this machine's")
    built = Interpreter(path, folder, members).run(bytes(read_exactly(path, member.offset, member.nbytes)))
    if not isinstance(built, dict):
        raise BadCheckpoint(path, "does not hold tensors by name")
    for name, entry in built.items():
        if not is_name(name) or not isinstance(entry, Entry):
            raise BadCheckpoint(path, f"holds something that is no tensor, as {str(name)[:MOST_NAME]!r}")
    return built


def read_members(path: Path) -> dict[str, Member]:
    """The files in a zip archive, none compressed, all inside it."""
    if not path.is_file():
        raise BadCheckpoint(path, "no such file")
    size = path.stat().st_size
    if size < len(MAGIC) or bytes(read_exactly(path, 0, len(MAGIC))) != MAGIC:
        raise BadCheckpoint(path, "is damaged, or in PyTorch's format from before version 1.6: save it again with a newer one")
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, EOFError) as error:
        raise BadCheckpoint(path, f"is truncated or damaged: {error}") from None
    if len(infos) > MOST_MEMBERS or len({info.filename for info in infos}) < len(infos):
        raise BadCheckpoint(path, "is damaged: it holds too many files, or two of one name")
    return {info.filename: _member(path, info, size) for info in infos}


def _member(path: Path, info: zipfile.ZipInfo, size: int) -> Member:
    """Where the bytes begin is only said in the header before them."""
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
        raise BadCheckpoint(path, "is no file of PyTorch's: parts of it are compressed")
    if not 0 <= info.header_offset <= size - LOCAL_HEADER_BYTES:
        raise BadCheckpoint(path, "is damaged: a part lies outside of it")
    header = read_exactly(path, info.header_offset, LOCAL_HEADER_BYTES)
    widths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    offset = info.header_offset + LOCAL_HEADER_BYTES + widths
    if header[:4] != MAGIC or offset + info.file_size > size:
        raise BadCheckpoint(path, "is damaged: a part lies outside of it")
    return Member(offset, info.file_size)
