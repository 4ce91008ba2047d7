"""The page of all keys of a run file, from the classes that check them."""

from __future__ import annotations

import yaml

from pipeline.config.explain import Key, explained

HEAD = """# Settings

Every key of a run file, with its default. `run` decides the numbers and is part of what a run is
known by; `machine` decides the speed only. A key can also be changed on the command line, as
`run.agglomerate.threshold=0.5`. `pea settings KEY` prints the same.
"""
WIDEST = 60
"""Characters of a default; longer lists are cut."""


def settings_page() -> str:
    """Markdown: a heading for each section, a table of its keys. Equal sections are shown once."""
    keys = list(explained())
    shown: dict[str, str] = {}
    lines = [HEAD]
    for section in (key for key in keys if key.section):
        lines += ["", f"## {section.name}", "", code(section.text)]
        first = shown.setdefault(section.section or "", section.name)
        own = [key for key in keys if not key.section and parent(key) == section.name]
        if first != section.name:
            lines += ["", f"Its keys are those of [{first}](#{anchor(first)})."]
        elif own:
            lines += ["", "| key | default | |", "|---|---|---|"]
            lines += [f"| `{last(key)}` | {default(key)} | {meaning(key)} |" for key in own]
    return "\n".join(lines) + "\n"


def default(key: Key) -> str:
    if key.required:
        return "must be given"
    text = yaml.safe_dump(key.default, default_flow_style=True, width=10_000).strip()
    text = text.removesuffix("\n...").strip()
    return f"`{text if len(text) <= WIDEST else text[:WIDEST] + ' ...'}`"


def meaning(key: Key) -> str:
    choices = f"One of {', '.join(f'`{choice}`' for choice in key.choices)}. " * bool(key.choices)
    return (choices + code(key.text)).replace("|", "\\|")


def code(text: str) -> str:
    """A docstring's text on one line, with Markdown's single quotes around code."""
    return " ".join(text.replace("``", "`").split())


def parent(key: Key) -> str:
    return key.name.rpartition(".")[0]


def last(key: Key) -> str:
    return key.name.rpartition(".")[2]


def anchor(name: str) -> str:
    """As GitHub and MyST make one of a heading."""
    return name.replace(".", "")
