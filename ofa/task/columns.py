"""The columns of a data file: what each holds, by kind.

    ID, IMAGE                                                  the name of a row, its image
    Column("question", example="what color is the circle?")    a text that is asked
    Column("box", "box", target=True)                          x0,y0,x1,y1: the model predicts it

Readers, checks, writers, requests and pages go by kind and know nothing else of a task's rows.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ofa.errors import UserError

KINDS = {
    "id": "the name of a row",
    "text": "one text",
    "texts": "several texts joined by &&",
    "image": "an image file in base64",
    "image_codes": "codes of an image, separated by spaces",
    "box": "x0,y0,x1,y1 in pixels",
    "boxes": "x0,y0,x1,y1,category id,category joined by &&",
    "label": "one of a set of labels, or the words of a class",
    "answer": "confidence|!+answer joined by &&",
    "confidence": "a number from 0 to 1",
}
NOUNS = {  # kind -> what requests have in such a column; others have texts
    "box": "[left, top, right, bottom] in pixels",
    "boxes": 'objects such as {"box": [0, 0, 9, 9], "label": "dog"}',
    "image": "the path of an image",
}


@dataclass(frozen=True)
class Column:
    """A column of the rows of a task.

    Attributes:
        name: as the task's functions know it.
        kind: one of ``KINDS``.
        target: the model predicts it; rows of evaluation files may be without it.
        may_be_empty: rows may be without it.
        may_be_absent: so may whole files; only of the last columns.
        aliases: in tables and requests of users, the usual one first.
        labels: of a ``label``: label in the file -> answer in words; empty: the words of any class.
        max_words: that upstream's recipes keep; 0: all.
        clean: a text of a file -> the text whose words are counted.
        scene_text: read off an image: symbols alone are one, Chinese is characters.
        option: of the task, switched on by who asks with this column.
        example: of a text, for pages.
    """

    name: str
    kind: str = "text"
    target: bool = False
    may_be_empty: bool = False
    may_be_absent: bool = False
    aliases: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    max_words: int = 0
    clean: Callable[[str], str] = str
    scene_text: bool = False
    option: str = ""
    example: str = ""

    def __post_init__(self):
        if self.kind not in KINDS:
            raise UserError(
                f"column '{self.name}': expects a kind of {', '.join(KINDS)}, found {self.kind!r}"
            )

    @property
    def public_name(self) -> str:
        """What tables and requests of users call it."""
        return (*self.aliases, self.name)[0]

    @property
    def names(self) -> tuple[str, ...]:
        return self.name, *self.aliases

    @property
    def noun(self) -> str:
        """What it holds, in a message."""
        return NOUNS.get(self.kind, "a text")

    @property
    def asked(self) -> bool:
        """Whether it is part of what a user asks about an image."""
        return not (self.target or self.may_be_absent or self.kind in ("id", "image", "confidence"))

    @property
    def needed(self) -> bool:
        """Whether a row to learn from has to have it."""
        return not (self.may_be_empty or self.may_be_absent)

    def label_of(self, text: str) -> str | None:
        """The label that a label or an answer stands for, if any: ``"yes"`` -> ``"entailment"``."""
        answers = {answer: label for label, answer in self.labels.items()}
        word = text.strip().lower()
        return word if word in self.labels else answers.get(word)


ID, IMAGE = Column("id", "id"), Column("image", "image")


@dataclass(frozen=True, kw_only=True)
class TsvSchema:
    """The rows of a kind of file."""

    name: str  # of the task
    columns: tuple[Column, ...]  # in the order of ``--selected-cols``
    default_cols: str = ""  # their numbers in the usual files

    def __post_init__(self):
        names = [column.name for column in self.columns]
        if twice := next((name for name in names if names.count(name) > 1), None):
            expected = "expects columns with different names"
            raise UserError(f"task '{self.name}': {expected}, found '{twice}' twice")
        if not self.default_cols:
            object.__setattr__(self, "default_cols", ",".join(map(str, range(len(self.columns)))))

    @property
    def flag(self) -> str:
        """The option that names the columns of a file."""
        return "--selected-cols"

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of the columns that every file has."""
        return tuple(column.name for column in self.columns if not column.may_be_absent)

    @property
    def targets(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column.target)

    @property
    def images(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column.kind == "image")

    @property
    def asked(self) -> tuple[Column, ...]:
        """The columns that a user asks about an image; a second image is one of them."""
        return tuple(column for column in self.columns if column.asked or column in self.images[1:])

    def column(self, name: str) -> Column | None:
        return next((column for column in self.columns if name in column.names), None)

    def columns_named(self, names: Iterable[str]) -> list[Column]:
        """Columns in the order of ``names``; one besides the task's is what its name says."""
        return [
            self.column(name) or Column(name, name if name in KINDS else "text", may_be_empty=True)
            for name in names
        ]

    def has(self, kind: str) -> bool:
        return any(column.kind == kind for column in self.columns)

    def names_of(self, count: int, where: str) -> tuple[str, ...]:
        """Names of the selected columns. Raises: UserError that begins with ``where``."""
        every, needed = tuple(column.name for column in self.columns), self.column_names
        if not len(needed) <= count <= len(every):
            raise UserError(
                f"{where}: {self.flag}: task '{self.name}' expects {len(needed)} columns"
                f" ({', '.join(needed)}), found {count}; the usual choice is"
                f" {self.flag}={self.default_cols}"
            )
        return every[:count]

    def numbers(self, selected_cols: str | None = None) -> dict[str, int]:
        """Column name -> number in the file. Raises: UserError if they do not fit the task."""
        text = selected_cols or self.default_cols
        given, where = text.split(","), f"--selected-cols={text}"
        if not all(number.strip().isdecimal() for number in given):
            raise UserError(f"{where}: expects non-negative integers such as {self.default_cols}")
        return dict(zip(self.names_of(len(given), where), map(int, given)))
