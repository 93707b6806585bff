"""``ofa doctor`` on sound and damaged copies of every kind of TSV: a table of what is broken and
what is said."""

import base64
import io
import json
import pickle
import random

import pytest
from PIL import Image

from ofa.cli.main import main
from ofa.doctor.rule import RULES
from ofa.doctor.rules import boxes_of, cell_faults
from ofa.doctor.schemas import Settings, schemas
from ofa.task.columns import Column

ROWS = 4


def make_image(size: tuple[int, int], kind: str, **options) -> str:
    """Noise, the same each time; its base64 needs padding, for bytes after the end of an image
    do no harm."""
    file = io.BytesIO()
    Image.frombytes("RGB", size, random.Random(0).randbytes(3 * size[0] * size[1])).save(
        file, kind, **options
    )
    return base64.b64encode(file.getvalue() + bytes((1 - len(file.getvalue())) % 3)).decode()


IMAGE, SQUARE = make_image((40, 30), "PNG"), make_image((256, 256), "JPEG")
TURNED = make_image(
    (40, 30),
    "JPEG",
    exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0",
)
ANSWERS = "1.0|!+yes&&0.3|!+on the left"
SOUND = {  # task -> cells of the row i
    "caption": lambda i: [f"9_{i}", "9", f"A dog, number {i}.", "dog&&grass", IMAGE],
    "vqa_gen": lambda i: [str(i), "9", "is it red?", ANSWERS, "house&&sky", IMAGE],
    "grounded_qa": lambda i: [str(i), "9", "is it red?", "1,2,30,20", ANSWERS, IMAGE],
    "refcoco": lambda i: [
        f"79_{i}",
        "9",
        "the left dog",
        "1.5,2,30,20.5",
        IMAGE.replace("+", "-").replace("/", "_"),
    ],
    "snli_ve": lambda i: [f"9.jpg#{i}", "9", IMAGE, "a man sleeps", "a man runs", "neutral"],
    "image_classify": lambda i: [IMAGE, str(i + 1), ("tench", "yes", "crane", "on the left")[i]],
    "image_gen": lambda i: [str(i), " ".join(map(str, range(i, 1024 + i))), "a red house"],
    "ocr": lambda i: [str(i), IMAGE, ("营业时间", "Open Daily", "!!", "STOP")[i]],
    "gigaword": lambda i: ["a long article about cats", "cats"],
    "cola": lambda i: ["gj04", "They drank the pub dry.", "1"],
    "mnli": lambda i: ["one text", "another", "2"],
    "qnli": lambda i: [str(i), "who?", "he did", "not_entailment"],
    "rte": lambda i: [str(i), "one", "two", "entailment"],
    "vision_language": lambda i: [
        [str(i), IMAGE, "a dog", "", "", "dog&&grass", "cc12m", "caption"],
        [str(i), IMAGE, "", "is it red?", ANSWERS, "", "vqa", "qa"],
        [str(i), IMAGE, "the left dog", "", "1,2,30,20", "", "refcoco", "visual_grounding"],
        [str(i), IMAGE, "a cat", "", "", "", "coco", "caption"],
    ][i],
    "text": lambda i: [str(i), "some plain text"],
    "image": lambda i: [str(i), SQUARE, " ".join(map(str, range(256)))],
    "detection": lambda i: [str(i), IMAGE, "1,2,30,20,17,cat&&0,0,40,30,3,big dog"],
}


def sound_bytes(task: str) -> bytes:
    return "".join("\t".join(SOUND[task](i)) + "\n" for i in range(ROWS)).encode()


def cell(row: int, column: int, change) -> object:
    """A damage: the cell (row from 1, column from 0) becomes ``change``, or what it makes of it."""

    def damaged(data: bytes) -> bytes:
        rows = [line.split(b"\t") for line in data.split(b"\n")]
        old = rows[row - 1][column]
        rows[row - 1][column] = change(old) if callable(change) else change.encode()
        return b"\n".join(b"\t".join(cells) for cells in rows)

    return damaged


def wrap(before: str, after: str = ""):
    return lambda old: before.encode() + old + after.encode()


