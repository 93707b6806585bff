"""Objects that fairseq makes by itself become instances of a subclass of this project."""

from typing import Any


def specialize(instance: Any, subclass: type) -> None:
    """Change the class of ``instance`` to ``subclass``, if it is the class just above.

    fairseq gives no other way to say which torch optimizer, scheduler or iterator it makes;
    replacing its own class would change every user of it.
    """
    if type(instance) is subclass.__base__:
        instance.__class__ = subclass
