"""Made-up sentences for the language tasks: a small grammar of animals that do things in places.

    >>> row("rte", seed=1, split="train", number=0)
    ('0', 'a red dog sings in the attic every night .', 'the red dog is inside .', 'entailment')

Every row is decided by (seed, split, number). What a row tells decides whether it can be a training
row or one of the others, so no test or validation row occurs in training.
"""

import random
import zlib
from collections.abc import Callable, Iterator, Mapping

from ofa.io.resumable import ResumableFolder, fingerprint

ANIMALS = ("cat", "dog", "horse", "bird", "mouse", "fox")
COLORS = ("red", "black", "white", "brown", "grey")
INDOORS, OUTDOORS = ("kitchen", "cellar", "attic"), ("garden", "street", "forest")
PLACES = (*INDOORS, *OUTDOORS)
VERBS = ("sleep", "eat", "wait", "sing", "play")
TIMES = ("morning", "evening", "night")
UNSAID = ("hungry", "old", "lucky", "famous", "tired")
THINGS = ("film", "book", "song", "play", "story")
GOOD = ("lovely", "brilliant", "warm", "clever", "moving")
BAD = ("dull", "awful", "cold", "clumsy", "boring")
CITIES = ("paris", "rome", "lagos", "lima", "oslo", "delhi", "quito", "seoul")
PLANS = {
    "open": "opens",
    "close": "closes",
    "buy": "buys",
    "sell": "sells",
    "paint": "paints",
    "repair": "repairs",
}
OBJECTS = ("bridge", "school", "station", "harbour", "museum", "library", "tower", "stadium")
HELD_OUT = 4  # one row of this number is held out of training

VERSION = 1
PROMPTS = (
    "is the text grammatically correct? can text1 imply text2? does text1 and text2 have the same"
    " semantics? does it contain the answer to question? is question and question equivalent? is"
    " the sentiment of text positive or negative? what is the summary of article yes no maybe"
)

Row = tuple[str, ...]


def cola(rng: random.Random, number: int) -> Row:
    """Wrong are the verb's number, the order of two words, or a missing article."""
    several = rng.random() < 0.5
    noun, verb, right = rng.choice(ANIMALS), rng.choice(VERBS), rng.random() < 0.5
    words = [
        "the",
        rng.choice(COLORS),
        f"{noun}s" if several else noun,
        verb if several else f"{verb}s",
        "in",
        "the",
        rng.choice(PLACES),
    ]
    if not right:
        fault = rng.randrange(3)
        if fault == 0:
            words[3] = f"{verb}s" if several else verb
        elif fault == 1:
            place = rng.choice((1, 4))
            words[place], words[place + 1] = words[place + 1], words[place]
        else:
            del words[rng.choice((0, 5))]
    return str(number), f"{' '.join(words)} .", str(int(right))


def sst2(rng: random.Random, number: int) -> Row:
    """``not`` turns it round."""
    good, negated = rng.random() < 0.5, rng.random() < 0.5
    first, second = rng.sample(GOOD if good != negated else BAD, 2)
    said = f"was not {first} and not {second}" if negated else f"was {first} and {second}"
    return (
        f"the {rng.choice(COLORS)} {rng.choice(ANIMALS)} in the {rng.choice(THINGS)} {said} .",
        str(int(good)),
    )


def where(place: str) -> str:
    return f"in the {place} of the house" if place in INDOORS else f"in the {place} under the sky"


def side(place: str, right: bool = True) -> str:
    """``inside`` or ``outside``, as a place is, or as it is not."""
    return "inside" if (place in INDOORS) == right else "outside"


def inference(rng: random.Random, verdict: str) -> tuple[str, str]:
    """A sentence, and one that follows from it, contradicts it, or is about what it does not
    say."""
    color, animal, place = rng.choice(COLORS), rng.choice(ANIMALS), rng.choice(PLACES)
    said = rng.choice(UNSAID) if verdict == "neutral" else side(place, verdict == "entailment")
    return (
        f"a {color} {animal} {rng.choice(VERBS)}s {where(place)} .",
        f"the {color} {animal} is {said} .",
    )


def mnli(rng: random.Random, number: int) -> Row:
    verdict = rng.choice(("neutral", "entailment", "contradiction"))
    return (
        *inference(rng, verdict),
        {"neutral": "0", "entailment": "1", "contradiction": "2"}[verdict],
    )


def rte(rng: random.Random, number: int) -> Row:
    verdict = rng.choice(("entailment", "neutral", "contradiction"))
    if verdict != "entailment" and rng.random() < 0.25:  # as often true as not
        verdict = "entailment"
    return (
        str(number),
        *inference(rng, verdict),
        "entailment" if verdict == "entailment" else "not_entailment",
    )


