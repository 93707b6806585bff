"""Made-up sentences for the language tasks: a small grammar of animals that do things in places.

    >>> row("rte", seed=1, split="train", number=0)
    ('0', 'a red dog sings in the attic every night .', 'the red dog is inside .', 'entailment')

Every row is decided by (seed, split, number); none of test or validation occurs in training. Words
and forms of sentences are in ``templates/sentences.yaml``.
"""

import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ofa.io.flags import action, option
from ofa.io.json_files import read_yaml
from ofa.io.resumable import ResumableFolder, fingerprint
from ofa.prepare.source import OutOptions, summary

GRAMMAR = read_yaml(Path(__file__).parent / "templates/sentences.yaml")
WORDS, FORMS = GRAMMAR["words"], GRAMMAR["forms"]
WORDS["place"] = WORDS["inside"] + WORDS["outside"]
VERDICTS = {"neutral": "0", "entailment": "1", "contradiction": "2"}
ENTAILED = {True: "entailment", False: "not_entailment"}
HELD_OUT = 4  # one row of this number is held out of training
VERSION = 1

Row = tuple[str, ...]


def words_of(rng: random.Random, *kinds: str) -> dict[str, str]:
    """A word of each kind, chosen in this order."""
    return {kind: rng.choice(WORDS[kind]) for kind in kinds}


def cola(rng: random.Random) -> Row:
    """Wrong are the verb's number, the order of two words, or a missing article."""
    is_plural = rng.random() < 0.5
    noun, verb = words_of(rng, "animal", "verb").values()
    is_right = rng.random() < 0.5
    color, place = words_of(rng, "color", "place").values()
    nouns, verbs = (noun, f"{noun}s"), (f"{verb}s", verb)
    words = ["the", color, nouns[is_plural], verbs[is_plural], "in", "the", place]
    fault = None if is_right else rng.randrange(3)
    if fault == 0:
        words[3] = verbs[not is_plural]
    elif fault == 1:
        swapped = rng.choice((1, 4))
        words[swapped : swapped + 2] = words[swapped + 1], words[swapped]
    elif fault == 2:
        del words[rng.choice((0, 5))]
    return " ".join([*words, "."]), str(int(is_right))


def sst2(rng: random.Random) -> Row:
    """``not`` turns it round."""
    is_good, is_negated = rng.random() < 0.5, rng.random() < 0.5
    first, second = rng.sample(WORDS["good" if is_good != is_negated else "bad"], 2)
    words = words_of(rng, "color", "animal", "work")
    negation = "not " * is_negated
    text = FORMS["sst2"].format(negation=negation, first=first, second=second, **words)
    return text, str(int(is_good))


def located(place: str, is_true: bool) -> dict[str, str]:
    """The words of a place: ``where``; ``side``: inside or outside, as it is, or as it is not."""
    sides = ["inside", "outside"] if place in WORDS["inside"] else ["outside", "inside"]
    return {"where": FORMS["where"][sides[0]].format(place), "side": sides[not is_true]}


def inference(rng: random.Random, verdict: str) -> Row:
    """A sentence, and one that follows from it, contradicts it, or that it does not speak of."""
    words = words_of(rng, "color", "animal", "place")
    words |= located(words["place"], verdict == "entailment")
    if verdict == "neutral":
        words["side"] = rng.choice(WORDS["unsaid"])
    words |= words_of(rng, "verb")
    return tuple(form.format(**words) for form in FORMS["inference"])


def mnli(rng: random.Random) -> Row:
    verdict = rng.choice([*VERDICTS])
    return *inference(rng, verdict), VERDICTS[verdict]


def rte(rng: random.Random) -> Row:
    verdict = rng.choice(("entailment", "neutral", "contradiction"))
    if verdict != "entailment" and rng.random() < 0.25:  # as often true as not
        verdict = "entailment"
    return *inference(rng, verdict), ENTAILED[verdict == "entailment"]


def mrpc(rng: random.Random) -> Row:
    words = words_of(rng, "animal", "place", "verb", "time")
    is_same = rng.random() < 0.6
    words |= words_of(rng, "color") | located(words["place"], is_same)
    return *(form.format(**words) for form in FORMS["mrpc"]), str(int(is_same))


def qqp(rng: random.Random) -> Row:
    words = words_of(rng, "animal", "color")
    is_same, asks_place = rng.random() < 0.5, rng.random() < 0.5
    first, second = FORMS["qqp"][not asks_place][0], FORMS["qqp"][asks_place != is_same][1]
    return first.format(**words), second.format(**words), str(int(is_same))


def qnli(rng: random.Random) -> Row:
    words, kind = words_of(rng, "animal", "verb"), rng.randrange(3)
    words |= words_of(rng, "place", "time", "color")
    contains = rng.random() < 0.5
    answered = kind if contains else rng.choice([one for one in range(3) if one != kind])
    question, answer = FORMS["qnli"][kind][0], FORMS["qnli"][answered][1]
    return question.format(**words), answer.format(**words), ENTAILED[contains]


def gigaword(rng: random.Random) -> Row:
    words = words_of(rng, "city", "plan", "thing") | {"said": rng.choice(WORDS["time"])}
    words |= words_of(rng, "place", "time", "color")
    text = rng.choice(FORMS["gigaword"])
    return text.format(**words), FORMS["summary"].format(**words)


TASKS = {task.__name__: task for task in (cola, mnli, mrpc, qnli, qqp, rte, sst2, gigaword)}
LEADING = {"cola": ["{}"], "qnli": ["{}"], "rte": ["{}"], "qqp": ["{}", "1", "2"]}  # {}: the number


def row(task: str, seed: int, split: str, number: int) -> Row:
    """The columns of a row, the label last; made anew until it is one for the split."""
    rng = random.Random(f"text-world/{task}/{seed}/{split}/{number}")
    while True:
        found = TASKS[task](rng)
        is_held_out = zlib.crc32("\t".join(found[:-1]).encode()) % HELD_OUT == 0
        if is_held_out != (split == "train"):
            return *(cell.format(number) for cell in LEADING.get(task, ())), *found


def rows(task: str, seed: int, split: str, count: int) -> Iterator[Row]:
    return (row(task, seed, split, number) for number in range(count))


def all_texts(seed: int, count: int) -> Iterator[str]:
    """The training texts of all tasks, and the words of their prompts once for each row."""
    for number in range(count):
        for task in TASKS:
            texts = row(task, seed, "train", number)[len(LEADING.get(task, ())) :]
            yield from texts if task == "gigaword" else texts[:-1]
        yield GRAMMAR["prompts"]


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
