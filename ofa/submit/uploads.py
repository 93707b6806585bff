"""``ofa submit``: result files -> what the leaderboards take.

Every image, question or row of the split is answered exactly once. What our result files hold
besides (scores, further answers) is left out.
"""

import io
import json
import logging
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ofa.errors import UserError, listed
from ofa.io.atomic import replacing
from ofa.io.flags import action, option
from ofa.io.json_files import read_json
from ofa.io.terminal import with_noun
from ofa.io.text_files import read_text
from ofa.io.values import RowError, read_integer, words_of
from ofa.task.results import read_predictions, write_json

logger = logging.getLogger(__name__)

COCO_ID = re.compile(r"(?:COCO_(?:train|val|test)20\d\d_)?0*([0-9]{1,18})(?:\.jpg)?")
SHOWN = 5  # ids named in a message
HEADER = "index\tprediction"


@dataclass(frozen=True, kw_only=True)
class UploadFormat:
    """What a leaderboard wants of a split."""

    key: str  # of the id in a result file
    text: str  # key of the answer there
    one: str  # what an id stands for
    numbered: bool = True  # ids are integers
    # answer of the model -> what the site calls it; none: any answer goes in as it is
    words: Mapping[str, str] = field(default_factory=dict)
    file: str = ""
    size: int = 0  # answers in the file


COCO = UploadFormat(key="image_id", text="caption", one="image")
COCO_SIZES = {"val2014": 40504, "test2014": 40775}  # images of the splits that the server scores
VQA = UploadFormat(key="question_id", text="answer", one="question")
MUGE = UploadFormat(key="image_id", text="caption", one="image", numbered=False)


def _glue(file: str, size: int, **words: str) -> UploadFormat:
    return UploadFormat(key="uniq_id", text="answer", one="row", file=file, size=size, words=words)


NUMBERS = {"no": "0", "yes": "1"}
IMPLIED = {"no": "not_entailment", "yes": "entailment"}
INFERENCE = {"no": "contradiction", "yes": "entailment", "maybe": "neutral"}
GLUE = {
    "cola": _glue("CoLA.tsv", 1063, **NUMBERS),
    "mnli_m": _glue("MNLI-m.tsv", 9796, **INFERENCE),
    "mnli_mm": _glue("MNLI-mm.tsv", 9847, **INFERENCE),
    "mrpc": _glue("MRPC.tsv", 1725, **NUMBERS),
    "qnli": _glue("QNLI.tsv", 5463, **IMPLIED),
    "qqp": _glue("QQP.tsv", 390965, **NUMBERS),
    "rte": _glue("RTE.tsv", 3000, **IMPLIED),
    "sst2": _glue("SST-2.tsv", 1821, negative="0", positive="1"),
}
# of GLUE, that OFA has no task for; the site wants the first two as well
OTHERS = ("STS-B.tsv", "WNLI.tsv", "AX.tsv")
CHECKED = "the data set's list of images of %s, to check that each has one caption"


@dataclass(frozen=True, kw_only=True)
class CocoOptions:
    val2014: str | None = option(None, "result file of the 40,504 images of val2014")
    val2014_images: str | None = option(None, CHECKED % "val2014")
    test2014: str | None = option(None, "result file of the 40,775 images of test2014")
    test2014_images: str | None = option(None, CHECKED % "test2014")
    name: str = option("ofa", "name of the method, part of the file names")
    out: str = option(help="zip file to write")


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    results: tuple[str, ...] = option(help="result files that make up a split", positional=True)
    out: str = option(help="file to write")


@dataclass(frozen=True, kw_only=True)
class VqaOptions(SplitOptions):
    questions: str | None = option(None, "the data set's questions, to check that each is answered")


@dataclass(frozen=True, kw_only=True)
class MugeOptions(SplitOptions):
    images: str | None = option(None, "the data set's images, to check that each has one caption")


def _result_of(name: str) -> Any:
    size, title = GLUE[name].size, GLUE[name].file.removesuffix(".tsv")
    return option(None, f"result file of the {size:,} test rows of {title}")


@dataclass(frozen=True, kw_only=True)
class GlueOptions:
    cola: str | None = _result_of("cola")
    mnli_m: str | None = _result_of("mnli_m")
    mnli_mm: str | None = _result_of("mnli_mm")
    mrpc: str | None = _result_of("mrpc")
    qnli: str | None = _result_of("qnli")
    qqp: str | None = _result_of("qqp")
    rte: str | None = _result_of("rte")
    sst2: str | None = _result_of("sst2")
    also: tuple[str, ...] = option((), f"{', '.join(OTHERS)}: they go in as they are")
    out: str = option(help="zip file to write")


