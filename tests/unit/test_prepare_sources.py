"""``ofa prepare`` from the original data sets: rows, one message per fault, the same bytes
however it is run."""

import base64
import hashlib
import json
import pickle

import pytest
from original_data import (
    annotation,
    coco_name,
    pair,
    question,
    reference,
    write_imagenet,
    write_refer,
    write_snli_ve,
    write_vqa2,
)

from ofa.cli.main import build_parser, main
from ofa.io import image_files, jobs
from ofa.prepare.answer_column import confidences, normal_answer


def rows(path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text().split("\n")[:-1]]


def without_image(path, column: int) -> list[list[str]]:
    """The rows; the image's column is taken out."""
    return [row[:column] + row[column + 1 :] for row in rows(path)]


def vqa2(folder, *options) -> int:
    return main(
        [
            "prepare",
            "vqa2",
            "--questions",
            str(folder / "questions.json"),
            "--annotations",
            str(folder / "annotations.json"),
            "--images",
            str(folder / "images"),
            "--out",
            str(folder / "out"),
            *options,
        ]
    )


def refer(folder, *options, kind: str = "refcoco") -> int:
    return main(
        [
            "prepare",
            kind,
            "--data",
            str(folder),
            "--images",
            str(folder / "images"),
            "--out",
            str(folder / "out"),
            *options,
        ]
    )


def snli_ve(folder, *options) -> int:
    return main(
        [
            "prepare",
            "snli-ve",
            "--train",
            str(folder / "snli_ve_train.jsonl"),
            "--images",
            str(folder / "images"),
            "--out",
            str(folder / "out"),
            *options,
        ]
    )


def imagenet(folder, *options) -> int:
    return main(
        [
            "prepare",
            "imagenet",
            "--synsets",
            str(folder / "synsets.txt"),
            "--out",
            str(folder / "out"),
            *options,
        ]
    )


# ------------------------------------------------------------------------------------------------
# VQA v2


def test_vqa_questions_become_rows_with_confidences(tmp_path):
    assert vqa2(write_vqa2(tmp_path)) == 0
    assert without_image(tmp_path / "out/vqa_train.tsv", 5) == [
        ["10", "1", "What is it?", "1.0|!+dog&&0.9|!+cat", ""],
        ["11", "1", "How many? (all)", "1.0|!+3&&0.6|!+2", ""],
        ["20", "2", "What is it?", "1.0|!+red white&&0.3|!+x", ""],
        ["30", "3", "What is it?", "1.0|!+yes", ""],
    ]


def test_images_are_embedded_byte_for_byte(tmp_path):
    vqa2(write_vqa2(tmp_path))
    for row in rows(tmp_path / "out/vqa_train.tsv"):
        assert (
            base64.b64decode(row[5])
            == (tmp_path / "images/train2014" / coco_name(int(row[1]))).read_bytes()
        )


def test_answers_can_stay_as_people_typed_them(tmp_path):
    vqa2(write_vqa2(tmp_path), "--answers-as-written")
    assert rows(tmp_path / "out/vqa_train.tsv")[0][3] == "1.0|!+The Dog.&&0.9|!+a cat&&0.3|!+dog,"


@pytest.mark.parametrize(
    "name, write",
    [("set.json", lambda labels: json.dumps(labels).encode()), ("set.pkl", pickle.dumps)],
)
def test_training_keeps_the_answers_of_the_set_and_counts_the_others(tmp_path, name, write):
    (tmp_path / name).write_bytes(write({"cat": 0, "yes": 1, "2": 2}))
    assert vqa2(write_vqa2(tmp_path), "--ans2label-file", str(tmp_path / name)) == 0
    assert [row[3] for row in rows(tmp_path / "out/vqa_train.tsv")] == [
        "0.9|!+cat",
        "0.6|!+2",
        "1.0|!+yes",
    ]
    counts = json.loads((tmp_path / "out/manifest.json").read_text())["counts"]
    assert (counts["answers_left_out"], counts["questions_left_out"]) == (4, 1)


