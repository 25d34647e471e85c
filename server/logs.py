"""Logs: one line an event on standard error, for people or as JSON, with the id of the request it belongs to. Knows no HTTP."""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)


class RequestIds(logging.Filter):
    """Gives every record the id of the request it was made in."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = REQUEST_ID.get()
        return True


class Lines(logging.Formatter):
    """2026-01-31 12:00:00,123 req_4f… message"""

    def format(self, record: logging.LogRecord) -> str:
        line, request_id = super().format(record), getattr(record, "request_id", None)
        return f"{self.formatTime(record)} {request_id} {line}" if request_id else f"{self.formatTime(record)} {line}"


class JsonLines(logging.Formatter):
    """time, level, logger, message, request_id, traceback, and whatever the event's `facts` are."""

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": getattr(record, "request_id", None),
            "traceback": self.formatException(record.exc_info) if record.exc_info else None,
        }
        return json.dumps({name: value for name, value in told.items() if value is not None} | getattr(record, "facts", {}))


def start_logging(form: str, stream: TextIO = sys.stderr) -> None:
    """`form`: "text" or "json"."""
    handler = logging.StreamHandler(stream)
    handler.addFilter(RequestIds())
    handler.setFormatter(JsonLines() if form == "json" else Lines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
