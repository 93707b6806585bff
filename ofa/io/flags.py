"""Command lines from dataclasses: an option's name, type, default and help text stand in one place.

    @dataclass(frozen=True, kw_only=True)
    class Options(MachineOptions):  # options that several commands share
        checkpoint: str = option(help="checkpoint file", positional=True, also=("--path",))

    @action
    def show(options: Options) -> int: ...  # its docstring is the help; returns the exit status

``bool`` is a switch (with ``--no-x`` where it is True or None by default), ``Literal`` one of its
values, ``tuple[str, ...]`` words, ``tuple[int, int]`` two numbers.
"""

import argparse
import contextlib
import copy
import inspect
import logging
import math
import os
import re
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, field, fields
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from ofa.errors import UserError, did_you_mean

Options = TypeVar("Options")
Run = TypeVar("Run", bound=Callable)
logger = logging.getLogger(__name__)
UNSET = object()  # a default that the parser decides


def option(default: Any = MISSING, help: str = "", **metadata: Any) -> Any:
    """A field that describes itself; one without a default has to be given.

    Args:
        positional: a plain word; with ``also`` it may be given by these flags too.
        flag: the flag, where it is not that of the field.
        also: other spellings that are accepted, and not listed.
        const: switches that stand for a value, ``{"--cpu": "cpu"}``.
        parse: text -> value; raises ValueError or ArgumentTypeError for a wrong one.
        least: the smallest number allowed.
        exclusive: at most one of the options with the same word here may be given.
        repeat: the flag may be given several times, each adds a value.
        rest: all that follows, flags too.
        empty: the flag may stand alone.
        choices: the values allowed, or a function that returns them.
        env: the settings of the environment that take the default's place, separated by spaces.
        title: of the group in which the help lists it, if not that of the class.
    """
    return field(default=default, metadata={"help": help, **metadata})


def options_of(
    source: Callable[[], type | Iterable[type]],
    *names: str,
    defaults: bool = False,
    title: str = "",
) -> Any:
    """A field for options that other dataclasses hold: a dictionary of those that were given.

    Args: names: of the options; none: all that the class has no field of its own for. source:
    returns the dataclasses, imported when the command line is read. defaults: those that were not
    given have the default of their dataclass. title: as of ``option``.
    """
    metadata = {"source": source, "names": names, "defaults": defaults, "title": title}
    return field(default_factory=dict, metadata=metadata)


def add_flags(parser: "Parser", options: type) -> None:
    """A flag for every field with a help text, in groups by the ``TITLE`` of the declaring class,
    which may also name flags to ignore with a warning: ``IGNORED``. Fields with the metadata
    ``words`` get unknown flags with a word each, ``others`` all that is no flag."""
    hints = get_type_hints(options)
    for flag in getattr(options, "IGNORED", ()):
        parser.add_argument(flag, action=Ignored, help=argparse.SUPPRESS)
    for item in fields(options):
        group = _group(parser, options, item)
        if "source" in item.metadata:
            for given, hint in borrowed(options, item):
                default = given.default if item.metadata["defaults"] else None
                add_flag(group, given.name, hint, default, **given.metadata)
        elif text := item.metadata.get("words"):
            parser.words, group.description = item.name, text
        elif text := item.metadata.get("others"):
            parser.others, parser.allow_abbrev, group.description = item.name, False, text
        elif item.metadata.get("help"):
            add_flag(group, item.name, hints[item.name], item.default, **item.metadata)
            if item.metadata.get("positional") and item.metadata.get("also"):
                parser.either.append((parser._actions[-2], parser._actions[-1]))


def borrowed(options: type, item: Field) -> list[tuple[Field, Any]]:
    """(field, type) of each option that a field of ``options_of`` names."""
    source = item.metadata["source"]()
    found: dict[str, tuple[Field, Any]] = {}
    for one in [source] if isinstance(source, type) else source:
        hints = get_type_hints(one)
        for given in fields(one):
            found.setdefault(given.name, (given, hints[given.name]))
    own = set()
    for one in fields(options):
        own |= {one.name, *one.metadata.get("names", ())}
        own |= {flag[2:].replace("-", "_") for flag in one.metadata.get("also", ())}
    names = item.metadata["names"] or [name for name in found if name not in own]
    return [found[name] for name in names]


