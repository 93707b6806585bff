"""Made-up sentences for the language tasks: a small grammar of animals that do things in places.

    >>> row("rte", seed=1, split="train", number=0)
    ('0', 'a red dog sings in the attic every night .', 'the red dog is inside .', 'entailment')

Every row is decided by (seed, split, number); none of test or validation occurs in training.
"""

import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from ofa.io.flags import action, option
from ofa.io.resumable import ResumableFolder, fingerprint
from ofa.prepare.source import OutOptions, summary

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
PLANS = ("open", "close", "buy", "sell", "paint", "repair")
OBJECTS = ("bridge", "school", "station", "harbour", "museum", "library", "tower", "stadium")
VERDICTS = {"neutral": "0", "entailment": "1", "contradiction": "2"}
ENTAILED = {True: "entailment", False: "not_entailment"}
HELD_OUT = 4  # one row of this number is held out of training

VERSION = 1
PROMPTS = (
    "is the text grammatically correct? can text1 imply text2? does text1 and text2 have the same"
    " semantics? does it contain the answer to question? is question and question equivalent? is"
    " the sentiment of text positive or negative? what is the summary of article yes no maybe"
)

Row = tuple[str, ...]


def cola(rng: random.Random) -> Row:
    """Wrong are the verb's number, the order of two words, or a missing article."""
    several = rng.random() < 0.5
    noun, verb, right = rng.choice(ANIMALS), rng.choice(VERBS), rng.random() < 0.5
    color, place = rng.choice(COLORS), rng.choice(PLACES)
    nouns, verbs = (noun, f"{noun}s"), (f"{verb}s", verb)
    words = ["the", color, nouns[several], verbs[several], "in", "the", place]
    fault = None if right else rng.randrange(3)
    if fault == 0:
        words[3] = verbs[not several]
    elif fault == 1:
        swapped = rng.choice((1, 4))
        words[swapped : swapped + 2] = words[swapped + 1], words[swapped]
    elif fault == 2:
        del words[rng.choice((0, 5))]
    return f"{' '.join(words)} .", str(int(right))


def sst2(rng: random.Random) -> Row:
    """``not`` turns it round."""
    good, negated = rng.random() < 0.5, rng.random() < 0.5
    first, second = rng.sample(GOOD if good != negated else BAD, 2)
    negation = "not " * negated
    told = f"was {negation}{first} and {negation}{second}"
    color, animal, thing = map(rng.choice, (COLORS, ANIMALS, THINGS))
    return f"the {color} {animal} in the {thing} {told} .", str(int(good))


def where(place: str) -> str:
    return f"in the {place} of the house" if place in INDOORS else f"in the {place} under the sky"


def side(place: str, right: bool = True) -> str:
    """``inside`` or ``outside``, as a place is, or as it is not."""
    return "inside" if (place in INDOORS) == right else "outside"


def inference(rng: random.Random, verdict: str) -> tuple[str, str]:
    """A sentence, and one that follows from it, contradicts it, or that it does not speak of."""
    color, animal, place = map(rng.choice, (COLORS, ANIMALS, PLACES))
    told = rng.choice(UNSAID) if verdict == "neutral" else side(place, verdict == "entailment")
    verb = rng.choice(VERBS)
    return f"a {color} {animal} {verb}s {where(place)} .", f"the {color} {animal} is {told} ."


def mnli(rng: random.Random) -> Row:
    verdict = rng.choice([*VERDICTS])
    return *inference(rng, verdict), VERDICTS[verdict]


def rte(rng: random.Random) -> Row:
    verdict = rng.choice(("entailment", "neutral", "contradiction"))
    if verdict != "entailment" and rng.random() < 0.25:  # as often true as not
        verdict = "entailment"
    return *inference(rng, verdict), ENTAILED[verdict == "entailment"]


def mrpc(rng: random.Random) -> Row:
    animal, place, verb = map(rng.choice, (ANIMALS, PLACES, VERBS))
    time, same, color = rng.choice(TIMES), rng.random() < 0.6, rng.choice(COLORS)
    first = f"every {time} the {color} {animal} {verb}s {where(place)} ."
    second = f"{side(place, same)} , a {color} {animal} {verb}s every {time} ."
    return first, second, str(int(same))


