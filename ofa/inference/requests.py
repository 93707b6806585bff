"""What to ask about which image: one image, a folder of them, or a file of JSON lines.

    {"image": "a.jpg"}                                                      a caption
    {"image": "a.jpg", "question": "what color is it?"}                     an answer
    {"image": "a.jpg", "question": "what is it?", "region": [3, 4, 90, 80]} an answer about a
                                                                            region, in pixels
    {"image": "a.jpg", "text": "the red car"}                               the region of a text
    {"image": "a.jpg", "hypothesis": "a car drives", "premise": "a road"}   yes, no or maybe
    {"image": "a.jpg", "task": "read"}                                      the text on it
    {"image": "a.jpg", "instruction": "what does the image describe?"}      any instruction

Paths are as seen from the folder of the file, and lie below it or below --images DIR. Other keys
are kept and come out again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ofa.errors import UserError
from ofa.io.image_paths import list_images
from ofa.io.numbers import read_decimal
from ofa.io.paths import path_within
from ofa.io.values import RowError, finding, in_fractions, load_values, text_of

NEEDED = {
    "caption": None,
    "answer": "question",
    "ground": "text",
    "entails": "hypothesis",
    "read": None,
    "generate": "instruction",
}
OPTIONAL = {"answer": "region", "entails": "premise"}
# Tasks under their training names.
TASKS = {
    "caption": "caption",
    "vqa_gen": "answer",
    "grounded_qa": "answer",
    "refcoco": "ground",
    "snli_ve": "entails",
    "ocr": "read",
    "instruction": "generate",
}


@dataclass
class Request:
    """One thing to ask.

    Args:
        image: path of the image. name: the same as it was given.
        verb: one of ``NEEDED``. words: what the verb needs, by name; a region is a list of four
            numbers.
        kept: further keys of the line.
        where: ``file:row`` or the path, for messages.
    """

    image: Path
    name: str
    verb: str
    words: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    where: str = ""

    @property
    def kind(self) -> tuple[str, ...]:
        """Requests of one kind can be asked together."""
        return self.verb, *sorted(self.words)


def verb_of(task: str) -> str:
    """``refcoco`` or ``ground`` -> ``ground``. Raises: UserError that lists the known names."""
    verb = TASKS.get(task, task)
    if verb not in NEEDED:
        raise UserError(
            f"--task: expects one of {', '.join(NEEDED)} or {', '.join(TASKS)}, found {task!r}"
        )
    return verb


def read_requests(
    source: str, verb: str | None, words: Mapping[str, Any], images: Sequence[str] = ()
) -> list[Request]:
    """What an input asks.

    Args:
        source: an image file, a folder of image files, or a file of JSON lines (``.jsonl`` or
            ``.json``).
        verb: what to ask where a line does not say it; None: what its words are for, or a caption.
        words: for every request that does not have them itself, by name.
        images: folders besides that of the file that its lines may name images of.
    Raises: UserError if there is nothing to read or a line is wrong.
    """
    path = Path(source)
    refuse_url(source, "")
    if path.is_dir():
        return [
            _request({}, image, image.name, verb, words, str(image)) for image in list_images(path)
        ]
    if not path.is_file():
        raise UserError(
            f"{source}: expects an image, a folder of images or a .jsonl file, found nothing there"
        )
    if path.suffix.lower() in (".jsonl", ".json"):
        return _lines(path, verb, words, images)
    return [_request({}, path, source, verb, words, source)]


def _lines(
    path: Path, verb: str | None, words: Mapping[str, Any], images: Sequence[str]
) -> list[Request]:
    requests = []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: expects UTF-8 text, found other bytes ({error.reason}); save it as UTF-8"
        ) from None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            entry = load_values(line)
        except ValueError as error:
            raise UserError(
                f"{where}: expects one JSON object per line, found {line[:60]!r} ({error})"
            ) from None
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("image"), str)
            or not entry["image"].strip()
        ):
            raise UserError(f'{where}: expects an object with "image": "path", found {line[:60]!r}')
        refuse_url(entry["image"], f"{where}: ")
        try:
            image = path_within(path.parent, entry["image"], where, images)
        except UserError as error:
            raise UserError(f"{error}, or name its folder by --images") from None
        requests.append(_request(entry, image, entry["image"], verb, words, where))
    if not requests:
        raise UserError(f'{path}: expects lines such as {{"image": "a.jpg"}}, found an empty file')
    return requests


def refuse_url(name: str, where: str) -> None:
    """Raises: UserError for ``https://...`` and the like: nothing is read from the network."""
    if "://" in name:
        raise UserError(
            f"{where}expects an image on this machine, found the URL {name!r}; download it and"
            " give its path"
        )


def _request(
    entry: dict, image: Path, name: str, verb: str | None, words: Mapping[str, Any], where: str
) -> Request:
    said = {key: value for key, value in {**words, **entry}.items() if value is not None}
    if "task" in entry:
        try:
            verb = verb_of(str(entry["task"])[:60])
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
    if verb is None:
        verb = next((verb for verb, needed in NEEDED.items() if needed in said), "caption")
        if verb == "caption" and (
            nulls := [needed for needed in NEEDED.values() if needed in entry]
        ):
            raise UserError(
                f'{where}: expects "{nulls[0]}": a text, found null; fill it in, or leave it out'
                " for a caption"
            )
    needed, optional = NEEDED[verb], OPTIONAL.get(verb)
    chosen = {key: said[key] for key in (needed, optional) if key and key in said}
    for key in [key for key in chosen if key in (needed, "premise")]:
        try:
            chosen[key] = text_of(chosen[key], f'"{key}": a text')
        except RowError as error:
            raise UserError(f"{where}: '{verb}' expects {error}; write it in quotes") from None
    if needed is not None and not chosen.get(needed, "").strip():
        raise UserError(
            f"{where}: '{verb}' expects \"{needed}\": a text, found {chosen.get(needed)!r}; give it"
            f" in the line or by --{needed}"
        )
    if "region" in chosen:
        chosen["region"] = _region(chosen["region"], where)
    kept = {key: value for key, value in entry.items() if key not in ("image", "task", *chosen)}
    return Request(image, name, verb, chosen, kept, where)


def _region(value: Any, where: str) -> list[float]:
    numbers = (
        value.split(",")
        if isinstance(value, str)
        else value
        if isinstance(value, (list, tuple))
        else ()
    )
    try:
        x0, y0, x1, y1 = region = [read_decimal(number) for number in numbers]
    except (TypeError, ValueError):
        region = []
    fractions = bool(region) and in_fractions(region)
    if not region or fractions or x1 <= x0 or y1 <= y0:
        hint = (
            "are these fractions of the image?"
            if fractions
            else "left is below right, top below bottom"
        )
        raise UserError(
            f'{where}: expects "region": [left, top, right, bottom] in pixels, found '
            f"{repr(value[:60]) if isinstance(value, str) else finding(value)}; {hint}"
        )
    return region