REPAIRED, LEFT_OUT, NOTE = "repaired", "left out", "note"
DAMAGE = [  # task, damage, place, rule, words of the finding, what --fix does with the row
    ("caption", lambda data: b"\xef\xbb\xbf" + data, "1:*", "bom", "byte-order mark", REPAIRED),
    (
        "caption",
        lambda data: data.replace(b"\n", b"\r\n"),
        "1:*",
        "crlf",
        r"\r\n at the end of 4 of 4 rows",
        REPAIRED,
    ),
    ("caption", cell(2, 2, "a\rdog"), "2:*", "carriage-return", "one after", REPAIRED),
    ("caption", cell(2, 2, "a\0dog"), "2:*", "nul", "1 in the row", REPAIRED),
    (
        "caption",
        cell(3, 2, lambda old: b"caf\xe9"),
        "3:*",
        "utf-8",
        "the byte 0xe9 in column 2",
        LEFT_OUT,
    ),
    (
        "caption",
        lambda data: data.replace(b"\n", b"\n\n", 1),
        "2:*",
        "empty-row",
        "an empty line",
        LEFT_OUT,
    ),
    (
        "caption",
        cell(2, 2, "a\tdog"),
        "2:*",
        "columns",
        "found 6: is there a tab inside a field?",
        LEFT_OUT,
    ),
    (
        "caption",
        cell(2, 2, "a\ndog"),
        "2:*",
        "columns",
        "found 3: is there a line break inside a field?",
        REPAIRED,
    ),
    (
        "caption",
        cell(2, 4, lambda old: old[:76] + b"\n" + old[76:]),
        "2:4",
        "base64-length|image",
        "",
        REPAIRED,
    ),
    (
        "caption",
        cell(2, 4, wrap("b'", "'")),
        "2:4",
        "bytes-literal",
        "Python's notation of bytes",
        REPAIRED,
    ),
    ("caption", cell(2, 4, wrap('"', '"')), "2:4", "quoted", "", REPAIRED),
    (
        "caption",
        cell(2, 4, wrap("data:image/png;base64,")),
        "2:4",
        "data-url",
        "a data URL",
        REPAIRED,
    ),
    (
        "caption",
        cell(2, 4, lambda old: old.rstrip(b"=")),
        "2:4",
        "base64-length",
        "the end is missing",
        REPAIRED,
    ),
    (
        "caption",
        cell(2, 4, lambda old: old[:401]),
        "2:4",
        "base64-length",
        "401 characters",
        LEFT_OUT,
    ),
    (
        "caption",
        cell(2, 4, lambda old: old[:400] + b" " + old[400:]),
        "2:4",
        "base64",
        "the character",
        REPAIRED,
    ),
    ("caption", cell(2, 4, "images/a.jpg"), "2:4", "base64", "a path or a sentence", LEFT_OUT),
    ("caption", cell(2, 4, ""), "2:4", "image-empty", "an empty field", LEFT_OUT),
    (
        "caption",
        cell(2, 4, lambda old: old[:120]),
        "2:4",
        "image",
        "truncated or damaged",
        LEFT_OUT,
    ),
    ("caption", cell(2, 4, "AAAABBBB" * 20), "2:4", "image", "that are none", LEFT_OUT),
    ("caption", cell(2, 2, ""), "2:2", "text-empty", "an empty field", LEFT_OUT),
    ("caption", cell(2, 2, "... !"), "2:2", "text-empty", "nothing but punctuation", LEFT_OUT),
    ("caption", cell(2, 2, '"a ""big"" dog"'), "2:2", "quoted", "a field without quotes", REPAIRED),
    (
        "caption",
        cell(2, 2, "word " * 21),
        "2:2",
        "cut-target",
        "21 words, of which 20 are kept",
        NOTE,
    ),
    ("caption", cell(2, 0, ""), "2:0", "id-empty", "an empty field", LEFT_OUT),
    ("caption", cell(2, 0, "17.0"), "2:0", "id-float", "'17.0'", REPAIRED),
    ("vqa_gen", cell(2, 3, "yes"), "2:3", "answer-grammar", "'yes' without a confidence", REPAIRED),
    ("vqa_gen", cell(2, 3, "1.0|!+"), "2:3", "answer-grammar", "without an answer", LEFT_OUT),
    (
        "vqa_gen",
        cell(2, 3, "1.0|!+yes0.3|!+no"),
        "2:3",
        "answer-grammar",
        "is && missing?",
        LEFT_OUT,
    ),
    ("vqa_gen", cell(2, 3, "much|!+yes"), "2:3", "answer-confidence", "'much'", LEFT_OUT),
    ("vqa_gen", cell(2, 3, "30|!+yes"), "2:3", "answer-confidence", "'30'", LEFT_OUT),
    ("vqa_gen", cell(2, 3, "1.0|!+zebra"), "2:3", "answer-known", "'zebra'", LEFT_OUT),
    (
        "vqa_gen",
        cell(2, 3, "1.0|!+yes " + "on " * 40),
        "2:3",
        "cut-answer|answer-known",
        "",
        LEFT_OUT,
    ),
    ("vqa_gen", cell(2, 2, ""), "2:2", "text-empty", "an empty field", LEFT_OUT),
    (
        "vqa_gen",
        cell(2, 2, "what " * 81),
        "2:2",
        "cut-source",
        "81 words, of which 80 are kept",
        NOTE,
    ),
    (
        "vqa_gen",
        cell(2, 0, "3"),
        "4:0",
        "duplicate-id",
        "'3' again, as in row 2",
        LEFT_OUT,
    ),  # the same row
    (
        "caption",
        cell(2, 0, "9_3"),
        "4:0",
        "duplicate-id",
        "'9_3' again, as in row 2",
        REPAIRED,
    ),  # another caption
    ("refcoco", cell(2, 3, "1,2,30"), "2:3", "box-grammar", "'1,2,30'", LEFT_OUT),
    ("refcoco", cell(2, 3, "1,2,30,nan"), "2:3", "box-grammar", "'1,2,30,nan'", LEFT_OUT),
    ("refcoco", cell(2, 3, "30,20,1,2"), "2:3", "box-order", "30,20,1,2: turned round", REPAIRED),
    ("refcoco", cell(2, 3, "5,2,5,20"), "2:3", "box-order", "without area", LEFT_OUT),
    (
        "refcoco",
        cell(2, 3, "1,2,30,50"),
        "2:3",
        "box-inside",
        "1,2,30,50 in 40 x 30 pixels",
        REPAIRED,
    ),
    (
        "refcoco",
        cell(2, 3, "50,2,60,20"),
        "2:3",
        "box-inside",
        "50,2,60,20 in 40 x 30 pixels",
        LEFT_OUT,
    ),
    ("refcoco", cell(2, 3, "0.1,0.2,0.5,0.75"), "2:3", "box-fraction", "less than one pixel", NOTE),
    (
        "detection",
        cell(2, 2, "0,0,0.5,0.75,17,cat"),
        "2:2",
        "box-fraction",
        "less than one pixel",
        NOTE,
    ),
    (
        "caption",
        cell(2, 2, "nan"),
        "2:2",
        "text-missing",
        "'nan', as programs write a missing value",
        NOTE,
    ),
    (
        "caption",
        cell(2, 2, "{'caption': 'a dog'}"),
        "2:2",
        "text-missing",
        "as Python writes data",
        NOTE,
    ),
    ("ocr", cell(2, 2, "NULL"), "2:2", "text-missing", "'NULL'", NOTE),
    ("refcoco", cell(2, 2, "the " * 81), "2:2", "cut-source", "81 words", NOTE),
    ("grounded_qa", cell(2, 3, "30,20,1,2"), "2:3", "box-order", "turned round", REPAIRED),
    ("snli_ve", cell(2, 5, "perhaps"), "2:5", "label", "'perhaps'", LEFT_OUT),
    ("snli_ve", cell(2, 5, "Neutral "), "2:5", "label", "'Neutral '", REPAIRED),
    ("snli_ve", cell(2, 3, " "), "2:3", "text-empty", "an empty field", LEFT_OUT),
    ("image_classify", cell(2, 2, "rugby ball"), "2:2", "class-known", "'rugby ball'", LEFT_OUT),
    ("image_classify", cell(2, 2, ""), "2:2", "text-empty", "an empty field", LEFT_OUT),
    (
        "image_gen",
        cell(2, 1, lambda old: old + b" 7"),
        "2:1",
        "code-count",
        "1025, not 1024",
        LEFT_OUT,
    ),
    (
        "image_gen",
        cell(2, 1, lambda old: old.replace(b"500", b"8192")),
        "2:1",
        "code-range",
        "found 8192",
        LEFT_OUT,
    ),
    (
        "image_gen",
        cell(2, 1, lambda old: old.replace(b" ", b", ")),
        "2:1",
        "code-range",
        "the character ','",
        REPAIRED,
    ),
    (
        "image_gen",
        cell(2, 1, lambda old: b" " + old),
        "2:1",
        "code-range",
        "two spaces in a row, or one at an end",
        REPAIRED,
    ),
    ("image_gen", cell(2, 1, ""), "2:1", "code-range", "an empty field", LEFT_OUT),
    (
        "image_gen",
        cell(2, 2, "a " * 65),
        "2:2",
        "cut-source",
        "65 words, of which 64 are kept",
        NOTE,
    ),
    ("ocr", cell(2, 2, ""), "2:2", "text-empty", "an empty field", LEFT_OUT),
    (
        "ocr",
        cell(2, 2, "时" * 65),
        "2:2",
        "cut-target",
        "65 characters, of which 64 are kept",
        NOTE,
    ),
    ("ocr", cell(2, 2, "open " * 65), "2:2", "cut-target", "65 words, of which 64 are kept", NOTE),
    (
        "ocr",
        cell(2, 1, lambda old: old[:400]),
        "2:1",
        "image",
        "a truncated or damaged one",
        LEFT_OUT,
    ),
    (
        "gigaword",
        cell(2, 1, "cat " * 65),
        "2:1",
        "cut-target",
        "65 words, of which 64 are kept",
        NOTE,
    ),
    ("cola", cell(2, 2, "yes"), "2:2", "label", "'yes'", LEFT_OUT),
    ("mnli", cell(2, 2, "contradiction"), "2:2", "label", "'contradiction'", LEFT_OUT),
    ("qnli", cell(2, 3, "2"), "2:3", "label", "'2'", LEFT_OUT),
    ("rte", cell(2, 3, "0"), "2:3", "label", "'0'", LEFT_OUT),
    (
        "vision_language",
        cell(2, 7, "visual gronunding"),
        "2:7",
        "label",
        "'visual gronunding'",
        LEFT_OUT,
    ),
    ("vision_language", cell(1, 2, ""), "1:2", "text-empty", "an empty field", LEFT_OUT),
    (
        "vision_language",
        cell(2, 4, "yes"),
        "2:4",
        "answer-grammar",
        "without a confidence",
        REPAIRED,
    ),
    ("vision_language", cell(3, 4, "30,20,1,2"), "3:4", "box-order", "turned round", REPAIRED),
    (
        "vision_language",
        cell(3, 4, "1,2,30,90"),
        "3:4",
        "box-inside",
        "in 40 x 30 pixels",
        REPAIRED,
    ),
    ("caption", cell(2, 4, TURNED), "2:4", "exif-orientation", "the EXIF orientation 6", NOTE),
    ("text", cell(2, 1, ""), "2:1", "text-empty", "an empty field", LEFT_OUT),
    ("text", cell(2, 1, "w " * 513), "2:1", "cut-source", "513 words, of which 512 are kept", NOTE),
    (
        "image",
        cell(2, 1, IMAGE),
        "2:1",
        "image-size",
        "40 x 30 pixels instead of 256 x 256",
        LEFT_OUT,
    ),
    ("image", cell(2, 2, "1 2 3"), "2:2", "code-count", "3, not 256", LEFT_OUT),
    ("detection", cell(2, 2, "1,2,30,20,17"), "2:2", "box-grammar", "", LEFT_OUT),
    (
        "detection",
        cell(2, 2, "1,2,30,20,17,cat&&30,20,1,2,3,dog"),
        "2:2",
        "box-order",
        "30,20,1,2",
        REPAIRED,
    ),
    (
        "detection",
        cell(2, 2, "1,2,30,20,17,cat&&35,2,50,20,3,dog"),
        "2:2",
        "box-inside",
        "35,2,50,20",
        REPAIRED,
    ),
]


