"""Command lines made from dataclasses."""

import sys
from dataclasses import dataclass, field
from typing import Literal, Optional

import pytest

from ofa.inference.options import DeviceOptions
from ofa.io.flags import (
    Parser,
    action,
    add_declared,
    command,
    flags_of,
    option,
    options_of,
    read_options,
)


@dataclass(frozen=True, kw_only=True)
class Machine:
    TITLE = "machine"

    device: Literal["cpu", "cuda"] = option("cuda", "where to compute", const={"--cpu": "cpu"})


@dataclass
class Stored:
    beam: int = option(5, "hypotheses kept at each step")
    zero_shot: bool = option(False, "constraints act on probabilities")
    lenpen: Optional[float] = option(None, "exponent of the length")


@dataclass(frozen=True, kw_only=True)
class Options(Machine):
    checkpoint: str = option(help="checkpoint file", positional=True, also=("--path",))
    data: str | None = option(None, "rows to read", positional=True)
    out: str = option(help="folder to write", also=("--results-path",))
    rows: int = option(10, "rows to read, at 100 % of them", least=1)
    names: tuple[str, ...] = option((), "names of columns")
    size: tuple[int, int] | None = option(None, "height and width", metavar=("H", "W"))
    compare: tuple[str, ...] = option((), "other files", repeat=True, also=("--versus",))
    keep: bool = option(True, "keep what is there")
    split: str | None = option(None, "name of the split", exclusive="split")
    fraction: float | None = option(None, "part of the rows", exclusive="split")
    purpose: Literal["one", "two"] = option("one", "what for", flag="--for")
    stored: dict = options_of(lambda: Stored, "beam", "zero_shot", "lenpen")


def read(*words: str) -> Options:
    parser = Parser(description="a program")
    command(parser, Options, lambda options: options)
    namespace = parser.parse_args([*words])
    return namespace.run(namespace)


def fails(capsys, *words: str) -> str:
    """The error of a command line."""
    with pytest.raises(SystemExit) as ended:
        read(*words)
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_what_is_left_out_has_the_default_of_its_field():
    assert read("a.pt", "--out", "x") == Options(checkpoint="a.pt", out="x")


def test_every_type_is_read():
    words = """a.pt b.tsv --out=x --rows 3 --names a b --size 4 5 --compare c --compare d --no-keep
        --fraction 0.5 --for two --device cpu --beam 2 --zero-shot"""
    assert read(*words.split()) == Options(
        checkpoint="a.pt",
        data="b.tsv",
        out="x",
        rows=3,
        names=("a", "b"),
        size=(4, 5),
        compare=("c", "d"),
        keep=False,
        fraction=0.5,
        purpose="two",
        device="cpu",
        stored={"beam": 2, "zero_shot": True},
    )


def test_other_spellings_are_accepted():
    wanted = Options(checkpoint="a.pt", data="b.tsv", out="x", device="cpu", compare=("c",))
    assert (
        read("b.tsv", "--path", "a.pt", "--results-path", "x", "--cpu", "--versus", "c") == wanted
    )
    assert read("--checkpoint=a.pt", "--cpu", "--out", "x", "b.tsv", "--versus", "c") == wanted
    assert read("a.pt", "--cpu", "--out", "x", "b.tsv", "--versus", "c") == wanted


def test_an_option_of_another_dataclass_can_be_switched_off():
    assert read("a.pt", "--out", "x", "--no-zero-shot", "--lenpen", "0.5").stored == {
        "zero_shot": False,
        "lenpen": 0.5,
    }


@pytest.mark.parametrize(
    "words, message",
    [
        ("", "the following arguments are required: checkpoint, --out/--results-path"),
        ("a.pt", "the following arguments are required: --out/--results-path"),
        ("a.pt --rows 0", "argument --rows: expected an integer of at least 1, found '0'"),
        ("a.pt --fraction nan", "argument --fraction: expected a number, found 'nan'"),
        ("a.pt --beam many", "argument --beam: expected an integer, found 'many'"),
        (
            "a.pt --for tow",
            "argument --for: expected one of one, two, found 'tow'; did you mean two?",
        ),
        ("a.pt --split a --fraction 1", "argument --fraction: not allowed with argument --split"),
        ("a.pt --cpu --device cpu", "argument --device: not allowed with argument --cpu"),
        ("a.pt --out x --beem=4", "unrecognized arguments: --beem=4; did you mean --beam?"),
        ("a.pt --out x b.tsv c.tsv", "unrecognized arguments: c.tsv"),
    ],
)
def test_an_error_names_the_flag_what_is_expected_and_what_is_found(words, message, capsys):
    assert fails(capsys, *words.split()).endswith(f"error: {message}")


