"""schemathesis reads our OpenAPI document and tries every field of every route: no 5xx, and every answer as the document says."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.serving import Running

pytestmark = pytest.mark.slow
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,"
    "unsupported_method"
)
PHASES = "examples,coverage,fuzzing"


def test_nothing_that_can_be_asked_is_answered_otherwise_than_documented(small: Running, tmp_path: Path) -> None:
    """/map is left out: it is a stream without an end. The document gives all errors one schema, so their shape is checked too."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{small.url}/openapi.json", "--checks", CHECKS, "--phases", PHASES]
    limits = ["--max-examples", "25", "--seed", "1", "--generation-deterministic", "--request-timeout", "60", "--no-color"]
    limits += ["--exclude-path", "/map"]
    done = subprocess.run([*command, *limits], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert small.get("/health")["status"] == "ok"
    small.until_idle()