@action
def coco(args: CocoOptions) -> None:
    """Make a zip of COCO captions, with one file per split.

    The zip holds captions_val2014_NAME_results.json and captions_test2014_NAME_results.json, each
    [{"image_id": 391895, "caption": "a man on a motorcycle"}, ...].

    example: ofa submit coco --val2014 results/val_predict.json --test2014
    results/test_predict.json --name ofa-large --out upload.zip
    """
    if not (args.val2014 or args.test2014):
        raise UserError(
            "expects --val2014 RESULTS, --test2014 RESULTS or both, found neither; give the result "
            "files"
        )
    if not re.fullmatch(r"[A-Za-z0-9.-]+", args.name):
        raise UserError(
            f"--name: expects letters, digits, dots and hyphens, found {args.name!r}; the server"
            " reads file names at '_'"
        )
    members = {}
    for split, size in COCO_SIZES.items():
        path, images = getattr(args, split), getattr(args, f"{split}_images")
        if images and not path:
            raise UserError(
                f"--{split}-images: expects --{split} RESULTS beside it, found none; give both or"
                " neither"
            )
        if not path:
            logger.warning("the server wants both splits; --%s is not given", split)
            continue
        entries = upload_entries([path], COCO, listed_ids(images, "images", "id"))
        members[f"captions_{split}_{args.name}_results.json"] = json.dumps(entries)
        tell(split, len(entries), "captions", len(entries) if images else size)
    write_zip(args.out, members)


@action
def vqa(args: VqaOptions) -> None:
    """Make one JSON of answers for the VQA challenge.

    The file holds [{"question_id": 393225000, "answer": "red"}, ...].

    example: ofa submit vqa results/test_predict.json --questions
    v2_OpenEnded_mscoco_test2015_questions.json --out answers.json
    """
    expected = listed_ids(args.questions, "questions", "question_id")
    entries = upload_entries(args.results, VQA, expected)
    write_json(args.out, entries)
    whole = "" if expected is None else ", one for every question of the split"
    print(f"{with_noun(len(entries), 'answer')}{whole}\nupload: {args.out}")


@action
def muge(args: MugeOptions) -> None:
    """Write MUGE's Chinese captions, one JSON object per line.

    A line of the file is {"image_id": "007c72", "text": "蕾丝元素，时尚气质"}.

    example: ofa submit muge results/test_predict.json --images IC_test.tsv --out IC_test.jsonl
    """
    from ofa.io.image_files import table_images

    expected = {image_id for image_id, _ in table_images(args.images)} if args.images else None
    entries = upload_entries(args.results, MUGE, expected)
    with replacing(args.out) as file:
        for entry in entries:
            line = {"image_id": entry["image_id"], "text": entry["caption"]}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    whole = "" if expected is None else ", one for every image of the split"
    print(f"{with_noun(len(entries), 'caption')}{whole}\nupload: {args.out}")


@action
def glue(args: GlueOptions) -> None:
    """Make a zip for GLUE, with one TSV per test set.

    The lines of each TSV are: index <tab> prediction, 0 <tab> entailment, ...

    example: ofa submit glue --cola results/cola/test_predict.json --rte
    results/rte/test_predict.json --also sample/STS-B.tsv --out glue.zip
    """
    members = {}
    for name, form in GLUE.items():
        if path := getattr(args, name):
            members[form.file] = glue_text(path, form)
            tell(form.file, members[form.file].count("\n") - 1, "predictions", form.size)
    if not members:
        known = ", ".join(f"--{name.replace('_', '-')}" for name in GLUE)
        raise UserError(
            f"expects result files, such as --cola RESULTS, found none; known are {known}"
        )
    members |= {Path(path).name: other_text(path) for path in args.also}
    write_zip(args.out, members)
    wanted = [*(form.file for form in GLUE.values()), *OTHERS[:2]]
    if missing := [name for name in wanted if name not in members]:
        logger.warning(
            "the site wants a file for every task; not there: %s (--also takes those of its sample "
            "submission)",
            ", ".join(missing),
        )


def tell(name: str, count: int, things: str, size: int) -> None:
    """How many there are. Args: size: how many the server wants."""
    print(f"{name}: {count} {things}")
    if count != size:
        logger.warning(
            "%s: the test set has %d rows, these are %s for %d; the server refuses an incomplete"
            " file",
            *(name, size, things, count),
        )


