"""Synthetic shapes: small synthetic images with captions, from which OFA learns something in
minutes.

A scene holds one to four outlined, colored shapes at free positions on a textured background.
Everything about it is a function of ``(seed, split, index)``, so images, captions and boxes are
the same on every machine. A scene is plain data (``Scene.to_json``): questions, boxes or entailment
pairs can be asked of it as well as captions.

    >>> scene = make_scene(seed=1, split="train", index=0)
    >>> captions(scene)[0]
    'two shapes on lilac paper: a brown arrow and an orange square'
    >>> render(scene, size=64).size
    (64, 64)

Coordinates: a scene is a unit square, x to the right and y down; boxes are ``(x0, y0, x1, y1)``.
"""

import io
import math
import random
from collections.abc import Iterator, Set
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ofa.io.images import encode_image

COLORS = {
    "red": (208, 30, 38),
    "orange": (246, 126, 20),
    "yellow": (248, 222, 40),
    "lime": (160, 226, 40),
    "green": (20, 122, 52),
    "turquoise": (30, 196, 196),
    "blue": (36, 72, 214),
    "purple": (112, 36, 150),
    "magenta": (232, 48, 160),
    "brown": (112, 66, 30),
    "black": (22, 22, 26),
    "white": (250, 250, 250),
}
# width of the shape, as a part of the image's side
SIZES = {"small": (0.24, 0.28), "large": (0.38, 0.44)}
TEXTURES = ("paper", "stripes", "dots", "checks", "specks")  # paper is plain
BACKDROPS = {
    "tan": (186, 168, 132),
    "grey": (156, 156, 156),
    "pink": (206, 162, 178),
    "mint": (146, 186, 164),
    "lilac": (166, 162, 198),
}
PLURALS = {"cross": "crosses"}
SYNONYMS = {"large": ("large", "large", "big"), "small": ("small", "small", "little")}
NUMBERS = ("no", "one", "two", "three", "four")
CAPTIONS_PER_SCENE = 5
INK = (
    0,
    0,
    0,
    # without outlines a network learns the colors and then, for long, nothing else
)
OUTLINE = 0.03  # its width, as a part of the image's side
MARGIN = 0.03  # free space around each shape
OVERSAMPLING = 4  # shapes are drawn this much larger and reduced, which smooths their edges


def _regular(corners: int, inner: float = 1.0, turn: float = -90.0) -> list[tuple[float, float]]:
    """Corners of a regular polygon, or of a star if ``inner`` < 1, on the circle of radius 1."""
    count = corners if inner == 1.0 else 2 * corners
    radius = [1.0 if i % 2 == 0 or inner == 1.0 else inner for i in range(count)]
    angle = [math.radians(turn + 360.0 * i / count) for i in range(count)]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radius, angle)]


# Outlines; each is stretched to fill the object's box. A ring is a circle with a hole.
OUTLINES: dict[str, list[tuple[float, float]]] = {
    "circle": _regular(48),
    "square": _regular(4, turn=-45.0),
    "triangle": _regular(3),
    "star": _regular(5, inner=0.42),
    "cross": [
        (-1, -3),
        (1, -3),
        (1, -1),
        (3, -1),
        (3, 1),
        (1, 1),
        (1, 3),
        (-1, 3),
        (-1, 1),
        (-3, 1),
        (-3, -1),
        (-1, -1),
    ],
    "ring": _regular(48),
    "diamond": _regular(4),
    "arrow": [(-3, -1), (0, -1), (0, -3), (3, 0), (0, 3), (0, 1), (-3, 1)],
}
SHAPES = tuple(OUTLINES)


