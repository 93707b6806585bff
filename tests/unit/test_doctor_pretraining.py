"""``ofa doctor`` on negative samples, on codes of other sizes, and on shards."""

import json

import pytest
from test_doctor import SOUND, doctor, make_image, sound_bytes

from ofa.cli.main import main

LINES = {"all_captions.txt": "a dog\na red house\n", "object.txt": "dog\ncat\n"}
ANSWERS = {"how many": ["1", "2"], "what color": ["red", "blue"], "other": ["left", "on the table"]}


@pytest.fixture
def negatives(tmp_path):
    """Function: file name, content (None: no such file) -> folder whose other files are sound."""

    def make(name: str = "", content: str | bytes | None = None):
        folder = tmp_path / "negative_sample"
        folder.mkdir(exist_ok=True)
        files = {**LINES, "type2ans.json": json.dumps(ANSWERS)} | ({name: content} if name else {})
        for file, text in files.items():
            if text is not None:
                (folder / file).write_bytes(text if isinstance(text, bytes) else text.encode())
        return folder

    return make


def answers(**changes) -> str:
    return json.dumps(
        {kind: part for kind, part in (ANSWERS | changes).items() if part is not None}
    )


def test_sound_negative_samples_have_no_findings(negatives, capsys):
    assert main(["doctor", str(negatives())]) == 0
    assert capsys.readouterr().out.count("2 entries: no faults, no notes") == 2


DAMAGE = [  # file, content, place, rule, words
    ("object.txt", None, "1:*", "negatives-file", "no object.txt"),
    ("all_captions.txt", b"a dog\ncaf\xe9\n", "1:*", "negatives-file", "the byte 0xe9"),
    ("all_captions.txt", "a dog\n\na cat\n", "2:0", "negatives-line", "an empty line"),
    ("object.txt", "dog\n cat\n", "2:0", "negatives-line", "' cat'"),
    ("object.txt", "dog\r\ncat\r\n", "1:0", "negatives-line", r"'dog\r'"),
    ("object.txt", "dog\ncat\ndog\n", "3:0", "negatives-again", "'dog'"),
    ("all_captions.txt", "a dog\n", "1:*", "negatives-few", "found 1"),
    ("type2ans.json", "{", "1:*", "negatives-json", "'{'"),
    ("type2ans.json", '["red"]', "1:*", "negatives-json", "'[\"red\"]'"),
    ("type2ans.json", answers(other=None), "1:*", "negatives-other", "found none"),
    ("type2ans.json", answers(other=["left"]), "1:*", "negatives-other", "found 1"),
    ("type2ans.json", answers(where=["left"]), "1:*", "negatives-kind", "1 of 'where'"),
    (
        "type2ans.json",
        answers(where=["left", "up", ""]),
        "1:*",
        "negatives-answer",
        "'' 1 times in 'where'",
    ),
    (
        "type2ans.json",
        answers(where=["left", "up", "up"]),
        "1:*",
        "negatives-answer",
        "'up' 2 times in 'where'",
    ),
    (
        "type2ans.json",
        answers(where=["red", "up"]),
        "1:*",
        "negatives-two-kinds",
        "'red' in 'what color' and 'where'",
    ),
]


@pytest.mark.parametrize(
    "name, content, place, rule, words", DAMAGE, ids=[f"{d[3]}-{i}" for i, d in enumerate(DAMAGE)]
)
def test_damaged_negative_samples_are_found_and_named(
    tmp_path, negatives, capsys, name, content, place, rule, words
):
    folder, is_note = negatives(name, content), rule == "negatives-two-kinds"
    assert main(["doctor", str(folder)]) == (0 if is_note else 1)
    lines = [line for line in capsys.readouterr().out.splitlines() if " - " in line]
    assert (
        lines[0].startswith(f"{folder / name}:{place} {rule} - ")
        and words in lines[0]
        and lines[0].count(" - ") == 2
    )
    assert main(["doctor", "--rules"]) == 0
    fate = next(
        line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{rule} ")
    ).rpartition("; ")[2]
    assert fate == ("a note" if is_note else "for you to repair")


def test_negative_samples_are_made_again_not_repaired(tmp_path, negatives, capsys):
    assert main(["doctor", str(negatives()), "--fix", str(tmp_path / "copy")]) == 2
    assert "expected one TSV to repair, found 0" in capsys.readouterr().err


