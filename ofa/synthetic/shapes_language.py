"""What is said of scenes of synthetic shapes, in English or Chinese.

>>> from ofa.synthetic.shapes import make_scene
>>> scene = make_scene(seed=1, split="train", index=0)
>>> ENGLISH.captions(scene)[0]
'two shapes on lilac paper: a brown arrow and an orange square'
>>> CHINESE.captions(scene)[0]
'一个橙色的小正方形和一个棕色的大箭头'
"""

import random
from collections import Counter
from collections.abc import Iterable

from ofa.synthetic import shapes_phrases
from ofa.synthetic.shapes import BACKDROPS, COLORS, SHAPES, SIZES, TEXTURES, Scene, Shape
from ofa.synthetic.shapes_phrases import ANSWERS, NUMBERS, PLACES, SIDES, Phrase, Question

CAPTIONS_PER_SCENE, TEXTS_PER_SCENE = 5, 2
RELATIONS = ("to the left of", "to the right of", "above", "below")


class English:
    """Captions, phrases and questions in English; another language replaces the words.

    Captions are formats of at most 20 words: ``full`` and ``other`` are all things with their
    sizes, in one of the usual words; ``short`` without; ``..._reversed`` from right to left.
    """

    size_words = {"large": ["large", "large", "big"], "small": ["small", "small", "little"]}
    # captions of one thing, or of several of one kind; and of several kinds
    about_one = (
        "{full} {spot}|{full} on {ground}|{short} on {ground}|{short} {spot}|{spot} {full}"
        "|just {full}"
    ).split("|")
    about_many = (
        "{full}|{full_reversed}|{colors} shapes|{other}|{short}{on_ground}"
        "|{short_reversed}{on_ground}|{number}{on_ground}: {short}"
    ).split("|")
    about_two = "{0} {2} {1}"  # where one thing lies as seen from another
    number, comma, last = "{} shapes", ", ", " and "
    asked = {
        "color": "what color is the {}?",
        "shape": "what is the {}?",
        "size": "is the {} large or small?",
        "place": "where is the {}?",
        "number": "how many {} are there?",
        "existence": "is there {article} {}?",
    }
    asked_for_all = "how many shapes are there?"

    def captions(self, scene: Scene) -> list[str]:
        """Five different captions, the way five people might describe the image."""
        rng, found = scene.rng("captions"), list[str]()
        while len(found) < CAPTIONS_PER_SCENE:
            tell = self._tell_one if len(self.names(scene, rng)) == 1 else self._tell_many
            new = [text for text in dict.fromkeys(tell(scene, rng)) if text not in found]
            found += rng.sample(new, min(len(new), CAPTIONS_PER_SCENE - len(found)))
        return found

    def expressions(self, scene: Scene) -> list[tuple[str, Shape]]:
        """A referring expression for each thing that can be told from the others."""
        return [(self.the(phrase), thing) for phrase, thing in shapes_phrases.pointed_at(scene)]

    def questions(self, scene: Scene) -> list[tuple[str, str]]:
        """Different questions about the scene, and their answers."""
        asked = shapes_phrases.questions(scene)
        return [(self.ask(question), self.word(question.answer)) for question in asked]

    def answers(self) -> list[str]:
        """Every answer there is; its place in the list is its label."""
        return list(dict.fromkeys(map(self.word, ANSWERS)))

    def names(self, scene: Scene, rng: random.Random | None = None) -> list[str]:
        """All things from left to right, things alike counted together. With ``rng`` sizes are
        told as well; without it things that differ in size alone are alike."""
        size_word = self._choose_sizes(rng) if rng else {}
        looks = [(size_word.get(thing.size), thing.color, thing.shape) for thing in scene.things]
        return [
            self.name(thing, looks.count(look), look[0])
            for i, (thing, look) in enumerate(zip(scene.things, looks))
            if look not in looks[:i]
        ]

    def name(self, thing: Shape, count: int = 1, size: str | None = None) -> str:
        """``a red circle``, ``a large red circle``, with a count ``two red circles``."""
        shape = thing.shape if count == 1 else plural_of(thing.shape)
        words = " ".join(filter(None, (size, thing.color, shape)))
        return f"{NUMBERS[count] if count > 1 else article_of(words)} {words}"

    def phrase(self, phrase: Phrase, plural: bool = False) -> str:
        """``large red circle``, ``shapes at the top``."""
        noun = phrase.shape or "shape"
        words = (phrase.size, phrase.color, plural_of(noun) if plural else noun, phrase.side)
        return " ".join(filter(None, words))

    def the(self, phrase: Phrase) -> str:
        """The phrase where it means one thing."""
        return f"the {self.phrase(phrase)}"

    def ask(self, question: Question) -> str:
        if question.about is None:
            return self.asked_for_all
        what = self.phrase(question.about, plural=question.kind == "number")
        return self.asked[question.kind].format(what, article=article_of(what))

    def ground(self, scene: Scene) -> str:
        return f"{scene.backdrop} {scene.texture}"

    def spot(self, scene: Scene) -> str:
        """Where the one thing is, or all of its kind are."""
        if len(scene.things) > 1:
            return "side by side"
        place = scene.things[0].place
        return f"in the {place} corner" if " " in place else where(scene.things[0])

    def word(self, english: str) -> str:
        """The word of a color, shape, place, ..."""
        return english

    def listing(self, parts: list[str]) -> str:
        """``a``, ``a and b``, ``a, b and c``."""
        return self.last.join(filter(None, [self.comma.join(parts[:-1]), parts[-1]]))

    def _choose_sizes(self, rng: random.Random) -> dict[str, str]:
        choices = self.size_words.items()
        return {size: rng.choice(some) if some[1:] else some[0] for size, some in choices}

    def _tell_one(self, scene: Scene, rng: random.Random) -> list[str]:
        said = {"spot": self.spot(scene), "ground": self.ground(scene)}
        said["short"] = self.names(scene)[0]
        full = (self.names(scene, rng)[0] if "{full}" in one else "" for one in self.about_one)
        return [one.format(full=name, **said) for one, name in zip(self.about_one, full)]

    def _tell_many(self, scene: Scene, rng: random.Random) -> list[str]:
        full, short, ground = self.names(scene, rng), self.names(scene), self.ground(scene)
        said = {
            "full": self.listing(full),
            "full_reversed": self.listing(full[::-1]),
            "other": self.listing(self.names(scene, rng)),
            "short": self.listing(short),
            "short_reversed": self.listing(short[::-1]),
            "colors": self.listing(list(dict.fromkeys(thing.color for thing in scene.things))),
            "number": self.number.format(self.word(NUMBERS[len(scene.things)])),
            "ground": ground,
            "on_ground": f" on {ground}" if len(scene.things) < 4 else "",
        }
        sentences = [one.format(**said) for one in self.about_many]
        first, *_, last = scene.things
        kinds = [thing.kind for thing in scene.things]
        if kinds.count(first.kind) == kinds.count(last.kind) == 1:
            sizes = self._choose_sizes(rng)
            for a, b in ((first, last), (last, first)):
                pair = (self.name(thing, size=sizes[thing.size]) for thing in (a, b))
                sentences.append(self.about_two.format(*pair, self.word(relation(a, b))))
        return sentences


