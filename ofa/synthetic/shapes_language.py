"""What is said of scenes of synthetic shapes, in English or Chinese.

>>> from ofa.synthetic.shapes import make_scene
>>> scene = make_scene(seed=1, split="train", index=0)
>>> ENGLISH.captions(scene)[0]
'two shapes on lilac paper: a brown arrow and an orange square'
>>> CHINESE.captions(scene)[0]
'一个橙色的小正方形和一个棕色的大箭头'
"""

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Formatter
from typing import Any

from ofa.io.json_files import read_yaml
from ofa.synthetic import shapes_phrases
from ofa.synthetic.shapes import Scene, Shape
from ofa.synthetic.shapes_phrases import ANSWERS, NUMBERS, Phrase, Question

CAPTIONS_PER_SCENE, TEXTS_PER_SCENE = 5, 2


class Language:
    """Captions, phrases and questions. Args: code: of the language, whose words, their order and
    whose sentences are in ``templates/shapes_CODE.yaml``."""

    def __init__(self, code: str):
        path = Path(__file__).parent / "templates" / f"shapes_{code}.yaml"
        self.table: dict[str, Any] = read_yaml(path)

    def captions(self, scene: Scene) -> list[str]:
        """Five different captions, the way five people might describe the image."""
        rng, found = scene.rng("captions"), list[str]()
        while len(found) < CAPTIONS_PER_SCENE:
            is_one_kind = len(self.names(scene, rng)) == 1
            told = self._tell_one_kind(scene, rng) if is_one_kind else self._tell(scene, rng)
            new = [text for text in dict.fromkeys(told) if text not in found]
            found += rng.sample(new, min(len(new), CAPTIONS_PER_SCENE - len(found)))
        return found

    def complete_caption(self, scene: Scene) -> str:
        """All that an image shows: ``a small red circle at the top left and ... on grey dots``."""
        things = [
            f"{self.name(thing, size=thing.size)} {self.where(thing.place)}"
            for thing in scene.things
        ]
        said = {"things": self.listing(things), "ground": self.ground(scene)}
        return self.table["complete_caption"].format(**said)

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

    def pretraining_texts(self, scene: Scene) -> list[str]:
        """Two different texts on the scene and nothing else, for pretraining."""
        rng, number = scene.rng("texts"), len(scene.things)
        most, repeated = Counter(thing.shape for thing in scene.things).most_common(1)[0]
        one = rng.choice(scene.things)
        said = {
            "scene": scene,
            "ground": self.ground(scene),
            "things": " and ".join(self.names(scene)),
            "number": f"{NUMBERS[number]} {self.noun('shape', number > 1)}",
            **{"one": one, "name": self.name(one), "name_with_size": self.name(one, size=one.size)},
            "where": self.where(one.place),
        }
        if repeated > 1:
            said |= {"repeated": NUMBERS[repeated], "plural": self.noun(most, True)}
        pairs = [(a, b) for a in scene.things for b in scene.things if a.look != b.look]
        if pairs:
            a, b = rng.choice(pairs)
            said |= {"a": a, "b": b, "first": self.name(a), "second": self.name(b)}
            said |= self.relations(a, b)
        return rng.sample([*dict.fromkeys(filled(self.table["texts"], said))], TEXTS_PER_SCENE)

    def names(self, scene: Scene, rng: random.Random | None = None) -> list[str]:
        """All things from left to right, things alike counted together. With ``rng`` sizes are
        told as well; without it things that differ in size alone are alike."""
        size_word = self._choose_sizes(rng) if rng else {}
        looks = [(size_word.get(thing.size), *thing.look) for thing in scene.things]
        things = dict(zip(looks, scene.things)).items()
        return [self.name(thing, looks.count(look), look[0]) for look, thing in things]

    def name(self, thing: Shape, count: int = 1, size: str | None = None) -> str:
        """``a red circle``, ``a large red circle``, with a count ``two red circles``."""
        number = self.table["single"] if count == 1 else self.word(NUMBERS[count])
        color, shape = self.word(thing.color), self.noun(thing.shape, count > 1)
        words = {"number": number, "size": size, "color": color, "shape": shape}
        return with_articles(self._in_order("name", words))

    def phrase(self, phrase: Phrase, plural: bool = False) -> str:
        """``large red circle``, ``shapes at the top``."""
        words = {key: word and self.word(word) for key, word in vars(phrase).items()}
        words["shape"] = self.noun(phrase.shape or "shape", plural)
        words["side"] = phrase.side and self.where(phrase.side)
        return self._in_order("phrase", words)

    def the(self, phrase: Phrase) -> str:
        """The phrase where it means one thing."""
        return self.table["the"].format(self.phrase(phrase))

    def ask(self, question: Question) -> str:
        if question.about is None:
            return self.table["questions"]["all"]
        what = self.phrase(question.about, plural=question.kind == "number")
        return with_articles(self.table["questions"][question.kind].format(what))

    def ground(self, scene: Scene) -> str:
        backdrop, texture = self.word(scene.backdrop), self.word(scene.texture)
        return self.table["ground"].format(backdrop=backdrop, texture=texture)

    def spot(self, scene: Scene) -> str:
        """Where the one thing is, or all of its kind are."""
        place = scene.things[0].place if len(scene.things) == 1 else "together"
        return self.table["spots"].get(place) or self.where(place)

    def where(self, place: str) -> str:
        """``at the top left``, ``on the right``, ``in the middle``"""
        return self.table["places"].get(place) or self.word(place)

    def relations(self, a: Shape, b: Shape) -> dict[str, str]:
        """Where ``a`` lies as seen from ``b``, and the other way round."""
        sides = {"relation": relation(a, b), "relation_back": relation(b, a)}
        words = self.table["relations"]
        return {key: words.get(side) or self.word(side) for key, side in sides.items()}

    def word(self, english: str) -> str:
        """The word of a color, shape, place, ..."""
        return self.table["words"].get(english, english)

    def noun(self, shape: str, plural: bool) -> str:
        return plural and self.table["plurals"].get(shape) or self.word(shape)

    def listing(self, parts: list[str]) -> str:
        """``a``, ``a and b``, ``a, b and c``."""
        said = self.table["comma"].join(parts[:-1]), parts[-1]
        return self.table["last"].join(filter(None, said))

    def _in_order(self, kind: str, words: dict[str, str | None]) -> str:
        forms = self.table[kind].items()
        return self.table["space"].join(
            form.format(words[key]) for key, form in forms if words[key]
        )

    def _choose_sizes(self, rng: random.Random) -> dict[str, str]:
        choices = self.table["sizes"].items()
        return {size: rng.choice(some) if some[1:] else some[0] for size, some in choices}

    def _tell_one_kind(self, scene: Scene, rng: random.Random) -> Iterable[str]:
        said = {"spot": self.spot(scene), "ground": self.ground(scene)}
        said["short"] = self.names(scene)[0]
        for form in self.table["captions_of_one_kind"]:
            full = self.names(scene, rng)[0] if "{full}" in form else ""
            yield form.format(full=full, **said)

    def _tell(self, scene: Scene, rng: random.Random) -> Iterable[str]:
        full, short, ground = self.names(scene, rng), self.names(scene), self.ground(scene)
        listed = {"full": full, "full_reversed": full[::-1], "other": self.names(scene, rng)}
        listed |= {"short": short, "short_reversed": short[::-1]}
        listed["colors"] = [*dict.fromkeys(self.word(thing.color) for thing in scene.things)]
        said = {key: self.listing(names) for key, names in listed.items()}
        said["number"] = self.table["number"].format(self.word(NUMBERS[len(scene.things)]))
        said["ground"] = ground
        said["on_ground"] = self.table["on_ground"].format(ground) * (len(scene.things) < 4)
        first, *_, last = scene.things
        kinds = [thing.kind for thing in scene.things]
        if kinds.count(first.kind) == kinds.count(last.kind) == 1:
            size = self._choose_sizes(rng)
            said |= {
                "first": self.name(first, size=size[first.size]),
                **self.relations(first, last),
            }
            said |= {"last": self.name(last, size=size[last.size])}
        return filled(self.table["captions"], said)


def filled(forms: Iterable[str], said: Mapping[str, Any]) -> Iterable[str]:
    """The forms with words in them; without those of which a word is missing: of ``{one.color}``
    the attribute of ``one``."""
    for form in forms:
        fields = (name for _, name, *_ in Formatter().parse(form) if name)
        if all(name.partition(".")[0] in said for name in fields):
            yield form.format(**said)


def relation(a: Shape, b: Shape) -> str:
    """The side of ``b`` on which ``a`` lies, along the axis on which they are farther apart."""
    dx, dy = (p - q for p, q in zip(a.center, b.center))
    beside, stacked = ("left", "right"), ("top", "bottom")
    return beside[dx >= 0] if abs(dx) >= abs(dy) else stacked[dy >= 0]


def with_articles(text: str) -> str:
    """``a orange ring`` -> ``an orange ring``"""
    return re.sub(r"\ba (?=[aeiou])", "an ", text)


ENGLISH, CHINESE = Language("en"), Language("zh")
LANGUAGES = {"en": ENGLISH, "zh": CHINESE}