@pytest.fixture
def labels(tmp_path):
    path = tmp_path / "labels.pkl"
    path.write_bytes(
        pickle.dumps({text: i for i, text in enumerate(("yes", "tench", "crane", "on the left"))})
    )
    return path


def doctor(path, task: str, *options) -> int:
    return main(["doctor", str(path), "--task", task, *map(str, options)])


@pytest.mark.parametrize("task", SOUND)
def test_sound_files_have_no_findings(tmp_path, capsys, labels, task):
    path = tmp_path / "sound.tsv"
    path.write_bytes(sound_bytes(task))
    assert doctor(path, task, "--ans2label-file", labels) == 0
    *counts, last = capsys.readouterr().out.splitlines()
    assert last == f"{path}: 4 rows, task {task}: no faults, no notes"
    assert len(counts) == (task in ("snli_ve", "image_classify", "cola", "mnli", "qnli", "rte"))


@pytest.mark.parametrize(
    "task, damage, place, rule, words, fixed",
    DAMAGE,
    ids=[f"{d[0]}-{d[3]}-{i}" for i, d in enumerate(DAMAGE)],
)
def test_damage_is_found_named_and_repaired_or_skipped(
    tmp_path, capsys, labels, task, damage, place, rule, words, fixed
):
    path, copy, report = tmp_path / "damaged.tsv", tmp_path / "copy.tsv", tmp_path / "report.json"
    path.write_bytes(damage(sound_bytes(task)))
    status = doctor(path, task, "--ans2label-file", labels, "--fix", copy, "--json", report)
    lines = capsys.readouterr().out.splitlines()
    assert status == (0 if fixed == NOTE else 1)
    found, wanted = lines[0], [f"{path}:{place} {name} - " for name in rule.split("|")]
    assert found.startswith(tuple(wanted)) and words in found and found.count(" - ") == 2
    content = json.loads(report.read_text())
    finding = content["files"][0]["findings"][0]
    assert (
        content["ok"] == (fixed == NOTE)
        and finding["rule"] in rule.split("|")
        and finding["note"] == (fixed == NOTE)
    )
    left_out = [line for line in lines if line.startswith("skipped: ")]
    assert len(left_out) == (1 if fixed == LEFT_OUT else 0)
    rows = copy.read_bytes().split(b"\n")[:-1]
    assert len(rows) == content["repaired"]["rows"]
    assert content["repaired"]["num_left_out"] == len(left_out)
    keys = {"path", "rows", "mended", "num_left_out", "left_out", "renamed"}
    assert content["repaired"].keys() == keys
    assert doctor(copy, task, "--ans2label-file", labels) == 0  # the copy is sound


