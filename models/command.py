"""How each of our commands ends: what an exception becomes on the terminal. Torch-free; knows no command."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence

from models.arguments import Parser, joined
from models.errors import ThermoclineError

USER_ERROR = 2
INTERRUPTED = 130

Subcommand = Callable[[argparse.Namespace], int]


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


def run_subcommand(build: Callable[[], Parser], commands: Mapping[str, Subcommand], argv: Sequence[str] | None) -> int:
    """`run`, for a command whose parser has subcommands: calls the one that was named, with what was parsed."""

    def chosen() -> int:
        args = build().parse_args(joined(sys.argv[1:] if argv is None else argv))
        return commands[args.command](args)

    return run(chosen)


def one_line(message: str) -> str:
    """A library's message may span lines; a user's error is one."""
    return " ".join(message.split())
