"""Values of JSON and tables that are no text are never learned as words: by every way in, one
message or skipped and counted."""

import csv
import json
import math
import pickle

import pytest
from original_data import SIZES, coco_name, write_images, write_json, write_json_lines

from ofa.cli import main as command
from ofa.errors import UserError
from ofa.io.values import (
    Ids,
    RowError,
    WrittenFloat,
    id_key,
    in_fractions,
    load_values,
    not_one_text,
    text_of,
    words_of,
)

WRONG = {
    "null": None,
    "NaN": math.nan,
    "Infinity": math.inf,
    "true": True,
    "the list": [["a"]],
    "the object": {"a": 1},
    "half of a character": "a\ud83d",
}


@pytest.mark.parametrize(
    "written, text",
    [
        ('"a"', "a"),
        ("3", "3"),
        ("-0.10", "-0.10"),
        ("1.0", "1.0"),
        ("1e2", "1e2"),
        ("1" * 400, "1" * 400),
        ('"nan"', "nan"),
    ],
)
def test_a_number_is_its_text_as_it_is_written(written, text):
    assert text_of(load_values(written), "a text") == text


@pytest.mark.parametrize("found, value", WRONG.items())
def test_what_is_no_text_is_an_error_that_shows_it(found, value):
    with pytest.raises(RowError, match=f"^a caption, found {found}"):
        text_of(value, "a caption")


def test_an_annotation_object_stands_for_its_text_alone():
    assert text_of({"answer": "yes", "answer_id": 1}, "an answer", "answer") == "yes"
    for value in (
        {"answer": None},
        {"answer": {"answer": "yes"}},
        {"response": "yes"},
        {"answer": "\udc00"},
    ):
        with pytest.raises(RowError):
            text_of(value, "an answer", "answer")
    with pytest.raises(RowError, match="an empty text"):
        words_of(" \t", "an answer")


def test_written_numbers_are_numbers_and_survive_pickling():
    number = pickle.loads(pickle.dumps(load_values("1.50")))
    assert (
        isinstance(number, WrittenFloat)
        and number == 1.5
        and number.text == "1.50"
        and json.dumps(number) == "1.5"
    )


def test_ids_of_one_number_are_one_id_and_both_places_are_named():
    assert [id_key(text) for text in ("1", "01", "1.0", "1.5", "a1", "0", "00", "007c")] == [
        "1",
        "1",
        "1",
        "1.5",
        "a1",
        "0",
        "0",
        "007c",
    ]
    ids = Ids("question")
    ids.add("1", "a.json:1")
    ids.add("1", "b.json:1", prefix="b_")
    with pytest.raises(
        UserError,
        match=(
            "^a.json:7: expected every question once, found question 1.0 again, the same number as"
            " 1, as in a.json:1"
        ),
    ):
        ids.add("1.0", "a.json:7")


def test_boxes_in_fractions_are_those_below_one_pixel():
    assert (
        in_fractions([0, 0.2, 0.5, 1])
        and not in_fractions([0, 0, 1.5, 1])
        and not in_fractions([math.nan] * 4)
    )


# ------------------------------------------------------------------------------------------ every
# way in


def caption(folder, value, *options):
    write_json(
        folder / "c.json",
        {
            "images": [{"id": i, "file_name": f"{i}.jpg"} for i in SIZES],
            "annotations": [
                {"image_id": i, "caption": value if i == 2 else "a dog"} for i in SIZES
            ],
        },
    )
    return [
        "coco-captions",
        "--annotations",
        folder / "c.json",
        "--images",
        folder / "img",
        "--val-fraction",
        "0.34",
    ]


def karpathy(folder, value):
    sentences = [[{"raw": "a dog"}], [{"raw": value}], [{"raw": "a cat"}]]
    write_json(
        folder / "k.json",
        {
            "images": [
                {"cocoid": i, "filename": f"{i}.jpg", "split": "train", "sentences": raw}
                for i, raw in enumerate(sentences, 1)
            ]
        },
    )
    return ["coco-captions", "--split", folder / "k.json", "--images", folder / "img"]