def test_the_answer_set_holds_what_training_teaches_the_frequent_first(tmp_path):
    write_vqa2(tmp_path)
    assert vqa2(tmp_path) == 0
    assert json.loads((tmp_path / "out/trainval_ans2label.json").read_text()) == {
        "3": 0,
        "dog": 1,
        "red white": 2,
        "yes": 3,
    }


def test_rare_answers_leave_the_set_and_the_training(tmp_path, capsys):
    write_vqa2(
        tmp_path,
        annotations=[
            annotation(10, 1, "yes"),
            annotation(11, 1, "rare"),
            annotation(20, 2, "yes", "yes", "x"),
            annotation(30, 3, "yes"),
        ],
    )
    assert vqa2(tmp_path, "--min-answer-count", "2") == 0
    assert json.loads((tmp_path / "out/trainval_ans2label.json").read_text()) == {"yes": 0}
    assert [row[0] for row in rows(tmp_path / "out/vqa_train.tsv")] == ["10", "20", "30"]
    assert vqa2(tmp_path, "--min-answer-count", "9") == 2
    assert "lower --min-answer-count" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content, words",
    [
        (b"[1]", "found another list"),
        (b"{", "damaged JSON"),
        (pickle.dumps({"a": "b"}), "found another dict"),
        (pickle.dumps(print), "could run code"),
        (b"", "found something else"),
        (b'{"zebra": 0}', "label file of another data set"),
    ],
)
def test_a_file_that_is_no_answer_set_is_refused(tmp_path, capsys, content, words):
    (tmp_path / "set").write_bytes(content)
    assert vqa2(write_vqa2(tmp_path), "--ans2label-file", str(tmp_path / "set")) == 2
    assert words in capsys.readouterr().err


def test_test_questions_need_no_answers_and_score_nothing(tmp_path):
    assert vqa2(write_vqa2(tmp_path, annotations=[]), "--split", "test") == 0
    assert {row[3] for row in rows(tmp_path / "out/vqa_test.tsv")} == {"0.0|!+no"}


def test_a_fraction_keeps_the_questions_of_an_image_together(tmp_path):
    assert vqa2(write_vqa2(tmp_path), "--val-fraction", "0.34") == 0
    train, val = (
        {row[1] for row in rows(tmp_path / f"out/vqa_{split}.tsv")} for split in ("train", "val")
    )
    assert len(val) == 1 and len(train) == 2 and not train & val