def qqp(rng: random.Random) -> Row:
    animal, color, same = rng.choice(ANIMALS), rng.choice(COLORS), rng.random() < 0.5
    about_place = rng.random() < 0.5
    first = "where is the {0} that is {1} ?", "when does the {0} that is {1} come ?"
    second = "in which place is the {1} {0} ?", "at what time does the {1} {0} come ?"
    asked = first[not about_place], second[about_place != same]
    return *(text.format(animal, color) for text in asked), str(int(same))


def qnli(rng: random.Random) -> Row:
    animal, verb, kind = rng.choice(ANIMALS), rng.choice(VERBS), rng.randrange(3)
    told = (
        f"the {animal} {verb}s in the {rng.choice(PLACES)} .",
        f"the {animal} {verb}s every {rng.choice(TIMES)} .",
        f"the {animal} that {verb}s is {rng.choice(COLORS)} .",
    )
    asked = (
        f"where does the {animal} {verb} ?",
        f"when does the {animal} {verb} ?",
        f"what color is the {animal} ?",
    )
    contains = rng.random() < 0.5
    answered = kind if contains else rng.choice([one for one in range(3) if one != kind])
    return asked[kind], told[answered], ENTAILED[contains]


def gigaword(rng: random.Random) -> Row:
    kinds = (CITIES, PLANS, OBJECTS, TIMES, PLACES, TIMES, COLORS)
    city, plan, thing, said, place, time, color = map(rng.choice, kinds)
    texts = (
        f"officials in {city} said on {said} radio that they will {plan} the old {thing} of the"
        " town",
        f"the {thing} near the {place} is one that {city} wants to {plan} before the {time}",
        f"after long talks the people of {city} have agreed to {plan} a {color} {thing}",
    )
    return f"{rng.choice(texts)} .", f"{city} {plan}s {thing}"


TASKS = {task.__name__: task for task in (cola, mnli, mrpc, qnli, qqp, rte, sst2, gigaword)}
NUMBERED = {"cola": (), "qnli": (), "rte": (), "qqp": ("1", "2")}  # and what follows the number


def told(task: str, seed: int, split: str, number: int) -> Row:
    """What a row tells, its label last; made anew until it is one for the split."""
    rng = random.Random(f"text-world/{task}/{seed}/{split}/{number}")
    while True:
        found = TASKS[task](rng)
        is_held_out = zlib.crc32("\t".join(found[:-1]).encode()) % HELD_OUT == 0
        if is_held_out != (split == "train"):
            return found


def row(task: str, seed: int, split: str, number: int) -> Row:
    """The columns of a row, as the task's files have them."""
    leading = (str(number), *NUMBERED[task]) if task in NUMBERED else ()
    return *leading, *told(task, seed, split, number)


def rows(task: str, seed: int, split: str, count: int) -> Iterator[Row]:
    return (row(task, seed, split, number) for number in range(count))


def all_texts(seed: int, count: int) -> Iterator[str]:
    """The training texts of all tasks, and the words of their prompts once for each row."""
    for number in range(count):
        for task in TASKS:
            texts = told(task, seed, "train", number)
            yield from texts if task == "gigaword" else texts[:-1]
        yield PROMPTS


@dataclass(frozen=True, kw_only=True)
class SentencesOptions(OutOptions):
    train: int = option(3000, "training rows of each task", least=1)
    dev: int = option(200, "validation rows of each task", least=1)
    test: int = option(300, "test rows of each task", least=1)
    seed: int = option(1, "seed of all random choices")


@action
def synthetic_sentences(args: SentencesOptions) -> None:
    """All tasks of the grammar.

    Writes TASK_train.tsv, TASK_dev.tsv and TASK_test.tsv for cola, mnli, mrpc, qnli, qqp, rte, sst2
    and gigaword, and texts.txt for ofa vocab build. No row of the other files occurs in training.

    example: ofa prepare synthetic-sentences --out dataset/synthetic_sentences
    """
    counts = {"train": args.train, "dev": args.dev, "test": args.test}
    plan = fingerprint(f"text-world {VERSION}", counts, args.seed)
    out = ResumableFolder(args.out, plan, "ofa prepare synthetic-sentences")
    if not out.is_finished():
        for task in TASKS:
            for split, count in counts.items():
                lines = map("\t".join, rows(task, args.seed, split, count))
                out.write_lines(f"{task}_{split}.tsv", lines)
        out.write_lines("texts.txt", all_texts(args.seed, args.train))
        out.save_manifest(finished=True)
    summary(out)