def vqa(folder, question="what?", answer="yes"):
    entries = [(i, question if i == 2 else "what?", answer if i == 2 else "yes") for i in SIZES]
    write_json(
        folder / "q.json",
        {
            "data_subtype": "train2014",
            "questions": [{"question_id": i, "image_id": i, "question": q} for i, q, _ in entries],
        },
    )
    write_json(
        folder / "a.json",
        {
            "annotations": [
                {"question_id": i, "image_id": i, "answers": [{"answer": a}]} for i, _, a in entries
            ]
        },
    )
    return [
        "vqa2",
        "--questions",
        folder / "q.json",
        "--annotations",
        folder / "a.json",
        "--images",
        folder / "img",
    ]


def refer(folder, value):
    write_json(
        folder / "instances.json",
        {
            "images": [
                {"id": i, "file_name": coco_name(i), "width": w, "height": h}
                for i, (w, h) in SIZES.items()
            ],
            "annotations": [{"id": i, "image_id": i, "bbox": [1, 2, 9, 9]} for i in SIZES],
        },
    )
    refs = [
        {
            "ref_id": i,
            "ann_id": i,
            "image_id": i,
            "split": "train",
            "sentences": [{"sent": value if i == 2 else "it", "raw": None}],
        }
        for i in SIZES
    ]
    (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    return ["refcoco", "--data", folder, "--images", folder / "img"]


def snli(folder, **changed):
    pairs = [
        {
            "Flickr30K_ID": "1",
            "pairID": f"p{i}",
            "gold_label": "neutral",
            "sentence1": "x",
            "sentence2": "y",
        }
        | (changed if i == 2 else {})
        for i in SIZES
    ]
    return [
        "snli-ve",
        "--train",
        write_json_lines(folder / "s.jsonl", pairs),
        "--images",
        folder / "img",
    ]


def muge(folder, **changed):
    lines = [{"image_id": f"{i}.jpg", "text": ["红"]} | (changed if i == 2 else {}) for i in SIZES]
    return [
        "muge",
        "--train",
        write_json_lines(folder / "m.jsonl", lines),
        "--images",
        folder / "img",
    ]


def own(task, entry, kind="jsonl"):
    def command(folder, **changed):
        lines = [{**entry, "image": "2.jpg", **(changed if i == 2 else {})} for i in SIZES]
        return [
            "jsonl",
            write_json_lines(folder / "t.jsonl", lines),
            "--task",
            task,
            "--images",
            folder / "img",
        ]

    return command


def refcoco_cn(folder, value):
    lines = [
        {"id": str(i), "image": "2.jpg", "box": [1, 2, 9, 9], "text": value if i == 2 else "红"}
        for i in SIZES
    ]
    return [
        "refcoco-cn",
        "--train",
        write_json_lines(folder / "cn.jsonl", lines),
        "--images",
        folder / "img",
    ]


QUESTION, BOX, LABEL = (
    {"question": "what?", "answer": "yes"},
    {"text": "it", "box": [1, 2, 9, 9]},
    {"hypothesis": "x", "label": "neutral"},
)
WAYS = {
    "coco caption": caption,
    "karpathy sentence": karpathy,
    "vqa2 question": lambda folder, value: vqa(folder, question=value),
    "vqa2 answer": lambda folder, value: vqa(folder, answer=value),
    "refcoco sentence": refer,
    "snli-ve hypothesis": lambda folder, value: snli(folder, sentence2=value),
    "snli-ve premise": lambda folder, value: snli(folder, sentence1=value),
    "snli-ve label": lambda folder, value: snli(folder, gold_label=value),
    "snli-ve image": lambda folder, value: snli(folder, Flickr30K_ID=value),
    "muge text": lambda folder, value: muge(folder, text=[value]),
    "muge id": lambda folder, value: muge(folder, image_id=value),
    "refcoco-cn text": refcoco_cn,
    "own caption": lambda folder, value: own("caption", {"caption": "a dog"})(
        folder, caption=value
    ),
    "own caption of several": lambda folder, value: own("caption", {"caption": "a dog"})(
        folder, caption=["a cat", value]
    ),
    "own question": lambda folder, value: own("vqa_gen", QUESTION)(folder, question=value),
    "own answer": lambda folder, value: own("vqa_gen", QUESTION)(folder, answer=value),
    "own answer of several": lambda folder, value: own("vqa_gen", QUESTION)(
        folder, answer=["yes", value]
    ),
    "own confidence": lambda folder, value: own("vqa_gen", QUESTION)(folder, answer={"yes": value}),
    "own region question": lambda folder, value: own("grounded_qa", QUESTION | BOX)(
        folder, question=value
    ),
    "own expression": lambda folder, value: own("refcoco", BOX)(folder, text=value),
    "own corner": lambda folder, value: own("refcoco", BOX)(folder, box=[1, 2, 9, value]),
    "own hypothesis": lambda folder, value: own("snli_ve", LABEL)(folder, hypothesis=value),
    "own label": lambda folder, value: own("snli_ve", LABEL)(folder, label=value),
    "own class": lambda folder, value: own("image_classify", {"label": "x"})(folder, label=value),
    "own text": lambda folder, value: own("ocr", {"text": "x"})(folder, text=value),
    "own image": lambda folder, value: own("ocr", {"text": "x"})(folder, image=value),
}


@pytest.fixture(scope="module", autouse=True)
def quick():
    """One parser for all calls; nobody pulls the plug, so files need not reach the disk."""
    parser = command.build_parser()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "build_parser", lambda: parser)
        patch.setattr("os.fsync", lambda handle: None)
        yield