def test_images_belong_to_the_number_of_codes(tmp_path, capsys):
    rows = [[str(i), make_image((64, 64), "PNG"), " ".join(map(str, range(16)))] for i in range(3)]
    (tmp_path / "image.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    assert doctor(tmp_path / "image.tsv", "image", "--code-image-size", "32") == 0
    assert doctor(tmp_path / "image.tsv", "image") == 1
    assert (
        "code-count - expected as many codes as the image has, found 16, not 256"
        in capsys.readouterr().out
    )
    rows[1][1] = make_image((32, 32), "PNG")
    (tmp_path / "image.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    assert doctor(tmp_path / "image.tsv", "image", "--code-image-size", "32") == 1
    assert (
        "image.tsv:2:1 image-size - expected a square image of the right size, found 32 x 32"
        " pixels instead of 64 x 64" in (capsys.readouterr().out)
    )


@pytest.fixture
def shards(tmp_path):
    """Function: task, rows -> folder of shards of two rows."""

    def make(task: str, content: bytes | None = None):
        tsv, folder = tmp_path / f"{task}.tsv", tmp_path / "shards"
        tsv.write_bytes(sound_bytes(task) if content is None else content)
        assert (
            main(["pack", str(tsv), "--out", str(folder), "--shard-rows", "2", "--jobs", "1"]) == 0
        )
        return folder

    return make


@pytest.mark.parametrize(
    "task", ["vision_language", "text", "image", "detection", "caption", "image_gen"]
)
def test_sound_shards_have_no_findings(shards, capsys, task):
    folder = shards(task)
    capsys.readouterr()
    assert main(["doctor", str(folder)]) == 0  # the name of the shards tells what they are
    assert capsys.readouterr().out == f"{folder}: 4 rows, task {task}: no faults, no notes\n"


def test_rows_of_shards_are_checked_and_repaired_as_those_of_a_tsv(tmp_path, shards, capsys):
    rows = [SOUND["vision_language"](i) for i in range(4)]
    rows[2][4], rows[3][7], rows[3][0] = "30,20,1,2", "visual gronunding", "1"
    folder = shards("vision_language", "".join("\t".join(row) + "\n" for row in rows).encode())
    capsys.readouterr()
    found = []
    for path in (tmp_path / "vision_language.tsv", folder):
        assert doctor(path, "vision_language", "--fix", tmp_path / "copy.tsv") == 1
        found.append(
            (
                capsys.readouterr().out.replace(str(path), "PATH"),
                (tmp_path / "copy.tsv").read_bytes(),
            )
        )
    assert (
        found[0] == found[1]
        and "PATH:3:4 box-order" in found[0][0]
        and "PATH:4:7 label" in found[0][0]
    )


def test_broken_samples_and_other_checksums_are_named(tmp_path, shards, capsys):
    folder = shards("text")
    shard = folder / "text-000001.tar"
    data = shard.read_bytes()
    shard.write_bytes(data.replace(b'["3", ', b'["3"+ '))
    capsys.readouterr()
    assert doctor(folder, "text", "--fix", tmp_path / "copy.tsv") == 1
    out = capsys.readouterr().out
    assert (
        f"{folder}:3:* checksum - expected shards as ofa pack wrote them, found text-000001.tar"
        " with " in out
    )
    assert (
        f"{folder}:4:* sample - expected a whole sample, found damage" in out and "skipped: " in out
    )
    assert (tmp_path / "copy.tsv").read_text() == "".join(
        f"{i}\tsome plain text\n" for i in range(3)
    )


def test_a_cut_shard_is_one_fault(shards, capsys):
    folder = shards("text")
    shard = folder / "text-000001.tar"
    shard.write_bytes(shard.read_bytes()[:900])
    capsys.readouterr()
    assert doctor(folder, "text") == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and " file - " in lines[0] and "a shard that is cut off" in lines[0]


def test_shards_of_others_are_checked_by_the_names_of_their_columns(tmp_path, capsys):
    import webdataset

    with webdataset.TarWriter(str(tmp_path / "x.tar"), encoder=False) as tar:
        for key in ("a", "b"):
            tar.write({"__key__": key, "jpg": b"no image", "txt": b"a dog"})
    assert doctor(tmp_path / "x.tar", "caption", "--selected-cols", "key,image,txt") == 1
    assert "x.tar:1:1 image - expected a whole image" in capsys.readouterr().out