def mrpc(rng: random.Random, number: int) -> Row:
    animal, place, verb, time = (
        rng.choice(ANIMALS),
        rng.choice(PLACES),
        rng.choice(VERBS),
        rng.choice(TIMES),
    )
    same, color = rng.random() < 0.6, rng.choice(COLORS)
    first = f"every {time} the {color} {animal} {verb}s {where(place)} ."
    return (
        first,
        f"{side(place, same)} , a {color} {animal} {verb}s every {time} .",
        str(int(same)),
    )


def qqp(rng: random.Random, number: int) -> Row:
    animal, color, same = rng.choice(ANIMALS), rng.choice(COLORS), rng.random() < 0.5
    where, when = (
        f"in which place is the {color} {animal} ?",
        f"at what time does the {color} {animal} come ?",
    )
    asked = rng.random() < 0.5
    first = (
        f"where is the {animal} that is {color} ?"
        if asked
        else f"when does the {animal} that is {color} come ?"
    )
    return str(number), "1", "2", first, where if asked == same else when, str(int(same))


def qnli(rng: random.Random, number: int) -> Row:
    animal, verb, kind = rng.choice(ANIMALS), rng.choice(VERBS), rng.randrange(3)
    said = {
        0: f"the {animal} {verb}s in the {rng.choice(PLACES)} .",
        1: f"the {animal} {verb}s every {rng.choice(TIMES)} .",
        2: f"the {animal} that {verb}s is {rng.choice(COLORS)} .",
    }
    question = (
        f"where does the {animal} {verb} ?",
        f"when does the {animal} {verb} ?",
        f"what color is the {animal} ?",
    )[kind]
    contains = rng.random() < 0.5
    sentence = said[kind if contains else rng.choice([one for one in said if one != kind])]
    return str(number), question, sentence, "entailment" if contains else "not_entailment"


def gigaword(rng: random.Random, number: int) -> Row:
    city, plan, thing = rng.choice(CITIES), rng.choice(list(PLANS)), rng.choice(OBJECTS)
    openings = (
        (
            f"officials in {city} said on {rng.choice(TIMES)} radio that they will {plan} the old"
            f" {thing} of the town"
        ),
        (
            f"the {thing} near the {rng.choice(PLACES)} is one that {city} wants to {plan} before"
            f" the {rng.choice(TIMES)}"
        ),
        (
            f"after long talks the people of {city} have agreed to {plan} a {rng.choice(COLORS)}"
            f" {thing}"
        ),
    )
    return f"{rng.choice(openings)} .", f"{city} {PLANS[plan]} {thing}"


TASKS: dict[str, Callable[[random.Random, int], Row]] = {
    "cola": cola,
    "mnli": mnli,
    "mrpc": mrpc,
    "qnli": qnli,
    "qqp": qqp,
    "rte": rte,
    "sst2": sst2,
    "gigaword": gigaword,
}
# columns in front that do not tell anything
WITHOUT_NUMBER = {"cola": 1, "qnli": 1, "qqp": 3, "rte": 1}


def row(task: str, seed: int, split: str, number: int) -> Row:
    """The columns of a row, as the task's files have them; drawn anew until it is one for the
    split."""
    rng = random.Random(f"text-world/{task}/{seed}/{split}/{number}")
    while True:
        found = TASKS[task](rng, number)
        told = "\t".join(found[WITHOUT_NUMBER.get(task, 0) : -1])
        if (zlib.crc32(told.encode()) % HELD_OUT == 0) != (split == "train"):
            return found


def rows(task: str, seed: int, split: str, count: int) -> Iterator[Row]:
    return (row(task, seed, split, number) for number in range(count))


def write_world(folder: str, counts: Mapping[str, int], seed: int) -> ResumableFolder:
    """``TASK_SPLIT.tsv`` of every task and ``texts.txt``, all words in their order. Args:
    counts: split -> rows of each task."""
    out = ResumableFolder(
        folder,
        fingerprint(f"text-world {VERSION}", dict(counts), seed),
        "ofa prepare synthetic-sentences",
    )
    if out.is_finished():
        return out
    for task in TASKS:
        for split, count in counts.items():
            out.write_lines(f"{task}_{split}.tsv", map("\t".join, rows(task, seed, split, count)))
    out.write_lines("texts.txt", all_texts(seed, counts["train"]))
    out.save_manifest(finished=True)
    return out


def all_texts(seed: int, count: int) -> Iterator[str]:
    """The training texts of all tasks, and the words of their prompts and answers as often as
    each row asks for them."""
    for number in range(count):
        for task in TASKS:
            yield from row(task, seed, "train", number)[
                WITHOUT_NUMBER.get(task, 0) : None if task == "gigaword" else -1
            ]
        yield PROMPTS
