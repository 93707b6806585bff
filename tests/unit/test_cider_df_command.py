"""``ofa cider-df build``: what is counted, from which files, and how the file is written."""

import json
import pickle

import pytest

from ofa.cli.main import main
from ofa.metrics import CiderD
from ofa.metrics.document_frequency import read_document_frequencies

CAPTIONS = {"7": ["A cat, on a mat.", "a cat"], "8": ["Two dogs"], "9": ["a dog.", "a cat"]}


def tsv(folder, joined: bool):
    rows = [
        f"{image}_{number}\t{image}\t{text}\t\timage"
        for image, texts in CAPTIONS.items()
        for number, text in enumerate(["&&".join(texts)] if joined else texts)
    ]
    path = folder / f"captions_{joined}.tsv"
    path.write_text("\n".join(rows) + "\n")
    return path


def coco(folder):
    path = folder / "captions.json"
    annotations = [
        {"image_id": int(image), "caption": text}
        for image, texts in CAPTIONS.items()
        for text in texts
    ]
    path.write_text(json.dumps({"annotations": annotations}))
    return path


def build(folder, *arguments) -> tuple[float, dict]:
    out = folder / "new" / "words.p"
    assert main(["cider-df", "build", *map(str, arguments), "--out", str(out)]) == 0
    return read_document_frequencies(out)


def test_an_image_counts_once_for_each_of_its_ngrams(tmp_path):
    num_images, counts = build(tmp_path, "--tsv", tsv(tmp_path, joined=True))
    assert num_images == 3
    assert (
        counts[("a",)] == 2
        and counts[("cat",)] == 2
        and counts[("a", "cat")] == 2
        and counts[("Two", "dogs")] == 1
    )
    assert counts[("A", "cat", "on", "a")] == 1, (
        "punctuation is removed, letters keep their case, as in the reward"
    )
    assert max(map(len, counts)) == 4


def test_all_three_kinds_of_files_give_the_same_frequencies(tmp_path):
    joined = build(tmp_path, "--tsv", tsv(tmp_path, joined=True))
    assert build(tmp_path, "--tsv", tsv(tmp_path, joined=False)) == joined
    assert build(tmp_path, "--coco", coco(tmp_path)) == joined


def test_the_end_of_a_caption_is_a_word_unless_told_otherwise(tmp_path):
    path = tsv(tmp_path, joined=True)
    with_eos, without = (
        build(tmp_path, "--tsv", path)[1],
        build(tmp_path, "--tsv", path, "--no-eos")[1],
    )
    assert with_eos[("<eos>",)] == 3 and with_eos[("cat", "<eos>")] == 2
    assert {ngram: count for ngram, count in with_eos.items() if "<eos>" not in ngram} == without


def test_chinese_is_counted_by_character(tmp_path):
    (tmp_path / "chinese.tsv").write_text("0\t一只猫。&&两只dog\n", encoding="utf-8")
    _, counts = build(tmp_path, "--tsv", tmp_path / "chinese.tsv", "--id-column=0", "--column=1")
    assert (
        counts[("一", "只", "猫", "<eos>")] == 1
        and counts[("只", "dog")] == 1
        and ("一只猫",) not in counts
    )


def test_the_file_is_that_of_the_captioning_community(tmp_path):
    """Their scorers index it with unknown n-grams and take the logarithm of ``ref_len``."""
    build(tmp_path, "--tsv", tsv(tmp_path, joined=True))
    data = (tmp_path / "new/words.p").read_bytes()
    content = pickle.loads(data)
    assert set(content) == {"ref_len", "document_frequency"} and content["ref_len"] == 3
    assert content["document_frequency"][("no", "such")] == 0.0 and data[1] == 2, (
        "Python 2 reads protocol 2"
    )
    gts, res = {0: ["Two dogs <eos>"]}, [{"image_id": 0, "caption": ["Two dogs <eos>"]}]
    assert CiderD(df=tmp_path / "new/words.p").compute_score(gts, res)[0] > 5


def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch):
    out = tmp_path / "new/words.p"
    build(tmp_path, "--coco", coco(tmp_path))
    before = out.read_bytes()

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ofa.metrics.document_frequency.pickle.dump", full)
    assert main(["cider-df", "build", "--coco", str(coco(tmp_path)), "--out", str(out)]) == 2
    assert out.read_bytes() == before and [path.name for path in out.parent.iterdir()] == [
        "words.p"
    ]


def test_show_prints_sizes_and_the_commonest_ngrams(tmp_path, capsys):
    build(tmp_path, "--coco", coco(tmp_path))
    assert main(["cider-df", "show", str(tmp_path / "new/words.p")]) == 0
    printed = capsys.readouterr().out
    assert "3 images, with <eos>" in printed and "a cat (2)" in printed


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "expected --tsv FILE... or --coco JSON"),
        (["--coco", "missing.json"], "missing.json"),
        (["--tsv", "{tsv}", "--column=9"], "asks for column 9"),
        (["--tsv", "{tsv}", "--column=3"], "expected captions, found none"),
        (["--coco", "{other}"], "captions file"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_no_file(tmp_path, capsys, arguments, message):
    (tmp_path / "other.json").write_text('{"annotations": [{"image_id": 1, "category_id": 3}]}')
    places = {"tsv": tsv(tmp_path, joined=True), "other": tmp_path / "other.json"}
    arguments = [argument.format(**places) for argument in arguments]
    assert main(["cider-df", "build", *arguments, "--out", str(tmp_path / "words.p")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "words.p").exists()