@pytest.fixture
def folder(tmp_path):
    for number in SIZES:
        write_images(tmp_path / "img", {number: f"{number}.jpg"})
        (tmp_path / "img" / coco_name(number)).hardlink_to(tmp_path / "img" / f"{number}.jpg")
    return tmp_path


def prepare(folder, arguments, *options) -> int:
    return command.main(
        [
            "prepare",
            *map(str, arguments),
            "--out",
            str(folder / "out"),
            *map(str, options),
            "--jobs",
            "1",
        ]
    )


def skipped(folder) -> int:
    return json.loads((folder / "out/manifest.json").read_text())["counts"]["entries_left_out"]


def written(folder) -> str:
    return "\n".join(path.read_text() for path in sorted((folder / "out").glob("*.tsv")))


RIGHT = [("own answer", "the object")]  # {"a": 1} is the answer "a" with its confidence


@pytest.mark.parametrize(
    "way, found",
    [
        (way, found)
        for way in WAYS
        for found in WRONG
        if found != "Infinity" and (way, found) not in RIGHT
    ],
)
def test_no_way_in_learns_what_is_no_text(folder, capsys, way, found):
    arguments = WAYS[way](folder, WRONG[found])
    assert prepare(folder, arguments) == 2
    message = capsys.readouterr().err
    entries = message.count(": expected ")  # a line each, and one for the remedy
    assert message.count("\n") in (1, entries + 1)
    assert "Traceback" not in message and not (folder / "out").exists()
    otherwise = {"own corner": "found the list", "own confidence": "found the "}.get(way)
    assert f"found {found}" in message or otherwise and otherwise in message
    assert prepare(folder, arguments, "--skip-broken") == 0
    cells = {
        cell.strip()
        for line in written(folder).split("\n")
        for cell in line.split("\t")
        if len(cell) < 200
    }
    assert not any(
        word in cell
        for cell in cells
        for word in ("nan", "NaN", "None", "null", "True", "true", "{", "[")
    ), cells
    assert skipped(folder) >= 1


@pytest.mark.parametrize(
    "way, value, text",
    [
        ("coco caption", 12, "12"),
        ("vqa2 answer", 2, "1.0|!+2"),
        ("own answer", {"answer": "Yes", "answer_id": 3}, "1.0|!+yes"),
        ("own answer", 3.5, "1.0|!+3.5"),
        ("own caption", [{"raw": "a cat"}, 7], "a dog&&a cat&&7&&a dog&&a dog"),
        ("own class", 4, "4"),
        ("own expression", 5, "5"),
        ("snli-ve premise", 6, "6"),
        ("muge text", 7, "7"),
    ],
)
def test_numbers_and_annotation_objects_are_texts(folder, way, value, text):
    assert prepare(folder, WAYS[way](folder, value)) == 0
    assert text in [cell for line in written(folder).split("\n") for cell in line.split("\t")]


