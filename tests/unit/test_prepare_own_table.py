"""``ofa prepare csv|jsonl``: people's own tables become the training files of any task."""

import json

import pytest
from original_data import write_images, write_json_lines

from ofa.cli.main import main

NAMES = {1: "a.jpg", 2: "b.jpg", 3: "sub/c.jpg"}  # 40 x 30, 64 x 48, 30 x 50 pixels


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path / "photos", NAMES)
    return tmp_path


def run(folder, file: str, task: str, *options) -> int:
    return main(
        [
            "prepare",
            file.rsplit(".", 1)[1].replace("tsv", "csv"),
            str(folder / file),
            "--task",
            task,
            "--images",
            str(folder / "photos"),
            "--out",
            str(folder / "out"),
            *options,
        ]
    )


def texts(folder, name: str) -> list[list[str]]:
    """Rows without the long field, the image."""
    lines = (folder / "out" / name).read_text().split("\n")[:-1]
    return [[field for field in line.split("\t") if len(field) < 300] for line in lines]


def test_questions_of_a_csv_with_other_column_names(folder):
    (folder / "t.csv").write_text(
        'file,q,response\na.jpg,"what, and where?",a dog\nsub/c.jpg,how many?,2&&2&&3\n'
    )
    assert (
        run(folder, "t.csv", "vqa_gen", "--columns", "image=file", "question=q", "answer=response")
        == 0
    )
    assert texts(folder, "vqa_train.tsv") == [
        ["0", "a", "what, and where?", "1.0|!+a dog", ""],
        ["1", "c", "how many?", "0.4444|!+2&&0.2222|!+3", ""],
    ]
    assert json.loads((folder / "out/trainval_ans2label.json").read_text()) == {"2": 0, "a dog": 1}


def test_answers_of_json_lines_in_every_form(folder):
    answers = ["yes", ["no"] * 10, {"red": 1, "dark red": 0.3}, "0.6|!+two&&1|!+three"]
    write_json_lines(
        folder / "t.jsonl",
        [{"image": "a.jpg", "question": "what?", "answer": answer} for answer in answers],
    )
    assert run(folder, "t.jsonl", "vqa_gen") == 0
    assert [row[3] for row in texts(folder, "vqa_train.tsv")] == [
        "1.0|!+yes",
        "1.0|!+no",
        "1.0|!+red&&0.3|!+dark red",
        "0.6|!+two&&1.0|!+three",
    ]


def test_boxes_as_list_text_four_columns_and_with_a_size(folder):
    write_json_lines(
        folder / "t.jsonl",
        [
            {"image": "b.jpg", "text": "it", "box": [1, 2, 30, 40.5], "split": "train"},
            {"image": "b.jpg", "text": "it", "box": "1,2,30,40.5", "split": "valid"},
        ],
    )
    assert run(folder, "t.jsonl", "refcoco") == 0
    assert texts(folder, "refcoco_train.tsv") == [["0", "b", "it", "1.0,2.0,30.0,40.5"]]
    assert texts(folder, "refcoco_val.tsv") == [["1", "b", "it", "1.0,2.0,30.0,40.5"]]
    (folder / "t.csv").write_text("image,text,x0,y0,x1,y1,id\nb.jpg,it,1,2,29,38.5,k7\n")
    assert run(folder, "t.csv", "refcoco", "--box-format", "xywh") == 0
    assert texts(folder, "refcoco_train.tsv") == [["k7", "b", "it", "1.0,2.0,30.0,40.5"]]


def test_questions_about_a_region_have_both_columns(folder):
    write_json_lines(
        folder / "t.jsonl",
        [{"image": "b.jpg", "question": "what?", "box": [1, 2, 30, 40], "answer": "a cat"}],
    )
    assert run(folder, "t.jsonl", "grounded_qa") == 0
    assert texts(folder, "grounded_qa_train.tsv") == [
        ["0", "b", "what?", "1.0,2.0,30.0,40.0", "1.0|!+a cat"]
    ]


def test_captions_of_one_image_are_put_together(folder):
    (folder / "t.csv").write_text(
        "image,caption,split\na.jpg,A dog.,train\nb.jpg,A cat.,val\na.jpg,Dogs && more,train\n"
    )
    assert run(folder, "t.csv", "caption") == 0
    assert texts(folder, "caption_stage2_train.tsv") == [["a", "a", "A dog.&&Dogs&&more", ""]]
    assert (
        len(texts(folder, "caption_stage1_train.tsv")) == 3
        and texts(folder, "caption_val.tsv")[0][2] == "A cat."
    )


