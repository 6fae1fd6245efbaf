"""Holds today's API against the released one, and releases it.

``python tools/release_api.py --check`` fails where today's API breaks what was released (docs/reference/openapi.released.json). Without
``--check`` today's API becomes the released one, if it breaks nothing; ``--break`` does it in any case, for a new version of the path.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from gateway.api.app import unserved
from gateway.api.compatibility import breaking
from gateway.api.document import document

RELEASED: Final = Path(__file__).parents[1] / "docs/reference/openapi.released.json"


def main(arguments: list[str]) -> int:
    """Exit code: 0 released, or kept; 1 it breaks somebody."""
    today = document(unserved())
    found = breaking(json.loads(RELEASED.read_text("utf-8")), today) if RELEASED.exists() else []
    sys.stderr.writelines(f"breaks the released API: {each}\n" for each in found)
    if found and "--break" not in arguments:
        sys.stderr.write("see docs/explanation/api-compatibility.md\n")
        return 1
    if "--check" not in arguments:
        RELEASED.write_text(json.dumps(today, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
