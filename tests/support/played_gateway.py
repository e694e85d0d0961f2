"""A gateway of the tests' own: a real HTTP and Socket.IO server that can be told to misbehave.

It has a key, keeps every request's bytes, and answers the same request with the same outcome, as
the contract says. `plays` are what it does with the next posts instead of answering them properly.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import socketio
from aiohttp import web
from nacl.signing import SigningKey

from taprail_common.clock import SystemClock, rfc3339
from taprail_common.ids import new_id
from taprail_common.offline_wire import POLICY_PATH, OfflinePolicy
from taprail_common.signing import Domain, gateway_id, sign

Play = Callable[["PlayedGateway", bytes], web.Response]


class PlayedGateway:
    """Serve it with `serving`."""

    def __init__(self, merchant: str = "cafe", currency: str = "USDC", decimals: int = 6) -> None:
        self.key = SigningKey.generate()
        self.facts = {"merchantId": merchant, "currency": currency, "decimals": decimals}
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.plays: list[Play | str] = []
        self.decline: dict[str, Any] | None = None
        self.offline: OfflinePolicy | None = None
        self.hello_status: int | None = None
        self.clock_offset_ms = 0
        self.connects: list[dict[str, Any]] = []
        self.sids: list[str] = []
        self.synced: list[list[str]] = []
        self.charge: dict[str, Any] | None = None
        self.asked_open: asyncio.Queue[str | None] = asyncio.Queue()
        self.answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.refuse_connects = 0
        self.posted = asyncio.Event()
        self.connected = asyncio.Event()
        self.url = ""
        self.port = 0
        self._socket = socketio.AsyncServer(async_mode="aiohttp")
        self._socket.on("connect", self._connect)
        self._socket.on("terminal:sync", self._sync)
        self._socket.on("charge:open", self._open)
        self._socket.on("charge:answer", self._answer)

    # --- what a test plays --------------------------------------------------------------------

    def verdict(self, body: bytes, **changes: Any) -> bytes:
        """The verdict on a request, perhaps changed into one that must not be believed."""
        request = json.loads(body)
        verdict = {
            "verdict": "approved",
            "requestId": request["requestId"],
            "terminalId": request["terminalId"],
            "amount": request["amount"],
            "currency": request["currency"],
            "gatewayTime": self.now(),
            "transactionId": "0x" + "ab" * 32,
            "authCode": "AUTH_1",
            **({"verdict": "declined", **self.decline} if self.decline else {}),
            **changes,
        }
        return json.dumps(verdict).encode()

    def signed(
        self,
        body: bytes,
        about: bytes,
        *,
        key: SigningKey | None = None,
        domain: Domain = Domain.VERDICT,
        status: int = 200,
    ) -> web.Response:
        signature = sign(key or self.key, domain, body, about=about)
        return web.Response(body=body, status=status, headers={"TapRail-Signature": signature})

    async def notify(self, status: str, body: bytes, **changes: Any) -> None:
        """Push a signed notice about a request."""
        await self._socket.emit("payment:verdict", self.notice(status, body, **changes))

    def notice(self, status: str, body: bytes, **changes: Any) -> dict[str, str]:
        request = json.loads(body)
        notice = {
            "terminalId": request["terminalId"],
            "requestId": request["requestId"],
            "transactionId": "0x" + "ab" * 32,
            "status": status,
            "at": self.now(),
            "amount": request["amount"],
            "currency": request["currency"],
            "txHash": "0x" + "cd" * 32,
            **changes,
        }
        text = json.dumps(notice)
        return {"body": text, "signature": sign(self.key, Domain.NOTICE, text.encode())}

    def ask(self, amount: int, *, seconds: float = 60, **changes: Any) -> dict[str, Any]:
        """A charge that is open from now on; a terminal that connects is told of it."""
        deadline_ms = SystemClock().now_ms() + self.clock_offset_ms + round(seconds * 1000)
        self.charge = {
            "terminalId": "t1",
            "chargeId": new_id("chg"),
            "amount": amount,
            "currency": self.facts["currency"],
            "deadline": rfc3339(deadline_ms),
            **changes,
        }
        return self.charge

    async def command(
        self, event: str, said: dict[str, Any], *, key: SigningKey | None = None, about: str = ""
    ) -> None:
        """Push something signed, perhaps in a way that must not be believed."""
        text = json.dumps(said)
        made = sign(key or self.key, Domain.COMMAND, text.encode(), about=(about or event).encode())
        await self._socket.emit(event, {"body": text, "signature": made})

    async def hang_up(self) -> None:
        """Disconnect everybody, as a gateway that is going down does."""
        for sid in list(self.sids):
            await self._socket.disconnect(sid)

    async def emit(self, data: Any) -> None:
        await self._socket.emit("payment:verdict", data)

    def now(self) -> str:
        return rfc3339(SystemClock().now_ms() + self.clock_offset_ms)

    # --- the server ---------------------------------------------------------------------------

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[PlayedGateway]:
        app = web.Application()
        app.router.add_post("/api/payment/process-async", self._post)
        app.router.add_get("/api/terminals/hello", self._hello)
        app.router.add_get(POLICY_PATH, self._policy)
        self._socket.attach(app, socketio_path="nfc-ws")
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        self.port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}"
        try:
            yield self
        finally:
            await self._socket.shutdown()
            await runner.cleanup()

    async def _post(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.posted.set()
        play = self.plays.pop(0) if self.plays else None
        if play == "lost":
            assert request.transport is not None
            request.transport.close()
        if play == "hang":
            await asyncio.sleep(60)
        if callable(play):
            return play(self, body)
        return self.signed(self.verdict(body), body, status=400 if self.decline else 200)

    async def _hello(self, request: web.Request) -> web.Response:
        if self.hello_status is not None:
            return web.Response(status=self.hello_status)
        terminal_id = request.headers["TapRail-Terminal"]
        stamp = request.headers["TapRail-Timestamp"]
        asked = f"GET /api/terminals/hello\n{terminal_id}\n{stamp}".encode()
        answer = {
            "gatewayId": gateway_id(self.key.verify_key),
            "gatewayTime": self.now(),
            "terminalId": terminal_id,
            "status": "active",
            "merchantName": "Café",
            "offlineRevision": self.offline and self.offline.revision,
            **self.facts,
        }
        return self.signed(json.dumps(answer).encode(), asked, domain=Domain.ANSWER)

    async def _policy(self, _request: web.Request) -> web.Response:
        if self.offline is None:
            return web.Response(status=404)
        return self.signed(self.offline.to_json(), b"", domain=Domain.OFFLINE_POLICY)

    async def _connect(self, sid: str, _environ: object, auth: dict[str, Any]) -> bool:
        self.connects.append(auth)
        if self.refuse_connects:
            self.refuse_connects -= 1
            raise socketio.exceptions.ConnectionRefusedError("Authentication failed")
        self.sids.append(sid)
        self.connected.set()
        return True

    async def _open(self, _sid: str, data: dict[str, Any]) -> dict[str, Any]:
        named = data.get("chargeId")
        await self.asked_open.put(named)
        charge_id = None if self.charge is None else self.charge["chargeId"]
        if named is not None and named != charge_id:
            over = {"terminalId": "t1", "chargeId": named, "reason": "cancelled"}
            await self.command("charge:cancel", over)
        if self.charge is not None:
            await self.command("charge:request", self.charge)
        return {"open": charge_id}

    async def _answer(self, _sid: str, data: dict[str, Any]) -> None:
        await self.answers.put(data)

    async def _sync(self, sid: str, data: dict[str, list[str]]) -> dict[str, list[str]]:
        self.synced.append(data["requestIds"])
        for body in self.bodies:
            if json.loads(body)["requestId"] in data["requestIds"]:
                await self._socket.emit("payment:verdict", self.notice("completed", body), to=sid)
        return {"known": data["requestIds"], "unknown": []}
