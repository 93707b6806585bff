"""The rules at work on one row: what is wrong with it, and a better row where there is one."""

from dataclasses import dataclass

from ofa.doctor.boxes import boxes_of, clipped, outside
from ofa.doctor.rule import Rule, Settings
from ofa.doctor.rules import GLANCES, ROW_RULES, plain_row, rules_of
from ofa.doctor.text_rules import best_answer
from ofa.errors import UserError
from ofa.io.images import decode_base64, image_header, open_image
from ofa.task.columns import Column

WHOLE_ROW = -1
BOX_KINDS = ("box", "boxes")

IMAGE = Rule("image", "a whole image", None, "export it again, or remove the row")
IMAGE_SIDE = Rule(
    "image-size",
    "a square image of the right size",
    None,
    "resize it before it is written: pretraining does not",
)
BOX_INSIDE = Rule(
    "box-inside",
    "a box inside the image",
    None,
    "are these pixels of this image, as left,top,right,bottom?",
)
ORIENTATION = Rule(
    "exif-orientation",
    "pixels that are stored upright",
    None,
    "viewers turn the image, training does not; ofa prepare writes upright pixels",
    note=True,
)
IMAGE_RULES = (IMAGE, IMAGE_SIDE, BOX_INSIDE, ORIENTATION)


@dataclass(frozen=True)
class Finding:
    """One fault or note. Args: row: from 1; 0 is the file. column: from 0; -1 is the whole row."""

    row: int
    column: int
    rule: str
    found: str
    fix: str
    note: bool = False

    @classmethod
    def of(cls, rule: Rule, found: str, column: int = WHOLE_ROW, row: int = 0) -> "Finding":
        return cls(
            row, column, rule.name, f"expected {rule.expects}, found {found}", rule.fix, rule.note
        )

    def line(self, path: str) -> str:
        """``file:row:column rule - found - fix``; rows from 1, columns from 0, ``*`` is the
        whole row."""
        column = "*" if self.column == WHOLE_ROW else self.column
        return f"{path}:{max(self.row, 1)}:{column} {self.rule} - {self.found} - {self.fix}"


