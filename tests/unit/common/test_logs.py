"""No secret reaches a log, whatever its name or place."""

import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from taprail_common.logs import configure_logs
from taprail_common.service import ServiceManager

KEY = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJpZCI6InVzZXJfMSJ9.c2lnbmF0dXJlLW9mLWl0"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Nobody after us writes into a stream of ours."""
    handlers = logging.getLogger().handlers[:]
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers = handlers


@pytest.fixture
def log() -> io.StringIO:
    stream = io.StringIO()
    configure_logs(json=True, stream=stream)
    return stream


def test_secrets_are_hidden_and_public_hashes_are_not(log: io.StringIO) -> None:
    structlog.get_logger().warning(
        f"using {KEY}",
        uid="04DE5F1EACC040",
        deep={"PIN": "1234", "list": [f"Bearer {JWT}"]},
        tx_hash="0x" + KEY,
    )
    text = log.getvalue()
    record = json.loads(text)
    assert record["event"] == "using [hidden]"
    assert record["deep"] == {"PIN": "[hidden]", "list": ["Bearer [hidden]"]}
    assert record["tx_hash"] == "0x" + KEY
    assert "04DE5F" not in text
    assert JWT not in text


def test_the_standard_loggers_go_the_same_way(log: io.StringIO) -> None:
    logging.getLogger("some.library").error("token %s", JWT)
    assert JWT not in log.getvalue()
    assert json.loads(log.getvalue())["level"] == "error"


def test_secrets_in_tracebacks_are_hidden(log: io.StringIO) -> None:
    try:
        raise ValueError(KEY)
    except ValueError:
        structlog.get_logger().error("failed", exc_info=True)
    assert KEY not in log.getvalue()
    assert "ValueError" in log.getvalue()


@pytest.mark.parametrize("json_lines", [True, False])
def test_a_traceback_shows_no_values_of_variables(json_lines: bool) -> None:
    stream = io.StringIO()
    configure_logs(json=json_lines, stream=stream)
    try:
        _fail_with(bytes.fromhex(KEY)[:7], KEY[:20])
    except ValueError:
        structlog.get_logger().exception("failed")
        logging.getLogger("some.library").exception("failed")
    text = stream.getvalue()
    assert text.count("ValueError: [hidden]") == 2
    assert KEY[:20] not in text
    assert "uid = " not in text


def _fail_with(uid: bytes, text: str) -> None:
    # Locals of a frame that fails: what a traceback with variables would print.
    assert uid
    assert text
    raise ValueError(KEY)


def test_each_line_has_its_priority_where_the_stream_is_the_journals(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("w+") as stream:
        status = os.fstat(stream.fileno())
        said = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        configure_logs(json=True, stream=stream, manager=ServiceManager.named_in(said))
        structlog.get_logger().error("first")
        structlog.get_logger().info("second")
        logging.getLogger("some.library").warning("third")
        stream.seek(0)
        lines = stream.read().splitlines()
    assert [line[:3] for line in lines] == ["<3>", "<6>", "<4>"]
    assert json.loads(lines[0][3:])["event"] == "first"


def test_no_priority_where_the_stream_is_another(tmp_path: Path) -> None:
    redirected = tmp_path / "log"
    with redirected.open("w") as stream:
        configure_logs(json=True, stream=stream, manager=ServiceManager(journal="1:2"))
        structlog.get_logger().info("plain")
    assert json.loads(redirected.read_text())["event"] == "plain"
