"""The gateway's settings: one TOML file, the environment and flags, into one frozen object.

    [gateway]      where it listens and where its state is
    [chain]        which chain, token and nodes     (settle.settings)
    [settlement]   how payments are sent            (settle.settings)
    [log]          how it speaks

Paths are relative to the file that names them. `check` looks at what only the machine knows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field

from taprail_common.config import Settings, load_settings, resolve
from taprail_common.errors import ConfigError
from taprail_gateway.settle.settings import ChainSettings, SettlementSettings

DEFAULT_PORT: Final = 8440

ExplorerUrl = Annotated[str, Field(pattern=r"^https?://\S*\{txHash\}\S*$", max_length=300)]


class HttpSettings(Settings):
    """`[gateway]`. Files that are not named lie in `state_dir`."""

    host: str = "127.0.0.1"
    port: int = Field(default=DEFAULT_PORT, ge=0, le=65_535)
    """0 takes any free port; the line that says `ready` tells which."""
    state_dir: Path = Path("state")
    database: Path | None = None
    key_file: Path | None = None
    """The Ed25519 key that signs verdicts: what terminals know the gateway by."""
    master_key_file: Path | None = None
    """Opens the wallets in custody; best kept on another medium than the database."""
    jwt_secret_file: Path | None = None
    explorer_url: ExplorerUrl | None = None
    """Where people look at a transaction, with {txHash} in it."""
    accept_uid_cards: bool = False
    """Take cards that prove nothing but a serial number, which anyone can copy."""
    block_interval_ms: int = Field(default=2_000, ge=100, le=600_000)
    """How often the chain makes a block: the first estimate of how long a payment takes."""


class LogSettings(Settings):
    """`[log]`."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    json_lines: bool = False


class GatewaySettings(Settings):
    """The whole file. Use `load`."""

    gateway: HttpSettings = HttpSettings()
    chain: ChainSettings
    settlement: SettlementSettings = SettlementSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def load(cls, path: Path, *, flags: dict[str, object] | None = None) -> Self:
        """Read the file, overlay environment and flags, and make every path absolute.

        Raises OperatorError (no such file) or ConfigError (all that is wrong with it).
        """
        settings = load_settings(cls, path, flags=flags)
        return settings.model_copy(update={"gateway": _absolute(path, settings.gateway)})

    @property
    def database_url(self) -> str:
        """The ledger's SQLAlchemy URL."""
        return f"sqlite:///{self.database_file}"

    @property
    def database_file(self) -> Path:
        return self.gateway.database or self.gateway.state_dir / "ledger.db"

    @property
    def key_file(self) -> Path:
        return self.gateway.key_file or self.gateway.state_dir / "gateway.key"

    @property
    def master_key_file(self) -> Path:
        return self.gateway.master_key_file or self.gateway.state_dir / "master.key"

    @property
    def jwt_secret_file(self) -> Path:
        return self.gateway.jwt_secret_file or self.gateway.state_dir / "jwt.secret"

    def check(self) -> None:
        """Raise ConfigError with everything that keeps a gateway from starting here."""
        wanted = {
            "gateway.database": self.database_file,
            "gateway.key_file": self.key_file,
            "gateway.master_key_file": self.master_key_file,
            "gateway.jwt_secret_file": self.jwt_secret_file,
        }
        missing = [
            f"{key}: there is no {path}" for key, path in wanted.items() if not path.exists()
        ]
        if missing:
            raise ConfigError("of the gateway", [*missing, "run `taprail admin init` first"])


def _absolute(config_file: Path, settings: HttpSettings) -> HttpSettings:
    names = ("state_dir", "database", "key_file", "master_key_file", "jwt_secret_file")
    paths = {name: getattr(settings, name) for name in names}
    return settings.model_copy(
        update={
            name: resolve(config_file, path) for name, path in paths.items() if path is not None
        }
    )
