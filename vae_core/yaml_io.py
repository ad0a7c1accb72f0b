"""YAML as users expect it: 1.2 numbers, no duplicate keys, `${env:NAME,default}`, mistakes named with their place."""

import os
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from vae_core.errors import UserError

_ENV = re.compile(r"\$\{env:([^,}]*)(?:,([^}]*))?\}")  # name, and what stands for it where it is not set
_FLOAT = re.compile(
    r"""^(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?
        |[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")


class _Loader(yaml.SafeLoader):
    """A safe loader with the scalars of YAML 1.2's core schema that refuses a key written twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a plain word", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is written twice; keep one of them", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _use_yaml_1_2_scalars() -> None:
    """Replace PyYAML's 1.1 patterns (`1e-3` a string, `off` a boolean, `1:30` a number) on `_Loader` alone."""
    kept = {"tag:yaml.org,2002:null", "tag:yaml.org,2002:merge"}
    resolvers: dict[str | None, list[tuple[str, re.Pattern[str]]]] = {}
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items():
        resolvers[first] = [(tag, pattern) for tag, pattern in pairs if tag in kept]
    _Loader.yaml_implicit_resolvers = resolvers
    _Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("tTfF"))
    _Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
    _Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
    _Loader.add_constructor("tag:yaml.org,2002:int", _decimal)


def _decimal(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


_use_yaml_1_2_scalars()


def parse_yaml(text: str, where: str) -> Any:
    """Parse one YAML document.

    Args:
        text: the document.
        where: what to call it in messages (a file name, or `--set`).

    Raises:
        UserError: invalid YAML, a key written twice, or an unset environment variable, with line and column.
    """
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
        return _interpolate(value, where, "")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{place}: {problem}") from error
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{where}: a value does not fit its YAML tag ({error})") from error
    except RecursionError as error:
        raise UserError(f"{where}: is nested too deeply, or contains itself through an anchor") from error


def load_yaml(path: Path) -> Any:
    """Read and parse the YAML file at `path`; see `parse_yaml`."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the path of a YAML file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except ValueError as error:
        raise UserError(f"{str(path)!r:.200}: cannot be read ({error}); give the path of a YAML file") from error
    return parse_yaml(text, str(path))


def dump_yaml(value: Any) -> str:
    """Write `value` as YAML that `parse_yaml` reads back equal."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """A safe dumper that quotes words which a YAML 1.2 reader would take for numbers."""


def _represent_str(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    looks_like_number = _FLOAT.match(value) is not None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="'" if looks_like_number else None)


_Dumper.add_representer(str, _represent_str)


def _interpolate(value: Any, where: str, path: str) -> Any:
    if isinstance(value, dict):
        return {key: _interpolate(item, where, f"{path}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, list):
        return [_interpolate(item, where, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, str) and "${" in value:
        return _fill_environment(value, where, path)
    return value


def _fill_environment(text: str, where: str, path: str) -> Any:
    def lookup(match: re.Match[str]) -> str:
        name, default = match.groups()
        value = os.environ.get(name, default)
        if value is None:
            raise UserError(
                f"{where}: {path}: the environment variable {name!r} is not set; export it, or give a default: "
                f"${{env:{name},DEFAULT}}"
            )
        return value

    filled = _ENV.sub(lookup, text)
    if _ENV.fullmatch(text):  # a whole value keeps the type it would have had in the file
        return yaml.load(filled, Loader=_Loader) if filled else ""  # noqa: S506 - _Loader is a SafeLoader
    return filled