def test_the_list_of_rules_says_what_is_repaired(capsys):
    assert main(["doctor", "--rules"]) == 0
    lines = capsys.readouterr().out.splitlines()
    fates = {line.split()[0]: line.rsplit("; ", 1)[1] for line in lines}
    assert {fate.split(",")[0] for fate in fates.values()} == {
        "a note",
        "--fix repairs it",
        "--fix skips the row",
        "for you to repair",
    }
    for _, _, _, names, _, fixed in DAMAGE:
        if fixed == REPAIRED:
            assert any(fates[name].startswith("--fix repairs") for name in names.split("|")), names
        if fixed == NOTE:
            assert fates[names] == "a note"


def test_every_rule_has_a_damaged_file():
    of_others = ("negatives", "vocabulary", "checkpoint")  # in test_doctor_*.py
    rules = {rule.name for rule in RULES.values() if not rule.name.startswith(of_others)}
    tested = {name for damage in DAMAGE for name in damage[3].split("|")}
    assert rules - tested == {
        "file",
        "selected-cols",
        "answer-file",
        "answer-case",
        "answer-unseen",
        "box-xywh",
        "unknown-pieces",
        "checksum",
        "sample",
        "confidence",
    }  # have tests of their own


@pytest.mark.parametrize(
    "content, words", [(None, "No such file"), (b"", "an empty file"), (b"\xff\xfea\0", "UTF-16")]
)
def test_a_file_that_cannot_be_read_is_one_fault(tmp_path, capsys, content, words):
    path = tmp_path / "x.tsv"
    if content is not None:
        path.write_bytes(content)
    assert doctor(path, "caption") == 1
    assert words in capsys.readouterr().out.splitlines()[0]


