"""The gateway's settings: one TOML file, the environment and flags, into one frozen object.

    [gateway]      where it listens and where its state is
    [chain]        which chain, token and nodes     (settle.settings)
    [settlement]   how payments are sent            (settle.settings)
    [rewards]      what payers are given for them   (settle.reward_settings)
    [push]         what gateways share beside the ledger (push_settings)
    [fraud]        what looks suspicious            (fraud_settings)
    [limits]       how often somebody may ask       (api.rates)
    [log]          how it speaks

Paths are relative to the file that names them. `check` looks at what only the machine knows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from sqlalchemy import URL

from taprail_common.config import Settings, load_settings, resolve
from taprail_common.errors import ConfigError, OperatorError
from taprail_common.money import MAX_AMOUNT_UNITS
from taprail_common.secret_files import read_secret_file, secret_file_problem
from taprail_gateway.api.metrics import Shown
from taprail_gateway.api.rates import LimitSettings
from taprail_gateway.callbacks.webhook_settings import WebhookSettings
from taprail_gateway.fraud_settings import FraudSettings
from taprail_gateway.ledger.engines import is_server, ledger_url
from taprail_gateway.push_settings import PushSettings
from taprail_gateway.settle.reward_settings import RewardSettings
from taprail_gateway.settle.settings import ChainSettings, SettlementSettings
from taprail_gateway.tls import pin_of
from taprail_gateway.tokens import KEY_ID_PATTERN, MAX_KEYS

DEFAULT_PORT: Final = 8440

KeyId = Annotated[str, Field(pattern=KEY_ID_PATTERN)]
PublicKey = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]
Origin = Annotated[str, Field(pattern=r"^https?://[a-z0-9.:\[\]-]+$", max_length=200)]
"""As browsers write it: in lower case, without a path."""
ExplorerUrl = Annotated[str, Field(pattern=r"^https?://\S*\{txHash\}\S*$", max_length=300)]


class HttpSettings(Settings):
    """`[gateway]`. Files that are not named lie in `state_dir`."""

    host: str = "127.0.0.1"
    port: int = Field(default=DEFAULT_PORT, ge=0, le=65_535)
    """0 takes any free port; the line that says `ready` tells which."""
    state_dir: Path = Path("state")
    database: Path | None = None
    """The ledger as an SQLite file, for one gateway."""
    database_url: SecretStr | None = None
    """The ledger on a PostgreSQL server, as postgresql://user@/name?host=/run/postgresql."""
    database_password_file: Path | None = None
    """The password for `database_url`, when it is not to stand in there."""
    key_file: Path | None = None
    """The Ed25519 key that signs verdicts: what terminals know the gateway by."""
    tls_certificate_file: Path | None = None
    """Serve TLS with this certificate; terminals know it by its SHA-256. Unset: plain HTTP, behind
    a proxy."""
    tls_key_file: Path | None = None
    tls_next_certificate_file: Path | None = None
    """The certificate that takes its place later: told to terminals beforehand."""
    master_key_file: Path | None = None
    """Opens the wallets in custody; best kept on another medium than the database."""
    jwt_secret_file: Path | None = None
    """Proves apps' tokens: a secret a line, as `id:secret`; the first signs, all verify."""
    jwt_public_keys: dict[KeyId, PublicKey] = Field(default={}, max_length=MAX_KEYS - 1)
    """Ed25519 keys, by their ids, of others whose tokens are good here too."""
    explorer_url: ExplorerUrl | None = None
    """Where people look at a transaction, with {txHash} in it."""
    cors_origins: tuple[Origin, ...] = Field(default=(), max_length=20)
    """Web sites whose scripts may use the API, like https://till.example; none by default."""
    metrics: Shown = Shown.LOOPBACK
    """Who may read /metrics: `loopback` (this machine), `all`, or nobody (`off`)."""
    accept_uid_cards: bool = False
    """Take cards that prove nothing but a serial number, which anyone can copy."""
    pin_pepper_file: Path | None = None
    """Without it no PIN can be checked; best kept on another medium than the database."""
    pin_above_units: int | None = Field(default=None, ge=0, le=MAX_AMOUNT_UNITS)
    """From where on terminals ask for a PIN at once; unset: only when a card wants its own."""
    block_interval_ms: int = Field(default=2_000, ge=100, le=600_000)
    """How often the chain makes a block: the first estimate of how long a payment takes."""
    one_core: bool = True
    """Answer and write on one core of the machine, which costs a third less than on two (`cores`);
    false leaves it to the system."""

    @field_validator("database_url")
    @classmethod
    def _is_on_a_server(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            _server_url(url)
        return url

    @model_validator(mode="after")
    def _has_one_database(self) -> Self:
        if self.database is not None and self.database_url is not None:
            raise ValueError("name `database` (a file) or `database_url` (a server), not both")
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_certificate_file and tls_key_file belong together")
        if self.database_password_file is not None:
            if self.database_url is None:
                raise ValueError("database_password_file is of no use without a database_url")
            if _server_url(self.database_url).password is not None:
                raise ValueError("the password is in database_url and in database_password_file")
        return self


def _server_url(given: SecretStr) -> URL:
    """The URL of a server; its errors show nothing of it, because a password may be in any part."""
    try:
        url = ledger_url(given.get_secret_value())
    except OperatorError as exc:
        raise ValueError(str(exc)) from None
    if not is_server(url):
        raise ValueError("is for a PostgreSQL server; name a file as `database`")
    return url


class LogSettings(Settings):
    """`[log]`."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    json_lines: bool = False


class GatewaySettings(Settings):
    """The whole file. Use `load`."""

    gateway: HttpSettings = HttpSettings()
    chain: ChainSettings
    settlement: SettlementSettings = SettlementSettings()
    rewards: RewardSettings = RewardSettings()
    webhooks: WebhookSettings = WebhookSettings()
    push: PushSettings = PushSettings()
    fraud: FraudSettings = FraudSettings()
    limits: LimitSettings = LimitSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def load(cls, path: Path, *, flags: dict[str, object] | None = None) -> Self:
        """Read the file, overlay environment and flags, and make every path absolute.

        Raises OperatorError (no such file) or ConfigError (all that is wrong with it).
        """
        settings = load_settings(cls, path, flags=flags)
        return settings.model_copy(update={"gateway": _absolute(path, settings.gateway)})

    @property
    def database_url(self) -> URL:
        """The ledger's URL, which shows its password to nobody who prints it.

        Raises OperatorError when the password's file cannot be used.
        """
        if self.gateway.database_url is None:
            return URL.create("sqlite", database=str(self.database_file))
        url = _server_url(self.gateway.database_url)
        file = self.gateway.database_password_file
        if file is None:
            return url
        return url.set(password=read_secret_file(file, "database password").strip())

    @property
    def database_file(self) -> Path:
        """The SQLite file; there is none with a `database_url`."""
        return self.gateway.database or self.gateway.state_dir / "ledger.db"

    @property
    def tls_pins(self) -> tuple[str, ...]:
        """What terminals know this gateway's certificates by; raises OperatorError."""
        table = self.gateway
        if table.tls_certificate_file is None:
            return ()
        files = (table.tls_certificate_file, table.tls_next_certificate_file)
        return tuple(pin_of(file) for file in files if file is not None)

    @property
    def key_file(self) -> Path:
        return self.gateway.key_file or self.gateway.state_dir / "gateway.key"

    @property
    def master_key_file(self) -> Path:
        return self.gateway.master_key_file or self.gateway.state_dir / "master.key"

    @property
    def jwt_secret_file(self) -> Path:
        return self.gateway.jwt_secret_file or self.gateway.state_dir / "jwt.secret"

    @property
    def pin_pepper_file(self) -> Path:
        return self.gateway.pin_pepper_file or self.gateway.state_dir / "pin.pepper"

    def check(self) -> None:
        """Raise ConfigError with everything that keeps a gateway from starting here."""
        wanted = {
            "gateway.key_file": self.key_file,
            "gateway.master_key_file": self.master_key_file,
            "gateway.jwt_secret_file": self.jwt_secret_file,
        }
        if self.gateway.database_url is None:
            wanted = {"gateway.database": self.database_file, **wanted}
        if self.gateway.database_password_file is not None:
            wanted["gateway.database_password_file"] = self.gateway.database_password_file
        missing = [
            f"{key}: there is no {path}" for key, path in wanted.items() if _is_missing(path)
        ]
        if missing:
            missing.append("run `taprail admin init` first, or restore what is missing")
        unusable = [
            f"{key}: {path} {problem}"
            for key, path in wanted.items()
            if key != "gateway.database" and not _is_missing(path)
            if (problem := secret_file_problem(path)) is not None
        ]
        if missing or unusable:
            raise ConfigError("of the gateway", [*missing, *unusable])


def _is_missing(path: Path) -> bool:
    try:
        return not path.exists()
    except PermissionError:  # of its folder: there is something to put right, but not this
        return False


def _absolute(config_file: Path, settings: HttpSettings) -> HttpSettings:
    names = (
        *("state_dir", "database", "database_password_file"),
        *("key_file", "master_key_file", "jwt_secret_file", "pin_pepper_file"),
        *("tls_certificate_file", "tls_key_file", "tls_next_certificate_file"),
    )
    paths = {name: getattr(settings, name) for name in names}
    return settings.model_copy(
        update={
            name: resolve(config_file, path) for name, path in paths.items() if path is not None
        }
    )