def test_entailment_and_tabs_as_delimiter(folder):
    (folder / "t.tsv").write_text(
        "image\thypothesis\tlabel\na.jpg\tA man.\tEntailment\nb.jpg\tA dog.\tmaybe\n"
    )
    assert run(folder, "t.tsv", "snli_ve") == 0
    assert [row[-1] for row in texts(folder, "snli_ve_train.tsv")] == ["entailment", "neutral"]


def test_classes_are_numbered_over_all_splits(folder):
    (folder / "t.csv").write_text(
        "image,label,split\na.jpg,zebra,train\nb.jpg,ape,train\nc.jpg,cow,val\n"
    )
    assert run(folder, "t.csv", "image_classify") == 0
    assert texts(folder, "image_classify_train.tsv") == [["3", "zebra"], ["1", "ape"]]
    assert texts(folder, "image_classify_val.tsv") == [["2", "cow"]]
    assert json.loads((folder / "out/class2label.json").read_text()) == {
        "ape": 1,
        "cow": 2,
        "zebra": 3,
    }


def test_a_fraction_of_the_images_goes_to_validation(folder):
    (folder / "t.csv").write_text(
        "image,label\n" + "".join(f"{name},x\n" for name in ("a.jpg", "b.jpg", "c.jpg", "a.jpg"))
    )
    assert run(folder, "t.csv", "image_classify", "--val-fraction", "0.3") == 0
    assert (
        len(texts(folder, "image_classify_train.tsv"))
        + len(texts(folder, "image_classify_val.tsv"))
        == 4
    )


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_header_tells_the_delimiter(folder, delimiter):
    lines = [["image", "caption"], ["a.jpg", "red, green; blue"], ["b.jpg", "a cat"]]
    cells = [[f'"{cell}"' if "red" in cell else cell for cell in line] for line in lines]
    (folder / "t.csv").write_text("".join(delimiter.join(line) + "\n" for line in cells))
    assert run(folder, "t.csv", "caption") == 0
    assert [row[2] for row in texts(folder, "caption_stage1_train.tsv")] == [
        "red, green; blue",
        "a cat",
    ]


def test_names_in_capitals_and_with_spaces_are_understood(folder):
    (folder / "t.csv").write_text("Image, QUESTION ,Response,Split\na.jpg,what?,a dog,Val\n")
    assert run(folder, "t.csv", "vqa", "--columns", "answer=response") == 0
    assert texts(folder, "vqa_val.tsv")[0][2:4] == ["what?", "1.0|!+a dog"]


def test_a_column_by_its_exact_name_goes_before_one_in_capitals(folder):
    write_json_lines(folder / "t.jsonl", [{"Image": "z.jpg", "image": "a.jpg", "label": "x"}])
    assert run(folder, "t.jsonl", "image_classify") == 0


def test_columns_of_usual_other_names_are_proposed(folder, capsys):
    (folder / "t.csv").write_text("file_name,text\na.jpg,a dog\n")
    assert run(folder, "t.csv", "caption") == 2
    assert "did you mean --columns image=file_name caption=text?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "names, meant",
    [
        ("x,y,w,h", "x0=x y0=y x1=w y1=h --box-format xywh?"),
        ("xmin,ymin,xmax,ymax", "x0=xmin y0=ymin x1=xmax y1=ymax?"),
    ],
)
def test_four_columns_of_a_box_are_proposed(folder, capsys, names, meant):
    (folder / "t.csv").write_text(f"image,text,{names}\na.jpg,a dog,1,2,9,9\n")
    assert run(folder, "t.csv", "refcoco") == 2
    assert f"did you mean --columns {meant}" in capsys.readouterr().err


def test_a_table_without_a_header_is_told_of_one(folder, capsys):
    (folder / "t.csv").write_text("a.jpg,a dog\nb.jpg,a cat\n")
    assert run(folder, "t.csv", "caption") == 2
    assert "or write the names of the columns in the first line" in capsys.readouterr().err


