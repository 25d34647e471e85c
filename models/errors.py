"""Everything that can be wrong with what a user gave us. Each error is one clear line; nothing here knows of HTTP or exit codes.

ThermoclineError
├── BadValue            a flag or a field with a value we do not accept
├── BadConfig           a config.json we cannot read, or a value nobody has tested
├── BadCheckpoint       a directory, a tensor file or a tokenizer that is not what it should be
│   └── MissingTensor   a tensor the architecture needs and the files lack
├── BadArtefact         one of our own files: damaged, of another version, or missing
│   └── WrongModel      one of our own files, made from another model
├── DoesNotFit          a budget of VRAM, RAM or disk that is too small
└── Unavailable         something of the machine: a port in use, no such device
"""

from pathlib import Path

from models.units import format_bytes


class ThermoclineError(Exception):
    """Root of the tree. `str(error)` is the line a user reads."""


class BadValue(ThermoclineError):
    def __init__(self, name: str, value: object, why: str) -> None:
        super().__init__(f"{name}: {value!r} {why}")
        self.name, self.value, self.why = name, value, why


class BadConfig(ThermoclineError):
    def __init__(self, path: Path, key: str, why: str) -> None:
        super().__init__(f"{path}: {key}: {why}")
        self.path, self.key, self.why = path, key, why


class BadCheckpoint(ThermoclineError):
    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path, self.why = path, why


class MissingTensor(BadCheckpoint):
    def __init__(self, path: Path, tensor: str) -> None:
        super().__init__(path, f"tensor {tensor!r} is missing")
        self.tensor = tensor


class BadArtefact(ThermoclineError):
    def __init__(self, path: Path, why: str, remedy: str) -> None:
        super().__init__(f"{path}: {why}; {remedy}")
        self.path, self.why, self.remedy = path, why, remedy


class WrongModel(BadArtefact):
    def __init__(self, path: Path, made_from: str, wanted: str, remedy: str) -> None:
        super().__init__(path, f"made from model {made_from}, but the model here is {wanted}", remedy)
        self.made_from, self.wanted = made_from, wanted


class DoesNotFit(ThermoclineError):
    """`what` ("VRAM", "RAM", "disk") lacks `need_bytes - have_bytes`; `advice` says what would fit."""

    def __init__(self, what: str, need_bytes: int, have_bytes: int, advice: str) -> None:
        lacking = format_bytes(need_bytes - have_bytes)
        super().__init__(
            f"{what}: {format_bytes(need_bytes)} needed ({need_bytes} bytes), {format_bytes(have_bytes)} given "
            f"({have_bytes} bytes), {lacking} missing ({need_bytes - have_bytes} bytes); {advice}"
        )
        self.what, self.need_bytes, self.have_bytes, self.advice = what, need_bytes, have_bytes, advice


class DiskFilled(DoesNotFit):
    """The disk had room when the work began, and filled up in the middle of a file."""

    def __init__(self, folder: Path, written_bytes: int) -> None:
        ThermoclineError.__init__(
            self,
            f"disk: {folder} filled up after {format_bytes(written_bytes)} of a file; that file is removed, finished ones stay; "
            "free some space and run the same command again",
        )
        self.what, self.have_bytes, self.need_bytes, self.advice = "disk", written_bytes, written_bytes + 1, "free some space"


class Unavailable(ThermoclineError):
    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")
        self.what, self.why = what, why
