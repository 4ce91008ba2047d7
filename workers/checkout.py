"""Which commit this program is."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit() -> str | None:
    """The commit of the checkout that runs, with -dirty where files differ; None elsewhere."""
    here = Path(__file__)
    # Installed in an environment inside another project's checkout, this file is not tracked there.
    tracked = ["ls-files", "--error-unmatch", here.name]
    described = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return [_git(here.parent, *words) for words in (tracked, described)][-1]
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(  # noqa: S603 - fixed words, found as the user's shell would
        ["git", "-C", str(folder), *words],  # noqa: S607
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return done.stdout.strip()
