"""What Sphinx makes of the code itself.

`toml-keys`  a directive: every key of the configuration file, from its attrs classes
`commands`   a directive: every command with its flags
`benchmarks` a directive: the results of `nox -s bench` that are kept in docs/benchmarks
`test`       a role: the name of a test, which has to exist
docstrings   are in Google's style, except those below attributes, which are plain text
"""

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.ext import napoleon
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

logger = logging.getLogger(__name__)

TESTS = Path(__file__).parent.parent / "tests"


class TomlKeys(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        from trio_entrypoint.cli.schema import json_schema

        schema = json_schema()
        sections = list(_sections(schema, "Settings", ""))
        return self.parse_text_to_nodes("\n".join(sections), allow_section_headings=True)


def _sections(schema: Any, name: str, place: str) -> Iterator[str]:
    """One section for each table of the file, with its keys, and those below it."""
    table = schema["$defs"][name]
    yield f"## {f'`[{place}]`' if place else 'The whole file'}\n"
    yield f"{table['description']}\n" if place else ""
    keys = table["properties"].items()
    yield "| key | value | default | |\n| --- | --- | --- | --- |"
    for key, value in keys:
        required = key in table.get("required", ())
        default = "**required**" if required else _default(value)
        described = value.get("description", "").replace("|", "\\|")
        yield f"| `{key}` | {_value(schema, value)} | {default} | {described} |"
    yield ""
    for key, value in keys:
        below = f"{place}.{key}".lstrip(".")
        entries = value.get("additionalProperties")
        if isinstance(entries, dict) and "$ref" in entries:
            yield from _sections(schema, _target(entries), f"{below}.NAME")
        for choice in value.get("anyOf", [value]):
            if "$ref" in choice and _target(choice) != "Command":
                yield from _sections(schema, _target(choice), below)


def _target(value: Any) -> str:
    return str(value["$ref"]).rpartition("/")[2]


def _default(value: Any) -> str:
    match value.get("default"):
        case None:
            return ""
        case bool(default):
            return f"`{str(default).lower()}`"
        case str(default):
            return f'`"{default}"`'
        case default:
            return f"`{default}`"


def _value(schema: Any, value: Any) -> str:
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(_value(schema, choice) for choice in value["anyOf"]))
    if "enum" in value:
        return ", ".join(f'`"{choice}"`' for choice in value["enum"])
    if "$ref" in value:
        return "a command with a `timeout`" if _target(value) == "Command" else "table"
    match value["type"]:
        case "array":
            return f"array of {_plural(_value(schema, value['items']))}"
        case "object":
            inner = _value(schema, value["additionalProperties"])
            return "tables by name" if inner == "table" else f"table of {_plural(inner)}"
        case kind:
            return {"integer": "whole number"}.get(kind, str(kind))


def _plural(kind: str) -> str:
    return " or ".join(
        f"{part}s" if part in ("string", "number", "whole number", "table") else part
        for part in kind.split(" or ")
    )


class Commands(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        from trio_entrypoint.cli.flags import COMMANDS

        text: list[str] = []
        for name, command in COMMANDS.items():
            positional = {"": "", "--": " [-- APPLICATION [ARGUMENT…]]", "SERVICE": " [SERVICE…]"}
            positional["SIGNAL"] = " SIGNAL [SERVICE…]"
            usage = positional.get(command.positional, f" {command.positional}")
            options = " [OPTION…]" if command.flags else ""
            described = command.description or f"{command.help[:1].upper()}{command.help[1:]}."
            described = re.sub(r"--[a-z]+", r"`\g<0>`", described)
            text += f"## {name}", f"`trio-entrypoint {name}{options}{usage}`", described
            if command.flags:
                rows = ["| option | | key of the file |", "| --- | --- | --- |"]
                for flag in command.flags:
                    value = flag.metavar or ("|".join(flag.choices) if flag.choices else "")
                    spelled = ", ".join(f"`{one}`" for one in flag.names.split())
                    value = f" `{value}`".replace("|", "\\|") if value else ""
                    key = f"`{flag.key}`" if flag.key else ""
                    rows.append(f"| {spelled}{value} | {flag.help} | {key} |")
                text.append("\n".join(rows))
        return self.parse_text_to_nodes("\n\n".join(text), allow_section_headings=True)


RESULTS = Path(__file__).parent / "benchmarks"
HOW = "`nox -s bench -- --output docs/benchmarks`, on a machine that does nothing else,"


class Benchmarks(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        report = RESULTS / "RESULTS.md"
        if not report.exists():
            text = f"{HOW} measures it beside its peers, and puts the report here."
            return self.parse_text_to_nodes(text)
        self.env.note_dependency(report)
        _, _, text = report.read_text().partition("\n")
        plot = "\n![The medians](/benchmarks/results.svg)\n"
        text = f"## Beside its peers\n{text.replace('## ', '### ')}\n{plot}"
        return self.parse_text_to_nodes(text, allow_section_headings=True)


class Test(SphinxRole):
    """A test's name as a sentence; that there is no such test is a warning, and so an error."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        file, _, name = self.text.partition("::")
        path = TESTS / file
        if not path.exists() or f"def {name}(" not in path.read_text():
            logger.warning("there is no test %s", self.text, location=self.get_location())
        sentence = name.removeprefix("test_").replace("_", " ")
        return [nodes.emphasis("", sentence), nodes.Text(" "), nodes.literal("", file)], []


_STYLE = napoleon.Config(napoleon_use_rtype=False)


def _read_docstring(  # what autodoc calls it with
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    # The extension itself takes what is before a colon in an attribute's docstring for a type.
    if what not in ("attribute", "data", "property"):
        lines[:] = napoleon.GoogleDocstring(lines, _STYLE, app, what, name, obj, options).lines()


_HANDED_OUT = {"Process", "GenerationConfiguration", "CustomConfiguration", "FakeRun"}
_HANDED_OUT |= {"CombinedActivation", "FileActivation", "LeaseActivation", "SharedActivation"}
"""Classes that nobody makes by their constructor."""

_GIVES = re.compile(r"(?:AsyncGenerator|AbstractAsyncContextManager)\[(.*?)(?:, .*)?\]$")
_OUR_VALUE = re.compile(r"= ([A-Z]\w+)\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)")
"""A default that is a value of ours, such as a policy: it is told by its class."""


def _shorten_signature(  # what autodoc calls it with
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str, returns: str
) -> tuple[str, str | None] | None:
    if not signature or what not in ("class", "function", "method"):
        return None
    if what == "class" and (
        issubclass(obj, Enum) or getattr(obj, "_is_protocol", False) or obj.__name__ in _HANDED_OUT
    ):
        return "", None
    # After `async with` stands what the block gets.
    gives = _GIVES.search(returns or "")
    return _OUR_VALUE.sub(r"= \1()", signature), gives[1] if gives else returns


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("toml-keys", TomlKeys)
    app.add_directive("commands", Commands)
    app.add_directive("benchmarks", Benchmarks)
    app.add_role("test", Test())
    app.connect("autodoc-process-docstring", _read_docstring)
    app.connect("autodoc-process-signature", _shorten_signature)
    return {"parallel_read_safe": True}
