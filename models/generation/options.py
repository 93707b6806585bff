"""How to generate: the options of a generator, under fairseq's and upstream's names."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, get_type_hints

from ofa.errors import UserError, did_you_mean
from ofa.io.flags import option
from ofa.io.json_files import load_json
from ofa.io.values import read_integer, value_as

logger = logging.getLogger(__name__)

# Options of fairseq's generator that are offered nowhere here, with the value that switches each
# off.
UNSUPPORTED = {
    "diversity_rate": -1,
    "constraints": None,
    "lm_path": None,
    "print_alignment": None,
    "score_reference": False,
}
# Further ones of fairseq, without effect here.
IGNORED = """
    nbest no_early_stop no_beamable_mm replace_unk prefix_size print_step lm_weight sacrebleu
    retain_iter_history no_seed_provided eos_token
""".split()


# What others call an option; ``best`` is an argument of the Python API.
ELSEWHERE = {
    "num_beams": "beam",
    "beam_size": "beam",
    "n_best": "best",
    "max_length": "max_len_b",
    "max_new_tokens": "max_len_b",
    "length_penalty": "lenpen",
    "do_sample": "sampling",
    "top_k": "sampling_topk",
    "top_p": "sampling_topp",
}


@dataclass
class GenerationOptions:
    """Options of `SequenceGenerator`; lengths in tokens without </s>, scores natural logarithms."""

    beam: int = option(5, "hypotheses per image")
    max_len_a: float = option(0.0, "longest hypothesis: max_len_a * source length + max_len_b")
    max_len_b: int = option(200, "longest hypothesis: max_len_a * source length + max_len_b")
    min_len: int = option(1, "shortest hypothesis")
    lenpen: float = option(1.0, "scores / length ** lenpen; above 1 favors long hypotheses")
    unnormalized: bool = option(False, "compare summed scores, not divided by length")
    unkpen: float = option(0.0, "subtracted from the score of every <unk>")
    temperature: float = option(1.0, "logits are divided by it; above 1 flattens the distribution")
    no_repeat_ngram_size: int = option(0, "no n-gram of this size occurs twice; 0: off")
    sampling: bool = option(False, "draw tokens instead of searching for the best hypotheses")
    sampling_topk: int = option(-1, "draw among the k likeliest tokens only")
    sampling_topp: float = option(-1.0, "draw among the likeliest that reach this probability")
    diverse_beam_groups: int = option(-1, "groups of beams that avoid each other's tokens")
    diverse_beam_strength: float = option(0.5, "penalty of a token that an earlier group chose")
    match_source_len: bool = option(False, "hypotheses are as long as the source")
    constraint_range: Any = option(None, "'start,end': start <= id < end or a special token")
    only_range: Any = option(None, "'start,end': ids of tokens but </s>; scores stay as they are")
    zero_shot: bool = option(False, "constraints act on probabilities, without renormalizing")
    gen_code: bool = option(False, "image codes: their positions, no special token inside")
    ignore_eos: bool = option(False, "the final </s> counts as a log-probability of 1")
    prefix_allowed_tokens_fn: Callable[[int, Any], list[int]] | None = option(
        None, "(row, tokens so far) -> ids that may follow"
    )

    def __post_init__(self):
        vars(self).update(_typed(vars(self), "generation option "))
        self.constraint_range = parse_range(self.constraint_range)
        self.only_range = parse_range(self.only_range, "only_range")
        self.check()

    @classmethod
    def from_namespace(cls, namespace: Any, **overrides: Any) -> "GenerationOptions":
        """Options from an ``argparse.Namespace``, a config object or a dict.

        Args:
            namespace: names that are no generation options are skipped; None counts as unset.
            overrides: take effect where the namespace leaves an option unset (a task's
                ``constraint_range``).
        """
        given = dict(namespace) if hasattr(namespace, "keys") else dict(vars(namespace))
        for name, off in UNSUPPORTED.items():
            if given.get(name, off) not in (off, None):
                raise UserError(
                    f"generation option {name}={given[name]!r}: not offered; leave it out"
                )
        hook = given.get("prefix_allowed_tokens_fn")
        if hook is not None and not callable(hook):
            raise UserError(
                "generation option prefix_allowed_tokens_fn: expects a function of the caller's,"
                " found a value; leave it out"
            )
        if given.get("no_early_stop"):
            logger.warning("generation option no_early_stop has no effect, as in fairseq")
        names = {f.name for f in fields(cls)}
        chosen = {k: v for k, v in overrides.items() if k in names and v is not None}
        chosen |= {k: v for k, v in given.items() if k in names and v is not None}
        return cls(**chosen)

    def check(self) -> None:
        """Raises: UserError for a value out of range or options that exclude each other."""
        least = {"beam": 1, "min_len": 0, "no_repeat_ngram_size": 0, "max_len_b": 0}
        wrong = [
            (name, f"at least {low}") for name, low in least.items() if getattr(self, name) < low
        ]
        if not self.temperature > 0:
            wrong.append(("temperature", "above 0"))
        if self.sampling_topp > 1:
            wrong.append(("sampling_topp", "at most 1"))
        for name, expected in wrong:
            raise UserError(
                f"generation option {name}: expected {expected}, found {getattr(self, name)}"
            )
        if not self.sampling and (self.sampling_topk > 0 or self.sampling_topp > 0):
            raise UserError("generation options sampling_topk and sampling_topp need sampling=True")
        modes = {
            "sampling": self.sampling,
            "diverse_beam_groups": self.diverse_beam_groups > 0,
            "match_source_len": self.match_source_len,
        }
        chosen = [name for name, on in modes.items() if on]
        if len(chosen) > 1:
            raise UserError(
                f"generation options {' and '.join(chosen)} exclude each other; choose one"
            )
        if self.diverse_beam_groups > 0 and self.beam % self.diverse_beam_groups:
            raise UserError(
                f"generation option beam={self.beam}: expected a multiple of "
                f"diverse_beam_groups={self.diverse_beam_groups}"
            )


def parse_generation_options(text: str, where: str) -> dict[str, Any]:
    """The options of a JSON flag such as ``--eval-args '{"beam":5}'``. Args: where: the flag.
    Raises: UserError for anything else, and for options that are misspelled."""
    example = "such as '{\"beam\":5}', found"
    try:
        given = load_json(text)
    except ValueError as error:
        raise UserError(f"{where}: expects JSON {example} {text!r} ({error})") from error
    if not isinstance(given, dict):
        raise UserError(f"{where}: expects a JSON object {example} {text!r}")
    return check_options(given, where)


def check_options(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options, numbers of the type that they should have. Args: where: beginning of the
    message. Raises: UserError for one that is misspelled, or whose value is no such number."""
    known = [item.name for item in fields(GenerationOptions)]
    for name in given:
        if name in IGNORED:
            logger.warning("%s: generation option '%s' has no effect here", where, name)
        elif name not in (*known, *UNSUPPORTED):
            meant = ELSEWHERE.get(name)
            better = f"; did you mean {meant}?" if meant else did_you_mean(name, known)
            raise UserError(
                f"{where}: expected generation options ({', '.join(known)}), found '{name}'{better}"
            )
    return _typed(given, f"{where}: generation option ")


def _typed(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options as their types; None is unset."""
    types = _plain_types()
    return {
        name: value_as(where + name, value, types[name])
        if name in types and value is not None
        else value
        for name, value in given.items()
    }


@cache
def _plain_types() -> dict[str, type]:
    types = get_type_hints(GenerationOptions)
    return {name: kind for name, kind in types.items() if kind in (bool, int, float)}


def parse_range(value: Any, name: str = "constraint_range") -> tuple[int, int] | None:
    """``"5,9"``, ``"(5,9)"`` or a pair -> (start, end), end excluded; None and "" -> None."""
    if value is None or value == "":
        return None
    try:
        pair = load_json(f"[{value.strip(' ()[]')}]") if isinstance(value, str) else list(value)
        start, end = map(read_integer, pair)
    except (ValueError, TypeError) as error:
        raise UserError(f"{name}: expected 'start,end', found {value!r}") from error
    if not 0 <= start < end:
        raise UserError(f"{name}: expected 0 <= start < end, found {value!r}")
    return start, end
