"""A real `server run` in a process of its own, for benchmarks that talk to it over its port."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from models.errors import ThermoclineError

PATIENCE_SECONDS = 60.0  # for a server that was told to stop
START = "import sys; from server.cli import main; sys.exit(main())"


@contextmanager
def serving(model: str, *flags: str, log: Path | None = None) -> Iterator[tuple[psutil.Process, str]]:
    """A ready server and the address of its API. What it logs goes to `log`; it is told to stop at the end, and waited for."""
    command = [sys.executable, "-c", START, "run", model, "--port", "0", *flags]
    with (
        (log or Path("/dev/null")).open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            url = next((match[1] for line in process.stdout if (match := re.search(r"ready at (\S+)\.", line))), None)
            if url is None:
                raise ThermoclineError(f"`server run {model}` ended before it was ready")
            yield psutil.Process(process.pid), url
        finally:
            stop(process)


def stop(process: "subprocess.Popen[str]") -> None:
    """As a person would: asks, then insists."""
    process.terminate()
    try:
        process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