class RowChecker:
    """Checks and repairs rows; without columns in the settings for what holds for every TSV.

    Attributes: cells: those of the row that was checked last; empty if it could not be taken apart.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.columns = {column.name: number for column, number in settings.columns}
        self.cells: list[str] = []
        self.usual = {column.name: column for column, _ in settings.columns}
        known = [
            *self.usual.values(),
            *(column for columns in settings.by_type.values() for column in columns),
        ]
        self.teaches = any(map(is_taught, known))
        self.rules = {id(column): rules_of(column) for column in known}

    def check(self, row: bytes) -> list[Finding]:
        """All findings of a row (without its line end), by column."""
        settings = self.settings
        self.cells = []
        if not plain_row(row, settings):
            for rule in ROW_RULES:
                if found := rule.finds(row, settings):
                    return [Finding.of(rule, found)]
        self.cells = cells = row.decode("utf-8").split("\t")
        findings, sound = [], True
        columns = self._columns_of(cells)
        for name, column in columns.items():
            cell = cells[self.columns[name]]
            if column.kind in GLANCES and GLANCES[column.kind](cell):
                continue
            for rule in self.rules[id(column)]:
                if found := rule.finds(cell, settings):
                    findings.append(Finding.of(rule, found, self.columns[name]))
                    if not rule.note:
                        sound = False
                        break
        if sound and settings.images and self.image_numbers():
            findings += self._look(cells, columns)
        return sorted(findings, key=lambda finding: finding.column)

    def taught(self) -> str | None:
        """The answer, or the words of the class, that the row checked last teaches; None for
        tasks without."""
        for name, column in self._columns_of(self.cells).items() if self.teaches else ():
            cell = self.cells[self.columns[name]]
            if is_taught(column) and cell.strip():
                return best_answer(cell) if column.kind == "answer" else cell.strip()
        return None

    def repair(self, row: bytes) -> bytes:
        """The row after every repair that its faults ask for; faults without a repair stay."""
        for rule in ROW_RULES:
            if rule.repair and rule.finds(row, self.settings):
                row = rule.repair(row, self.settings)
        if not self.columns or any(rule.finds(row, self.settings) for rule in ROW_RULES):
            return row
        cells = row.decode("utf-8").split("\t")
        cells = self._repair_cells(cells)
        if self.settings.images and self.image_numbers():
            self._clip(cells)
        return "\t".join(cells).encode("utf-8")

    def _repair_cells(self, cells: list[str]) -> list[str]:
        """Columns that decide the kinds of others come first."""
        for names in ([name for name in self.columns if name == "type"], list(self.columns)):
            columns = self._columns_of(cells)
            for name in filter(columns.__contains__, names):
                number = self.columns[name]
                for rule in self.rules[id(columns[name])]:
                    if rule.finds(cells[number], self.settings):
                        if rule.repair is None and not rule.note:
                            break
                        if rule.repair:
                            cells[number] = rule.repair(cells[number], self.settings)
                            if rule.finds(cells[number], self.settings):
                                break
        return cells

    def _columns_of(self, cells: list[str]) -> dict[str, Column]:
        """What the columns of this row are; of an evaluation without those that are to be
        predicted and empty."""
        columns = self.usual
        if self.settings.by_type and "type" in self.columns:
            columns = columns | {
                column.name: column
                for column in self.settings.by_type.get(cells[self.columns["type"]], ())
            }
        if self.settings.evaluation:
            return {
                name: column
                for name, column in columns.items()
                if not column.target or cells[self.columns[name]].strip()
            }
        return columns

    def image_numbers(self) -> list[int]:
        """Numbers of the columns of images."""
        return [self.columns[name] for name, column in self.usual.items() if column.kind == "image"]

    def _look(self, cells: list[str], columns: dict[str, Column]) -> list[Finding]:
        """Findings that need the images; boxes are those of the first."""
        findings, sizes, side = [], [], self.settings.image_side
        for number in (
            self.columns[name] for name, column in columns.items() if column.kind == "image"
        ):
            try:
                size, orientation = stored_form(cells[number])
            except UserError as error:
                return [Finding.of(IMAGE, str(error).partition("found ")[2], number)]
            sizes.append(size)
            if orientation != 1:
                findings.append(
                    Finding.of(ORIENTATION, f"the EXIF orientation {orientation}", number)
                )
            if side and size != (side, side):
                findings.append(
                    Finding.of(
                        IMAGE_SIDE,
                        f"{size[0]} x {size[1]} pixels instead of {side} x {side}",
                        number,
                    )
                )
        size = sizes[0]
        for name, of_name in columns.items():
            if of_name.kind in BOX_KINDS:
                beyond = [
                    box
                    for box in boxes_of(cells[self.columns[name]], of_name.kind) or ()
                    if outside(box, size)
                ]
                if beyond:
                    found = (
                        f"{','.join(f'{number:g}' for number in beyond[0])} in {size[0]} x"
                        f" {size[1]} pixels"
                    )
                    findings.append(Finding.of(BOX_INSIDE, found, self.columns[name]))
        return findings

    def _clip(self, cells: list[str]) -> None:
        """Cut boxes off at the border of the image; what lies wholly outside is left as it is."""
        columns = self._columns_of(cells)
        if not any(finding.rule == BOX_INSIDE.name for finding in self._look(cells, columns)):
            return
        size, _ = stored_form(
            cells[
                next(
                    self.columns[name] for name, column in columns.items() if column.kind == "image"
                )
            ]
        )
        for name, column in columns.items():
            if column.kind in BOX_KINDS:
                number = self.columns[name]
                cells[number] = clipped(cells[number], column.kind, size) or cells[number]


def is_taught(column: Column) -> bool:
    """Whether its answers, or the words of its classes, are those of a set that rows teach."""
    return column.kind == "answer" or (column.kind == "label" and not column.labels)


def stored_form(cell: str) -> tuple[tuple[int, int], int]:
    """Width and height of an image that decodes to its end, as training sees it, and its EXIF
    orientation. Raises: UserError."""
    data = decode_base64(cell)
    form = image_header(data)
    open_image(data)
    return form
