"""A command ends with a code and at most one line, whatever happens inside."""

import subprocess
import sys
from pathlib import Path

import pytest

from models.command import run
from models.errors import BadCheckpoint


def test_a_success_keeps_its_own_code() -> None:
    assert run(lambda: 0) == 0
    assert run(lambda: 3) == 3


def test_a_users_mistake_is_one_line_and_code_two(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> int:
        raise BadCheckpoint(Path("here"), "is not\na model")

    assert run(broken) == 2
    assert capsys.readouterr().err == "error: here: is not a model\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (NotADirectoryError(20, "Not a directory", "/x/packed"), "error: /x/packed: Not a directory\n"),
        (OSError("broken"), "error: broken\n"),
        (MemoryError(), "error: this needs more memory than there is\n"),
    ],
)
def test_what_the_machine_refuses_is_one_line_and_code_two(error: Exception, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    def refused() -> int:
        raise error

    assert run(refused) == 2
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(("message", "line"), [("", "interrupted\n"), ("go on with X", "go on with X\n")])
def test_control_c_is_130(message: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped() -> int:
        raise KeyboardInterrupt(message)

    assert run(stopped) == 130
    assert capsys.readouterr().err == line


def test_our_own_faults_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 // 0)


def test_a_reader_that_leaves_is_met_with_silence() -> None:
    program = "from models.command import run\nraise SystemExit(run(lambda: [print(i) for i in range(10**6)] and 0))"
    writer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stderr is not None
    with writer.stdout, writer.stderr:
        writer.stdout.readline()
        writer.stdout.close()
        assert writer.wait(30) == 0
        assert writer.stderr.read() == b""
