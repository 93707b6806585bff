"""The flags of ``fairseq-train`` without importing fairseq: which there are, and their values."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from ofa.errors import UserError, did_you_mean
from ofa.io.flags import flags_of

# Made from fairseq's own parser, and compared with it by a test.
TABLE = Path(__file__).parent / "templates" / "fairseq_flags.txt"
# What others call a flag.
ELSEWHERE = {
    "--learning-rate": "--lr",
    "--epochs": "--max-epoch",
    "--steps": "--max-update",
    "--image-size": "--patch-image-size",
    "--gradient-accumulation-steps": "--update-freq",
    "--output-dir": "--out",
}


def value_of(flag: str, flags: Sequence[str]) -> str | None:
    """The last value of a flag, in either spelling."""
    value = None
    for word, following in zip(flags, [*flags[1:], ""]):
        if word == flag:
            value = following
        elif word.startswith(f"{flag}="):
            value = word.partition("=")[2]
    return value


def int_of(flag: str, flags: Sequence[str], default: int) -> int:
    """The last value of a flag as an integer. Raises: UserError if it is none."""
    text = value_of(flag, flags)
    try:
        return int(text) if text else default
    except ValueError:
        raise UserError(f"{flag}: expected an integer, found {text!r}; correct it") from None


def known_flags(task: str | None = None) -> list[str]:
    """Every flag of a training. Args: task: whose flags count as well, if a package brings it."""
    from ofa.tasks import specs_called

    known = TABLE.read_text(encoding="utf-8").splitlines()
    for spec in specs_called(task) if task else ():
        known += flags_of(spec.options)
    return known


def check_flags(flags: Sequence[str], own: Sequence[str], task: str | None) -> list[str]:
    """The flags, with ``--max-ep=5`` spelled out as ``--max-epoch=5``, so that all that looks for a
    flag finds it: argparse takes the beginning of a flag for it. One that may be several flags is
    left to the parser, which knows whether this training has both.

    Args: own: flags of the command itself. task: whose flags count, if none is among ``flags``.
    Raises: UserError for a flag that neither fairseq nor the task knows.
    """
    known = {*own, *known_flags(value_of("--task", flags) or task)}
    words = []
    for word in flags:
        flag, equals, value = word.partition("=")
        if flag.startswith("--") and flag not in known:
            meant = [name for name in known if name.startswith(flag)]
            if not meant:
                raise UserError(
                    f"ofa train: expected a flag of ofa train or fairseq-train, found {flag}"
                    f"{proposal(flag, sorted(known))}"
                )
            word = f"{meant[0]}{equals}{value}" if len(meant) == 1 else word
        words.append(word)
    return words


def proposal(flag: str, known: Sequence[str]) -> str:
    """The end of a message: the flag that another one may have meant, or nothing."""
    text = did_you_mean(flag, [*ELSEWHERE, *known])
    for name, meant in ELSEWHERE.items():
        text = text.replace(f" {name}?", f" {meant}?")
    return text


def given(flags: Iterable[str]) -> list[str]:
    """The names of the flags among words; a value is no flag."""
    return [word.partition("=")[0] for word in flags if word.startswith("--")]