def write_zip(path: str, members: Mapping[str, str]) -> None:
    """Args: members: name -> text. They are dated 1980: equal files, equal zips."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            member = zipfile.ZipInfo(name)
            member.compress_type, member.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(member, text)
    with replacing(path, "wb") as file:
        file.write(content.getvalue())
    print(f"upload: {path}")


def upload_entries(
    paths: Sequence[str | Path], form: UploadFormat, expected: set | None = None
) -> list[dict[str, Any]]:
    """The entries of result files with nothing but an id and a text.

    Args: expected: ids of the split, where they are known.
    Raises: UserError if an entry has another form, or an id is not an integer, comes twice, is
    missing or is foreign.
    """
    entries = [
        _entry(entry, f"{path}: entry {number}", form)
        for path in paths
        for number, entry in enumerate(read_predictions(path), 1)
    ]
    ids = [entry[form.key] for entry in entries]
    files = ", ".join(map(str, paths))
    twice = [number for number, times in Counter(ids).items() if times > 1]
    if twice:
        raise UserError(
            f"{files}: expects every {form.one} once, found {len(twice)} more than once"
            f" ({_some(twice)}); were the results of two splits or two runs put together, or has"
            " the TSV rows twice?"
        )
    if expected is None:
        return entries
    missing, foreign = expected - set(ids), set(ids) - expected
    if missing or foreign:
        findings = [f"{len(missing)} missing ({_some(missing)})"] * bool(missing)
        findings += [f"{len(foreign)} of another split ({_some(foreign)})"] * bool(foreign)
        raise UserError(
            f"{files}: expects one {form.text} for each of {len(expected)} {form.one}s, found"
            f" {' and '.join(findings)}; evaluate the whole split, and give the list of the"
            " same split"
        )
    return entries


def _entry(entry: Any, where: str, form: UploadFormat) -> dict[str, Any]:
    known = entry if isinstance(entry, dict) else {}
    text = known.get(form.text)
    if form.key not in known or not isinstance(text, str):
        found = ", ".join(map(str, known)) or repr(entry)[:60]
        raise UserError(
            f"{where}: expects '{form.key}' and '{form.text}', found {found}; is it the result file"
            " of another task?"
        )
    if form.words and text not in form.words:
        raise UserError(
            f"{where}: expects an answer ({', '.join(form.words)}) for {form.file}, found {text!r};"
            " is it the result file of another task?"
        )
    return {form.key: _id(known[form.key], where, form), form.text: text}


def _id(value: Any, where: str, form: UploadFormat) -> int | str:
    """``391895``, ``"391895"`` or ``"COCO_val2014_000000391895.jpg"`` -> 391895; of ids that are
    no numbers the text."""
    if form.numbered:
        match = COCO_ID.fullmatch(str(value))
        if match is None or isinstance(value, bool):
            raise UserError(
                f"{where}: expects the number of a {form.one} as '{form.key}', found {value!r};"
                " evaluate a TSV whose id column holds the data set's own numbers"
            )
        return int(match[1])
    try:
        return words_of(value, f"the id of a {form.one} as '{form.key}'")
    except RowError as error:
        raise UserError(
            f"{where}: expects {error}; evaluate a TSV with an id in every row"
        ) from None


def _some(numbers: Iterable) -> str:
    return listed(list(map(str, sorted(numbers))), SHOWN)


def listed_ids(path: str | Path | None, group: str, key: str) -> set[int] | None:
    """Ids of a file of the data set, if there is one: ``{"questions": [{"question_id": 1}, ...]}``
    or ``{"images": [{"id": 1}, ...]}``. Raises: UserError if the file is missing or of another
    kind."""
    if path is None:
        return None
    expected = f"a file of the data set with '{group}' that have a '{key}' each"
    content = read_json(path, expected, kind=dict)
    try:
        return {read_integer(entry[key]) for entry in content[group]}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: expected {expected}, found {type(error).__name__}: {error}; give the original"
            " JSON"
        ) from None


def glue_text(path: str | Path, form: UploadFormat) -> str:
    """The TSV of a result file. Raises: UserError if it is not the answers of rows 0, 1, 2, ...
    of the task."""
    lines = [HEADER]
    for number, entry in enumerate(upload_entries([path], form)):
        if entry[form.key] != number:
            raise UserError(
                f"{path}: entry {number + 1}: expects the answer to row {number} of the test set,"
                f" found row {entry[form.key]}; evaluate the whole test file in its order"
            )
        lines.append(f"{number}\t{form.words[entry[form.text]]}")
    return "\n".join([*lines, ""])


def other_text(path: str | Path) -> str:
    """A file that goes in as it is. Raises: UserError if it has another name or header."""
    if Path(path).name not in OTHERS:
        raise UserError(
            f"{path}: expects one of {', '.join(OTHERS)}; the other files are made of results"
        )
    text = read_text(path)
    found = text.partition("\n")[0].rstrip("\r")
    if found != HEADER:
        raise UserError(
            f"{path}:1: expects the header 'index<tab>prediction', found {found[:60]!r}; take it"
            " from the site's sample submission"
        )
    return text if text.endswith("\n") else text + "\n"
