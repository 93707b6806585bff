"""A task in one line: ``[image] how many [text:thing] are there? -> [text:count]``.

::

    template = source "->" target
    source   = texts and slots; images come first
    target   = one slot: text, box, boxes or label
    slot     = "[" kind "]" or "[" kind ":" column "]"; the column's usual name is the kind
    kind     = image | text | box | boxes | label | choices
    escapes  = "\\[" "\\]" "\\->" "\\\\"

A template is data: it is only read, within bounds, and whatever is refused is one message with
carets under the place.
"""

import difflib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from ofa.errors import UserError

KINDS = {  # kind -> what its column holds
    "image": "an image",
    "text": "any text",
    "box": "left,top,right,bottom in pixels of the first image",
    "boxes": "boxes joined by &&",
    "label": "one text of a closed set, to predict",
    "choices": "the texts that one row's label is chosen from, joined by &&",
}
TARGETS = ("text", "box", "boxes", "label")
RESERVED = ("id", "image_id", "split", "task")  # rows and requests of every task may have them
MAX_LENGTH, MAX_SLOTS, MAX_NAME, MAX_IMAGES = 1000, 16, 40, 2
WINDOW = 76  # characters of a template that a message shows
EXAMPLE = "write for example: [image] how many [text:thing] are there? -> [text:count]"
TOKEN = re.compile(r"\\(?:\[|\]|->|\\)?|->|\[[^\[\]\\]*\]|\[|\]|[^\\\[\]-]+|-")
NAME = re.compile(r"[^\W\d][\w.-]*")
UNPAIRED = {  # a token that is never right -> what was expected, what it is, what to write
    "\\": ("[ ] -> or \\ after a backslash", "something else", "write \\\\ for a backslash"),
    "[": ("a slot such as [text:name]", "a [ without its ]", "write \\[ for a bracket"),
    "]": ("a [ before it", "a ] alone", "write \\] for a bracket"),
}
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
OTHER_ARROWS = re.compile("→|⇒|=>|[—–]>")
NOT_PREDICTED = {
    "image": "a generated image is a row of image codes: that is the task image_gen",
    "choices": "choices stand before '->', and what is chosen from them is [label]",
}


@dataclass(frozen=True)
class Slot:
    """The place of a column."""

    kind: str
    column: str
    place: tuple[int, int]  # first character that it takes, and the one behind its last


Token = tuple[tuple[int, int], str | Slot | None]  # place, and a text, a slot or (None) the arrow


@dataclass(frozen=True)
class Template:
    """A parsed template."""

    text: str  # as it was given, but for runs of spaces
    images: tuple[Slot, ...]
    source: tuple[str | Slot, ...]  # the other slots and the texts, in order
    target: Slot  # what is predicted

    @property
    def slots(self) -> tuple[Slot, ...]:
        shown = tuple(part for part in self.source if isinstance(part, Slot))
        return (*self.images, *shown, self.target)

    @property
    def columns(self) -> dict[str, str]:
        """Column -> kind, in the order in which the template names them."""
        return {slot.column: slot.kind for slot in self.slots}

    @property
    def choices(self) -> str | None:
        """The column with the choices of each row, if there is one."""
        return next((name for name, kind in self.columns.items() if kind == "choices"), None)


def is_template(task: str) -> bool:
    """Whether a value of ``--task`` is a template: names of tasks have no brackets and arrows."""
    return any(mark in task for mark in ("[", "]", "->"))


def parse_template(text: object, where: str = "template") -> Template:
    """The parts of a template. Args: where: begins the message about a mistake.

    >>> parse_template("[image] what color is the [text:thing]? -> [text:color]").columns
    {'image': 'image', 'thing': 'text', 'color': 'text'}

    Raises: UserError that shows the first mistake.
    """
    if not isinstance(text, str):
        raise UserError(f"{where}: expected a text, found {type(text).__name__}; {EXAMPLE}")
    if len(text) > MAX_LENGTH:
        raise UserError(
            f"{where}: expected at most {MAX_LENGTH} characters, found {len(text)}; "
            "put what differs from row to row into columns"
        )
    return _Parser(" ".join(text.split()), where).template()


