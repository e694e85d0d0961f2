"""A technician's own key, on their own laptop: made once, and shown to the gateway's operator.

The private key never leaves the laptop; the gateway registers the public one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nacl.signing import SigningKey
from rich.console import Console

from taprail_common.errors import OperatorError
from taprail_common.signing import create_key_file, fingerprint, load_key_file, public_key_text
from taprail_terminal.diag_show import print_json

WHAT: Final = "technician's key"


def manage(words: Sequence[str], *, as_json: bool) -> None:
    """`key make FILE` and `key show FILE`; raises OperatorError."""
    if len(words) != 2:
        raise OperatorError("which file?", fix="taprail diag key make FILE, or key show FILE")
    action, path = words[0], Path(words[1])
    key = _made(path) if action == "make" else load_key_file(path, WHAT)
    public = public_key_text(key.verify_key)
    shown = {"file": str(path), "publicKey": public, "fingerprint": fingerprint(key.verify_key)}
    if as_json:
        print_json(shown)
        return
    console = Console(highlight=False, soft_wrap=True)
    for name, value in shown.items():
        console.print(f"{name}: {value}", markup=False)
    if sys.stdout.isatty() or action == "make":
        order = f"taprail admin technician issue NAME --public-key {public}"
        console.print(f"at the gateway: {order}", markup=False, style="dim")


def _made(path: Path) -> SigningKey:
    try:
        return create_key_file(path)
    except FileExistsError:
        raise OperatorError(f"{path} is there already", fix="keep it, or name another") from None
    except OSError as exc:
        raise OperatorError(f"{path} cannot be written ({exc.strerror})") from exc
