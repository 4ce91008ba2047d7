"""The site of the documentation: `make docs` builds it into docs/site.

Two pages are written from the code each time: every command, and every key of a run file.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
ROOT = HERE.parent
GENERATED = HERE / "generated"
sys.path.insert(0, str(ROOT))

from docs.settings_page import settings_page  # noqa: E402

project = "pea-connectomics"
copyright = "the authors of pea-connectomics, MIT licence"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["site"]
html_theme = "furo"
html_title = "pea-connectomics"
html_show_sourcelink = False
html_copy_source = False
# Sections are linked to as GitHub links to them, so that pages read the same there.
myst_heading_anchors = 3
autodoc_member_order = "bysource"
# One entry names several errors, each with its reason: a paragraph, not a list.
napoleon_custom_sections = [("Raises", "notes_style")]


def write_generated_pages(_: Sphinx) -> None:
    GENERATED.mkdir(exist_ok=True)
    (GENERATED / "settings.md").write_text(settings_page())
    (GENERATED / "commands.md").write_text(commands_page())


def commands_page() -> str:
    """The help of every command, as typer prints it for documents."""
    words = ["-m", "typer", "workers.cli", "utils", "docs", "--name", "pea", "--title", "Commands"]
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", write_generated_pages)