def test_the_help_lists_one_spelling_of_an_option_with_its_default(capsys):
    with pytest.raises(SystemExit):
        read("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "[OPTIONS] CHECKPOINT [DATA] --out OUT" in text
    assert (
        "rows to read, at 100 % of them (default: 10)" in text
        and "machine: --device {cpu,cuda} where to compute (default: cuda)" in text
    )
    assert "--keep keep what is there" in text and "--compare COMPARE other files --keep" in text
    assert not any(
        name in text for name in ("--path", "--results-path", "--cpu", "--no-keep", "--versus")
    )


def test_a_parser_of_several_commands_is_filled_when_one_is_used(capsys):
    parser = Parser(prog="tool")
    add = parser.add_actions("COMMAND")
    seen = []
    command(
        add("show", help="look at it"),
        Options,
        seen.append,
        example="example: tool show a.pt",
        description="Looks at it.",
    )
    add("other", help="something else").fill = lambda: pytest.fail("not used")
    namespace = parser.parse_args(["show", "a.pt", "--out", "x"])
    namespace.run(namespace)
    assert seen == [Options(checkpoint="a.pt", out="x")]
    with pytest.raises(SystemExit):
        parser.parse_args(["shwo"])
    assert (
        "error: argument COMMAND: expected one of show, other, found 'shwo'; did you mean show?"
        in capsys.readouterr().err
    )
    with pytest.raises(SystemExit):
        parser.parse_args(["show", "a.pt", "--out", "x", "--devise=cpu"])
    assert (
        "tool show: error: unrecognized arguments: --devise=cpu; did you mean --device?"
        in capsys.readouterr().err
    )
    namespace = parser.parse_args([])
    namespace.run(namespace)
    assert "look at it" in capsys.readouterr().out


@action
def show(options: Options) -> int:
    """Look at 100 % of it.

    Long lines
    are joined.

    example: tool show a.pt
    """
    return len(options.checkpoint)


@pytest.mark.parametrize("name, words", [("show", []), ("tool", ["show"])])
def test_the_docstring_of_an_action_is_its_help(name, words, capsys):
    parser = Parser(prog="tool", description="known beforehand")
    add_declared(parser, sys.modules[__name__], name)
    namespace = parser.parse_args([*words, "a.pt", "--out", "x"])
    assert namespace.run(namespace) == 4
    with pytest.raises(SystemExit):
        parser.parse_args([*words, "--help"])
    text = capsys.readouterr().out
    assert "Long lines are joined." in text and text.endswith("\nexample: tool show a.pt\n")
    if words:
        parser.print_help()
        assert "look at 100 % of it\n" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["--device cuda:1", "--device cpu", "--cpu"])
def test_a_device_may_have_a_number(line):
    parser = Parser()
    command(parser, DeviceOptions, lambda options: options.device)
    namespace = parser.parse_args(line.split())
    assert read_options(DeviceOptions, namespace).device == line.replace("--cpu", "cpu").split()[-1]


@pytest.mark.parametrize("name", ["cuda:", "cuda:x", "gpu"])
def test_another_device_is_an_error(name, capsys):
    parser = Parser()
    command(parser, DeviceOptions, lambda options: options.device)
    with pytest.raises(SystemExit):
        parser.parse_args(["--device", name])
    assert f"expected one of auto, cpu, cuda, mps, cuda:1, ..., found '{name}'; did you mean" in (
        capsys.readouterr().err
    )


def test_the_flags_of_a_dataclass_are_listed_in_every_spelling():
    assert {"--out", "--results-path", "--keep", "--no-keep", "--for"} <= {*flags_of(Options)}


@dataclass(frozen=True, kw_only=True)
class Asked:
    beam: int = option(5, "hypotheses kept at each step")
    columns: dict[str, str] = field(default_factory=dict, metadata={"words": "--COLUMN TEXT"})


def test_a_word_of_any_name_needs_a_text(capsys):
    parser = Parser()
    command(parser, Asked, lambda options: options)
    namespace = parser.parse_args(["--text", "-5", "--beam", "3", "--two-words=--x"])
    assert read_options(Asked, namespace) == Asked(
        beam=3, columns={"text": "-5", "two_words": "--x"}
    )
    with pytest.raises(SystemExit):
        parser.parse_args(["--text", "--beam", "3"])
    assert "argument --text: expected one argument" in capsys.readouterr().err
