"""How each of our commands ends: what an exception becomes on the terminal. Torch-free; knows no command."""

import os
import sys
from collections.abc import Callable

from models.errors import ThermoclineError

USER_ERROR = 2
INTERRUPTED = 130


def run(main: Callable[[], int]) -> int:
    """Calls `main` and gives the exit code: its own, 130 after Ctrl-C, 0 when the reader left.

    2, and one line, after a user's mistake, and when the machine refuses: a file, memory.

    A KeyboardInterrupt raised with a message shows it: how to go on.
    """
    try:
        code = main()
        sys.stdout.flush()
        return code
    except ThermoclineError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return USER_ERROR
    except MemoryError:
        print("error: this needs more memory than there is", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt as stop:
        print(one_line(str(stop)) or "interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the interpreter's last flush is silent
        return 0
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        print(f"error: {one_line(f'{where}{error.strerror or error}')}", file=sys.stderr)
        return USER_ERROR


def one_line(message: str) -> str:
    """A library's message may span lines; a user's error is one."""
    return " ".join(message.split())
