"""Scenes of synthetic shapes: one to four outlined, colored shapes on a textured background.

Everything about a scene is a function of ``(seed, split, index)``, the same on every machine.

    >>> scene = make_scene(seed=1, split="train", index=0)
    >>> [thing.kind for thing in scene.things]
    [('large', 'brown', 'arrow'), ('small', 'orange', 'square')]
    >>> render(scene, size=64).size
    (64, 64)

Coordinates: a scene is a unit square, x to the right and y down; boxes are ``(x0, y0, x1, y1)``.
"""

import itertools
import math
import random
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ofa.io.image_grid import as_field
from ofa.io.json_files import read_yaml

Box = tuple[float, float, float, float]
Rgb = tuple[int, ...]

_LOOKS = read_yaml(Path(__file__).parent / "templates/shapes.yaml")
COLORS: dict[str, Rgb] = {name: tuple(rgb) for name, rgb in _LOOKS["colors"].items()}
BACKDROPS: dict[str, Rgb] = {name: tuple(rgb) for name, rgb in _LOOKS["backdrops"].items()}
CORNERS: dict[str, list[list[float]]] = _LOOKS["corners"]
SHAPES = tuple(CORNERS)
TEXTURES = ("paper", "stripes", "dots", "checks", "specks")  # paper is plain
SIZES = {"small": (0.24, 0.28), "large": (0.38, 0.44)}  # width, as a part of the image's side
# Without outlines a network learns the colors and then, for long, nothing else.
INK = (0, 0, 0)
OUTLINE = 0.03  # its width, as a part of the image's side
CLEARLY_INSIDE = 0.04  # a place: part of the side between its border and the center of a shape
MARGIN = 0.03  # free space around each shape
OVERSAMPLING = 4  # shapes are drawn this much larger and reduced, which smooths their edges
SHADE = 12  # by which the dark half of a texture differs from its backdrop
FORMATS: dict[str, dict[str, int]] = {"jpeg": {"quality": 92, "subsampling": 0}, "png": {}}


