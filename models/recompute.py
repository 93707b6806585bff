"""Values that cost little time and much memory: computed again in the backward pass, not kept.

A layer norm, an activation or a factor per head reads and writes its numbers once, which is little
beside the products around it, but its output is kept for the gradient of the product behind it.
Inside ``recomputing`` what ``cheap(function, *inputs)`` returns is kept as a recipe instead. The
numbers are the same, bit for bit.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Optional, Union

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

# Numbers of a layer's input from which on it pays: a smaller layer keeps the GPU waiting for its
# host, which the recipes give more to do.
LARGE = 1 << 22


class Recipe:
    """How a value is made from tensors that are kept, or from other recipes.

    Backward passes take it as often as it was kept: in between it is not made again.
    """

    def __init__(self, function: Callable[..., Tensor], inputs: list[Any]) -> None:
        self.function, self.inputs = function, inputs
        self.uses = self.uses_left = 0
        self.value: Optional[Tensor] = None

    def use(self) -> "Recipe":
        self.uses += 1
        return self

    def make(self) -> Tensor:
        if self.value is None:
            inputs = [one.make() if isinstance(one, Recipe) else one for one in self.inputs]
            self.value, self.uses_left = self.function(*inputs), self.uses
        value = self.value
        self.uses_left -= 1
        if self.uses_left <= 0:
            self.value = None
        return value


class Recipes(threading.local):
    """Of the layer that a thread computes: by storage, the value and its recipe."""

    found: Optional[dict[int, tuple[Tensor, Recipe]]] = None


recipes = Recipes()


def cheap(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """``function(*inputs)``, a new tensor that depends on nothing else, random numbers included."""
    value = function(*inputs)
    if not torch.compiler.is_compiling() and recipes.found is not None:
        kept = [recipe_of(one) or keep(one.detach()) for one in inputs]
        recipes.found[storage_of(value)] = value, Recipe(function, kept)
    return value


@contextmanager
def recomputing() -> Iterator[None]:
    """A layer whose cheap values are not kept."""
    recipes.found = {}
    try:
        with saved_tensors_hooks(pack, unpack):
            yield
    finally:
        recipes.found = None


def recomputing_pays(layer_input: Tensor) -> bool:
    """In training on a GPU; torch.compile finds cheap values itself, and autocast changes what they
    are made of."""
    if torch.compiler.is_compiling() or layer_input.device.type != "cuda":
        return False
    trains = torch.is_grad_enabled() and not torch.is_autocast_enabled("cuda")
    return trains and layer_input.numel() >= LARGE


def pack(tensor: Tensor) -> Union[Tensor, tuple[Recipe, torch.Size]]:
    recipe = recipe_of(tensor)
    return keep(tensor) if recipe is None else (recipe, tensor.shape)


def unpack(kept: Union[Tensor, tuple[Recipe, torch.Size]]) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    with torch.no_grad():
        return kept[0].make().view(kept[1])


def keep(tensor: Tensor) -> Tensor:
    """What is kept as it is goes through here."""
    return tensor


def recipe_of(tensor: Tensor) -> Optional[Recipe]:
    """Of a cheap value, or all of it in another shape."""
    assert recipes.found is not None
    if (found := recipes.found.get(storage_of(tensor))) is None:
        return None
    value, recipe = found
    same = tensor.numel() == value.numel() and tensor.is_contiguous() and value.is_contiguous()
    return recipe.use() if same else None


def storage_of(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
