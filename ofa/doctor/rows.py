"""The rules at work on one row: what is wrong with it, and a better row where there is one."""

from ofa.doctor.boxes import boxes_of, clipped, outside, shown_box
from ofa.doctor.rule import REPAIRED, SKIPPED, Finding, Rule, Settings
from ofa.doctor.rules import GLANCES, ROW_RULES, plain_row, rules_of
from ofa.doctor.text_rules import best_answer
from ofa.errors import UserError
from ofa.io.images import decode_base64, image_header
from ofa.task.columns import Column

BOX_KINDS = ("box", "boxes")

IMAGE = Rule("image", "a whole image", "export it again, or remove the row", with_fix=SKIPPED)
IMAGE_SIDE = Rule(
    "image-size",
    "a square image of the right size",
    "resize it before it is written: pretraining does not",
    with_fix=SKIPPED,
)
BOX_INSIDE = Rule(
    "box-inside",
    "a box inside the image",
    "are these pixels of this image, as left,top,right,bottom?",
    with_fix=REPAIRED,
)
ORIENTATION = Rule(
    "exif-orientation",
    "pixels that are stored upright",
    "viewers turn the image, training does not; ofa prepare writes upright pixels",
    note=True,
)
IMAGE_RULES = (IMAGE, IMAGE_SIDE, BOX_INSIDE, ORIENTATION)


class RowChecker:
    """Checks and repairs rows; without columns in the settings for what holds for every TSV.

    Attributes: cells: those of the row that was checked last; empty if it could not be taken apart.
        images: numbers of the columns of images.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.cells: list[str] = []
        self.images = [number for column, number in settings.columns if column.kind == "image"]
        self.type_number = settings.number_of("type") if settings.by_type else None
        self.of_type = {}  # content of the column ``type`` -> columns and their numbers
        for name, columns in settings.by_type.items():
            others = {column.name: column for column in columns}
            self.of_type[name] = tuple(
                (others.get(column.name, column), number) for column, number in settings.columns
            )

    def check(self, row: bytes, number: int) -> list[Finding]:
        """All findings of a row, by column. Args: row: without its line end. number: from 1."""
        self.cells = []
        if not plain_row(row, self.settings):
            for rule in ROW_RULES:
                if found := rule.check(row, self.settings):
                    return [rule.finding(found, number)]
        self.cells = row.decode("utf-8").split("\t")
        findings = []
        for column, place in self._columns():
            cell = self.cells[place]
            if column.kind in GLANCES and GLANCES[column.kind](cell):
                continue
            for rule in rules_of(column):
                if found := rule.check(cell, column, self.settings):
                    findings.append(rule.finding(found, number, place))
                    if not rule.note:
                        break
        if self.settings.images and all(finding.note for finding in findings):
            findings += self._look(number)
        return sorted(findings, key=lambda finding: finding.column)

    def faults(self, row: bytes, number: int) -> list[Finding]:
        """As ``check``, without notes."""
        return [finding for finding in self.check(row, number) if not finding.note]

    def taught(self) -> str | None:
        """The answer, or the words of the class, that the row checked last teaches; None for
        tasks without."""
        for column, place in self._columns() if self.cells else ():
            cell = self.cells[place].strip()
            if cell and column.kind == "answer":
                return best_answer(cell)
            if cell and column.kind == "label" and not column.labels:
                return cell
        return None

    def repair(self, row: bytes) -> bytes:
        """The row after every repair that its faults ask for; faults without a repair stay."""
        for rule in ROW_RULES:
            if rule.repair and rule.check(row, self.settings):
                row = rule.repair(row)
        if any(rule.check(row, self.settings) for rule in ROW_RULES):
            return row
        self.cells = row.decode("utf-8").split("\t")
        if self.type_number is not None:  # first: it decides the kinds of others
            types = {place: column for column, place in self._columns()}
            self._repair_cell(types[self.type_number], self.type_number)
        for column, place in self._columns():
            self._repair_cell(column, place)
        if self.settings.images:
            self._clip()
        return "\t".join(self.cells).encode("utf-8")

    def _repair_cell(self, column: Column, place: int) -> None:
        """Up to the first fault that stays."""
        for rule in rules_of(column):
            if not rule.note and rule.check(self.cells[place], column, self.settings):
                if rule.repair:
                    self.cells[place] = rule.repair(self.cells[place], column)
                if rule.check(self.cells[place], column, self.settings):
                    return

    def _columns(self) -> tuple[tuple[Column, int], ...]:
        """The columns of this row and their numbers; of an evaluation without those that are to
        be predicted and empty."""
        columns = self.settings.columns
        if self.type_number is not None:
            columns = self.of_type.get(self.cells[self.type_number], columns)
        if self.settings.evaluation:
            return tuple(
                (column, place)
                for column, place in columns
                if not column.target or self.cells[place].strip()
            )
        return columns

    def _look(self, number: int = 0) -> list[Finding]:
        """Findings that need the images; boxes are those of the first."""
        findings, sizes, side = [], [], self.settings.image_side
        for place in self.images:
            try:
                size, orientation = image_header(decode_base64(self.cells[place]), whole=True)
            except UserError as error:
                return [IMAGE.finding(str(error).partition("found ")[2], number, place)]
            sizes.append(size)
            if orientation != 1:
                found = f"the EXIF orientation {orientation}"
                findings.append(ORIENTATION.finding(found, number, place))
            if side and size != (side, side):
                found = f"{size[0]} x {size[1]} pixels instead of {side} x {side}"
                findings.append(IMAGE_SIDE.finding(found, number, place))
        for column, place in self._columns() if sizes else ():
            if column.kind in BOX_KINDS:
                boxes = boxes_of(self.cells[place], column.kind) or ()
                beyond = next((box for box in boxes if outside(box, sizes[0])), None)
                if beyond:
                    found = f"{shown_box(beyond)} in {sizes[0][0]} x {sizes[0][1]} pixels"
                    findings.append(BOX_INSIDE.finding(found, number, place))
        return findings

    def _clip(self) -> None:
        """Cut boxes off at the border of the image; what lies wholly outside is left as it is."""
        beyond = [finding.column for finding in self._look() if finding.rule == BOX_INSIDE.name]
        for column, place in self._columns():
            if place in beyond:
                size, _ = image_header(decode_base64(self.cells[self.images[0]]))
                self.cells[place] = (
                    clipped(self.cells[place], column.kind, size) or self.cells[place]
                )
