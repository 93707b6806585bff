"""The rules at work on one row: what is wrong with it, and a better row where there is one."""

from dataclasses import dataclass

from ofa.doctor.boxes import boxes_of, clipped, outside
from ofa.doctor.layouts import TsvSchema
from ofa.doctor.rule import Rule, Settings
from ofa.doctor.rules import CELL_RULES, GLANCES, ROW_RULES, plain_row
from ofa.doctor.text_rules import best_answer
from ofa.errors import UserError
from ofa.io.images import decode_base64, image_header, open_image

WHOLE_ROW = -1
BOX_KINDS = ("box", "detections")
PREDICTED = (
    "answers",
    "caption",
    "class",
    "label",
    "reading",
    "target",
)  # kinds of columns that evaluation can do without

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
    """Checks and repairs rows of one layout.

    Args: layout: None checks what holds for every TSV.
    Attributes: cells: those of the row that was checked last; empty if it could not be taken apart.
    """

    def __init__(self, settings: Settings, layout: TsvSchema | None):
        self.settings = settings
        self.layout = layout or TsvSchema({}, "")
        self.columns = dict(settings.columns)
        self.cells: list[str] = []
        self.teaches = not {"answers", "class"}.isdisjoint(
            kind
            for kinds in (self.layout.columns, *self.layout.by_type.values())
            for kind in kinds.values()
        )
        self.kinds = {
            name: self.layout.columns.get(name, name if name in CELL_RULES else "any")
            for name in self.columns
        }

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
        kinds = self._kinds_of(cells)
        for name, column in self.columns.items():
            cell, kind = cells[column], kinds[name]
            if kind in GLANCES and GLANCES[kind](cell):
                continue
            for rule in CELL_RULES[kind]:
                if found := rule.finds(cell, settings):
                    findings.append(Finding.of(rule, found, column))
                    if not rule.note:
                        sound = False
                        break
        if sound and settings.images and "image" in kinds.values():
            findings += self._look(cells, kinds)
        return sorted(findings, key=lambda finding: finding.column)

    def taught(self) -> str | None:
        """The answer, or the words of the class, that the row checked last teaches; None for
        tasks without."""
        for name, kind in self._kinds_of(self.cells).items() if self.teaches else ():
            cell = self.cells[self.columns[name]]
            if kind in ("answers", "class") and cell.strip():
                return best_answer(cell) if kind == "answers" else cell.strip()
        return None

    def repair(self, row: bytes) -> bytes:
        """The row after every repair that its faults ask for; faults without a repair stay."""
        for rule in ROW_RULES:
            if rule.repair and rule.finds(row, self.settings):
                row = rule.repair(row, self.settings)
        if not self.columns or any(rule.finds(row, self.settings) for rule in ROW_RULES):
            return row
        cells = row.decode("utf-8").split("\t")
        cells = self._mend_cells(cells)
        if self.settings.images and "image" in self.kinds.values():
            self._clip(cells)
        return "\t".join(cells).encode("utf-8")

    def _mend_cells(self, cells: list[str]) -> list[str]:
        """Columns that decide the kinds of others come first."""
        for names in ([name for name in self.columns if name == "type"], list(self.columns)):
            kinds = self._kinds_of(cells)
            for name in names:
                column = self.columns[name]
                for rule in CELL_RULES[kinds[name]]:
                    if rule.finds(cells[column], self.settings):
                        if rule.repair is None and not rule.note:
                            break
                        if rule.repair:
                            cells[column] = rule.repair(cells[column], self.settings)
                            if rule.finds(cells[column], self.settings):
                                break
        return cells

    def _kinds_of(self, cells: list[str]) -> dict[str, str]:
        """Kind of every column in this row."""
        kinds = self.kinds
        if self.layout.by_type and "type" in self.columns:
            kinds = kinds | self.layout.by_type.get(cells[self.columns["type"]], {})
        if self.settings.evaluation:
            absent = [
                name
                for name, kind in kinds.items()
                if kind in PREDICTED and not cells[self.columns[name]].strip()
            ]
            kinds = kinds | dict.fromkeys(absent, "any")
        return kinds

    def _look(self, cells: list[str], kinds: dict[str, str]) -> list[Finding]:
        """Findings that need the image."""
        column = next(self.columns[name] for name, kind in kinds.items() if kind == "image")
        try:
            size, orientation = stored_form(cells[column])
        except UserError as error:
            return [Finding.of(IMAGE, str(error).partition("found ")[2], column)]
        findings, side = [], self.settings.image_side
        if orientation != 1:
            findings.append(Finding.of(ORIENTATION, f"the EXIF orientation {orientation}", column))
        if side and size != (side, side):
            findings.append(
                Finding.of(
                    IMAGE_SIDE, f"{size[0]} x {size[1]} pixels instead of {side} x {side}", column
                )
            )
        for name, kind in kinds.items():
            if kind in BOX_KINDS:
                beyond = [
                    box
                    for box in boxes_of(cells[self.columns[name]], kind) or ()
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
        kinds = self._kinds_of(cells)
        if not any(finding.rule == BOX_INSIDE.name for finding in self._look(cells, kinds)):
            return
        size, _ = stored_form(
            cells[next(self.columns[name] for name, kind in kinds.items() if kind == "image")]
        )
        for name, kind in kinds.items():
            if kind in BOX_KINDS:
                column = self.columns[name]
                cells[column] = clipped(cells[column], kind, size) or cells[column]


def stored_form(cell: str) -> tuple[tuple[int, int], int]:
    """Width and height of an image that decodes to its end, as training sees it, and its EXIF
    orientation. Raises: UserError."""
    data = decode_base64(cell)
    form = image_header(data)
    open_image(data)
    return form