@dataclass(frozen=True)
class Shape:
    """One shape: names for the captions, its exact box in the unit square, and its actual
    color."""

    shape: str
    color: str
    size: str
    box: tuple[float, float, float, float]
    rgb: tuple[int, int, int]

    @property
    def center(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def kind(self) -> tuple[str, str, str]:
        """What the eye can tell apart; things of one kind are counted together."""
        return self.size, self.color, self.shape

    def box_px(self, width: int, height: int) -> list[float]:
        """xyxy box in pixels of an image of that size."""
        return [round(v * side, 2) for v, side in zip(self.box, (width, height, width, height))]


@dataclass(frozen=True)
class Scene:
    """Things from left to right, and the background they lie on."""

    scene_id: str
    things: tuple[Shape, ...]
    texture: str
    backdrop: str
    period: float  # of the texture, as a part of the side
    noise_seed: int  # of the background's grain

    def description(self) -> tuple:
        """What a caption can say of the scene; equal descriptions must not lie in two splits."""
        return (
            self.texture,
            self.backdrop,
            tuple(sorted((*thing.kind, place(thing)) for thing in self.things)),
        )

    def to_json(self, width: int, height: int) -> dict:
        """Plain data; ``box`` is in pixels of an image of the given size, the rest as in the
        class."""
        things = [
            {
                "shape": t.shape,
                "colour": t.color,
                "size": t.size,
                "place": place(t),
                "box": t.box_px(width, height),
                "rgb": list(t.rgb),
            }
            for t in self.things
        ]
        background = {
            "texture": self.texture,
            "colour": self.backdrop,
            "period": self.period,
            "noise_seed": self.noise_seed,
        }
        return {
            "id": self.scene_id,
            "width": width,
            "height": height,
            "background": background,
            "objects": things,
        }

    @classmethod
    def from_json(cls, record: dict) -> "Scene":
        sides = (record["width"], record["height"]) * 2
        things = tuple(
            Shape(
                o["shape"],
                o["colour"],
                o["size"],
                tuple(v / side for v, side in zip(o["box"], sides)),
                tuple(o["rgb"]),
            )
            for o in record["objects"]
        )
        background = record["background"]
        return cls(
            record["id"],
            things,
            background["texture"],
            background["colour"],
            background["period"],
            background["noise_seed"],
        )


# ----------------------------------------------------------------------------------------------
# scenes


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
    return Scene(
        f"{split}_{index}",
        tuple(things),
        texture,
        backdrop,
        round(rng.uniform(0.12, 0.2), 3),
        rng.randrange(2**31),
    )


def _place_thing(rng: random.Random, others: list[Shape], twin: Shape | None) -> Shape | None:
    """A thing that overlaps no other one, None if there is no room; of the kind of ``twin`` if
    that is given."""
    shape, color, size = rng.choice(SHAPES), rng.choice(list(COLORS)), rng.choice(list(SIZES))
    if twin is not None:
        size, color, shape = twin.kind
    red, green, blue = (
        min(255, max(0, channel + rng.randint(-14, 14))) for channel in COLORS[color]
    )
    for attempt in range(1000):
        if attempt == 200:
            size = "small"  # the image is too full for a large one
        width = rng.uniform(*SIZES[size])
        x0, y0 = (rng.uniform(MARGIN, 1 - MARGIN - width) for _ in "xy")
        box = (round(x0, 4), round(y0, 4), round(x0 + width, 4), round(y0 + width, 4))
        if not any(_overlap(box, other.box) for other in others):
            return Shape(shape, color, size, box, (red, green, blue))
    return None


def _overlap(a: tuple, b: tuple) -> bool:
    return (
        a[0] < b[2] + MARGIN
        and b[0] < a[2] + MARGIN
        and a[1] < b[3] + MARGIN
        and b[1] < a[3] + MARGIN
    )


def make_split(
    seed: int, split: str, count: int, avoid: Set[tuple] = frozenset()
) -> Iterator[Scene]:
    """The first ``count`` scenes of a split whose descriptions are not in ``avoid``."""
    index = 0
    while count > 0:
        scene = make_scene(seed, split, index)
        index += 1
        if scene.description() not in avoid:
            count -= 1
            yield scene


# -------------------------------------------------------------------------------------------
# rendering


def render(scene: Scene, size: int = 64) -> Image.Image:
    """The scene as an RGB image of ``size`` x ``size`` pixels."""
    image = Image.fromarray(_background(scene, size))
    for thing in scene.things:
        x0, y0, x1, y1 = (side * size for side in thing.box)
        left, top = math.floor(x0), math.floor(y0)
        width, height = (OVERSAMPLING * math.ceil(side) for side in (x1 - left, y1 - top))
        tile = Image.new("RGBA", (width, height))
        box = tuple(OVERSAMPLING * side for side in (x0 - left, y0 - top, x1 - left, y1 - top))
        draw_thing(ImageDraw.Draw(tile), thing, box, round(OVERSAMPLING * OUTLINE * size))
        tile = tile.reduce(OVERSAMPLING)
        image.paste(tile, (left, top), tile)
    return image


def draw_thing(pen: ImageDraw.ImageDraw, thing: Shape, box: tuple, width: int) -> None:
    """The thing in its box; the outline, ``width`` pixels wide, lies inside."""
    x0, y0, x1, y1 = box
    if thing.shape in ("circle", "ring"):
        pen.ellipse(box, fill=thing.rgb, outline=INK, width=width)
    else:
        pen.polygon(_stretch(OUTLINES[thing.shape], box), fill=thing.rgb, outline=INK, width=width)
    if thing.shape == "ring":
        hole = 0.25 * (x1 - x0)
        inner = (x0 + hole, y0 + hole, x1 - hole, y1 - hole)
        pen.ellipse(inner, fill=(0, 0, 0, 0), outline=INK, width=width)


def _stretch(outline: list[tuple[float, float]], box: tuple) -> list[tuple[float, float]]:
    """The outline, scaled and moved to touch all four sides of the box."""
    xs, ys = zip(*outline)
    x0, y0, x1, y1 = box
    return [
        (
            x0 + (x - min(xs)) / (max(xs) - min(xs)) * (x1 - x0),
            y0 + (y - min(ys)) / (max(ys) - min(ys)) * (y1 - y0),
        )
        for x, y in outline
    ]


def _background(scene: Scene, size: int) -> np.ndarray:
    """uint8[size, size, 3]: the texture in two shades of the backdrop color, with a little
    grain."""
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
    shade = np.asarray(BACKDROPS[scene.backdrop]) - 12 * dark[..., None] + grain
    return shade.clip(0, 255).astype(np.uint8)


# --------------------------------------------------------------------------------------------
# captions


def place(thing: Shape) -> str:
    """Which ninth of the image the center lies in: ``top left``, ``top``, ..., ``middle``, ..."""
    column, row = (min(2, int(v * 3)) for v in thing.center)
    words = [("top", "", "bottom")[row], ("left", "", "right")[column]]
    return " ".join(word for word in words if word) or "middle"


def relation(a: Shape, b: Shape) -> str:
    """Where ``a`` lies as seen from ``b``, along the axis on which they are farther apart."""
    dx, dy = (p - q for p, q in zip(a.center, b.center))
    if abs(dx) >= abs(dy):
        return "to the left of" if dx < 0 else "to the right of"
    return "above" if dy < 0 else "below"


def name(thing: Shape, count: int = 1, size: str | None = None) -> str:
    """``a red circle``, with a word for the size ``a large red circle``, with a count ``two red
    circles``."""
    words = ([size] if size else []) + [thing.color, thing.shape]
    if count > 1:
        words[-1] = PLURALS.get(thing.shape, thing.shape + "s")
        return " ".join([NUMBERS[count], *words])
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words])