def test_columns_that_the_file_lacks_are_one_fault(tmp_path, capsys):
    path = tmp_path / "x.tsv"
    path.write_bytes(sound_bytes("caption"))
    assert doctor(path, "vqa_gen") == 1
    assert (
        "x.tsv:1:* selected-cols - expected columns that the file has, found 5 columns, none for"
        " image" in capsys.readouterr().out
    )


def test_a_label_file_of_another_data_set_is_said_so(tmp_path, capsys):
    path, labels = tmp_path / "x.tsv", tmp_path / "labels.json"
    path.write_bytes(sound_bytes("vqa_gen"))
    labels.write_text('{"zebra": 0}')
    assert doctor(path, "vqa_gen", "--no-images", "--ans2label-file", labels) == 1
    assert (
        "answer-file - expected answers of this answer set, found 4 of 4 rows with another answer"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    "task, column, typed", [("vqa_gen", 3, "1.0|!+YES"), ("image_classify", 2, "Yes")]
)
def test_answers_that_differ_in_case_alone_are_noted(tmp_path, capsys, task, column, typed):
    path = tmp_path / "x.tsv"
    path.write_bytes(cell(3, column, typed)(sound_bytes(task)))
    assert doctor(path, task, "--no-images") == 0
    assert (
        "answer-case - expected answers and labels in one spelling of capitals, found 1 in more"
        " than one" in capsys.readouterr().out
    )


