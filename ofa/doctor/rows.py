"""The rules at work on one row: what is wrong with it, and a better row where there is one."""

from collections import Counter
from collections.abc import Iterator, Sequence

from ofa.doctor import rules
from ofa.doctor.rule import RULES, Finding
from ofa.doctor.schemas import Settings
from ofa.errors import UserError
from ofa.io.images import decode_base64, image_header
from ofa.io.values import may_be_xywh
from ofa.task.columns import Column

SLACK = 1.0  # pixels by which a box may leave its image


class RowChecker:
    """Checks and repairs rows; without columns in the settings for what holds for every TSV."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.cells: list[str] = []  # of the row checked last; none if it cannot be taken apart
        self.size = (0, 0)  # of its first image
        self.boxes = Counter[str]()  # "every" one of a row, and those that "xywh" fits as well
        self.images = [number for column, number in settings.columns if column.kind == "image"]
        self.type_number = settings.number_of("type") if settings.by_type else None

    def check(self, row: bytes, number: int) -> list[Finding]:
        """All findings of a row, by column. Args: row: without its line end. number: from 1."""
        self.cells = []
        for rule, found in rules.row_faults(row, self.settings.width):
            return [RULES[rule].finding(found, number)]
        self.cells = row.decode("utf-8").split("\t")
        findings = []
        for column, place in self.columns():
            for rule, found in rules.cell_faults(self.cells[place], column, self.settings):
                findings.append(RULES[rule].finding(found, number, place))
                if not findings[-1].note:
                    break
        if all(finding.note for finding in findings):
            for rule, found, place in self.image_faults():
                findings.append(RULES[rule].finding(found, number, place))
        return sorted(findings, key=lambda finding: finding.column)

    def faults(self, row: bytes, number: int) -> list[Finding]:
        """As ``check``, without notes."""
        return [finding for finding in self.check(row, number) if not finding.note]

    def taught(self) -> str | None:
        """The answer, the label, or the words of the class, that the row checked last teaches;
        None for tasks without."""
        for column, place in self.columns() if self.cells else ():
            cell = self.cells[place].strip()
            if cell and column.kind == "answer":
                return rules.best_answer(cell)
            if cell and column.kind == "label" and place != self.type_number:
                return cell
        return None

    def repair(self, row: bytes) -> bytes:
        """The row after every repair that its faults ask for; faults without a repair stay."""
        row = rules.repaired(row, rules.row_faults, self.settings.width)
        if any(rules.row_faults(row, self.settings.width)):
            return row
        self.cells = row.decode("utf-8").split("\t")
        places = [number for _, number in self.settings.columns]
        # the column ``type`` first: it decides the kinds of others
        for place in sorted(places, key=lambda place: place != self.type_number):
            if column := self.column_at(place):
                context = rules.cell_faults, column, self.settings
                self.cells[place] = rules.repaired(self.cells[place], *context)
        for rule, _, place in self.image_faults():
            if rule == "box-inside" and (column := self.column_at(place)):
                cell = self.cells[place]  # what lies wholly outside is left as it is
                self.cells[place] = rules.clipped(cell, column.kind, self.size) or cell
        return "\t".join(self.cells).encode("utf-8")

    def columns(self) -> Sequence[tuple[Column, int]]:
        """The columns of this row and their numbers; of an evaluation without those that are to
        be predicted and empty."""
        columns: Sequence[tuple[Column, int]] = self.settings.columns
        if self.type_number is not None:
            others = self.settings.by_type.get(self.cells[self.type_number], {})
            columns = [(others.get(column.name, column), place) for column, place in columns]
        if self.settings.evaluation:
            columns = [
                pair for pair in columns if not pair[0].target or self.cells[pair[1]].strip()
            ]
        return columns

    def column_at(self, place: int) -> Column | None:
        return next((column for column, number in self.columns() if number == place), None)

    def image_faults(self) -> Iterator[tuple[str, str, int]]:
        """What needs the images, with the number of the column; boxes are those of the first."""
        if not (self.images and self.settings.images):
            return
        sizes, side = [], self.settings.image_side
        for place in self.images:
            try:
                size, orientation = image_header(decode_base64(self.cells[place]), whole=True)
            except UserError as error:
                yield "image", str(error).partition("found ")[2], place
                return
            sizes.append(size)
            if orientation != 1:
                yield "exif-orientation", f"the EXIF orientation {orientation}", place
            if side and size != (side, side):
                found = f"{size[0]} x {size[1]} pixels instead of {side} x {side}"
                yield "image-size", found, place
        width, height = self.size = sizes[0]
        for column, place in self.columns():
            boxes = rules.boxes_of(self.cells[place], column.kind) if "box" in column.kind else None
            for box in boxes or ():
                self.boxes["every"] += column.kind == "box"
                self.boxes["xywh"] += column.kind == "box" and may_be_xywh(box, self.size)
                corners = min(box[:2]), width - box[2], height - box[3]
                if min(corners) < -SLACK:
                    found = f"{rules.shown_box(box)} in {width} x {height} pixels"
                    yield "box-inside", found, place
                    break