class _Parser:
    """Reads one template. Args: text: without runs of spaces. where: begins messages."""

    def __init__(self, text: str, where: str):
        self.text, self.where = text, where

    def template(self) -> Template:
        before, after = self.sides()
        slots = [part for _, part in before if isinstance(part, Slot)]
        if not slots:
            found = "nothing that differs from row to row"
            self.fail((0, 1), "a slot before '->'", found, EXAMPLE)
        target = self.target(after)
        images = tuple(slot for slot in slots if slot.kind == "image")
        self.check_images(before, images)
        self.check_kinds(slots, images, target)
        self.check_columns(slots, target)
        source: list[str | Slot] = []
        for _, part in before:
            if isinstance(part, str) and source and isinstance(source[-1], str):
                source[-1] += part
            elif part is not None and part not in images:
                source.append(part)
        return Template(self.text, images, tuple(source), target)

    # --- tokens ---------------------------------------------------------------------------------

    def tokens(self) -> Iterator[Token]:
        for match in TOKEN.finditer(self.text):
            token, place = match.group(), match.span()
            if token in UNPAIRED:
                self.fail(place, *UNPAIRED[token])
            if token == "->":
                yield place, None
            elif token.startswith("["):
                yield place, self.slot(*place)
            elif token.startswith("\\"):
                yield place, token[1:]
            else:
                yield place, self.checked(place[0], token)

    def checked(self, start: int, token: str) -> str:
        """A text that can be seen, and stored: ``${`` is a reference in stored options."""
        if found := UNPRINTABLE.search(token):
            place = start + found.start()
            self.fail((place, place + 1), "printable text", repr(found[0]), "remove it")
        if "${" in token:
            place = start + token.index("${")
            self.fail((place, place + 2), "plain text", "'${'", "write a space between the two")
        return token

    def slot(self, start: int, end: int) -> Slot:
        before, colon, after = self.text[start + 1 : end - 1].partition(":")
        kind, column = before.strip(), after.strip()
        at = _place_of(before, start + 1)
        if kind not in KINDS:
            self.fail(at, f"a kind ({', '.join(KINDS)})", repr(kind), _meant(kind, column))
        at = _place_of(after, start + 2 + len(before))
        if colon and not NAME.fullmatch(column):
            expected = "the name of a column (a letter, then letters, digits, '_', '-', '.')"
            self.fail(at, expected, repr(column), f"write for example [{kind}:name]")
        if len(column) > MAX_NAME:
            expected = f"a name of at most {MAX_NAME} characters"
            self.fail(at, expected, str(len(column)), "shorten it")
        if column in RESERVED or (column == "image" != kind):
            found = f"{column!r}, which rows of all tasks have"
            self.fail(at, "a column of this task", found, "give it another name")
        return Slot(kind, column or kind, (start, end))

    def sides(self) -> tuple[list[Token], list[Token]]:
        tokens = list(self.tokens())
        slots = [place for place, part in tokens if isinstance(part, Slot)]
        arrows = [number for number, (_, part) in enumerate(tokens) if part is None]
        if len(slots) > MAX_SLOTS:
            expected = f"at most {MAX_SLOTS} slots"
            self.fail(slots[MAX_SLOTS], expected, "another one", "join columns")
        if len(arrows) > 1:
            expected, hint = "one arrow between source and target", "write \\-> for one in the text"
            self.fail(tokens[arrows[1]][0], expected, "another one", hint)
        if not arrows:
            other = OTHER_ARROWS.search(self.text)
            end = (len(self.text), len(self.text) + 1)
            place, found = (other.span(), repr(other.group())) if other else (end, "the end")
            self.fail(place, "'->' and what is predicted", found, EXAMPLE)
        return tokens[: arrows[0]], tokens[arrows[0] + 1 :]

    # --- rules ----------------------------------------------------------------------------------

    def target(self, after: list[Token]) -> Slot:
        slots = [part for _, part in after if isinstance(part, Slot)]
        for place, part in after:
            if isinstance(part, str) and part != " ":
                where, found = _place_of(part, place[0]), repr(part.strip())
                self.fail(where, "one slot alone after '->'", found, "move the text before '->'")
        if not slots:
            end, hint = len(self.text), "write for example -> [text:answer]"
            self.fail((end, end + 1), "a slot that is predicted", "nothing after '->'", hint)
        if len(slots) > 1:
            expected, hint = "one slot alone after '->'", "predict one thing per task"
            self.fail(slots[1].place, expected, "another one", hint)
        slot = slots[0]
        if slot.kind not in TARGETS:
            expected = f"{', '.join(TARGETS)} after '->'"
            self.fail(slot.place, expected, f"[{slot.kind}]", NOT_PREDICTED[slot.kind])
        return slot

    def check_images(self, before: list[Token], images: Sequence[Slot]) -> None:
        """The model sees images before it reads; elsewhere a slot leaves a hole in a sentence."""
        parts = [part for _, part in before if part != " "]
        for number, slot in enumerate(images):
            if parts[number] is not slot:
                hint = "the model sees images before it reads; move it to the front"
                self.fail(slot.place, "images at the beginning", "one behind other parts", hint)
            if number == MAX_IMAGES:
                self.fail(slot.place, f"at most {MAX_IMAGES} images", "another one", "remove it")

    def check_kinds(self, slots: Sequence[Slot], images: Sequence[Slot], target: Slot) -> None:
        for slot in (*slots, target):
            if slot.kind in ("box", "boxes") and not images:
                self.fail(slot.place, "an image that the box is in", "none", "begin with [image]")
            if slot.kind == "label" and slot is not target:
                hint = f"a text that is shown is [text:{slot.column}]"
                self.fail(slot.place, "a label after '->' alone", "it before", hint)
        choices = [slot for slot in slots if slot.kind == "choices"]
        if len(choices) > 1:
            self.fail(choices[1].place, "one list of choices", "another one", "join the columns")
        if choices and target.kind != "label":
            name = "" if target.column == target.kind else f":{target.column}"
            expected, hint = "a label where the source lists choices", f"write [label{name}]"
            self.fail(target.place, expected, f"[{target.kind}]", hint)

    def check_columns(self, slots: Sequence[Slot], target: Slot) -> None:
        """A column has one kind; each image, and what is predicted, is a column of its own."""
        first: dict[str, Slot] = {}
        for slot in (*slots, target):
            earlier = first.setdefault(slot.column, slot)
            if earlier is slot:
                continue
            own = f"give it a name of its own, such as [{slot.kind}:{slot.column}_2]"
            if slot is target:
                own = f"give it a name of its own, such as [{slot.kind}:answer]"
                expected = "a column that the source does not show"
                self.fail(slot.place, expected, repr(slot.column), own)
            if slot.kind != earlier.kind:
                expected = f"column {slot.column!r} to be of kind {earlier.kind}, as before"
                self.fail(slot.place, expected, slot.kind, own)
            if slot.kind == "image":
                self.fail(slot.place, "another column for another image", repr(slot.column), own)

    def fail(self, place: tuple[int, int], expected: str, found: str, remedy: str) -> NoReturn:
        """Raises: UserError with the template and carets under the place."""
        message = f"{self.where}: expected {expected}, found {found}; {remedy}"
        raise UserError(f"{message}\n{marked(self.text, *place)}")


