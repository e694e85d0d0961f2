"""A terminal as one writes it in an afternoon: read, post, believe. It shows that faults bite.

It has a good driver and nothing else: no supervisor, no outbox, no table, no look at what was read.
"""

from __future__ import annotations

import http.client
import json
import math
import threading
import uuid
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from taprail_hwsim.pads import Pad
from taprail_terminal.readers import make_driver

_READ_SUN: Final = ("00A4040007D276000085010100", "00A4000C02E104", "00B0000080")
_TRIES: Final = 3
_JOIN_LIMIT_S: Final = 5.0


class NaiveTerminal:
    """Runs in a thread of its own until it is stopped or dies."""

    def __init__(self, pad: Pad, gateway_url: str, on_answer: Callable[[], None]) -> None:
        """`on_answer` is called in its thread for each card that was answered, and at its death."""
        self._pad, self._url, self._on_answer = pad, urlsplit(gateway_url), on_answer
        self._stopping = False
        self.opened = threading.Event()
        self.died: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> bool:
        """Whether it ended."""
        self._stopping = True
        self._thread.join(_JOIN_LIMIT_S)
        return not self._thread.is_alive()

    def _run(self) -> None:
        driver = make_driver(self._pad.driver, self._pad.port)
        try:
            driver.open()
            self.opened.set()
            while not self._stopping:
                driver.rest()
                card = driver.wait_for_card()
                if card is not None:
                    driver.start_session(budget_s=math.inf)
                    read = [driver.exchange(bytes.fromhex(apdu)) for apdu in _READ_SUN]
                    self._sell(read[-1].hex())
                    self._on_answer()
        except Exception as exc:  # noqa: BLE001 - dying of anything is what this is here for
            self.died = exc
            self._on_answer()
        finally:
            driver.close()

    def _sell(self, proof: str) -> None:
        """Ask until somebody answers; each time is a request of its own."""
        for _ in range(_TRIES):
            request = {"requestId": str(uuid.uuid4()), "terminalId": "t1", "amount": 1}
            body = json.dumps({**request, "currency": "USDC", "proof": proof})
            line = http.client.HTTPConnection(self._url.hostname or "", self._url.port)
            try:
                line.request("POST", "/api/payment/process-async", body)
                line.getresponse().read()
            except (OSError, http.client.HTTPException):
                continue
            return