def flags_of(options: type) -> list[str]:
    """Every flag of a dataclass, in every spelling."""
    parser = Parser(add_help=False)
    add_flags(parser, options)
    return list(parser._option_string_actions)


def add_flag(group: Any, name: str, hint: Any, default: Any, **meta: Any) -> None:
    """A flag of an option.

    Args: group: a parser or a group of one. name, hint: as of a field of a dataclass. default:
    MISSING if it has to be given, UNSET for that of the parser. meta: as of ``option``.
    """
    settings, text = _value(name, hint, default, meta), meta["help"]
    default = _setting(settings, default, meta.get("env", "").split())
    if default not in (MISSING, UNSET, None, "", ()) and not isinstance(default, bool):
        text += f" (default: {default})"
    settings["help"] = text.replace("%", "%%")
    if default is not MISSING and default is not UNSET:
        settings["default"] = list(default) if isinstance(default, tuple) else default
    if word := meta.get("exclusive"):
        known = group.__dict__.setdefault("exclusive", {})
        group = known[word] = known.get(word) or group.add_mutually_exclusive_group()
    also = tuple(meta.get("also", ()))
    flag = meta.get("flag") or "--" + name.replace("_", "-")
    if meta.get("positional"):
        if settings.get("nargs") == "+" and default is not MISSING:
            settings["nargs"] = "*"
        # Not nargs="?", which takes nothing where flags stand between two words.
        group.add_argument(name, **settings).required = default is MISSING
        if also:
            hidden = {"default": settings.get("default"), "help": argparse.SUPPRESS}
            group.add_argument(*dict.fromkeys((flag, *also)), dest=name, **hidden)
        return
    switches = meta.get("const", {})
    group = group.add_mutually_exclusive_group() if switches else group
    action = group.add_argument(flag, *also, dest=name, required=default is MISSING, **settings)
    action.help = settings["help"]  # Python 3.11 adds the default of a switch
    action.hidden = also
    hidden = {"dest": name, "default": default, "help": argparse.SUPPRESS}
    for switch, value in switches.items():
        group.add_argument(switch, action="store_const", const=value, **hidden)


def _setting(settings: Mapping[str, Any], default: Any, names: list[str]) -> Any:
    """The value of an option in the environment, else its default. Raises: UserError."""
    name = next(filter(os.environ.get, names), None)
    if name is None:
        return default
    text = os.environ[name]
    try:
        value = True if "action" in settings else settings.get("type", str)(text)
    except argparse.ArgumentTypeError as error:
        raise UserError(f"{name}: {error}") from None
    if value not in (known := settings.get("choices", (value,))):
        raise UserError(f"{name} expects one of {', '.join(known)}, found '{text}'")
    return value


