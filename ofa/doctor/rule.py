"""What the doctor answers: rules, findings of what breaks them, reports on files."""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from ofa.data.negatives import ANSWERS, CAPTIONS, OBJECTS, OTHER
from ofa.task.text import CONFIDENCE, JOIN
from ofa.tokens.bpe import REMEDY

LONGEST_SHOWN = 40  # characters of a cell in a finding
LISTED = 1000  # findings kept per rule; all are counted
WHOLE_ROW = -1
BUILD = "make it again: ofa negatives build"
FATES = {
    "repaired": "--fix repairs it, where it can",
    "skipped": "--fix skips the row",
    "by-hand": "for you to repair",
    "note": "a note",  # no fault: it works, but differently than its author may think
}
# name, what --fix does, what it expects -> what the user does; behind "/" of which column
TABLE = f"""
file                by-hand   a readable file of rows -> check the path, or make the file again
crlf                repaired  rows that end in a line feed alone
    -> save the file with Unix line ends
bom                 repaired  a file that begins with its first row
    -> save the file as UTF-8 without a byte-order mark
selected-cols       by-hand   columns that the file has -> correct --selected-cols or --task
duplicate-id        repaired  every id once -> make ids unique; is it the file of another stage?
answer-file         by-hand   answers of this answer set
    -> give the label file that belongs to these data
answer-case         note      answers and labels in one spelling of capitals
    -> write them alike; ofa prepare lowers answers, unless it is told --keep-case
checksum            by-hand   shards as ofa pack wrote them -> copy or make the shard again
sample              skipped   a whole sample -> make the shard again, or leave the sample out

nul                 repaired  no NUL bytes -> remove them
carriage-return     repaired  no carriage return inside a row -> replace it by a space
utf-8               skipped   UTF-8 text -> save the file as UTF-8
empty-row           skipped   a row of columns -> remove the line
columns             repaired  as many tab-separated columns as the other rows have
    -> write spaces instead of tabs and line breaks inside a field

quoted              repaired  a field without quotes
    -> write the TSV without quoting (pandas: quoting=csv.QUOTE_NONE)
id-empty            skipped   an id -> give every row an id
id-float            repaired  an id as it is -> read ids as text (pandas: dtype=str)
confidence          skipped   a number from 0 to 1 -> correct the number
label               repaired  a label of the task -> correct it; is it the file of another data set?
class-known         skipped   words of the label file
    -> correct them; is it the label file of another data set?

image-empty         skipped   an image in base64 -> leave the row out, or give a grey image
bytes-literal       repaired  base64 alone -> write base64.b64encode(data).decode(), not str()
data-url            repaired  base64 alone -> keep only what follows the comma
base64              repaired  base64, standard or URL-safe
    -> check --selected-cols, or encode the image again
base64-length       repaired  base64 padded with = to groups of four
    -> pad it; if it was cut off, encode the image again
image               skipped   a whole image -> export it again, or remove the row
image-size          skipped   a square image of the right size
    -> resize it before it is written: pretraining does not
exif-orientation    note      pixels that are stored upright
    -> viewers turn the image, training does not; ofa prepare writes upright pixels
code-range          repaired  numbers from 0 to the number of codes, separated by spaces
    -> make the codes again with the tokenizer of this vocabulary
code-count          skipped   as many codes as the image has
    -> make the codes again: 1024 for an image of 256 x 256 pixels, 256 for the middle of it in
    pretraining

box-grammar/box     skipped   a box x0,y0,x1,y1 of four numbers
    -> write pixels of the image, separated by commas
box-grammar/boxes   skipped   objects x0,y0,x1,y1,category,name joined by {JOIN}
    -> write pixels of the image, separated by commas
box-order           repaired  x0 < x1 and y0 < y1
    -> write left,top,right,bottom; ofa prepare takes width and height with --box-format xywh
box-inside          repaired  a box inside the image
    -> are these pixels of this image, as left,top,right,bottom?
box-xywh            note      boxes that widths and heights would not explain
    -> if they are x,y,width,height, make the file again with --box-format xywh
box-fraction        note      a box in pixels
    -> if these are fractions of the image, make the file again with --box-format xyxy_norm

answer-grammar      repaired  confidence{CONFIDENCE}answer, several joined by {JOIN}
    -> write for example 1.0{CONFIDENCE}yes{JOIN}0.3{CONFIDENCE}no
answer-confidence   skipped   a confidence from 0 to 1 -> correct the number
answer-known        skipped   a best answer that is in the answer set
    -> add it to the answer set, or leave the row out; is it the answer file of another data set?
answer-unseen       note      a best answer that is in the answer set
    -> none for a few rows that no training row answers alike; only free answers can match them
text-empty          skipped   words -> fill it in, or remove the row
text-empty/scene    skipped   the text on the image -> fill it in, or remove the row
text-missing        note      words that somebody wrote
    -> fill them in, or remove the row, if nobody wrote them
cut-source          note      a text that is not cut -> raise --max-src-length
cut-target          note      a text that is not cut -> raise --max-tgt-length
cut-answer          note      an answer that is not cut -> raise --max-tgt-length
unknown-pieces      note      text of pieces in dict.txt
    -> is it the right --bpe-dir for this language?

negatives-file      by-hand   {CAPTIONS}, {OBJECTS} and {ANSWERS} in the folder, in UTF-8 -> {BUILD}
negatives-line      by-hand   a caption or name in every line, without spaces around it
    -> remove the line, or the spaces
negatives-again     by-hand   every caption and name once
    -> remove the line: what comes twice is drawn twice as often
negatives-few       by-hand   at least two entries: one to draw where the other is right -> {BUILD}
negatives-json      by-hand   JSON of lists of answers by kind -> {BUILD}
negatives-other     by-hand   a list {OTHER!r} with at least two answers: for those of unknown kind
    -> add {OTHER!r} with the answers of all kinds
negatives-kind      by-hand   at least two answers of every kind -> move the answer to {OTHER!r}
negatives-answer    by-hand   answers with words, each once in its kind -> remove it
negatives-two-kinds note      every answer in one kind
    -> remove it from the others: the last kind counts

vocabulary          by-hand   a folder with dict.txt and the files of its BPE -> {REMEDY}
vocabulary-pieces   by-hand   every piece of the BPE in dict.txt
    -> take dict.txt and the BPE files from the same source
vocabulary-text     note      decoding to give back the text
    -> is the folder meant for this language?
checkpoint          by-hand   a checkpoint of tensors and settings -> download or copy it again
checkpoint-weights  by-hand   finite weights -> use an older checkpoint of the run
checkpoint-vocabulary by-hand one embedding for every entry of the vocabulary
    -> give the --bpe-dir it was trained with, and --code-dict-size and --num-bins
checkpoint-arch     note      the options it was trained with
    -> give --arch and the model's flags yourself
"""


