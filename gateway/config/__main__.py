"""``python -m gateway.config FOLDER`` writes what derives from the Structs; ``--check`` fails where FOLDER differs.

Only Holdfast's own drivers are described, so that the pages do not depend on what else is installed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from gateway.config.drivers import own
from gateway.config.reference import reference
from gateway.config.sample import sample
from gateway.config.schema import schema


def pages() -> dict[str, str]:
    """File name to text. Raises Broken if a driver of ours cannot be imported: a page without it would be wrong."""
    drivers = dict(own())
    return {
        "configuration.md": reference(drivers=drivers),
        "site.schema.json": json.dumps(schema(drivers=drivers), indent=2, ensure_ascii=False) + "\n",
        "sample.yaml": sample(drivers=drivers),
    }


def write(folder: Path, wanted: Mapping[str, str]) -> None:
    """Put the pages into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in wanted.items():
        (folder / name).write_text(text, "utf-8")


def differing(folder: Path, wanted: Mapping[str, str]) -> list[str]:
    """Names of the pages that are not in ``folder`` as they should be."""
    return [name for name, text in wanted.items() if not (folder / name).is_file() or (folder / name).read_text("utf-8") != text]


def main(arguments: list[str]) -> int:
    """Exit code: 0 written or equal, 1 different, 2 wrong use."""
    folders = [one for one in arguments if not one.startswith("-")]
    if len(folders) != 1 or set(arguments) - {*folders, "--check"}:
        sys.stderr.write("use: python -m gateway.config FOLDER [--check]\n")
        return 2
    folder = Path(folders[0])
    if "--check" in arguments:
        stale = differing(folder, pages())
        sys.stderr.writelines(f"{folder / name} is not what the Structs give: run make docs and commit it\n" for name in stale)
        return 1 if stale else 0
    write(folder, pages())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