@pytest.mark.parametrize(
    "text",
    [
        "nan",
        " None",
        "NULL",
        "<NA>",
        "{'answer': 'yes'}",
        '{"answer": "yes"}',
        "['a', 'b']",
        "[None]",
        "[{'a': 1}]",
        "b'yes'",
    ],
)
def test_what_programs_write_for_values_is_no_text(text):
    assert not_one_text(text)


@pytest.mark.parametrize(
    "text", ["", "none", "Nan bread", "[1]", "{}", "[unclear] what?", "a [dog]", "it's {a: b}"]
)
def test_brackets_and_like_words_are_text(text):
    assert not_one_text(text) == ""


@pytest.mark.parametrize(
    "task, row",
    [
        ("caption", "{}"),
        ("image_classify", "{}"),
        ("vqa_gen", "what?,{}"),
        ("vqa_gen", "{},yes"),
        ("ocr", "{}"),
    ],
)
@pytest.mark.parametrize(
    "value, found",
    [("nan", "found 'nan', as programs write"), ("{'answer': 'yes'}", "as Python writes data")],
)
def test_a_csv_file_is_wrong_where_it_has_values_of_a_program(
    folder, capsys, task, row, value, found
):
    header = {
        "caption": "caption",
        "image_classify": "label",
        "vqa_gen": "question,answer",
        "ocr": "text",
    }[task]
    (folder / "t.csv").write_text(
        f"image,{header}\n1.jpg,{row.format('x')}\n2.jpg,{row.format(value)}\n"
    )
    arguments = ["csv", folder / "t.csv", "--task", task, "--images", folder / "img"]
    assert prepare(folder, arguments) == 2
    assert (
        "t.csv:3: expected a text as" in (message := capsys.readouterr().err)
        and found in message
        and "JSONL" in message
    )
    assert prepare(folder, arguments, "--skip-broken") == 0
    assert value not in written(folder) and skipped(folder) == 1


def test_words_for_missing_values_in_json_stay_and_are_counted(folder, caplog):
    assert prepare(folder, own("caption", {"caption": "a dog"})(folder, caption="nan")) == 0
    assert "1 text such as 'nan', 'NULL'" in caplog.text and "t.jsonl:2" in caplog.text
    assert "nan" in written(folder)


def test_a_column_that_comes_twice_is_an_error(folder, capsys):
    (folder / "t.csv").write_text("image,caption,caption\n1.jpg,a dog,a cat\n")
    assert (
        prepare(folder, ["csv", folder / "t.csv", "--task", "caption", "--images", folder / "img"])
        == 2
    )
    assert "t.csv:1: expected every column once, found 'caption' again" in capsys.readouterr().err


@pytest.mark.parametrize(
    "delimiter, status", [(";", 0), ("\\t", 0), (";;", "exit"), ("", "exit"), ("\n", "exit")]
)
def test_a_delimiter_is_one_character(folder, capsys, delimiter, status):
    (folder / "t.csv").write_text(
        "image,caption\n2.jpg,a dog\n".replace(",", ";" if delimiter == ";" else "\t")
    )
    arguments = [
        "csv",
        folder / "t.csv",
        "--task",
        "caption",
        "--images",
        folder / "img",
        "--delimiter",
        delimiter,
    ]
    if status == 0:
        assert prepare(folder, arguments) == 0 and "a dog" in written(folder)
        return
    with pytest.raises(SystemExit):
        prepare(folder, arguments)
    assert "is not one character" in capsys.readouterr().err


def test_an_image_of_two_ids_is_in_one_split(folder, capsys):
    lines = [
        {"image": "2.jpg", "caption": "a dog", "image_id": f"i{i}", "split": split}
        for i, split in enumerate(("train", "val"))
    ]
    arguments = [
        "jsonl",
        write_json_lines(folder / "t.jsonl", lines),
        "--task",
        "caption",
        "--images",
        folder / "img",
    ]
    assert prepare(folder, arguments) == 2
    assert (
        "2.jpg: expected an image in one split, found it in train and in val"
        in capsys.readouterr().err
    )


def test_the_limit_of_csv_fields_is_put_back(folder):
    before = csv.field_size_limit()
    (folder / "t.csv").write_text(f"image,caption\n1.jpg,a {'very ' * before}dog\n")
    assert (
        prepare(folder, ["csv", folder / "t.csv", "--task", "caption", "--images", folder / "img"])
        == 0
    )
    assert csv.field_size_limit() == before


