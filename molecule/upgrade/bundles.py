"""Makes the three bundles of the scenario: the release before, this tree, and one that fails in the field.

    python molecule/upgrade/bundles.py FOLDER

Each is made by this tree's tools, from another tree: 0.1.0 is the commit that was released, 0.3.0 is this tree with one line changed, by
which the gateway of that name delivers what it reads, and never acknowledges it. Libraries are the same in all, so they are fetched once.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
RELEASED: Final = "de090fd"
"""The commit that was released as 0.1.0."""
FAILING: Final = "0.3.0"
HIT: Final = "gw-3"
"""The gateway on which 0.3.0 fails."""
BROKEN_AT: Final = "            self._confirmations.sent(portion, mark, answer)\n"
TOOLS: Final = ("tools", "ansible", "molecule/requirements.lock", "requirements.lock", "LICENSE")
LEFT_OUT: Final = ("debian", "controller", "collection")


def run(*words: str | Path, cwd: Path = ROOT, **environment: str) -> bytes:
    return subprocess.run(words, cwd=cwd, check=True, stdout=subprocess.PIPE, env=os.environ | environment).stdout


def bundle(tree: Path, output: Path, key: Path) -> None:
    words = ["-m", "tools.bundle", "make", "--key", key, "--output", output, "--arch", "x86_64", "--cache", ROOT / "build/bundle/cache"]
    run(sys.executable, *words, *(f"--without-{part}" for part in LEFT_OUT), cwd=tree)


def committed(tree: Path) -> None:
    """A history of one commit: the tool asks git for the tree's files, and for its date."""
    run("git", "init", "--quiet", cwd=tree)
    run("git", "add", "--all", "--force", cwd=tree)
    author = {f"GIT_{who}_{what}": "scenario@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    date = run("git", "log", "-1", "--format=%cI").decode().strip()
    run("git", "commit", "--quiet", "--message=as bundled", cwd=tree, **author, GIT_AUTHOR_DATE=date, GIT_COMMITTER_DATE=date)


def this_tree(tree: Path, *below: str) -> None:
    """This tree's files, as they lie here, below the paths that are named, or all."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *below).decode().split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)


def before(tree: Path) -> None:
    """The release before, packed by this tree's tools."""
    if subprocess.run(["git", "cat-file", "-e", f"{RELEASED}^{{commit}}"], cwd=ROOT, check=False).returncode:
        sys.exit(f"the project's history has no commit {RELEASED} here, which was released as 0.1.0: a whole clone is needed")
    packed = run("git", "archive", RELEASED, "gateway", "holdfast", "protocols", "pyproject.toml", "README.md")
    subprocess.run(["tar", "-x", "-C", tree], input=packed, check=True)
    this_tree(tree, *TOOLS)


def failing(tree: Path) -> None:
    this_tree(tree)
    project, uplink = tree / "pyproject.toml", tree / "gateway/uplink/sparkplug.py"
    project.write_text(re.sub(r'(?m)^version = ".*"$', f'version = "{FAILING}"', project.read_text(), count=1))
    code = uplink.read_text()
    if code.count(BROKEN_AT) != 1:
        sys.exit(f"{uplink} has no line {BROKEN_AT.strip()}: name another in {__file__}")
    uplink.write_text(
        code.replace(BROKEN_AT, f'            if self._uplink.gateway.name == "{HIT}":\n                continue\n{BROKEN_AT}')
    )


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    key = folder / "key.pem"
    if not key.exists():
        run(sys.executable, "-m", "tools.bundle", "key", key)
    bundle(ROOT, folder / "this.bundle", key)
    for name, fill in (("before", before), ("failing", failing)):
        tree = folder / f"{name}.tree"
        shutil.rmtree(tree, ignore_errors=True)
        tree.mkdir()
        fill(tree)
        committed(tree)
        bundle(tree, folder / f"{name}.bundle", key)
        shutil.rmtree(tree)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
