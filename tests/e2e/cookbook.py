"""The cookbook as one program: its blocks one after the other, as a reader would run them."""

from __future__ import annotations

import re
from pathlib import Path

COOKBOOK = Path(__file__).parents[2] / "docs" / "api.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_RUN_BY = {"js": "node --input-type=module", "python": "python"}


def script() -> str:
    """All blocks but those that are only shown, for bash."""
    blocks = _BLOCK.findall(COOKBOOK.read_text())
    parts = ["set -euo pipefail"]
    for number, (language, text) in enumerate(blocks):
        if language in _RUN_BY:
            parts.append(f"{_RUN_BY[language]} <<'BLOCK_{number}'\n{text}BLOCK_{number}")
        elif language == "sh":
            parts.append(text)
    return "\n".join(parts)
