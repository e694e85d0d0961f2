"""`taprail-sim faults`: the vocabulary, for people and for machines."""

from __future__ import annotations

import json
import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from taprail_hwsim.faults import FAULTS


def list_faults(*, as_json: bool) -> None:
    """Say which faults a tap can meet, and at which readers."""
    if as_json:
        rows = {
            name: {"about": fault.about, "readers": list(fault.readers)}
            for name, fault in FAULTS.items()
        }
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for head in ("fault", "readers", "what happens"):
        table.add_column(head)
    for name, fault in FAULTS.items():
        table.add_row(Text(name, "bold cyan"), " ".join(fault.readers), fault.about)
    Console(highlight=False).print(table)