def relation(a: Shape, b: Shape) -> str:
    """Where ``a`` lies as seen from ``b``, along the axis on which they are farther apart."""
    dx, dy = (p - q for p, q in zip(a.center, b.center))
    beside, stacked = RELATIONS[:2], RELATIONS[2:]
    return beside[dx >= 0] if abs(dx) >= abs(dy) else stacked[dy >= 0]


def plural_of(noun: str) -> str:
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def article_of(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"


def where(thing: Shape) -> str:
    """``at the top left``, ``on the right``, ``in the middle``"""
    before = {"left": "on", "right": "on", "middle": "in"}.get(thing.place, "at")
    return f"{before} the {thing.place}"


ENGLISH = English()


def texts(scene: Scene) -> list[str]:
    """Different texts of at most 40 words, for learning language without images. Some things are
    said twice: what is masked in one place can be told from another."""
    rng, name, ground = scene.rng("texts"), ENGLISH.name, ENGLISH.ground(scene)
    things = " and ".join(ENGLISH.names(scene))
    number = f"{NUMBERS[len(scene.things)]} shape{'s' * (len(scene.things) > 1)}"
    told = [
        f"{things} on {ground}. the ground is {scene.backdrop}, it has {scene.texture}",
        f"{number}: {things}, that makes {number} together",
    ]
    most, count = Counter(thing.shape for thing in scene.things).most_common(1)[0]
    if count > 1:
        told.append(f"{NUMBERS[count]} of the {number} are {plural_of(most)}: {things}")
    a = rng.choice(scene.things)
    told += [
        f"{name(a)} is {where(a)}, the {a.shape} is {a.color} and lies {where(a)}",
        f"the {a.color} {a.shape} is {a.size}: it is {name(a, size=a.size)}",
    ]
    pairs = [(a, b) for a in scene.things for b in scene.things if a.look != b.look]
    if pairs:
        a, b = rng.choice(pairs)
        back = f"the {b.color} {b.shape} is {relation(b, a)} the {a.color} {a.shape}"
        told.append(f"{name(a)} is {relation(a, b)} {name(b)}. {back}")
    return rng.sample(list(dict.fromkeys(told)), TEXTS_PER_SCENE)


def drawing_caption(scene: Scene) -> str:
    """All that an image shows: ``a small red circle at the top left and ... on gray dots``."""
    things = [f"{ENGLISH.name(thing, size=thing.size)} {where(thing)}" for thing in scene.things]
    return f"{ENGLISH.listing(things)} on {ENGLISH.ground(scene)}"


def _translated(english: Iterable[str], chinese: str) -> dict[str, str]:
    return dict(zip(english, chinese.split(), strict=True))


class Chinese(English):
    """The words come in an order of their own: place, color, size, shape."""

    words = {
        **_translated(COLORS, "红色 橙色 黄色 黄绿色 绿色 青色 蓝色 紫色 粉红色 棕色 黑色 白色"),
        **_translated(BACKDROPS, "米色 灰色 淡粉色 薄荷色 淡紫色"),
        **_translated(SHAPES, "圆形 正方形 三角形 星形 十字形 圆环 菱形 箭头"),
        **_translated(SIZES, "小 大"),
        **_translated(TEXTURES, "纸 条纹 圆点 方格 斑点"),
        **_translated(PLACES, "左上角 上方 右上角 左边 中间 右边 左下角 下方 右下角"),
        **_translated(SIDES, "左边 右边 上方 下方"),
        **_translated(RELATIONS, "左边 右边 上方 下方"),
        **_translated(NUMBERS[1:], "一 两 三 四"),  # before the measure word 个
        **_translated(("yes", "no"), "有 没有"),
    }
    size_words = {"large": ["大"], "small": ["小"]}
    about_one = (
        "{spot}有{full}|{spot}有{short}|{ground}上有{full}|{ground}上有{short}|只有{full}|{full}在{spot}"
    ).split("|")
    about_many = (
        "{full}|{full_reversed}|{ground}上有{short}|有{short_reversed}"
        "|{ground}上有{number}：{short}|这里有{number}，有{short}"
    ).split("|")
    about_two = "{0}在{1}的{2}"
    number, comma, last = "{}个图形", "、", "和"
    asked = {
        "color": "{}是什么颜色？",
        "shape": "{}是什么形状？",
        "size": "{}是大的还是小的？",
        "place": "{}在哪里？",
        "existence": "有没有{}？",
        "number": "有几个{}？",
    }
    asked_for_all = "一共有几个图形？"

    def word(self, english: str) -> str:
        return self.words[english]

    def name(self, thing: Shape, count: int = 1, size: str | None = None) -> str:
        color, shape = self.word(thing.color), self.word(thing.shape)
        return f"{self.word(NUMBERS[count])}个{color}的{size or ''}{shape}"

    def phrase(self, phrase: Phrase, plural: bool = False) -> str:
        said = [f"{self.word(word)}的" for word in (phrase.side, phrase.color) if word]
        said += [self.word(phrase.size)] if phrase.size else []
        return "".join([*said, self.word(phrase.shape) if phrase.shape else "图形"])

    def the(self, phrase: Phrase) -> str:
        return self.phrase(phrase)

    def ground(self, scene: Scene) -> str:
        return f"{self.word(scene.backdrop)}的{self.word(scene.texture)}"

    def spot(self, scene: Scene) -> str:
        return self.word(scene.things[0].place) if len(scene.things) == 1 else "旁边"


CHINESE = Chinese()
LANGUAGES = {"en": ENGLISH, "zh": CHINESE}
