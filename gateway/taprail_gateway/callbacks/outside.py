"""Posts to addresses that strangers have given: to the public internet, and nowhere else.

Whoever registers a webhook chooses where this gateway connects to, and the gateway stands inside a
network that they do not. So a name is resolved here, every address that it has must be a public
one, and the connection goes to exactly what was checked: the name server is asked only once.
Redirects are not followed, proxies of the environment are not used, nothing of an answer's body is
read, no cookie is kept. Hosts that the operator has allowed by name are exempt.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from types import TracebackType
from typing import Final, Self

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from taprail_common.errors import InputError, LinkError

MAX_URL_CHARS: Final = 500

_TIMEOUT: Final = ClientTimeout(total=10, connect=5)
"""Standard Webhooks asks receivers to answer within 15 to 30 s and to work later; this is for one
try of many."""

_CONNECTIONS: Final = 100
_CONNECTIONS_PER_HOST: Final = 8
"""So that one slow receiver does not take the room of all: twice what one endpoint is sent at once,
for those that share a host."""

# Prefixes whose addresses hold an IPv4 address that a gateway of the network may translate back:
# NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056), Teredo (RFC 4380); and networks that the standard
# library counts as global or does not know: IETF protocol assignments (RFC 6890), the old 6to4
# relays (RFC 7526), site-local addresses (RFC 3879).
_NEVER: Final = tuple(
    map(
        ip_network,
        (
            *("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"),
            *("192.0.0.0/24", "192.88.99.0/24", "fec0::/10", "::/96"),
        ),
    )
)


class AddressError(InputError):
    """An address that this gateway does not connect to."""

    code = "address_refused"


class OutsideError(LinkError):
    """What was posted was not taken: try again later."""

    code = "not_taken"


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, for one host, and stands for itself."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return _is_public(found)


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return _is_public(address.ipv4_mapped)
    if any(address in network for network in _NEVER if network.version == address.version):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def check_url(field: str, text: str, allowed_hosts: Collection[str] = ()) -> URL:
    """The URL that may be posted to, as far as its text tells; AddressError naming the field.

    Whether its name stands for public addresses is looked at with every connection.
    """
    if len(text) > MAX_URL_CHARS or not text.isascii() or any(char <= " " for char in text):
        raise AddressError(field, f"must be printable ASCII of at most {MAX_URL_CHARS} characters")
    try:
        url = URL(text)
        host, port = url.host, url.port
    except ValueError as exc:
        raise AddressError(field, "is no URL") from exc
    if not host or not port or "\\" in text:
        raise AddressError(field, "is no URL of a server")
    if url.user is not None or url.password is not None or url.raw_fragment:
        raise AddressError(field, "must hold no user, password or fragment")
    if host.lower() in allowed_hosts:
        if url.scheme not in {"http", "https"}:
            raise AddressError(field, "must begin with http:// or https://")
        return url
    if url.scheme != "https":
        raise AddressError(field, "must begin with https://")
    _check_host(field, host)
    return url


def _check_host(field: str, host: str) -> None:
    """Refuse what needs no name server to be known as not public."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith((".localhost", ".local", ".internal", ".home.arpa")):
        raise AddressError(field, "is not on the public internet")
    is_literal = ":" in name or name.rpartition(".")[2].isdigit() or name.startswith("0x")
    if (is_literal or "." not in name) and not is_public(name):
        # Octal, hexadecimal and shortened forms of an IPv4 address are none of a public host.
        raise AddressError(field, "is not on the public internet")


class _PublicResolver(AbstractResolver):
    """Resolves a name to its addresses, if all of them are public."""

    def __init__(self, allowed_hosts: Collection[str]) -> None:
        self._allowed_hosts = allowed_hosts
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """See AbstractResolver; OSError when the name may not be connected to."""
        found = await self._resolver.resolve(host, port, family)
        if host.lower() not in self._allowed_hosts:
            # One that is not spoils the others: which is used is for the connector to choose.
            hidden = [each["host"] for each in found if not is_public(each["host"])]
            if hidden or not found:
                raise OSError(None, f"{host} stands for addresses that are not public")
        return found

    async def close(self) -> None:
        """See AbstractResolver."""
        await self._resolver.close()


class Outside:
    """`async with`: posts to public addresses, and to hosts that are allowed by name."""

    def __init__(self, allowed_hosts: Collection[str] = ()) -> None:
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)
        self._session: ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = TCPConnector(
            resolver=_PublicResolver(self._allowed_hosts),
            use_dns_cache=False,
            limit=_CONNECTIONS,
            limit_per_host=_CONNECTIONS_PER_HOST,
        )
        self._session = ClientSession(
            connector=connector, timeout=_TIMEOUT, trust_env=False, cookie_jar=DummyCookieJar()
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    def check(self, field: str, text: str) -> URL:
        """See `check_url`; for whoever registers an address."""
        return check_url(field, text, self._allowed_hosts)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Post; any 2xx is taken. AddressError or OutsideError says why not."""
        if self._session is None:
            raise RuntimeError("use it within `async with`")
        target = self.check("url", url)
        try:
            async with self._session.post(
                target, data=body, headers=headers, allow_redirects=False
            ) as answer:
                status = answer.status
        except TimeoutError as exc:
            raise OutsideError(f"{target.host} did not answer within {_TIMEOUT.total} s") from exc
        except (ClientError, OSError) as exc:
            raise OutsideError(f"{target.host} could not be reached: {exc}") from exc
        if 300 <= status < 400:
            raise OutsideError(f"{target.host} answered {status}, and redirects are not followed")
        if not 200 <= status < 300:
            raise OutsideError(f"{target.host} answered {status}")