@dataclass(frozen=True)
class Shape:
    """One shape. Args: box: exact, in the unit square. rgb: its shade of ``color``."""

    shape: str
    color: str
    size: str
    box: Box
    rgb: Rgb

    @property
    def center(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def kind(self) -> tuple[str, str, str]:
        """Things of one kind are counted together."""
        return self.size, self.color, self.shape

    @property
    def look(self) -> tuple[str, str]:
        return self.color, self.shape

    @property
    def place(self) -> str:
        """Which ninth of the image the center lies in: ``top left``, ``top``, ..., ``middle``."""
        column, row = (min(2, int(v * 3)) for v in self.center)
        words = ("top", "", "bottom")[row], ("left", "", "right")[column]
        return " ".join(filter(None, words)) or "middle"

    @property
    def has_clear_place(self) -> bool:
        """Whether the center lies away from the borders of that ninth."""
        distances = (abs(v - border) for v in self.center for border in (1 / 3, 2 / 3))
        return min(distances) >= CLEARLY_INSIDE

    def box_px(self, side: int) -> list[float]:
        """xyxy box in pixels of an image of that side."""
        return [round(v * side, 2) for v in self.box]


@dataclass(frozen=True)
class Scene:
    """Things from left to right, and the background they lie on. Args: period: of the texture, as
    a part of the side. noise_seed: of the background's grain."""

    scene_id: str
    things: tuple[Shape, ...]
    texture: str
    backdrop: str
    period: float
    noise_seed: int

    def description(self) -> tuple:
        """What a caption can say of the scene; equal descriptions must not lie in two splits."""
        things = sorted((*thing.kind, thing.place) for thing in self.things)
        return self.texture, self.backdrop, tuple(things)

    def rng(self, purpose: str) -> random.Random:
        """Decides what is said of the scene; for each purpose always the same."""
        return random.Random(f"{purpose}/{self.scene_id}/{self.noise_seed}")

    def to_json(self, side: int) -> dict:
        """Plain data. Args: side: of the image whose pixels ``box`` counts."""
        background = {"texture": self.texture, "colour": self.backdrop, "period": self.period}
        background["noise_seed"] = self.noise_seed
        things = [
            {"shape": one.shape, "colour": one.color, "size": one.size, "place": one.place}
            | {"box": one.box_px(side), "rgb": list(one.rgb)}
            for one in self.things
        ]
        scene = {"id": self.scene_id, "width": side, "height": side, "background": background}
        return {**scene, "objects": things}


def make_scene(seed: int, split: str, index: int) -> Scene:
    """Scene ``index`` of an endless split. Depends on nothing but its arguments."""
    rng = random.Random(f"picture world/{seed}/{split}/{index}")
    texture, backdrop = rng.choice(TEXTURES), rng.choice(list(BACKDROPS))
    things: list[Shape] = []
    for _ in range(rng.choices((1, 2, 3, 4), weights=(6, 5, 3, 2))[0]):
        twin = things[-1] if things and rng.random() < 0.15 else None
        thing = _place_thing(rng, things, twin)
        if thing is None:
            break
        things.append(thing)
    things.sort(key=lambda thing: thing.center)
    period = round(rng.uniform(0.12, 0.2), 3)
    return Scene(f"{split}_{index}", tuple(things), texture, backdrop, period, rng.randrange(2**31))


def _place_thing(rng: random.Random, others: list[Shape], twin: Shape | None) -> Shape | None:
    """A thing that overlaps no other one, of the kind of ``twin``; None if there is no room."""
    shape, color, size = rng.choice(SHAPES), rng.choice(list(COLORS)), rng.choice(list(SIZES))
    if twin is not None:
        size, color, shape = twin.kind
    red, green, blue = (min(255, max(0, part + rng.randint(-14, 14))) for part in COLORS[color])
    for attempt in range(1000):
        if attempt == 200:
            size = "small"  # the image is too full for a large one
        width = rng.uniform(*SIZES[size])
        x0, y0 = (rng.uniform(MARGIN, 1 - MARGIN - width) for _ in "xy")
        box = (round(x0, 4), round(y0, 4), round(x0 + width, 4), round(y0 + width, 4))
        if not any(_overlap(box, other.box) for other in others):
            return Shape(shape, color, size, box, (red, green, blue))
    return None


def _overlap(a: Box, b: Box) -> bool:
    return all(a[i] < b[i + 2] + MARGIN and b[i] < a[i + 2] + MARGIN for i in (0, 1))


def make_split(
    seed: int, split: str, count: int, avoid: Set[tuple] = frozenset()
) -> Iterator[Scene]:
    """The first ``count`` scenes of a split whose descriptions are not in ``avoid``."""
    scenes = (make_scene(seed, split, index) for index in itertools.count())
    new = (scene for scene in scenes if scene.description() not in avoid)
    return itertools.islice(new, count)


def make_splits(seed: int, counts: dict[str, int]) -> dict[str, list[Scene]]:
    """The scenes of train, val and test; none is described like one of another split."""
    seen: set[tuple] = set()
    scenes = {}
    for split in ("test", "val", "train"):
        scenes[split] = list(make_split(seed, split, counts[split], seen))
        seen.update(scene.description() for scene in scenes[split])
    return dict(reversed(scenes.items()))


def render(scene: Scene, size: int = 64) -> Image.Image:
    """The scene as an RGB image of ``size`` x ``size`` pixels."""
    image = Image.fromarray(_background(scene, size))
    for thing in scene.things:
        x0, y0, x1, y1 = (side * size for side in thing.box)
        left, top = math.floor(x0), math.floor(y0)
        box = (x0 - left, y0 - top, x1 - left, y1 - top)
        width, height = (OVERSAMPLING * math.ceil(side) for side in box[2:])
        tile = Image.new("RGBA", (width, height))
        draw_oversampled(tile, thing, box, OUTLINE * size)
        tile = tile.reduce(OVERSAMPLING)
        image.paste(tile, (left, top), tile)
    return image


def draw_oversampled(tile: Image.Image, thing: Shape, box: Box, outline: float) -> None:
    """The thing in its box of an enlarged tile; the outline (its width in pixels) lies inside."""
    x0, y0, x1, y1 = (OVERSAMPLING * side for side in box)
    pen, width = ImageDraw.Draw(tile), round(OVERSAMPLING * outline)
    if corners := CORNERS[thing.shape]:
        places = np.array(corners) * (x1 - x0, y1 - y0) + (x0, y0)
        pen.polygon([*places.flat], thing.rgb, INK, width)
    else:
        pen.ellipse((x0, y0, x1, y1), thing.rgb, INK, width)
    if thing.shape == "ring":
        hole = 0.25 * (x1 - x0)
        pen.ellipse((x0 + hole, y0 + hole, x1 - hole, y1 - hole), (0, 0, 0, 0), INK, width)


def _background(scene: Scene, size: int) -> np.ndarray:
    """uint8[size, size, 3]: the texture in two shades of the backdrop, with a little grain."""
    noise = np.random.RandomState(scene.noise_seed)  # the legacy generator's stream never changes
    y, x = np.mgrid[0:size, 0:size] / size / scene.period  # in periods of the texture
    shift = noise.uniform(size=2)
    x, y = x + shift[0], y + shift[1]
    dark = {
        "paper": lambda: np.zeros_like(x, dtype=bool),
        "stripes": lambda: (x + y) % 1.0 < 0.5,
        "dots": lambda: (x % 1.0 - 0.5) ** 2 + (y % 1.0 - 0.5) ** 2 < 0.08,
        "checks": lambda: (np.floor(x) + np.floor(y)) % 2 < 1,
        "specks": lambda: noise.uniform(size=x.shape) < 0.25,
    }[scene.texture]()
    grain = noise.randint(-5, 6, size=(size, size, 1))
    shade = np.asarray(BACKDROPS[scene.backdrop]) - SHADE * dark[..., None] + grain
    return shade.clip(0, 255).astype(np.uint8)


def encode(scene: Scene, size: int, image_format: str) -> str:
    """The image as a file (``jpeg`` or ``png``) in base64."""
    return as_field(render(scene, size), image_format, **FORMATS[image_format])