@pytest.mark.parametrize("far, notes", [(20, 1), (39, 0)])
def test_boxes_that_may_be_widths_are_noted_where_no_box_of_many_tells(
    tmp_path, capsys, far, notes
):
    boxes = ["1,2,20,20"] * 19 + [f"5,2,{far},20"]  # in 40 x 30 pixels
    rows = [f"{i}\t9\tthe dog\t{box}\t{IMAGE}\n" for i, box in enumerate(boxes)]
    (tmp_path / "x.tsv").write_text("".join(rows))
    assert doctor(tmp_path / "x.tsv", "refcoco") == 0
    out = capsys.readouterr().out
    assert out.count("box-xywh") == notes and out.count("--box-format xywh") == notes


def test_the_rows_of_each_class_are_counted(tmp_path, capsys):
    labels = ["rose"] * 3 + ["lily"]
    (tmp_path / "x.tsv").write_text("".join(f"{IMAGE}\t1\t{label}\n" for label in labels))
    assert doctor(tmp_path / "x.tsv", "image_classify", "--json", tmp_path / "report.json") == 0
    assert "2 classes, from 1 row ('lily') to 3 rows ('rose')" in capsys.readouterr().out


def test_a_folder_stands_for_its_tsv_files(tmp_path, capsys):
    for name in ("vqa_train", "vqa_val"):
        (tmp_path / f"{name}.tsv").write_bytes(sound_bytes("vqa_gen"))
    (tmp_path / "manifest.json").write_text("{}")
    assert main(["doctor", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("4 rows, task vqa_gen: no faults") == 2


def test_a_folder_of_nothing_known_is_one_message(tmp_path, capsys):
    (tmp_path / "a.jpg").write_bytes(b"")
    assert main(["doctor", str(tmp_path)]) == 2
    assert "found none of their files" in capsys.readouterr().err


def test_a_table_is_told_how_training_files_are_made_of_it(tmp_path, capsys):
    (tmp_path / "photos.csv").write_text("image,caption\na.jpg,a dog\n")
    assert main(["doctor", str(tmp_path / "photos.csv")]) == 2
    assert f"ofa prepare csv {tmp_path}/photos.csv --task TASK" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["photos.csv"]


def test_an_image_is_not_read_as_rows(tmp_path, capsys):
    Image.new("RGB", (4, 3)).save(tmp_path / "photo.JPG", "JPEG")
    assert main(["doctor", str(tmp_path / "photo.JPG")]) == 2
    assert "photo.JPG: expected training files, found an image" in capsys.readouterr().err


def test_unseen_answers_are_faults_of_training_rows_and_notes_of_validation_rows(tmp_path, capsys):
    (tmp_path / "labels.json").write_text('{"no": 0}')
    for name, status in (("vqa_val", 0), ("vqa_train", 1)):
        path = tmp_path / f"{name}.tsv"
        path.write_bytes(sound_bytes("vqa_gen"))
        labels = "--ans2label-file", str(tmp_path / "labels.json")
        assert main(["doctor", str(path), "--no-images", *labels]) == status
    out = capsys.readouterr().out
    assert "task vqa_gen: no faults, 4 notes" in out and out.count("answer-unseen") == 4


def test_no_index_is_left_beside_a_file_of_no_task(tmp_path):
    (tmp_path / "x.tsv").write_bytes(b"a\tb\n")
    assert main(["doctor", str(tmp_path / "x.tsv")]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["x.tsv"]


def test_rows_of_a_test_file_may_be_without_answers(tmp_path):
    (tmp_path / "vqa_test.tsv").write_bytes(cell(2, 3, "")(sound_bytes("vqa_gen")))
    assert main(["doctor", str(tmp_path / "vqa_test.tsv")]) == 0


def test_ids_that_are_one_number_are_one_id(tmp_path, capsys):
    path = tmp_path / "x.tsv"
    path.write_bytes(cell(4, 0, "02")(sound_bytes("vqa_gen")))
    assert doctor(path, "vqa_gen", "--no-images", "--fix", tmp_path / "y.tsv") == 1
    assert (
        "duplicate-id - expected every id once, found '02' again, as in row 3"
        in capsys.readouterr().out
    )
    assert doctor(tmp_path / "y.tsv", "vqa_gen", "--no-images") == 0


def test_columns_may_be_selected_otherwise(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_bytes(sound_bytes("vqa_gen"))
    assert doctor(path, "caption", "--selected-cols", "0,5,2") == 0


@pytest.mark.parametrize(
    "task, column", [("vqa_gen", 3), ("snli_ve", 5), ("caption", 2), ("image_classify", 2)]
)
def test_rows_for_evaluation_may_be_without_what_is_predicted(tmp_path, task, column):
    (tmp_path / "x.tsv").write_bytes(cell(2, column, "")(sound_bytes(task)))
    assert doctor(tmp_path / "x.tsv", task) == 1
    assert doctor(tmp_path / "x.tsv", task, "--evaluation") == 0


def test_text_to_image_rows_may_have_text_alone(tmp_path):
    (tmp_path / "x.tsv").write_text("1\ta house\n2\ta tree\n")
    assert doctor(tmp_path / "x.tsv", "image_gen", "--selected-cols", "0,1") == 0


def test_the_task_is_guessed_from_the_name(tmp_path, capsys):
    for name, task in (
        ("refcocog_val.tsv", "refcoco"),
        ("vqa_train_1.tsv", "vqa_gen"),
        ("detection_examples.tsv", "detection"),
    ):
        (tmp_path / name).write_bytes(sound_bytes(task))
        assert main(["doctor", str(tmp_path / name)]) == 0
        assert f"task {task}: no faults" in capsys.readouterr().out


def test_pretraining_files_are_told_apart_and_unknown_names_refused(tmp_path, capsys):
    (tmp_path / "image_examples.tsv").write_bytes(sound_bytes("image"))
    assert doctor(tmp_path / "image_examples.tsv", "unify_task") == 0
    (tmp_path / "x.tsv").write_bytes(sound_bytes("image"))
    assert doctor(tmp_path / "x.tsv", "unify_task") == 2
    assert (
        "whose name begins with vision_language, text, image, detection" in capsys.readouterr().err
    )


def test_without_a_task_what_holds_for_every_file_is_checked(tmp_path, capsys):
    (tmp_path / "x.tsv").write_bytes(b"a\tb\nc\nd\te\n")
    assert main(["doctor", str(tmp_path / "x.tsv")]) == 1
    assert "x.tsv:2:* columns" in capsys.readouterr().out


def test_equal_rows_are_dropped_and_other_rows_get_a_new_id(tmp_path):
    rows = [["5", "a"], ["5", "a"], ["5", "b"], ["8", "c"], ["8", "d"]]
    (tmp_path / "x.tsv").write_text("".join(f"{name}\t{text}\n" for name, text in rows))
    assert doctor(tmp_path / "x.tsv", "text", "--fix", tmp_path / "y.tsv") == 1
    assert (tmp_path / "y.tsv").read_text() == "5\ta\n9\tb\n8\tc\n10\td\n"


def test_one_and_two_processes_find_and_repair_the_same(tmp_path, capsys, monkeypatch):
    from ofa.doctor import scan

    rows = [
        f"{i % 50}\t{'' if i % 7 == 0 else 'text'}\n" + ("broken\n" if i % 11 == 0 else "")
        for i in range(300)
    ]
    (tmp_path / "x.tsv").write_text("".join(rows))
    monkeypatch.setattr(scan, "CHUNK", 200)
    monkeypatch.setattr(scan, "WORTH_PROCESSES", 0)
    results = []
    for jobs in ("1", "2"):
        assert (
            doctor(
                tmp_path / "x.tsv",
                "text",
                "--jobs",
                jobs,
                "--fix",
                tmp_path / "y.tsv",
                "--max-findings",
                "9999",
            )
            == 1
        )
        results.append((capsys.readouterr().out, (tmp_path / "y.tsv").read_bytes()))
    assert results[0] == results[1]


def test_many_findings_of_a_rule_are_counted_but_not_all_printed(tmp_path, capsys):
    (tmp_path / "x.tsv").write_text("".join(f"{i}\t\n" for i in range(100)))
    assert doctor(tmp_path / "x.tsv", "text", "--max-findings", "3") == 1
    out = capsys.readouterr().out
    assert (
        out.count("text-empty - ") == 3 and "text-empty: 100 in all" in out and "100 faults" in out
    )


@pytest.mark.parametrize(
    "options, words",
    [
        (["--fix", "x.tsv"], "expected another file than the one to repair"),
        (["--selected-cols", "0"], "expects 2 columns"),
        (["--selected-cols", "a,b"], "expects non-negative integers such as 0,1"),
        (["--ans2label-file", "x.tsv"], "expected a label file"),
    ],
)
def test_wrong_options_are_one_message(tmp_path, capsys, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.tsv").write_text("1\ta\n")
    assert main(["doctor", "x.tsv", "--task", "text", *options]) == 2
    assert words in capsys.readouterr().err


def test_two_files_are_checked_but_not_repaired_into_one(tmp_path, capsys):
    for name in ("text_1.tsv", "text_2.tsv"):
        (tmp_path / name).write_text("1\ta\n")
    assert main(["doctor", str(tmp_path / "text_1.tsv"), str(tmp_path / "text_2.tsv")]) == 0
    assert capsys.readouterr().out.count("no faults") == 2
    assert (
        main(
            [
                "doctor",
                str(tmp_path / "text_1.tsv"),
                str(tmp_path / "text_2.tsv"),
                "--fix",
                str(tmp_path / "y.tsv"),
            ]
        )
        == 2
    )
    assert "expected one TSV to repair, found 2" in capsys.readouterr().err


def test_upstream_columns_fit_their_own_selection():
    for task, schema in schemas().items():
        assert (
            list(schema.numbers())
            == [column.name for column in schema.columns][: len(schema.numbers())]
        ), task


@pytest.mark.parametrize(
    "confidence", ["1e-400x", "nan", "inf", "1_0e-1", "０.5", "1e39", "9" * 5000]
)
def test_a_confidence_that_training_refuses_is_found(confidence):
    column = Column("answers", "answer")
    rule, _ = next(cell_faults(f"1.0|!+no&&{confidence}|!+yes", column, Settings()))
    assert rule == "answer-confidence"
    assert not list(cell_faults("1.0|!+no&&0|!+yes", column, Settings()))


@pytest.mark.parametrize("number", ["1e39", "nan", "1_0", "１", "9" * 5000, ""])
def test_a_box_that_training_refuses_is_none(number):
    assert (
        boxes_of(f"0,0,{number},9", "box") is None
        and boxes_of(f"0,0,{number},9,3,dog", "boxes") is None
    )
    assert boxes_of("0,0,1e1,9", "box") == [(0.0, 0.0, 10.0, 9.0)]


def test_files_that_a_mac_keeps_of_its_own_are_not_checked(tmp_path):
    from ofa.doctor.assets import files_of

    for name in ("a.tsv", "._a.tsv"):
        (tmp_path / name).write_text("1\n")
    assert files_of(str(tmp_path)) == [str(tmp_path / "a.tsv")]
