"""How a name of fairseq is replaced, and an object that it makes by itself."""

import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

_replaced: set[tuple[int, str]] = set()


class Patch(NamedTuple):
    """A name of fairseq that is replaced."""

    # the module, class or registry that has it; a string: a program, found under this name or as
    # ``__main__``
    owner: Any
    name: str
    make: Callable[[Any], Any]  # its value -> its replacement; the docstring is the reason

    def apply(self) -> None:
        """Replace the name where it is now; a program that is not loaded has none."""
        for owner in self.loaded():
            self.apply_to(owner)

    def apply_to(self, owner: Any) -> None:
        """Replace the name in one place, unless that is done. Args: owner: a class or a dict."""
        if (id(owner), self.name) in _replaced:
            return
        _replaced.add((id(owner), self.name))
        if isinstance(owner, dict):
            owner[self.name] = self.make(owner[self.name])
        else:
            setattr(owner, self.name, self.make(getattr(owner, self.name)))

    def loaded(self) -> list[Any]:
        if isinstance(self.owner, (dict, type)):
            return [self.owner]
        if not isinstance(self.owner, str):
            return [vars(self.owner)]
        modules = filter(None, map(sys.modules.get, (self.owner, "__main__")))
        return [vars(it) for it in modules if getattr(it.__spec__, "name", None) == self.owner]


def around(function: Callable) -> Callable[[Callable], Callable]:
    """The ``make`` of a patch: what replaces ``stock(...)`` calls ``function(stock, ...)``."""

    @functools.wraps(function)
    def make(stock: Callable) -> Callable:
        @functools.wraps(stock, updated=())
        def replacement(*args, **kwargs):
            return function(stock, *args, **kwargs)

        return replacement

    return make


class ModuleWith:
    """A module in which some names are replaced, for one importing module only."""

    def __init__(self, module, **replaced):
        self.__dict__.update(replaced, _module=module)

    def __getattr__(self, name):
        return getattr(self._module, name)


def specialize(instance: Any, subclass: type) -> None:
    """Change the class of ``instance`` to ``subclass`` if it is an instance of just its base.

    fairseq gives no other way to say which torch optimizer, scheduler or iterator it makes;
    replacing its own class would change every user of it.
    """
    if type(instance) is subclass.__base__:
        instance.__class__ = subclass