def test_entries_without_a_column_or_of_another_split_are_skipped_alone(folder, capsys):
    lines = [
        {"image": "1.jpg", "caption": "a dog"},
        {"image": "2.jpg"},
        {"image": "3.jpg", "caption": "a cat", "split": "dev2"},
    ]
    arguments = [
        "jsonl",
        write_json_lines(folder / "t.jsonl", lines),
        "--task",
        "caption",
        "--images",
        folder / "img",
    ]
    assert prepare(folder, arguments) == 2
    message = capsys.readouterr().err
    assert (
        "t.jsonl:2: expected a caption, found null" in message
        and "t.jsonl:3: expected a split (train" in message
    )
    assert prepare(folder, arguments, "--skip-broken") == 0
    assert skipped(folder) == 2


def test_answers_with_confidences_keep_to_their_column(folder):
    assert prepare(folder, own("vqa_gen", QUESTION)(folder, answer="0.6|!+a\tb&&1.0|!+ C\nd ")) == 0
    assert ["0.6|!+a b&&1.0|!+c d"] == [
        line.split("\t")[3] for line in written(folder).split("\n") if line.startswith("1\t")
    ]


@pytest.mark.parametrize("sentences", [None, 3, math.nan, "it", {"sent": "it"}])
def test_sentences_of_a_reference_are_a_list(folder, capsys, sentences):
    arguments = refer(folder, "it")
    refs = pickle.loads((folder / "refs(unc).p").read_bytes())
    refs[1]["sentences"] = sentences
    (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    assert prepare(folder, arguments) == 2
    assert (
        "entry 1, reference 2: sentences: expected a list of sentences, found"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("bbox", ["1234", {"1": 0, "2": 0, "3": 0, "4": 0}, None])
def test_a_box_is_a_list(folder, capsys, bbox):
    arguments = refer(folder, "it")
    content = json.loads((folder / "instances.json").read_text())
    content["annotations"][1]["bbox"] = bbox
    write_json(folder / "instances.json", content)
    assert prepare(folder, arguments) == 2
    assert "a box of four numbers, found" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------ answers
# by case


def test_answers_of_own_tables_are_lowered_unless_their_case_is_kept(folder):
    (folder / "t.csv").write_text(
        "image,question,answer\n1.jpg,x,Yes\n2.jpg,x,yes\n3.jpg,x,1.0|!+YES&&0.3|!+yes\n"
    )
    arguments = ["csv", folder / "t.csv", "--task", "vqa_gen", "--images", folder / "img"]
    assert prepare(folder, arguments) == 0
    assert {line.split("\t")[3] for line in written(folder).split("\n") if line} == {"1.0|!+yes"}
    assert prepare(folder, arguments, "--keep-case") == 0
    assert json.loads((folder / "out/trainval_ans2label.json").read_text()) == {
        "YES": 0,
        "Yes": 1,
        "yes": 2,
    }


# ------------------------------------------------------------------------------------------ boxes


@pytest.mark.parametrize(
    "form, box", [("xyxy", "0.25,0.25,0.5,0.5"), ("xywh", "0.25,0.25,0.9,0.9")]
)
def test_fractions_are_no_pixels(folder, capsys, form, box):
    (folder / "t.csv").write_text(f'image,text,box\n2.jpg,it,"{box}"\n')
    assert (
        prepare(
            folder,
            [
                "csv",
                folder / "t.csv",
                "--task",
                "refcoco",
                "--images",
                folder / "img",
                "--box-format",
                form,
            ],
        )
        == 2
    )
    assert (
        "t.csv:2: expected a box in pixels" in (message := capsys.readouterr().err)
        and "--box-format" in message
    )


@pytest.mark.parametrize(
    "form, box", [("xyxy_norm", "0.25,0.25,0.5,0.75"), ("xywh_norm", "0.25,0.25,0.25,0.5")]
)
def test_fractions_become_pixels_where_they_are_said_to_be_fractions(folder, capsys, form, box):
    (folder / "t.csv").write_text(f'image,text,box\n2.jpg,it,"{box}"\n')
    arguments = [
        "csv",
        folder / "t.csv",
        "--task",
        "refcoco",
        "--images",
        folder / "img",
        "--box-format",
        form,
    ]
    assert prepare(folder, arguments) == 0
    assert "\t16.0,12.0,32.0,36.0\t" in written(folder)  # of 64 x 48 pixels
    (folder / "t.csv").write_text('image,text,box\n2.jpg,it,"16,12,32,36"\n')
    assert prepare(folder, arguments) == 2
    assert "fractions from 0 to 1" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------ ids


def coco(folder, *files):
    """Args: files: of each, (image id, file name) of its images."""
    paths = []
    for number, images in enumerate(files):
        (folder / f"{number}").mkdir(exist_ok=True)
        paths.append(
            write_json(
                folder / f"part{number}.json",
                {
                    "images": [{"id": image, "file_name": name} for image, name in images],
                    "annotations": [
                        {"image_id": image, "caption": f"a dog in {name}"} for image, name in images
                    ],
                },
            )
        )
    return [
        "coco-captions",
        "--annotations",
        *paths,
        "--images",
        folder / "img",
        "--val-fraction",
        "0.34",
    ]


REPEATED = {
    "two images": [[(1, "1.jpg"), (1, "2.jpg"), (3, "3.jpg")]],
    "1 and 1.0": [[(1, "1.jpg"), (1.0, "2.jpg"), (3, "3.jpg")]],
    "01 and 1": [[("01", "1.jpg"), (1, "2.jpg"), (3, "3.jpg")]],
    "two files that count from 1": [[(1, "1.jpg"), (2, "2.jpg")], [(1, "3.jpg"), (2, "4.jpg")]],
}


@pytest.mark.parametrize("name", REPEATED)
def test_an_image_id_of_two_images_is_an_error_with_both_places(folder, capsys, name):
    assert prepare(folder, coco(folder, *REPEATED[name])) == 2
    message = capsys.readouterr().err
    assert (
        message.count("image") > 2
        and "again" in message
        and "as in" in message
        and "--id-prefix" in message
    )
    assert message.count(".jpg") == 2


def test_files_that_count_from_1_each_get_prefixes(folder, capsys):
    arguments = coco(folder, *REPEATED["two files that count from 1"])
    assert prepare(folder, arguments, "--id-prefix") == 0
    assert {line.split("\t")[1] for line in written(folder).split("\n") if line} == {
        "part0_1",
        "part0_2",
        "part1_1",
        "part1_2",
    }
    assert prepare(folder, arguments, "--id-prefix", "a", "b") == 0
    assert prepare(folder, arguments, "--id-prefix", "a") == 2
    assert "--id-prefix: expected one for each of 2 files" in capsys.readouterr().err


def test_several_files_may_caption_one_image(folder):
    assert (
        prepare(folder, coco(folder, [(1, "1.jpg"), (2, "2.jpg")], [(1, "1.jpg"), (3, "3.jpg")]))
        == 0
    )
    assert "a dog in 1.jpg&&a dog in 1.jpg" in written(folder)


def vqa_files(folder, *ids):
    arguments = {"--questions": [], "--annotations": []}
    for number, names in enumerate(ids):
        entries = [{"question_id": name, "image_id": i} for i, name in enumerate(names, 1)]
        arguments["--questions"].append(
            write_json(
                folder / f"q{number}.json",
                {
                    "data_subtype": "train2014",
                    "questions": [entry | {"question": "what?"} for entry in entries],
                },
            )
        )
        arguments["--annotations"].append(
            write_json(
                folder / f"a{number}.json",
                {
                    "annotations": [
                        entry | {"answers": [{"answer": f"of {number}"}]} for entry in entries
                    ]
                },
            )
        )
    return [
        "vqa2",
        "--questions",
        *arguments["--questions"],
        "--annotations",
        *arguments["--annotations"],
        "--images",
        folder / "img",
    ]


@pytest.mark.parametrize("ids", [[(1, 1)], [(1, 1.0)], [("01", 1)], [(1, 2), (1, 2)]], ids=str)
def test_a_question_id_that_comes_twice_is_an_error_with_both_places(folder, capsys, ids):
    assert prepare(folder, vqa_files(folder, *ids)) == 2
    message = capsys.readouterr().err
    assert (
        "again" in message
        and "as in" in message
        and "--id-prefix" in message
        and message.count(".json") == 2
    )


def test_question_files_with_prefixes_keep_their_own_answers(folder):
    assert prepare(folder, vqa_files(folder, (1, 2), (1, 2)), "--id-prefix", "x", "y") == 0
    assert [line.split("\t")[0:4:3] for line in written(folder).split("\n") if line] == [
        ["x1", "1.0|!+of 0"],
        ["x2", "1.0|!+of 0"],
        ["y1", "1.0|!+of 1"],
        ["y2", "1.0|!+of 1"],
    ]


def test_a_question_matches_annotations_that_write_its_number_otherwise(folder):
    arguments = vqa_files(folder, (1, 2))
    content = json.loads((folder / "a0.json").read_text())
    for entry in content["annotations"]:
        entry["question_id"] = float(entry["question_id"])
    write_json(folder / "a0.json", content)
    assert prepare(folder, arguments) == 0


@pytest.mark.parametrize(
    "task, entry",
    [("vqa_gen", QUESTION), ("refcoco", BOX), ("snli_ve", LABEL), ("ocr", {"text": "x"})],
)
def test_ids_of_own_tables_come_once(folder, capsys, task, entry):
    files = [
        write_json_lines(
            folder / f"{name}.jsonl",
            [{**entry, "image": "2.jpg", "id": name_id} for name_id in ids],
        )
        for name, ids in (("one", [1, 2]), ("two", [1.0, 2.0]))
    ]
    arguments = ["jsonl", *files, "--task", task, "--images", folder / "img"]
    assert prepare(folder, arguments) == 2
    assert (
        "two.jsonl:1: expected every id once, found '1.0' again, the same number as 1, as in"
        in (message := capsys.readouterr().err)
    )
    assert "one.jsonl:1" in message
    assert prepare(folder, arguments, "--id-prefix") == 0
    assert {"one_1", "one_2", "two_1.0", "two_2.0"} <= set(
        written(folder).replace("\n", "\t").split("\t")
    )


def test_two_images_of_one_name_are_two_images(folder, capsys):
    write_images(folder / "img", {1: "x/a.jpg", 2: "y/a.jpg"})
    (folder / "t.csv").write_text("image,caption\nx/a.jpg,a dog\ny/a.jpg,a cat\n")
    assert (
        prepare(folder, ["csv", folder / "t.csv", "--task", "caption", "--images", folder / "img"])
        == 2
    )
    message = capsys.readouterr().err
    assert "x/a.jpg" in message and "y/a.jpg" in message and "image a again" in message


def test_an_image_id_of_a_table_is_of_one_image(folder, capsys):
    lines = [
        {**QUESTION, "image": f"{i}.jpg", "image_id": i if i < 3 else "1.0"} for i in SIZES if i < 4
    ]
    arguments = [
        "jsonl",
        write_json_lines(folder / "t.jsonl", lines),
        "--task",
        "vqa_gen",
        "--images",
        folder / "img",
    ]
    assert prepare(folder, arguments) == 2
    message = capsys.readouterr().err
    assert (
        "t.jsonl:3 (" in message
        and "found image 1.0 again, the same number as 1, as in" in message
        and "t.jsonl:1 (" in message
    )


def test_karpathy_split_finds_the_annotations_of_an_id_that_is_written_otherwise(folder):
    arguments = [*karpathy(folder, "a bird"), "--annotations", *caption(folder, "a horse")[2:3]]
    content = json.loads((folder / "c.json").read_text())
    for image in content["images"] + content["annotations"]:
        image |= {key: float(image[key]) for key in ("id", "image_id") if key in image}
    write_json(folder / "c.json", content)
    assert prepare(folder, arguments) == 0
    assert "a horse" in written(folder) and "a bird" not in written(folder)


def test_pairs_and_references_come_once(folder, capsys):
    assert prepare(folder, snli(folder, pairID="p1")) == 2
    assert (
        "s.jsonl:2: expected every pair once, found pair p1 again, as in" in capsys.readouterr().err
    )
    arguments = refer(folder, "it")
    refs = pickle.loads((folder / "refs(unc).p").read_bytes())
    (folder / "refs(unc).p").write_bytes(pickle.dumps([*refs, refs[0]], protocol=2))
    assert prepare(folder, arguments) == 2
    assert "found reference 1 again, as in" in capsys.readouterr().err