def names(scene: Scene, rng: random.Random | None = None) -> list[str]:
    """All things from left to right, things alike counted together. With ``rng`` sizes are told as
    well, in one of the usual words; without it things that differ in size alone are alike.
    """
    size_word = {size: rng.choice(words) for size, words in SYNONYMS.items()} if rng else {}
    looks = [(size_word.get(thing.size), thing.color, thing.shape) for thing in scene.things]
    return [
        name(thing, looks.count(look), look[0])
        for i, (thing, look) in enumerate(zip(scene.things, looks))
        if look not in looks[:i]
    ]


def captions(scene: Scene) -> list[str]:
    """Five different captions of at most 20 words, the way five people might describe the
    image."""
    rng = random.Random(f"captions/{scene.scene_id}/{scene.noise_seed}")
    found: list[str] = []
    while len(found) < CAPTIONS_PER_SCENE:
        sentences = (
            _about_one(scene, rng) if len(names(scene, rng)) == 1 else _about_many(scene, rng)
        )
        new = [sentence for sentence in dict.fromkeys(sentences) if sentence not in found]
        found += rng.sample(new, min(len(new), CAPTIONS_PER_SCENE - len(found)))
    return found


def listing(parts: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _where(thing: Shape) -> str:
    spot = place(thing)
    if " " in spot:
        return f"in the {spot} corner"
    return {"middle": "in the middle", "left": "on the left", "right": "on the right"}.get(
        spot, f"at the {spot}"
    )


def _about_one(scene: Scene, rng: random.Random) -> list[str]:
    """Sentences about one thing, or about several of one kind."""
    spot = _where(scene.things[0]) if len(scene.things) == 1 else "side by side"
    return [
        f"{names(scene, rng)[0]} {spot}",
        f"{names(scene, rng)[0]} on {scene.backdrop} {scene.texture}",
        f"{names(scene)[0]} on {scene.backdrop} {scene.texture}",
        f"{names(scene)[0]} {spot}",
        f"{spot} {names(scene, rng)[0]}",
        f"just {names(scene, rng)[0]}",
    ]


def _about_many(scene: Scene, rng: random.Random) -> list[str]:
    """Sentences about two to four kinds of things; those about four leave the background out."""
    full, short = names(scene, rng), names(scene)
    back = f" on {scene.backdrop} {scene.texture}" if len(scene.things) < 4 else ""
    sentences = [
        listing(full),
        listing(full[::-1]),
        f"{listing(list(dict.fromkeys(thing.color for thing in scene.things)))} shapes",
        listing(names(scene, rng)),
        listing(short) + back,
        f"{listing(short[::-1])}{back}",
        f"{NUMBERS[len(scene.things)]} shapes{back}: {listing(short)}",
    ]
    first, last = scene.things[0], scene.things[-1]
    kinds = [thing.kind for thing in scene.things]
    if kinds.count(first.kind) == kinds.count(last.kind) == 1:
        size_word = {size: rng.choice(words) for size, words in SYNONYMS.items()}
        for a, b in ((first, last), (last, first)):
            sentences.append(
                f"{name(a, size=size_word[a.size])} {relation(a, b)}"
                f" {name(b, size=size_word[b.size])}"
            )
    return sentences


def as_json(scene: Scene, size: int) -> dict:
    """A line of ``scenes.jsonl``: the scene and its captions."""
    return {**scene.to_json(size, size), "captions": captions(scene)}


def encode(scene: Scene, size: int, image_format: str) -> str:
    """The image as a file (``jpeg`` or ``png``) in base64."""
    file = io.BytesIO()
    render(scene, size).save(
        file,
        format=image_format,
        **{"jpeg": {"quality": 92, "subsampling": 0}}.get(image_format, {}),
    )
    return encode_image(file.getvalue())
