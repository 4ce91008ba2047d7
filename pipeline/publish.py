"""Outputs that appear under their name when they are whole, and not before.

    FOLDER/
        NAME                          the output, a file or a folder
        .NAME.partial/                while it is written; the next try removes what a crash left
            NAME                      the new output, renamed to the one above at the end
            .replaced                 the old one, between two renames

One process at a time writes a name.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def partial_of(path: Path) -> Path:
    """Where an output is until it is whole."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def published(path: Path) -> Iterator[Path]:
    """A path to write to; what is there becomes ``path`` when the block ends well.

    When it does not, nothing is left, and what was there before is there still.
    """
    partial = partial_of(path)
    made = [folder for folder in partial.parents if not folder.exists()]
    clear_unfinished(path)
    partial.mkdir(parents=True)
    try:
        yield partial / path.name
        if path.exists():
            path.rename(partial / ".replaced")
        (partial / path.name).rename(path)
    finally:
        clear_unfinished(path)
        for folder in made:
            if not any(folder.iterdir()):
                folder.rmdir()


def clear_unfinished(path: Path) -> None:
    """Remove what was not finished; an output caught between the two renames goes back first."""
    partial = partial_of(path)
    replaced = partial / ".replaced"
    if replaced.exists() and not path.exists():
        replaced.rename(path)
    if partial.exists():
        shutil.rmtree(partial)