@dataclass(frozen=True)
class Finding:
    """One fault or note. Args: row: from 1; 0 is the file. column: from 0; -1 is the whole row."""

    row: int
    column: int
    rule: str
    found: str
    fix: str
    note: bool = False

    def line(self, path: str) -> str:
        """``file:row:column rule - found - fix``; ``*`` is the whole row."""
        column = "*" if self.column == WHOLE_ROW else self.column
        return f"{path}:{max(self.row, 1)}:{column} {self.rule} - {self.found} - {self.fix}"


class Rule(NamedTuple):
    """A line of the table."""

    name: str
    fate: str
    expects: str
    fix: str

    @property
    def note(self) -> bool:
        return self.fate == "note"

    def finding(self, found: str, row: int = 0, column: int = WHOLE_ROW) -> Finding:
        text = f"expected {self.expects}, found {found}"
        return Finding(row, column, self.name, text, self.fix, self.note)


def _rule(entry: str) -> Rule:
    name, fate, text = " ".join(entry.split()).split(" ", 2)
    return Rule(name.partition("/")[0], fate, *text.split(" -> "))


RULES = {entry.split()[0]: _rule(entry) for entry in re.split(r"\n+(?=\S)", TABLE.strip())}


@dataclass
class Report:
    """What a file, or a part of its rows, shows."""

    path: str = ""
    task: str = ""
    unit: str = "rows"
    rows: int = 0  # or what else ``unit`` names
    findings: list[Finding] = field(default_factory=list)  # at most ``LISTED`` per rule
    counts: Counter = field(default_factory=Counter)  # of all, by rule
    classes: Counter = field(default_factory=Counter)  # words of a class -> its rows

    def add(self, finding: Finding) -> None:
        if self.counts[finding.rule] < LISTED:
            self.findings.append(finding)
        self.counts[finding.rule] += 1

    def find(self, rule: str, found: str, row: int = 0, column: int = WHOLE_ROW) -> None:
        """Add a finding. Args: as of ``Finding``."""
        self.add(RULES[rule].finding(found, row, column))

    def sort(self) -> None:
        self.findings.sort(key=lambda finding: (finding.row, finding.column))

    @property
    def notes(self) -> int:
        names = {finding.rule for finding in self.findings if finding.note}
        return sum(self.counts[name] for name in names)

    @property
    def faults(self) -> int:
        return self.counts.total() - self.notes


def shown(cell: str | bytes) -> str:
    """The beginning of a cell for a message."""
    text = cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell
    return repr(text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}...")