@pytest.mark.parametrize(
    "encoding, words",
    [
        ("utf-16", "t.csv: expected UTF-8 text, found UTF-16"),
        ("utf-16-be", "iconv -f UTF-16 -t UTF-8 t.csv > t_utf8.csv"),
        ("latin-1", "t.csv:2: expected UTF-8 text, found the byte 0xe9, as in Latin-1"),
        ("cp1252", "iconv -f WINDOWS-1252 -t UTF-8 t.csv > t_utf8.csv"),
    ],
)
@pytest.mark.parametrize("reader", ["csv", "jsonl"])
def test_another_encoding_is_named_with_the_command_that_changes_it(
    folder, capsys, reader, encoding, words
):
    content = {"csv": "image,label\na.jpg,café\n", "jsonl": '{"a": 1}\n{"label": "café"}\n'}
    begin = "\ufeff" if encoding == "utf-16-be" else ""
    (folder / f"t.{reader}").write_bytes((begin + content[reader]).encode(encoding))
    assert run(folder, f"t.{reader}", "image_classify") == 2
    assert words.replace("csv", reader) in capsys.readouterr().err


@pytest.mark.parametrize("text", ['[\n{"image": "a.jpg"}]', '{"image": "a.jpg", "caption": "a"}\n'])
def test_json_in_place_of_a_csv_is_told_of_the_other_command(folder, capsys, text):
    (folder / "t.csv").write_text(text)
    assert run(folder, "t.csv", "caption") == 2
    assert "t.csv: expected a CSV file with a header, found JSON; run: ofa prepare jsonl" in (
        capsys.readouterr().err
    )


def test_a_list_in_a_json_file_is_read_as_lines_are(folder):
    rows = [{"image": name, "label": "x"} for name in ("a.jpg", "b.jpg")]
    (folder / "t.jsonl").write_text(json.dumps(rows, indent=1))
    assert run(folder, "t.jsonl", "image_classify") == 0
    assert len(texts(folder, "image_classify_train.tsv")) == 2


def test_an_entry_of_a_list_that_cannot_be_used_is_named(folder, capsys):
    (folder / "t.jsonl").write_text('[{"image": "a.jpg", "label": "x"}, {"image": "z.jpg"}]')
    assert run(folder, "t.jsonl", "image_classify") == 2
    assert "t.jsonl: entry 1: expected an image 'z.jpg'" in capsys.readouterr().err


@pytest.mark.parametrize("box", ["1 2 20 20", "1, 2, 20, 20", "[1,2,20,20]", "(1 2  20\t20)"])
def test_the_numbers_of_a_box_are_separated_by_commas_or_spaces(folder, box):
    write_json_lines(folder / "t.jsonl", [{"image": "a.jpg", "text": "it", "box": box}])
    assert run(folder, "t.jsonl", "refcoco") == 0
    assert texts(folder, "refcoco_train.tsv")[0][3] == "1.0,2.0,20.0,20.0"


def test_a_box_that_may_be_widths_is_told_of_the_option(folder, capsys):
    (folder / "t.csv").write_text('image,text,box\na.jpg,x,"20,10,9,9"\n')
    assert run(folder, "t.csv", "refcoco") == 2
    assert "x,y,width,height? Then add --box-format xywh" in capsys.readouterr().err


@pytest.mark.parametrize("far, notes", [("20", 1), ("39", 0)])
def test_boxes_of_which_none_tells_corners_from_widths_are_noted(folder, caplog, far, notes):
    boxes = [[1, 2, 20, 20]] * 19 + [[5, 2, float(far), 20]]  # in 40 x 30 pixels
    rows = [{"image": "a.jpg", "text": "it", "box": box} for box in boxes]
    write_json_lines(folder / "t.jsonl", rows)
    assert run(folder, "t.jsonl", "refcoco") == 0
    assert caplog.text.count("--box-format xywh") == notes


@pytest.mark.parametrize("task", ["vqa_gen", "image_classify", "caption", "refcoco", "snli_ve"])
def test_rows_of_a_test_split_may_be_without_what_is_predicted(folder, task):
    empty = dict.fromkeys(("answer", "label", "box"), "") | {"caption": None}
    empty |= {"caption": ""} if task == "caption" else {}
    test = {**ENTRY, **empty, "image": "b.jpg", "split": "test"}
    write_json_lines(folder / "t.jsonl", [ENTRY, test])
    assert run(folder, "t.jsonl", task) == 0
    assert main(["doctor", *map(str, (folder / "out").glob("*_test.tsv"))]) == 0


