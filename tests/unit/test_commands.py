"""The commands of ``ofa`` as a whole: how they are listed, named and corrected."""

import argparse
import importlib
import pkgutil
from collections.abc import Iterable, Iterator

import pytest

import ofa.cli
import ofa.prepare
import ofa.submit
import ofa.synthetic
from ofa.cli.main import ALIASES, COMMANDS, KINDS, build_parser, main
from ofa.io.flags import Parser

# Earlier spellings, which are accepted and not listed.
EARLIER = """--path --ema-eval --results-path --best --cpu --fp16 --nproc --processes --force --real
--overrides --max-pictures --eval-cider-cached-tokens""".split()


def leaves(parser: Parser) -> Iterator[Parser]:
    """The parsers of all commands, filled."""
    while parser.fill:
        fill, parser.fill = parser.fill, None
        fill()
    nested = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    for action in nested:
        for found in dict.fromkeys(action.choices.values()):
            yield from leaves(found)
    if not nested:
        yield parser


@pytest.fixture(scope="module")
def commands() -> list[Parser]:
    return list(leaves(build_parser()))


def shown(parser: Parser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.help not in (None, argparse.SUPPRESS)]


def test_ofa_alone_lists_every_command_in_its_group(capsys):
    assert main([]) == 0
    sections = capsys.readouterr().out.split("\n\n")
    for group, found in COMMANDS.items():
        (section,) = [text for text in sections if text.startswith(f"{group}:\n")]
        assert [line.split()[0] for line in section.splitlines()[1:]] == list(found)


def actions(modules: Iterable[str]) -> set:
    """What they declare."""
    found = [importlib.import_module(f"ofa.{module}") for module in modules]
    return {run for one in found for run in vars(one).values() if hasattr(run, "texts")}


def test_every_command_is_in_a_module_that_is_listed():
    tables = KINDS, *COMMANDS.values()
    listed = {module for table in tables for module, _ in table.values()} - {"prepare"}
    every = {
        f"{folder.__name__.removeprefix('ofa.')}.{info.name}"
        for folder in (ofa.cli, ofa.submit, ofa.prepare, ofa.synthetic)
        for info in pkgutil.iter_modules(folder.__path__)
    }
    assert listed < every and actions(listed) == actions(every)


@pytest.mark.parametrize(
    "words, proposal",
    [
        (["evalaute"], "did you mean evaluate?"),
        (["prepare", "coco-caption"], "did you mean coco-captions?"),
        (["prepare", "my captions.csv"], "did you mean csv my captions.csv?"),
        (["prepare", "a.JSONL"], "did you mean jsonl a.JSONL?"),
        (["vocab", "biuld"], "did you mean build?"),
        (["vocab", "show", "folder", "--num-bin=5", "--numcodes=7"], "did you mean --num-codes?"),
        (["vocab", "fetch", "gtp2", "--out", "x"], "did you mean gpt2?"),
        (["upstream", "--outt", "OFA"], "unrecognized arguments: --outt; did you mean --out?"),
    ],
)
def test_a_misspelled_word_gets_a_proposal(words, proposal, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2 and proposal in capsys.readouterr().err


@pytest.mark.parametrize("words", [["doctr"], ["prepare", "csw"]])
def test_earlier_names_of_commands_are_not_listed(words, capsys):
    with pytest.raises(SystemExit):
        main(words)
    listed = capsys.readouterr().err.partition("expected one of ")[2].split(", ")
    assert {"evaluate", "csv"} & {*listed}
    assert not {*listed} & {name for names in ALIASES.values() for name in names}


def test_a_group_of_actions_alone_prints_its_help(capsys):
    assert main(["checkpoint"]) == 0
    assert "one checkpoint with the mean weights of several" in capsys.readouterr().out


def test_every_option_says_what_it_is_in_at_most_15_words(commands):
    texts = {
        (parser.prog, action.dest): action.help.split(" (default: ")[0]
        for parser in commands
        for action in shown(parser)
    }
    assert len(texts) > 200
    assert not {where: text for where, text in texts.items() if len(text.split()) > 15}


def test_only_the_spelling_to_use_is_listed(commands):
    listed = {
        (one.prog, flag)
        for one in commands
        for action in shown(one)
        for flag in action.option_strings[:1]
    }
    assert not [where for where in listed if where[1] in EARLIER]


@pytest.mark.parametrize(
    "earlier, now",
    [
        (
            "evaluate d.tsv --path a.pt --results-path r --cpu --nproc 2 --fp16 --ema-eval",
            "evaluate a.pt d.tsv --out r --device cpu --jobs 2 --precision fp16 --ema",
        ),
        (
            "evaluate --images d --path a.pt:b.pt --overrides {} --beam-search-vqa-eval",
            "evaluate a.pt:b.pt --images d --model-overrides {} --val-inference-type beamsearch",
        ),
        (
            "predict a.pt --best 2 d --bf16",
            "predict d --checkpoint a.pt --n-best 2 --precision bf16",
        ),
        ("draw a.pt one two --out o --cpu", "draw one two --checkpoint=a.pt --out o --device cpu"),
        (
            "pretraining score a.pt --data d --out o",
            "pretraining score --path a.pt --data d --out o",
        ),
        (
            "checkpoint strip a.pt --out b --force",
            "checkpoint strip --checkpoint a.pt --out b --overwrite",
        ),
        ("vocab build --size 5 --out o --force", "vocab build --size 5 --out o --overwrite"),
        ("doctor --processes 2 a.tsv", "doctor --jobs 2 a.tsv"),
        (
            "tokenizer train --images i --out o --max-pictures 5",
            "tokenizer train --images i --out o --max-images 5",
        ),
        ("prepare text-world --out o", "prepare synthetic-sentences --out o"),
        ("book a=b --out c", "merge-reports a=b --out c"),
    ],
)
def test_earlier_spellings_mean_the_same(earlier, now):
    read = [vars(build_parser().parse_args(line.split())) for line in (earlier, now)]
    for found in read:
        del found["run"], found["parser"]
    assert read[0] == read[1]