def _value(name: str, hint: Any, default: Any, meta: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``add_argument`` that say what a value is."""
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = [part for part in get_args(hint) if part is not type(None)]
    if hint is bool:
        both = default is True or default is None
        return {"action": argparse.BooleanOptionalAction if both else "store_true"}
    found: dict[str, Any] = {}
    if get_origin(hint) is tuple and not ("parse" in meta and Ellipsis not in get_args(hint)):
        hint, *more = get_args(hint)
        several = argparse.REMAINDER if meta.get("rest") else "*" if meta.get("empty") else "+"
        nargs = several if more == [Ellipsis] else 1 + len(more)
        found = {"action": "append"} if meta.get("repeat") else {"nargs": nargs}
    choices = meta.get("choices", ())
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        hint = type(choices[0])
    if choices:
        found["choices"] = tuple(choices() if callable(choices) else choices)
    if "parse" in meta:
        found["type"] = meta["parse"]
    elif hint in (int, float):
        found["type"] = number(hint, meta.get("least"))
    metavar = meta.get("metavar")
    if len(found.get("choices", ())) > 6:
        metavar = metavar or "NAME"
    elif not choices and not meta.get("positional"):
        metavar = metavar or {int: "N", float: "X"}.get(hint, name.split("_")[-1].upper())
    return {**found, "metavar": metavar} if metavar else found


def number(kind: type, least: float | None = None) -> Callable[[str], Any]:
    """What reads an integer or a number of a command line."""
    expected = "an integer" if kind is int else "a number"
    expected += "" if least is None else f" of at least {least}"

    def read_number(text: str) -> Any:
        with contextlib.suppress(ValueError):
            value = kind(text)
            if value >= (-math.inf if least is None else least):  # NaN is not
                return value
        raise argparse.ArgumentTypeError(f"expected {expected}, found {text!r}")

    return read_number


def _group(parser: argparse.ArgumentParser, options: type, item: Field) -> Any:
    """Where the help lists a flag: by its title, or that of the class that declares it first."""
    declared = [one for one in options.__mro__ if item.name in vars(one).get("__annotations__", {})]
    title = item.metadata.get("title") or vars(declared[-1]).get("TITLE")
    if not title:
        return parser
    known = {group.title: group for group in parser._action_groups}
    return known.get(title) or parser.add_argument_group(title)


def read_options(options: type[Options], namespace: argparse.Namespace) -> Options:
    """The object that a parsed command line describes."""
    values: dict[str, Any] = {}
    for item in fields(cast(Any, options)):
        if "names" in item.metadata:
            given = {one.name: getattr(namespace, one.name) for one, _ in borrowed(options, item)}
            values[item.name] = {name: value for name, value in given.items() if value is not None}
        elif {"help", "words", "others"} & item.metadata.keys():
            value = getattr(namespace, item.name)
            values[item.name] = tuple(value) if isinstance(value, list) else value
    return options(**values)


def command(
    parser: "Parser",
    options: type[Options],
    run: Callable[[Options], Any],
    example: str = "",
    description: str = "",
) -> None:
    """Fill the parser of a command. Args: run: what the command does; returns its exit status."""
    parser.description, parser.epilog = description or parser.description, example
    parser.set_defaults(run=lambda namespace: run(read_options(options, namespace)), parser=parser)
    parser.fill = lambda: add_flags(parser, options)


def action(run: Run) -> Run:
    """Declare a command: a function of one dataclass of options, whose docstring is its help.

    The first sentence stands in lists, what follows describes, and from ``example`` on it is
    printed below the flags.
    """
    summary, _, text = (inspect.getdoc(run) or "").partition("\n\n")
    description, *examples = re.split(r"(?m)^(?=examples?:)", text, maxsplit=1)
    vars(run)["texts"] = summary, "".join(examples), description.strip()
    return run


def add_declared(parser: "Parser", module: types.ModuleType, name: str) -> None:
    """Fill a parser with the action of this name, or else with all that a module declares."""
    functions = {key: run for key, run in vars(module).items() if inspect.isfunction(run)}
    actions: dict[str, Any] = {key: run for key, run in functions.items() if hasattr(run, "texts")}
    only = {key: run for key, run in actions.items() if key == name.replace("-", "_")}
    add = None if only else parser.add_actions()
    for key, run in (only or actions).items():
        summary, *texts = run.texts
        clause = summary[:1].lower() + summary[1:].removesuffix(".").replace("\n", " ")
        found = add(key.replace("_", "-"), help=clause.replace("%", "%%")) if add else parser
        command(found, next(iter(get_type_hints(run).values())), run, *texts)


class Ignored(argparse.Action):
    """A flag of another program that has no meaning here."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        logger.warning("%s has no meaning here and is ignored", option_string)


class HelpFormatter(argparse.HelpFormatter):
    """Keeps the lines of examples, and lists of a flag only the spelling to use."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = re.sub(r"(?m)^(\S.*)\n(?=\S)", r"\1 ", text).splitlines()
        return "\n".join(textwrap.fill(line, width) if line[:1].strip() else line for line in lines)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        hidden = getattr(action, "hidden", ())
        shown = copy.copy(action)
        names = [n for n in action.option_strings if n not in hidden and not n.startswith("--no-")]
        shown.option_strings = names or action.option_strings
        return super()._format_action_invocation(shown)


class Parser(argparse.ArgumentParser):
    """A parser that is filled when it is used, and says what a misspelled word may have meant."""

    def __init__(self, **settings: Any):
        super().__init__(**{"formatter_class": HelpFormatter, **settings})
        self.fill: Callable[[], None] | None = None
        self.words: str | None = None  # where unknown flags go, each with one word
        self.others: str | None = None  # where all go that are no flags
        self.given: list[str] = []  # words of the command line
        self.either: list[tuple[argparse.Action, argparse.Action]] = []  # positional, flags for it

    def add_actions(self, metavar: str = "ACTION", **settings: Any) -> Callable[..., "Parser"]:
        """Sub-commands; without one the help is printed. Returns: ``add_parser``."""
        self.set_defaults(run=lambda namespace: self.print_help(), parser=self)
        settings = {"title": f"{metavar.lower()}s", **settings}
        return self.add_subparsers(metavar=metavar, **settings).add_parser

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        while self.fill:  # it may name another one that continues
            fill, self.fill = self.fill, None
            fill()
        if self.get_default("run") and not self._subparsers:
            self.usage = self.short_usage()
        args = sys.argv[1:] if args is None else list(args)
        words = self.take_words(args) if self.words else {}
        self.given = [word.split("=")[0] for word in args if len(word) > 2]
        replaced, actions = [], self._actions
        for positional, flag in self.either:
            if any(name.startswith(word) for word in self.given for name in flag.option_strings):
                replaced.append(positional)
        self._actions = [action for action in actions if action not in replaced]
        try:
            found, unknown = super().parse_known_args(args, namespace)
        finally:
            self._actions = actions
        if self.words:
            setattr(found, self.words, words)
        if self.others:
            setattr(found, self.others, unknown)
            unknown = []
        return found, unknown

    def unrecognized(self, words: list[str]) -> str:
        """The message about words that are unknown, with what one may have meant."""
        meant = (did_you_mean(word.split("=")[0], self._option_string_actions) for word in words)
        return f"unrecognized arguments: {' '.join(words)}{next(filter(None, meant), '')}"

    def error(self, message: str) -> typing.NoReturn:
        """A flag may only be missing because it is misspelled."""
        names, flags = self._option_string_actions, [it for it in self.given if it[:2] == "--"]
        wrong = [flag for flag in flags if not any(name.startswith(flag) for name in names)]
        is_missing = "arguments are required" in message and not self.others
        super().error(self.unrecognized(wrong) if wrong and is_missing else message)

    def take_words(self, args: list[str]) -> dict[str, str]:
        """The ``--name text`` and ``--name=text`` that are no flags of this parser."""
        words, left = {}, iter(args[:])
        args.clear()
        for word in left:
            flag, equals, text = word.partition("=")
            known = any(name.startswith(flag) for name in self._option_string_actions)
            if known or not flag.startswith("--"):
                args.append(word)
                continue
            value = text if equals else next(left, None)
            if value is None or not equals and value.startswith("--"):
                self.error(f"argument {flag}: expected one argument")
            words[flag[2:].replace("-", "_")] = value
        return words

    def short_usage(self) -> str:
        """The required flags and the words; ``--help`` lists the rest."""
        parts = []
        for action in self._actions:
            name = action.metavar or action.dest.upper()
            name = " ".join(name) if isinstance(name, tuple) else name
            name += " ..." if action.nargs in ("+", "*") else ""
            if action.option_strings:
                name = f"{action.option_strings[0]} {name}"
            if action.required or not action.option_strings:
                parts.append(name if action.required else f"[{name}]")
        return " ".join(["%(prog)s", "[OPTIONS]", *parts]).replace("%%", "%")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, unknown = self.parse_known_args(args, namespace)
        parser = getattr(found, "parser", self)
        if unknown:
            parser.error(parser.unrecognized(unknown))
        return found

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = list(map(str, action.choices))
            if isinstance(action, argparse._SubParsersAction):  # without other names of a command
                known = [
                    name for name, one in action.choices.items() if one.prog.split()[-1] == name
                ]
            expected = f"expected one of {', '.join(known)}, found {value!r}"
            raise argparse.ArgumentError(action, expected + did_you_mean(str(value), known))
