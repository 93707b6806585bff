"""Synthetic shapes in Chinese: captions, expressions and questions of the same scenes, images
and boxes.

    >>> from ofa.synthetic.shapes import make_scene
    >>> scene = make_scene(seed=1, split="train", index=0)
    >>> captions(scene)[0]
    '一个橙色的小正方形和一个棕色的大箭头'

What is asked and pointed at is what the English world asks and points at
(``ofa.synthetic.shapes_questions``, ``ofa.synthetic.shapes_expressions``), in other words.
"""

import random

from ofa.synthetic.shapes import CAPTIONS_PER_SCENE, NUMBERS, Scene, Shape, place, relation
from ofa.synthetic.shapes_expressions import Phrase, pointed_at
from ofa.synthetic.shapes_questions import Question
from ofa.synthetic.shapes_questions import answers as english_answers
from ofa.synthetic.shapes_questions import questions as english_questions

COLORS = {
    "red": "红色",
    "orange": "橙色",
    "yellow": "黄色",
    "lime": "黄绿色",
    "green": "绿色",
    "turquoise": "青色",
    "blue": "蓝色",
    "purple": "紫色",
    "magenta": "粉红色",
    "brown": "棕色",
    "black": "黑色",
    "white": "白色",
    "tan": "米色",
    "grey": "灰色",
    "pink": "淡粉色",
    "mint": "薄荷色",
    "lilac": "淡紫色",
}
SHAPES = {
    "circle": "圆形",
    "square": "正方形",
    "triangle": "三角形",
    "star": "星形",
    "cross": "十字形",
    "ring": "圆环",
    "diamond": "菱形",
    "arrow": "箭头",
}
SIZES = {"large": "大", "small": "小"}
TEXTURES = {"paper": "纸", "stripes": "条纹", "dots": "圆点", "checks": "方格", "specks": "斑点"}
PLACES = {
    "top left": "左上角",
    "top": "上方",
    "top right": "右上角",
    "left": "左边",
    "middle": "中间",
    "right": "右边",
    "bottom left": "左下角",
    "bottom": "下方",
    "bottom right": "右下角",
}
SIDES = {
    "on the left": "左边",
    "on the right": "右边",
    "at the top": "上方",
    "at the bottom": "下方",
}
RELATIONS = {"to the left of": "左边", "to the right of": "右边", "above": "上方", "below": "下方"}
COUNTS = ("零", "一", "两", "三", "四")  # before the measure word 个
YES_NO = {"yes": "有", "no": "没有"}
# of answers
WORDS = {**COLORS, **SHAPES, **SIZES, **PLACES, **dict(zip(NUMBERS[1:], COUNTS[1:])), **YES_NO}


# --------------------------------------------------------------------------------------------
# captions


def name(thing: Shape, count: int = 1, sized: bool = False) -> str:
    """``一个红色的圆形``; with its size ``一个红色的大圆形``."""
    size = SIZES[thing.size] if sized else ""
    return f"{COUNTS[count]}个{COLORS[thing.color]}的{size}{SHAPES[thing.shape]}"


def names(scene: Scene, sized: bool) -> list[str]:
    """All things from left to right, things alike counted together."""
    looks = [(thing.size if sized else None, thing.color, thing.shape) for thing in scene.things]
    return [
        name(thing, looks.count(look), sized)
        for i, (thing, look) in enumerate(zip(scene.things, looks))
        if look not in looks[:i]
    ]


def captions(scene: Scene) -> list[str]:
    """Five different captions, the way five people might describe the image; some of several
    things have punctuation."""
    rng = random.Random(f"captions/{scene.scene_id}/{scene.noise_seed}")
    said = _about_one(scene) if len(names(scene, sized=True)) == 1 else _about_many(scene)
    return rng.sample(list(dict.fromkeys(said)), CAPTIONS_PER_SCENE)


def listing(parts: list[str]) -> str:
    """``甲``, ``甲和乙``, ``甲、乙和丙``."""
    return parts[0] if len(parts) == 1 else f"{'、'.join(parts[:-1])}和{parts[-1]}"


def ground(scene: Scene) -> str:
    return f"{COLORS[scene.backdrop]}的{TEXTURES[scene.texture]}"


def _about_one(scene: Scene) -> list[str]:
    """Sentences about one thing, or about several of one kind."""
    spot = PLACES[place(scene.things[0])] if len(scene.things) == 1 else "旁边"
    (full,), (short,) = names(scene, sized=True), names(scene, sized=False)
    return [
        f"{spot}有{full}",
        f"{spot}有{short}",
        f"{ground(scene)}上有{full}",
        f"{ground(scene)}上有{short}",
        f"只有{full}",
        f"{full}在{spot}",
    ]


def _about_many(scene: Scene) -> list[str]:
    """Sentences about two to four kinds of things."""
    full, short = names(scene, sized=True), names(scene, sized=False)
    number = f"{COUNTS[len(scene.things)]}个图形"
    said = [
        listing(full),
        listing(full[::-1]),
        f"{ground(scene)}上有{listing(short)}",
        f"有{listing(short[::-1])}",
        f"{ground(scene)}上有{number}：{listing(short)}",
        f"这里有{number}，有{listing(short)}",
    ]
    first, last = scene.things[0], scene.things[-1]
    kinds = [thing.kind for thing in scene.things]
    if kinds.count(first.kind) == kinds.count(last.kind) == 1:
        for a, b in ((first, last), (last, first)):
            said.append(
                f"{name(a, sized=True)}在{name(b, sized=True)}的{RELATIONS[relation(a, b)]}"
            )
    return said


# ------------------------------------------------------------------------------ expressions and
# questions


def phrase_text(phrase: Phrase) -> str:
    """``左边的红色的大圆形``; of a thing whose shape is not said ``左边的图形``."""
    said = [
        f"{SIDES[phrase.side]}的" if phrase.side else "",
        f"{COLORS[phrase.color]}的" if phrase.color else "",
    ]
    said.append(SIZES[phrase.size] if phrase.size else "")
    said.append(SHAPES[phrase.shape] if phrase.shape else "图形")
    return "".join(said)


def expressions(scene: Scene) -> list[tuple[str, Shape]]:
    """As ``shapes_expressions.expressions``: one for each thing that differs from the others."""
    return [(phrase_text(phrase), thing) for phrase, thing in pointed_at(scene)]


def questions(scene: Scene) -> list[Question]:
    """The same questions as in English."""
    return [
        Question(one.kind, question_text(one), answer_text(one), one.placed, one.about)
        for one in english_questions(scene)
    ]


def question_text(question: Question) -> str:
    """``红色的图形是什么形状？``"""
    what = "图形" if question.about is None else phrase_text(question.about)
    if question.kind == "number":
        return f"有几个{what}？" if question.about else "一共有几个图形？"
    return {
        "color": f"{what}是什么颜色？",
        "shape": f"{what}是什么形状？",
        "size": f"{what}是大的还是小的？",
        "place": f"{what}在哪里？",
        "existence": f"有没有{what}？",
    }[question.kind]


def answer_text(question: Question) -> str:
    return WORDS[question.answer]


def answers() -> list[str]:
    """Every answer there is; two English ones may be one in Chinese."""
    return list(dict.fromkeys(WORDS[answer] for answer in english_answers()))
