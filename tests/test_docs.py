"""What the pages of the documentation name exists: files, sections, settings, commands, options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main
import yaml

from docs.settings_page import settings_page
from pipeline.config import checked_settings
from pipeline.config.explain import explained
from pipeline.errors import ConfigError
from tests.pages import PAGES, ROOT, blocks, prose
from workers.cli import app

KNOWN = {key.name for key in explained()}
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
SETTING = re.compile(r"(?<![\w./-])((?:run|machine)(?:\.[a-z_0-9]+)+)(?![\w/])")
GENERATED = {"generated/settings.md", "generated/commands.md"}
FILES = {"run.yaml", "run.file"}
BOOKS = {
    path.name: path for path in (ROOT / "configs" / "README.md", ROOT / "pipeline" / "DESIGN.md")
}


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", [*PAGES.values(), *BOOKS.values()], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        if file.removeprefix("docs/") in GENERATED:
            assert anchor in {"", *(name.replace(".", "") for name in KNOWN)}, link
            continue
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    named = set(SETTING.findall(page.read_text())) - FILES
    assert {name for name in named if name not in KNOWN} == set()


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_every_command_and_option_exists(page: Path) -> None:
    commands = typer.main.get_command(app).commands
    for block in blocks(page):
        for line in block.commands():
            words = shlex.split(line, comments=True)
            if words[:1] != ["pea"] or words[1].startswith("--"):
                continue
            command = commands[words[1]]
            known = {option for parameter in command.params for option in parameter.opts}
            for word in words[2:]:
                if word.startswith("--"):
                    assert word in known, line
                elif re.match(r"(run|machine)\.", word):
                    assert word.partition("=")[0] in KNOWN, line


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_run_files_on_a_page_are_ones(page: Path) -> None:
    for block in blocks(page):
        if block.language != "yaml":
            continue
        assert block.file, f"the first line must name the file:\n{block.text}"
        tree = yaml.safe_load(block.text)
        if "run" in tree:
            checked_settings(tree, block.file)
        else:
            run = {"name": "a", "data": {"affinities": "a.zarr/affinities"}}
            checked_settings({"run": run, **tree}, block.file)


def test_code_is_of_a_language_that_is_run_or_plain_text() -> None:
    for page in PAGES.values():
        assert {block.language for block in blocks(page)} <= {
            "bash", "yaml", "python", "toml", "text"
        }  # fmt: skip


def test_every_key_of_a_run_file_is_explained() -> None:
    assert {key.name for key in explained() if not key.text} == set()
    page = settings_page()
    for key in explained():
        if key.section:
            assert f"## {key.name}\n" in page
    assert "| `wide_nm` | `30.0` |" in page
    assert "| `block_vx` | `[48, 192, 192]` |" in page  # of machine.predict, not of its class
    assert "One of `serial`, `daisy`, `dask`" in page


def test_explained_keys_can_be_a_part() -> None:
    names = [key.name for key in explained("run.predict")]
    assert names[:2] == ["run.predict", "run.predict.checkpoint"]
    assert all(name.startswith("run.predict") for name in names)
    assert [key.default for key in explained("machine.predict.workers")] == [1]
    with pytest.raises(ConfigError, match=r"there is no key 'run.pred'[^$]*run.predict"):
        list(explained("run.pred"))


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("agglomerate.treshold", "run.agglomerate.threshold"),
        ("predict.patch", "run.predict.patch_vx"),
        ("agglomerate.zzz", None),
        ("predict.qqqqq", None),
    ],
)
def test_a_misspelt_key_is_told_what_was_meant_if_anything_is_near(
    key: str, meant: str | None
) -> None:
    section, name = key.split(".")
    run = {"name": "a", "data": {"affinities": "a.zarr/affinities"}, section: {name: 1}}
    with pytest.raises(ConfigError) as caught:
        checked_settings({"run": run}, "here")
    said = str(caught.value).splitlines()[-1]
    assert said == f"  run.{key}: no such key" + (f", did you mean {meant}?" if meant else "")


def test_defaults_that_are_shown_are_those_that_hold() -> None:
    run = {"name": "a", "data": {"affinities": "a.zarr/affinities"}, "train": {"roi": ROI}}
    run["train"] |= {"validation": {"roi": ROI}}
    run["data"] |= {"roi": ROI, "test_roi": ROI}
    run["evaluate"] = {"roi": ROI}
    held = checked_settings({"run": run}, "here").model_dump()
    for key in explained():
        if key.section or key.required or key.name == "run.data.affinities":
            continue
        value = held
        for part in key.name.split("."):
            value = value[part]
        assert value == key.default, key.name


ROI = {"offset": [0, 0, 0], "shape": [10, 10, 10]}
