"""How kernels are compiled and where the machine code is kept. Knows no arithmetic.

Numba does not notice an edit of a callee in another file and would run stale code, so the cache directory carries a hash of every file of
this folder, and of those whose constants kernels are compiled with. The flags of fast arithmetic leave NaN and infinity alone: with them
`isnan` would be optimised away.
"""

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numba.extending

from models import bits, spec
from models.paths import home

P = ParamSpec("P")
R = TypeVar("R")

loose: Any = numba  # half typed
config: Any = numba.config  # its fields are made at run time
FASTMATH = {"reassoc", "contract", "nsz", "arcp", "afn"}

SERIAL_WEIGHTS = 2**15  # up to so many, a call is over before a second thread has woken: it stays on the caller's


@cache
def cache_folder() -> Path:
    """`home()/kernels/<hash of the sources>`, or the same under the temporary folder when that cannot be written."""
    digest = hashlib.sha256()
    for source in (*sorted(Path(__file__).parent.glob("*.py")), Path(bits.__file__), Path(spec.__file__)):
        digest.update(source.read_bytes())
    name, shared = Path("kernels") / digest.hexdigest()[:16], Path(tempfile.gettempdir()) / "thermocline"
    if _writable(home() / name):
        return home() / name
    if _private(shared) and _writable(shared / name):
        return shared / name
    return Path(tempfile.mkdtemp(prefix="thermocline-kernels-"))


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _private(folder: Path) -> bool:
    """Whether nobody else can put anything there: machine code is run as it is read, and Numba's index is a pickle."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return False
    if not hasattr(os, "getuid"):  # Windows, whose temporary folder is the user's own
        return True
    status = folder.lstat()
    return status.st_uid == os.getuid() and stat.S_ISDIR(status.st_mode) and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) == 0


@contextmanager
def _cached_here() -> Iterator[None]:
    """Numba reads its cache folder when a function is decorated; other users of Numba in the process keep theirs.

    Code from the disk is linked against the thread pool: asking for the number of threads is Numba's public way to load it.
    """
    numba.get_num_threads()
    before, config.CACHE_DIR = config.CACHE_DIR, str(cache_folder())
    try:
        yield
    finally:
        config.CACHE_DIR = before


def intrinsic(typed: Callable[..., Any]) -> Callable[..., Any]:
    """A function that only kernels call, given as the IR it emits: `typed(typing, *types)` -> signature, code."""
    return cast(Callable[..., Any], numba.extending.intrinsic(typed))


def inner(function: Callable[P, R]) -> Callable[P, R]:
    """A function that only kernels call: compiled into them."""
    return cast(Callable[P, R], numba.njit(nogil=True, fastmath=FASTMATH, error_model="numpy")(function))


def exact_inner(function: Callable[P, R]) -> Callable[P, R]:
    """`inner` without fast arithmetic: rounds where it is written, so it gives the same bits wherever it is compiled into."""
    return cast(Callable[P, R], numba.njit(nogil=True, error_model="numpy")(function))


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """A function that Python calls with an address: it runs without the GIL, enters regions with `in_parallel`, and is kept on disk."""
    with _cached_here():
        jit = numba.njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy")
        return cast(Callable[P, R], jit(function))


def exact_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """`kernel` without fast arithmetic."""
    with _cached_here():
        return cast(Callable[P, R], numba.njit(nogil=True, cache=True, error_model="numpy")(function))


def native(signature: Any, function: Callable[..., Any]) -> Callable[[], int]:
    """The address of `function` as C sees it; compiled, or read from the disk, when first asked for."""

    @cache
    def compiled() -> Any:
        with _cached_here():
            return loose.cfunc(signature, cache=True)(function)

    return lambda: int(compiled().address)
