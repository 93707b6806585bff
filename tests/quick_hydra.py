"""hydra without what it does anew for each command line of fairseq, for nearly half of its time: it
copies the defaults of all options, which nothing changes, and parses each of them from text."""

import copy
import functools
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser


def install() -> None:
    stock = OverridesParser.parse_rule
    known: dict[tuple[str, str], Any] = {}

    @functools.wraps(stock)
    def parse_rule(parser: OverridesParser, text: str, rule_name: str) -> Any:
        key = (text, rule_name)
        if key not in known:
            known[key] = stock(parser, text, rule_name)
        return copy.deepcopy(known[key])

    OverridesParser.parse_rule = parse_rule  # type: ignore[method-assign]
    ConfigStore.__deepcopy__ = lambda store, memo: store  # type: ignore[attr-defined]