def marked(text: str, start: int, end: int) -> str:
    """A text, or the part of a long one around a place, and carets under the place."""
    first = max(0, min(start - WINDOW // 2, len(text) - WINDOW))
    last = first + WINDOW
    shown = "".join(c if c.isprintable() else "?" for c in text[first:last])
    before, after = "..." * (first > 0), "..." * (last < len(text))
    indent = len(before) + sum(map(_width, shown[: start - first]))
    carets = sum(map(_width, shown[start - first : end - first]))
    return f"  {before}{shown}{after}\n  {' ' * indent}{'^' * max(1, carets)}"


def _width(character: str) -> int:
    """Columns of a terminal that a character takes."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def _place_of(text: str, start: int) -> tuple[int, int]:
    """Where the words of a text are. Args: start: of the text."""
    first = start + len(text) - len(text.lstrip()) if text.strip() else start
    return first, first + max(1, len(text.strip()))


def _meant(kind: str, column: str) -> str:
    """What a slot of an unknown kind was perhaps meant to be."""
    if column in KINDS:
        return f"did you mean [{column}:{kind}]?"
    close = difflib.get_close_matches(kind.lower(), KINDS, 1, 0.6)
    if close:
        return f"did you mean [{close[0]}{':' if column else ''}{column}]?"
    if NAME.fullmatch(kind) and not column:
        return f"a column {kind!r} of texts is [text:{kind}]"
    return "write for example [text:name], or \\[ for a bracket"
