"""YAML text to checked settings, and back. Nothing in a file makes objects or runs code."""

from __future__ import annotations

import reprlib
from collections.abc import Hashable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.config.explain import explained
from pipeline.config.run import Settings
from pipeline.errors import ConfigError, NotFoundError, PipelineError

MAX_YAML_BYTES = 100_000
MAX_YAML_ALIASES = 20


class _Loader(yaml.SafeLoader):
    """Safe YAML without duplicate keys, and with few aliases: nested ones multiply."""

    aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.aliases += self.check_event(yaml.AliasEvent)
        if self.aliases > MAX_YAML_ALIASES:
            raise yaml.YAMLError(f"more than {MAX_YAML_ALIASES} aliases")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_yaml(text: str, where: object) -> dict[str, Any]:
    """A mapping from YAML text.

    Raises:
        ConfigError: not YAML, not a mapping, a key twice, a tag that makes objects, many aliases.
    """
    value = load_value(text, where)
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{where} must hold a mapping with the keys run and machine")
    return value


def load_value(text: str, where: object) -> Any:
    """Whatever a piece of YAML says.

    Raises:
        ConfigError: not YAML, a key twice, a tag that makes objects, or too much of it.
    """
    if len(text) > MAX_YAML_BYTES:
        raise ConfigError(
            f"a run file has at most {MAX_YAML_BYTES} characters, found {len(text)}: {where}"
        )
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except RecursionError:
        raise ConfigError(f"{where} is not readable YAML: nested too deeply") from None
    except (yaml.YAMLError, TypeError, ValueError, LookupError) as error:
        raise ConfigError(f"{where} is not readable YAML: {' '.join(str(error).split())}") from None


def load_settings(
    path: Path, overrides: Sequence[str] = (), machine: Path | None = None
) -> Settings:
    """A run file, with another machine file and ``key=value`` changes on top.

    Raises:
        NotFoundError: no such file; ConfigError: it does not describe a run, one line per problem.
    """
    tree = load_yaml(_text(path), path)
    if machine is not None:
        loaded = load_yaml(_text(machine), machine)
        if set(loaded) != {"machine"}:
            raise ConfigError(f"{machine} must have the one key machine, found {sorted(loaded)}")
        tree["machine"] = loaded["machine"]
    for override in overrides:
        _set(tree, override)
    return checked_settings(tree, path)


def checked_settings(tree: dict[str, Any], where: object) -> Settings:
    """Settings from plain values.

    Raises:
        ConfigError: one line per problem, with its dotted key.
    """
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(str(part) for part in problem['loc'])}: {_sentence(problem)}"
            for problem in error.errors()
        ]
        raise ConfigError(f"{where} does not describe a run:\n" + "\n".join(lines[:12])) from None
    except PipelineError as error:
        raise ConfigError(f"{where} does not describe a run:\n  {error}") from None


def _sentence(problem: Any) -> str:
    if problem["type"] == "extra_forbidden":
        return "no such key" + _meant(".".join(str(part) for part in problem["loc"]))
    if problem["type"] == "missing":
        return "must be given"
    found = reprlib.repr(problem.get("input"))
    message = " ".join(str(problem["msg"]).removeprefix("Value error, ").split())
    return message if "found" in message else f"{message}, found {found}"


def _meant(name: str) -> str:
    """The key of the same section that somebody may have meant, to end a message with."""
    section, _, last = name.rpartition(".")
    parts = (key.name.rpartition(".") for key in explained())
    near = get_close_matches(last, [each for before, _, each in parts if before == section], n=1)
    return f", did you mean {section}.{near[0]}?" if near else ""


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        raise NotFoundError(
            f"no run file at {path}\nName one, or the directory of a run: runs/NAME."
        ) from None
    except IsADirectoryError:
        raise ConfigError(
            f"a run file must be a YAML file, found a directory: {path}\n"
            f"Of a run it is {path / 'run.yaml'}."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a run file: {error}") from None


def _set(tree: dict[str, Any], override: str) -> None:
    """Apply one ``dotted.key=value``; the value is YAML."""
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts) or parts[0] not in ("run", "machine"):
        raise ConfigError(
            f"a change must read run.KEY=VALUE or machine.KEY=VALUE, found {override!r}"
        )
    value = load_value(text, reprlib.repr(override))
    node = tree
    for part in parts[:-1]:
        if not isinstance(node.setdefault(part, {}), dict):
            raise ConfigError(f"{override!r}: {part} has no keys below it")
        node = node[part]
    node[parts[-1]] = value


def dump_settings(settings: Settings) -> str:
    """The resolved settings as YAML that loads to the same."""
    return yaml.safe_dump(settings.model_dump(), sort_keys=False)