def test_an_empty_answer_of_another_split_is_still_refused(folder, capsys):
    write_json_lines(folder / "t.jsonl", [ENTRY | {"answer": "", "split": "val"}])
    assert run(folder, "t.jsonl", "vqa_gen") == 2
    assert "expected an answer, found an empty text" in capsys.readouterr().err


def test_labels_that_differ_in_case_and_rows_of_classes_are_counted(folder, caplog):
    caplog.set_level("INFO")
    (folder / "t.csv").write_text("image,label\na.jpg,Girl\nb.jpg,girl\nsub/c.jpg,girl\n")
    assert run(folder, "t.csv", "image_classify") == 0
    assert "1 label differs only in case, such as 'Girl' and 'girl'" in caplog.text
    assert "label: 2 classes, from 1 row ('Girl') to 2 rows ('girl')" in caplog.text


@pytest.mark.parametrize("options, notes", [((), 1), (("--val-fraction", "0.3"), 0)])
def test_a_table_without_a_validation_part_is_noted(folder, caplog, options, notes):
    (folder / "t.csv").write_text("image,label\na.jpg,x\nb.jpg,y\n")
    assert run(folder, "t.csv", "image_classify", *options) == 0
    assert caplog.text.count("add --val-fraction 0.1") == notes


BAD = {
    "a missing column": (
        "image,question\na.jpg,x\n",
        "vqa_gen",
        (),
        "expected a column 'answer' for the task's 'answer'",
    ),
    "a missing image": (
        "image,label\nz.jpg,x\n",
        "image_classify",
        (),
        "t.csv:2: expected an image 'z.jpg' below",
    ),
    "an unknown split": (
        "image,label,split\na.jpg,x,dev2\n",
        "image_classify",
        (),
        "expected a split (train",
    ),
    "a row with more cells": (
        "image,label\na.jpg,x,y\n",
        "image_classify",
        (),
        "t.csv:2: expected 2 columns",
    ),
    "no row": ("image,label\n", "image_classify", (), "found no row"),
    "a turned box": (
        'image,text,box\na.jpg,x,"9,9,3,3"\n',
        "refcoco",
        (),
        "expected a box with x0 < x1",
    ),
    "a box outside": (
        'image,text,box\na.jpg,x,"9,9,50,20"\n',
        "refcoco",
        (),
        "inside the image of 40 x 30",
    ),
    "an empty box": (
        'image,text,box\na.jpg,x,"0,0,0,0"\n',
        "refcoco",
        (),
        "expected a box with x0 < x1 and y0 < y1, found 0,0,0,0 (turned round or empty)",
    ),
    "no box": (
        "image,text,box\na.jpg,x,9\n",
        "refcoco",
        (),
        "expected a box of four numbers, found '9'",
    ),
    "an unknown label": (
        "image,hypothesis,label\na.jpg,x,perhaps\n",
        "snli_ve",
        (),
        "expected a label (entailment",
    ),
    "an empty caption": (
        "image,caption\na.jpg,\n",
        "caption",
        (),
        "expected a caption, found an empty text",
    ),
    "a confidence beyond 1": (
        "image,question,answer\na.jpg,x,3|!+yes\n",
        "vqa_gen",
        (),
        "confidences from 0 to 1",
    ),
    "a confidence that is none": (
        "image,question,answer\na.jpg,x,much|!+yes\n",
        "vqa_gen",
        (),
        "the confidence is a number",
    ),
    "an id that comes twice": (
        "image,question,answer,id\na.jpg,x,y,5\nb.jpg,x,y,5\n",
        "vqa_gen",
        (),
        "found '5' again, as in",
    ),
    "an image in two splits": (
        "image,caption,split\na.jpg,x,train\na.jpg,y,val\n",
        "caption",
        (),
        "one split only",
    ),
    "an unknown name": (
        "image,label\na.jpg,x\n",
        "image_classify",
        ("--columns", "words=label"),
        "knows the columns image, label",
    ),
    "all for validation": (
        "image,label\na.jpg,x\n",
        "image_classify",
        ("--val-fraction", "0.5"),
        "leaves images for training",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_tables_are_one_message_and_nothing_is_written(folder, capsys, fault):
    content, task, options, words = BAD[fault]
    (folder / "t.csv").write_text(content)
    assert run(folder, "t.csv", task, *options) == 2
    message = capsys.readouterr().err
    assert words in message and message.count("\n") == 1
    assert not (folder / "out").exists()


def test_an_unknown_name_of_a_column_is_told_before_files_are_read(folder, capsys):
    assert run(folder, "missing.csv", "image_classify", "--columns", "words=label") == 2
    assert "knows the columns image, label" in capsys.readouterr().err


def test_a_line_of_jsonl_that_is_no_object_is_told_what_to_write(folder, capsys):
    (folder / "t.jsonl").write_text('["a.jpg", "x"]\n')
    assert run(folder, "t.jsonl", "image_classify") == 2
    assert 'found the list ["a.jpg", "x"]; write one JSON object per line' in (
        capsys.readouterr().err
    )


def test_a_name_without_a_column_is_answered_by_an_example(folder, capsys):
    with pytest.raises(SystemExit):
        run(folder, "t.csv", "image_classify", "--columns", "label")
    message = capsys.readouterr().err
    assert "expected NAME=COLUMN, such as image=file_name, found 'label'" in message


def test_a_column_that_another_one_is_to_stand_for_is_among_those_found(folder, capsys):
    (folder / "t.csv").write_text("image,label\na.jpg,x\n")
    assert run(folder, "t.csv", "image_classify", "--columns", "image=photo") == 2
    assert "column 'photo' for the task's 'image', found image, label;" in capsys.readouterr().err


ENTRY = {
    "image": "a.jpg",
    "caption": "A dog.",
    "question": "what is it?",
    "answer": "a dog",
    "text": "the dog",
    "box": [1, 2, 20, 20],
    "hypothesis": "A dog runs.",
    "label": "maybe",
    "instruction": "what is it?",
    "source": "A dog runs .",
    "target": "dog runs",
    "text1": "A dog.",
    "text2": "An animal.",
}


@pytest.mark.parametrize(
    "task",
    [
        "caption",
        "vqa_gen",
        "grounded_qa",
        "refcoco",
        "snli_ve",
        "image_classify",
        "ocr",
        "instruction",
        "gigaword",
        "mnli",
    ],
)
def test_the_doctor_finds_nothing_in_what_was_prepared(folder, capsys, task):
    write_json_lines(
        folder / "t.jsonl",
        [
            ENTRY | {"split": split, "image": image}
            for split, image in zip(("train", "val", "test"), NAMES.values())
        ],
    )
    assert run(folder, "t.jsonl", task) == 0
    files = [str(path) for path in sorted((folder / "out").glob("*.tsv"))]
    assert len(files) >= 3
    assert main(["doctor", *files]) == 0
    assert capsys.readouterr().out.count(f"task {task}: no faults") == len(files)


def test_a_line_that_is_no_json_is_named(folder, capsys):
    (folder / "t.jsonl").write_text('{"image": "a.jpg", "label": "x"}\n\n{"image"\n')
    assert run(folder, "t.jsonl", "image_classify") == 2
    assert "t.jsonl:3: expected one JSON object per line" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    [
        "../secret/d.jpg",
        "{root}/secret/d.jpg",
        "sub/../../secret/d.jpg",
        "x" * 300 + "/d.jpg",
        "sub/" * 2000 + "d.jpg",
    ],
)
def test_a_table_names_no_images_outside_of_their_folder(folder, capsys, name):
    (folder / "secret").mkdir()
    (folder / "photos/a.jpg").rename(folder / "secret/d.jpg")
    (folder / "t.csv").write_text(f"image,caption\n{name.format(root=folder)},a dog\n")
    assert run(folder, "t.csv", "caption") == 2
    assert "t.csv:2: expected an image" in capsys.readouterr().err and not (folder / "out").exists()


def test_a_table_may_name_images_from_the_root_on_and_through_links(folder):
    (folder / "elsewhere").mkdir()
    (folder / "photos/b.jpg").rename(folder / "elsewhere/b.jpg")
    (folder / "photos/link").symlink_to(folder / "elsewhere")
    (folder / "t.csv").write_text(f"image,caption\n{folder}/photos/a.jpg,a dog\nlink/b.jpg,a cat\n")
    assert run(folder, "t.csv", "caption") == 0


@pytest.mark.parametrize(
    "box",
    [
        "0,0,1e39,9",
        "0,0,nan,9",
        "1_0,0,20,9",
        [0, 0, True, 9],
        "[0,0,1e400,9]",
        [0, 0, None, 9],
        "0,0,１,9",
    ],
)
def test_a_box_of_other_than_finite_numbers_is_named_with_its_row(folder, capsys, box):
    write_json_lines(folder / "t.jsonl", [{"image": "b.jpg", "text": "it", "box": box}])
    assert run(folder, "t.jsonl", "refcoco") == 2
    assert "t.jsonl:1: expected a box of" in capsys.readouterr().err


@pytest.mark.parametrize("score", ["1e400", "NaN", "true", '"high"', "null", "[1]", "1" * 400])
def test_a_confidence_of_other_than_a_finite_number_is_named_with_its_row(folder, capsys, score):
    (folder / "t.jsonl").write_text(
        f'{{"image": "a.jpg", "question": "what?", "answer": {{"yes": {score}}}}}\n'
    )
    assert run(folder, "t.jsonl", "vqa_gen") == 2
    assert "t.jsonl:1: expected answers with confidences" in capsys.readouterr().err


def test_a_column_that_is_named_by_an_alias_goes_before_one_with_the_usual_name(folder):
    names = {name: None for name in ("answer", "answers")}
    for name in names:
        (folder / "t.csv").write_text("image,question,answer,best\na.jpg,what?,cat,dog\n")
        out = folder / name
        options = ["--columns", f"{name}=best", "--out", str(out)]
        assert run(folder, "t.csv", "vqa_gen", *options) == 0
        assert "1.0|!+dog" in (out / "vqa_train.tsv").read_text()


def test_rows_without_a_box_are_not_counted_among_the_boxes(folder, caplog):
    box = [1, 2, 20, 20]  # in 40 x 30 pixels
    rows = [{"image": "a.jpg", "text": "it", "box": box, "split": "test"}] * 19
    rows += [{"image": "a.jpg", "text": "it", "split": "test"}]
    write_json_lines(folder / "t.jsonl", rows)
    assert run(folder, "t.jsonl", "refcoco") == 0
    assert "--box-format xywh" not in caplog.text


@pytest.mark.parametrize("splits, count", [("train train", 1), ("train test", 1), ("train val", 0)])
def test_a_table_without_validation_rows_is_noted(folder, caplog, splits, count):
    first, second = splits.split()
    (folder / "t.csv").write_text(
        f"image,caption,split\na.jpg,a dog,{first}\nb.jpg,a cat,{second}\n"
    )
    assert run(folder, "t.csv", "caption") == 0
    assert caplog.text.count("no validation part: add --val-fraction") == count


@pytest.mark.parametrize(
    "options, boxes, messages, remedy",
    [
        (
            ["--box-format", "xywh"],
            ["10,12,40,45", "30,20,60,40", "1,2,30,0"],
            [
                "inside the image of 64 x 48 pixels, found 10,12,40,45",
                "found 30,20,60,40",
                "1,2,30,0",
            ],
            "corners? Then leave out --box-format xywh",
        ),
        (
            [],
            ["30,20,10,12", "20,15,10,9"],
            ["x0 < x1 and y0 < y1, found 30,20,10,12", "found 20,15,10,9"],
            "x,y,width,height? Then add --box-format xywh",
        ),
    ],
)
def test_wrong_boxes_have_a_line_each_as_in_the_file_and_one_remedy(
    folder, capsys, options, boxes, messages, remedy
):
    rows = "".join(f'b.jpg,it,"{box}"\n' for box in boxes)
    (folder / "t.csv").write_text(f"image,text,box\n{rows}")
    assert run(folder, "t.csv", "refcoco", *options) == 2
    *lines, last = capsys.readouterr().err.splitlines()
    assert len(lines) == len(boxes)
    assert all(found in line for found, line in zip(messages, lines))
    assert last == f"{remedy}. Fix them, or skip them with --skip-broken"
    assert f"{folder}/t.csv:3: expected a box" in lines[1]


def test_a_missing_header_is_a_fault_of_line_1(folder, capsys):
    (folder / "nohead.csv").write_text("a.jpg,a dog\nb.jpg,a cat\n")
    assert run(folder, "nohead.csv", "caption") == 2
    assert "nohead.csv:1: expected a column 'image'" in capsys.readouterr().err