@pytest.mark.parametrize(
    "given, normal",
    [
        ("The  Dogs.", "dogs"),
        ("two", "2"),
        ("none", "0"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("dont know", "don't know"),
        ("red/white", "red white"),
        ("red / white", "red white"),
        ("man's", "man's"),
        ("yes!", "yes"),
        ("A", "a"),
        ("The", "the"),
        ("an a", "an a"),
        ("?", "?"),
        ("wouldn'tve", "wouldn't've"),
        ("somebody'd", "somebodyd"),
        ("hes", "he's"),
        ("50%", "50%"),
        ("$5.00", "$5.00"),
        ("a-/ b", "b"),
        ("1,000-2,000", "10002000"),
    ],
)
def test_answers_are_compared_as_the_evaluation_does(given, normal):
    assert normal_answer(given) == normal


def test_words_that_only_look_like_contractions_stay():
    words = (
        "shed lets im ive id well hell were ill shell wed shes its lets whore cans wonts".split()
    )
    assert [normal_answer(word) for word in words] == words


@pytest.mark.parametrize(
    "said, of, score",
    [(1, 10, 0.3), (2, 10, 0.6), (3, 10, 0.9), (4, 10, 1.0), (10, 10, 1.0), (1, 1, 1.0)],
)
def test_the_confidence_is_the_score_averaged_over_leaving_one_person_out(said, of, score):
    assert confidences(["yes"] * said + [f"other {i}" for i in range(of - said)])["yes"] == score


# ---------------------------------------------------------------------------------------------
# grounding


def test_references_become_one_row_per_sentence_with_corners(tmp_path):
    assert refer(write_refer(tmp_path)) == 0
    assert without_image(tmp_path / "out/refcoco_train.tsv", 4) == [
        ["7_0", "1", "The left dog", "5.0,6.0,15.0,18.5"],
        ["7_1", "1", "dog there", "5.0,6.0,15.0,18.5"],
        ["9_0", "2", "a thing", "30.13,1.0,50.13,21.0"],
    ]
    assert without_image(tmp_path / "out/refcoco_testA.tsv", 4) == [
        ["8_0", "2", "All of it", "0.0,0.0,64.0,48.0"]
    ]


def test_the_cleaned_sentences_can_be_taken(tmp_path):
    refer(write_refer(tmp_path), "--sentences", "sent")
    assert rows(tmp_path / "out/refcoco_testA.tsv")[0][2] == "all of it"


@pytest.mark.parametrize(
    "kind, by, folder",
    [("refcocoplus", "unc", "refcoco+"), ("refcocog", "umd", "."), ("refcoco", "google", ".")],
)
def test_all_three_data_sets_and_their_splits_are_found(tmp_path, kind, by, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    write_refer(tmp_path / folder, by)
    assert (
        refer(tmp_path, "--split-by", by, "--images", str(tmp_path / folder / "images"), kind=kind)
        == 0
    )
    assert len(rows(tmp_path / f"out/{kind}_train.tsv")) == 3


class Evil:
    def __reduce__(self):
        return print, ("run!",)


def test_a_pickle_that_would_run_code_is_refused(tmp_path, capsys):
    write_refer(tmp_path)
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps([Evil()]))
    assert refer(tmp_path) == 2
    printed = capsys.readouterr()
    assert "builtins.print" in printed.err and "run!" not in printed.out


def test_texts_of_a_python_2_pickle_are_read(tmp_path):
    write_refer(tmp_path, refs=[reference(7, 1, 1, "train", "PLACE")])
    data = (tmp_path / "refs(unc).p").read_bytes()
    word = b"caf\xe9 x"  # Latin-1 in a str of Python 2: the opcode U, one byte of length, the bytes
    data = data.replace(b"X\x05\x00\x00\x00PLACE", b"U" + bytes([len(word)]) + word)
    (tmp_path / "refs(unc).p").write_bytes(data)
    assert refer(tmp_path) == 0
    assert rows(tmp_path / "out/refcoco_train.tsv")[0][2] == "café x"


# --------------------------------------------------------------------------------- entailment,
# classes


def test_pairs_become_rows_and_undecided_ones_are_counted(tmp_path):
    assert snli_ve(write_snli_ve(tmp_path)) == 0
    assert without_image(tmp_path / "out/snli_ve_train.tsv", 2) == [
        ["111.jpg#0r1n", "111", "A person moves.", "A man runs.", "entailment"],
        ["222.jpg#2r1n", "222", "A man sleeps.", "A man runs.", "contradiction"],
    ]
    assert (
        json.loads((tmp_path / "out/manifest.json").read_text())["counts"]["train_undecided"] == 1
    )


def test_folders_and_lists_of_imagenet_become_rows_with_labels_from_1(tmp_path):
    write_imagenet(tmp_path)
    assert (
        imagenet(
            tmp_path,
            "--train",
            str(tmp_path / "train"),
            "--val",
            str(tmp_path / "val.txt"),
            "--images",
            str(tmp_path / "val"),
        )
        == 0
    )
    assert without_image(tmp_path / "out/imagenet_1k_train.tsv", 0) == [
        ["1", "tench, Tinca tinca"]
    ] * 2 + [["2", "crane"]]
    assert without_image(tmp_path / "out/imagenet_1k_val.tsv", 0) == [
        ["3", "rugby ball"],
        ["1", "tench, Tinca tinca"],
    ]
    labels = json.loads((tmp_path / "out/class2label.json").read_text())
    assert labels == {"tench, Tinca tinca": 1, "crane": 2, "rugby ball": 3}


def test_a_list_without_images_finds_them_beside_it(tmp_path):
    write_imagenet(tmp_path)
    assert imagenet(tmp_path, "--val", str(tmp_path / "val.txt")) == 0


def test_kaggles_list_and_first_words(tmp_path):
    write_imagenet(tmp_path)
    assert (
        imagenet(
            tmp_path,
            "--val",
            str(tmp_path / "kaggle.csv"),
            "--images",
            str(tmp_path / "val"),
            "--first-words-only",
        )
        == 0
    )
    assert without_image(tmp_path / "out/imagenet_1k_val.tsv", 0) == [
        ["1", "tench"],
        ["3", "rugby ball"],
    ]


# --------------------------------------------------------------------------------------- how it is
# run


def test_one_and_two_processes_write_the_same_bytes(tmp_path, monkeypatch):
    write_vqa2(tmp_path)
    monkeypatch.setattr(jobs, "FEW", 1)
    monkeypatch.setattr(jobs, "WINDOW", 2)
    for number in ("1", "2"):
        assert vqa2(tmp_path, "--processes", number, "--out", str(tmp_path / number)) == 0
    for name in ("vqa_train.tsv", "manifest.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


@pytest.mark.parametrize("cut", [1, 1500, 2500])
def test_an_interrupted_call_is_continued_to_the_same_bytes_without_looking_again(
    tmp_path, monkeypatch, cut
):
    vqa2(write_vqa2(tmp_path))
    out = tmp_path / "out"
    whole, manifest = (out / "vqa_train.tsv").read_bytes(), (out / "manifest.json").read_bytes()
    unfinished = json.loads(manifest) | {"finished": False, "files": {}}
    (out / "manifest.json").write_text(json.dumps(unfinished))
    (out / "vqa_train.tsv").rename(out / "vqa_train.tsv.part")
    (out / "vqa_train.tsv.part").write_bytes(whole[:cut])
    monkeypatch.setattr(image_files, "look_at", lambda path: pytest.fail("looks at an image again"))
    assert vqa2(tmp_path) == 0
    assert (out / "vqa_train.tsv").read_bytes() == whole
    assert json.loads((out / "manifest.json").read_bytes()) == json.loads(manifest)


def test_looking_at_the_images_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    write_vqa2(tmp_path)
    looked, look_at = [], image_files.look_at

    def interrupted(path):
        if len(looked) == 2:
            raise KeyboardInterrupt
        looked.append(path)
        return look_at(path)

    monkeypatch.setattr(image_files, "look_at", interrupted)
    assert vqa2(tmp_path) == 130 and not (tmp_path / "out").exists()
    monkeypatch.setattr(image_files, "look_at", lambda path: looked.append(path) or look_at(path))
    assert vqa2(tmp_path) == 0
    assert len(looked) == len(set(looked)) == 3  # none twice
    assert not list(tmp_path.glob("*.looking"))


def test_a_finished_call_does_nothing_and_another_answer_starts_over(tmp_path, monkeypatch):
    vqa2(write_vqa2(tmp_path))
    stamp = (tmp_path / "out/vqa_train.tsv").stat().st_mtime_ns
    assert vqa2(tmp_path) == 0
    assert (tmp_path / "out/vqa_train.tsv").stat().st_mtime_ns == stamp
    (tmp_path / "annotations.json").write_text(
        (tmp_path / "annotations.json").read_text().replace("yes", "no")
    )
    assert vqa2(tmp_path) == 0
    assert rows(tmp_path / "out/vqa_train.tsv")[-1][3] == "1.0|!+no"


def test_the_manifest_has_checksums_of_inputs_and_outputs_rows_and_settings(tmp_path):
    vqa2(write_vqa2(tmp_path), "--val-fraction", "0.34", "--seed", "5")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["made_by"] == "ofa prepare vqa2" and manifest["settings"]["seed"] == 5
    assert [path.rsplit("/", 1)[1] for path in manifest["inputs"]] == [
        "questions.json",
        "annotations.json",
    ]
    for path, entry in manifest["inputs"].items():
        assert entry["sha256"] == hashlib.sha256(open(path, "rb").read()).hexdigest()
    for name, entry in manifest["files"].items():
        assert entry["sha256"] == hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest()
    assert (
        sum(entry["rows"] for name, entry in manifest["files"].items() if name.endswith(".tsv"))
        == 4
    )
    assert manifest["images"]["files"] == 3  # image 4 is in no question


# --------------------------------------------------------------------------------------------- bad
# input


def shrink_image(folder):
    (folder / "images" / coco_name(2)).write_bytes((folder / "images" / coco_name(1)).read_bytes())


def cut_image(folder):
    path = folder / "images/train2014" / coco_name(2)
    path.write_bytes(path.read_bytes()[:300])


BAD = {
    "a question without an image": (
        vqa2,
        lambda f: write_vqa2(f, questions=[question(10, 99)]),
        "question 10: expected an image",
    ),
    "a question without answers": (
        vqa2,
        lambda f: write_vqa2(f, annotations=[]),
        "question 10: expected answers",
    ),
    "a question that comes twice": (
        vqa2,
        lambda f: write_vqa2(
            f, questions=[question(10, 1)] * 2, annotations=[annotation(10, 1, "yes")]
        ),
        "question 10 again",
    ),
    "an empty question": (
        vqa2,
        lambda f: write_vqa2(f, questions=[question(10, 1, " ")]),
        "expected a question",
    ),
    "answers of another data set": (
        vqa2,
        lambda f: write_vqa2(f, questions=[question(10, 1)]),
        "another data set",
    ),
    "answers about another image": (
        vqa2,
        lambda f: write_vqa2(
            f, questions=[question(10, 2)], annotations=[annotation(10, 1, "yes")]
        ),
        "another data set",
    ),
    "an unknown split of questions": (
        vqa2,
        lambda f: write_vqa2(f, "mini2020"),
        "unknown split; say which it is with --split",
    ),
    "no question file": (
        vqa2,
        lambda f: write_vqa2(f) and (f / "questions.json").write_text("{}"),
        "keys questions",
    ),
    "a broken image": (vqa2, lambda f: write_vqa2(f) and cut_image(f), "not a readable image"),
    "a turned box": (
        refer,
        lambda f: write_refer(f, boxes={1: [20, 5, -10, 5]}),
        "reference 7: expected a box with width and height above 0",
    ),
    "a box outside": (
        refer,
        lambda f: write_refer(f, boxes={1: [35, 5, 10, 5]}),
        "inside the image of 40 x 30 pixels",
    ),
    "an unknown split of references": (
        refer,
        lambda f: write_refer(f, refs=[reference(7, 1, 1, "dev", "x")]),
        "expected a split (train, val, testA, testB, test), found 'dev'",
    ),
    "boxes of another data set": (
        refer,
        lambda f: write_refer(f, refs=[reference(7, 88, 1, "val", "x")]),
        "annotation 88",
    ),
    "images of another size": (
        refer,
        lambda f: write_refer(f) and shrink_image(f),
        "40 x 30 pixels, but the annotations say 64 x 48",
    ),
    "a list without references": (
        refer,
        lambda f: write_refer(f, refs=[{"a": 1}]),
        "reference 0: expected an entry with 'ref_id'",
    ),
    "an unknown label": (
        snli_ve,
        lambda f: write_snli_ve(f, [pair(0, "111", "maybe")]),
        "expected a label (entailment",
    ),
    "a pair without an image": (
        snli_ve,
        lambda f: write_snli_ve(f, [pair(0, "333", "neutral")]),
        "an image '333.jpg'",
    ),
    "another JSONL": (snli_ve, lambda f: write_snli_ve(f, [{"a": 1}]), "is it a file of SNLI-VE?"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_input_is_one_message_and_nothing_is_written(tmp_path, capsys, fault):
    run, make, words = BAD[fault]
    make(tmp_path)
    assert run(tmp_path) == 2
    message = capsys.readouterr().err.split("error: ")[1]
    entries = message.count(": expected ")  # a line each, and one for the remedy
    assert words in message and message.count("\n") in (1, entries + 1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "fault", ["a question without an image", "a turned box", "a broken image", "an unknown label"]
)
def test_wrong_entries_can_be_left_out(tmp_path, fault):
    run, make, _ = BAD[fault]
    make(tmp_path)
    left = {"a question without an image": "no row", "an unknown label": "no row"}.get(fault)
    assert run(tmp_path, "--skip-broken") == (2 if left else 0)
    if not left:
        assert 0 < sum(len(rows(path)) for path in (tmp_path / "out").glob("*.tsv")) < 4


@pytest.mark.parametrize(
    "options, words",
    [
        (["--train", "train", "--synsets", "none.txt"], "no readable one"),
        ([], "expected one of --train, --val, --test"),
        (["--train", "val"], "no sub-folder"),
        (["--train", "."], "one sub-folder per synset"),
        (
            ["--val", "val.txt", "--images", "val", "--first-label", "1"],
            "val.txt:2: expected 'file synset' or 'file label'",
        ),
    ],
)
def test_wrong_imagenet_files_are_one_message(tmp_path, capsys, monkeypatch, options, words):
    monkeypatch.chdir(write_imagenet(tmp_path))
    assert imagenet(tmp_path, *options) == 2
    assert words in capsys.readouterr().err


def test_a_result_folder_that_cannot_be_made_is_one_message(tmp_path, capsys):
    (write_vqa2(tmp_path) / "out").write_text("in the way")
    assert vqa2(tmp_path) == 2
    assert "out: the output folder cannot be made" in capsys.readouterr().err


def test_a_result_folder_below_a_file_is_one_message_before_any_image_is_looked_at(
    tmp_path, capsys, monkeypatch
):
    (write_vqa2(tmp_path) / "file").write_text("in the way")
    monkeypatch.setattr(image_files, "look_at", lambda path: pytest.fail("looks at an image"))
    assert vqa2(tmp_path, "--out", str(tmp_path / "file/out")) == 2
    assert "out: the output folder cannot be made" in capsys.readouterr().err


KINDS = (
    "coco-captions",
    "vqa2",
    "refcoco",
    "refcocoplus",
    "refcocog",
    "snli-ve",
    "imagenet",
    "image-folder",
    "csv",
    "jsonl",
)


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_in_the_help_is_a_command(kind, capsys):
    with pytest.raises(SystemExit):
        main(["prepare", kind, "--help"])
    words = " ".join(capsys.readouterr().out.split()).replace("- ", "-")
    command = words.split("example: ofa ")[1].split(". Columns")[0]
    assert build_parser().parse_args(command.split()).out


def test_two_images_of_one_name_are_not_confused(tmp_path, capsys):
    write_vqa2(tmp_path)
    (tmp_path / "images/other").mkdir()
    (tmp_path / "images/train2014" / coco_name(1)).rename(
        tmp_path / "images/other" / "000000000001.jpg"
    )
    assert vqa2(tmp_path) == 0
    (tmp_path / "images/more").mkdir()
    (tmp_path / "images/more/000000000001.jpg").write_bytes(b"")
    assert vqa2(tmp_path) == 2
    assert "expected one file called '000000000001.jpg', found 2" in capsys.readouterr().err


def test_a_file_of_others_in_place_of_the_notes_stays(tmp_path, capsys):
    write_vqa2(tmp_path)
    for content in ("by hand", '{"a": 1}', "é" * 10):
        (tmp_path / "out.looking").write_text(content)
        assert vqa2(tmp_path) == 2
        assert (
            "out.looking: expected notes of an interrupted call, found another file"
            in capsys.readouterr().err
        )
        assert (tmp_path / "out.looking").read_text() == content


@pytest.mark.parametrize(
    "line",
    [
        '[["a.jpg", 1, 2], 5]',
        '[["a.jpg"]]',
        '[["a.jpg", 1, 2], ["", 7, 8, ""]]',
        '[["' + "[" * 100_000,
        '[["a.jpg", 1e400, NaN], ["", [1, 2], 3, ""]]',
    ],
)
def test_notes_that_were_made_up_are_no_traceback(tmp_path, line):
    write_vqa2(tmp_path)
    (tmp_path / "out.looking").write_text(f"{line}\n")
    assert vqa2(tmp_path) == 0 and not (tmp_path / "out.looking").exists()


def test_a_name_that_stands_for_an_image_of_a_table_asks_for_no_memory(tmp_path):
    (tmp_path / "a.tsv").write_text("1\tQUJD\n")
    for length in (10**17, 10**18, 10**30):
        with pytest.raises((OSError, ValueError)):
            image_files.read_image(f"{tmp_path}/a.tsv:1@2+{length}")
    assert image_files.read_image(f"{tmp_path}/a.tsv:1@2+4") == b"ABC"
