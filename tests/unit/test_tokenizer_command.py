"""``ofa tokenizer``: training, files with codes, images of codes, and what it says about
mistakes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from small_tokenizer import drawn, field, image_tsv, save_tokenizer, small_tokenizer

from ofa.cli.main import main
from ofa.data.image_rows import make_square
from ofa.data.tsv import TsvFile
from ofa.io.images import decode_image
from ofa.io.safe_load import load_checkpoint
from ofa.models.image_tokenizer import codec, vq_vae_training
from ofa.models.image_tokenizer.codec import decode_images, encode_images
from ofa.models.image_tokenizer.vq_vae import VQVAE, VQVAEConfig
from ofa.prepare import image_code_columns
from ofa.tokens.image_codes import codes_to_text

IMAGES = [drawn(number) for number in range(5)]
SHORT = (
    "--minutes",
    "0",
    "--updates",
    "6",
    "--width",
    "8",
    "--codes",
    "16",
    "--batch-size",
    "4",
    "--no-bf16",
)


def run(*arguments) -> int:
    try:
        return main(["tokenizer", *map(str, arguments)])
    except SystemExit as ended:  # of a wrong argument
        return int(ended.code or 0)


@pytest.fixture
def tsv(tmp_path):
    return image_tsv(tmp_path / "world.tsv", IMAGES)


@pytest.fixture
def tokenizer(tmp_path):
    return save_tokenizer(tmp_path)


# ------------------------------------------------------------------------------------------------
# train


def weights(folder) -> dict:
    return load_checkpoint(folder / "tokenizer.pt")["model"]


def pixels_of(images) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)


def equal(one: dict, other: dict) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_equal_calls_train_equal_tokenizers_and_other_seeds_others(tsv, tmp_path, capsys):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run("train", "--images", tsv, "--out", tmp_path / name, "--seed", seed, *SHORT) == 0
    assert equal(weights(tmp_path / "a"), weights(tmp_path / "b")) and not equal(
        weights(tmp_path / "a"), weights(tmp_path / "c")
    )
    printed = capsys.readouterr().out
    assert (
        "6 updates in" in printed
        and "mean error" in printed
        and "of 16 codes used, perplexity" in printed
    )
    assert Image.open(tmp_path / "a/reconstructions.png").size == (512, 128)
    assert run("show", tmp_path / "a") == 0
    assert (
        "16 codes (--code-dict-size), 8 x 8 pixels per code; 64 x 64 pixels: 64 codes"
        in capsys.readouterr().out
    )


def test_an_interrupted_training_goes_on_where_it_was_saved(tsv, tmp_path, monkeypatch):
    assert run("train", "--images", tsv, "--out", tmp_path / "whole", *SHORT) == 0
    real = vq_vae_training.update
    monkeypatch.setattr(vq_vae_training, "SECONDS_BETWEEN_SAVES", -1.0)

    def until(tokenizer, optimizer, pixels, options, number, progress):
        if number == 4:
            raise KeyboardInterrupt
        return real(tokenizer, optimizer, pixels, options, number, progress)

    monkeypatch.setattr(vq_vae_training, "update", until)
    assert run("train", "--images", tsv, "--out", tmp_path / "parts", *SHORT) == 130
    assert (
        not (tmp_path / "parts/tokenizer.pt").exists() and (tmp_path / "parts/training.pt").exists()
    )
    done = []
    monkeypatch.setattr(
        vq_vae_training, "update", lambda *given: done.append(given[4]) or real(*given)
    )
    assert run("train", "--images", tsv, "--out", tmp_path / "parts", *SHORT) == 0
    assert done == [4, 5] and equal(weights(tmp_path / "parts"), weights(tmp_path / "whole"))
    assert not (tmp_path / "parts/training.pt").exists()


def test_a_complete_training_is_not_repeated_and_another_needs_force(tsv, tmp_path, capsys):
    out = tmp_path / "a"
    assert run("train", "--images", tsv, "--out", out, *SHORT) == 0
    before = (out / "tokenizer.pt").read_bytes()
    assert (
        run("train", "--images", tsv, "--out", out, *SHORT) == 0
        and "already complete" in capsys.readouterr().out
    )
    assert run("train", "--images", tsv, "--out", out, *SHORT, "--seed", 5) == 2
    assert "expected no tokenizer or one of these settings" in capsys.readouterr().err
    assert (out / "tokenizer.pt").read_bytes() == before
    assert run("train", "--images", tsv, "--out", out, *SHORT, "--seed", 5, "--force") == 0
    assert (out / "tokenizer.pt").read_bytes() != before


def test_the_time_limit_ends_a_training():
    options = vq_vae_training.TrainingOptions(minutes=0.002, batch_size=2)
    tokenizer = VQVAE(VQVAEConfig(num_codes=8, width=4, depth=1))
    state = vq_vae_training.train(tokenizer, pixels_of(IMAGES), options, None, lambda content: None)
    assert state.update >= 1 and 0.12 <= state.seconds < 5


def test_training_makes_images_more_like_themselves():
    """Some seconds are enough to see it."""
    pixels = pixels_of([drawn(number) for number in range(40)])
    torch.manual_seed(1)
    tokenizer = VQVAE(VQVAEConfig(num_codes=64, width=16, depth=1))
    before = vq_vae_training.quality(tokenizer.eval(), pixels)
    vq_vae_training.train(
        tokenizer,
        pixels,
        vq_vae_training.TrainingOptions(150, None, batch_size=8),
        None,
        lambda content: None,
    )
    after = vq_vae_training.quality(tokenizer, pixels)
    assert (
        after.error < 0.65 * before.error
        and after.psnr > before.psnr + 3
        and after.codes_used >= 10
    )


def test_a_folder_of_images_of_any_size_will_do(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(3):
        drawn(number, 80).crop((0, 0, 80, 60)).save(tmp_path / f"photos/{number}.png")
    assert run("train", "--images", tmp_path / "photos", "--out", tmp_path / "out", *SHORT) == 0


# -----------------------------------------------------------------------------------------------
# encode


def columns(path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text().splitlines()]


def test_generation_gets_the_codes_of_whole_images_and_a_row_per_caption(tmp_path, tokenizer):
    path = tmp_path / "captions.tsv"
    path.write_text(
        f"7\t1\tA Red circle&&two  circles\t\t{field(IMAGES[0])}\n8\t1\tOne\t\t{field(IMAGES[1])}\n"
    )
    assert (
        run(
            "encode",
            "--images",
            path,
            "--tokenizer",
            tokenizer,
            "--for",
            "generation",
            "--code-image-size",
            64,
            "--out",
            tmp_path / "gen.tsv",
        )
        == 0
    )
    codes = [codes_to_text(found) for found in encode_images(small_tokenizer(), IMAGES[:2])]
    assert columns(tmp_path / "gen.tsv") == [
        ["7_0", codes[0], "a red circle"],
        ["7_1", codes[0], "two circles"],
        ["8", codes[1], "one"],
    ]
    manifest = json.loads((tmp_path / "gen.tsv.manifest.json").read_text())
    assert manifest["finished"] and manifest["files"]["gen.tsv"]["rows"] == 3
    assert (manifest["num_codes"], manifest["code_image_size"], manifest["codes_per_picture"]) == (
        32,
        64,
        64,
    )


def test_images_and_codes_are_read_from_shards_as_from_the_tsv(tmp_path, tsv, tokenizer):
    assert main(["pack", str(tsv), "--out", str(tmp_path / "shards"), "--jobs", "1"]) == 0
    for name, images in (("a.tsv", tsv), ("b.tsv", tmp_path / "shards")):
        assert (
            run(
                "encode",
                "--images",
                images,
                "--tokenizer",
                tokenizer,
                "--for",
                "pretraining",
                "--code-image-size",
                32,
                "--out",
                tmp_path / name,
            )
            == 0
        )
    assert columns(tmp_path / "a.tsv") == columns(tmp_path / "b.tsv")


def test_pretraining_gets_the_image_and_the_codes_of_its_middle_pixels(tmp_path, tsv, tokenizer):
    assert (
        run(
            "encode",
            "--images",
            tsv,
            "--tokenizer",
            tokenizer,
            "--for",
            "pretraining",
            "--code-image-size",
            32,
            "--out",
            tmp_path / "image.tsv",
        )
        == 0
    )
    middles = [image.crop((16, 16, 48, 48)) for image in IMAGES]
    codes = encode_images(small_tokenizer(), middles)
    assert codes.shape == (5, 4, 4)
    for number, (row, original) in enumerate(zip(columns(tmp_path / "image.tsv"), columns(tsv))):
        assert row == [str(number), original[1], codes_to_text(codes[number])], (
            "an image of the right size stays as it is"
        )


def test_the_upstream_sizes_are_the_defaults(tmp_path, tokenizer):
    path = image_tsv(tmp_path / "one.tsv", [drawn(0, 300)])
    for purpose, codes in (("generation", 1024), ("pretraining", 256)):
        assert (
            run(
                "encode",
                "--images",
                path,
                "--tokenizer",
                tokenizer,
                "--for",
                purpose,
                "--out",
                tmp_path / f"{purpose}.tsv",
            )
            == 0
        )
        row = columns(tmp_path / f"{purpose}.tsv")[0]
        assert len(row[1 if purpose == "generation" else 2].split()) == codes
    assert decode_image(row[1]).size == (256, 256)


def test_codes_are_those_of_the_pixels_that_are_stored(tmp_path, tokenizer):
    """JPEG changes pixels; who reads the image must find the codes in it."""
    path = image_tsv(tmp_path / "one.tsv", [drawn(0, 90)])
    assert (
        run(
            "encode",
            "--images",
            path,
            "--tokenizer",
            tokenizer,
            "--for",
            "pretraining",
            "--code-image-size",
            32,
            "--out",
            tmp_path / "image.tsv",
        )
        == 0
    )
    _, image, codes = columns(tmp_path / "image.tsv")[0]
    assert codes == codes_to_text(
        encode_images(small_tokenizer(), [decode_image(image).crop((16, 16, 48, 48))])
    )


def test_images_that_are_not_square_are_cropped_squashed_or_refused(tmp_path, tokenizer, capsys):
    wide = Image.new("RGB", (128, 64), "red")
    wide.paste("blue", (32, 0, 96, 64))
    assert make_square(wide, 64).getcolors() == [(64 * 64, (0, 0, 255))]
    assert make_square(wide, 64, "squash").getpixel((0, 0)) == (255, 0, 0)
    path = image_tsv(tmp_path / "wide.tsv", [IMAGES[0], wide])
    assert (
        run(
            "encode",
            "--images",
            path,
            "--tokenizer",
            tokenizer,
            "--for",
            "generation",
            "--code-image-size",
            64,
            "--non-square",
            "refuse",
            "--out",
            tmp_path / "gen.tsv",
        )
        == 2
    )
    assert "wide.tsv:2: expects a square image, found 128 x 64 pixels" in capsys.readouterr().err


def test_an_interrupted_encoding_is_continued_to_the_same_bytes(
    tmp_path, tsv, tokenizer, monkeypatch
):
    call = (
        "encode",
        "--images",
        tsv,
        "--tokenizer",
        tokenizer,
        "--for",
        "generation",
        "--code-image-size",
        64,
        "--batch-size",
        2,
    )
    assert run(*call, "--out", tmp_path / "whole.tsv") == 0
    real, seen = image_code_columns.make_square, []

    def until(image, size, non_square, where):
        seen.append(where)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real(image, size, non_square, where)

    monkeypatch.setattr(image_code_columns, "make_square", until)
    assert (
        run(*call, "--out", tmp_path / "parts.tsv") == 130 and not (tmp_path / "parts.tsv").exists()
    )
    assert run(*call, "--out", tmp_path / "parts.tsv") == 0
    assert seen[3:] == [f"{tsv}:{row}" for row in (3, 4, 5)], (
        "what was written is not encoded again"
    )
    assert (tmp_path / "parts.tsv").read_bytes() == (tmp_path / "whole.tsv").read_bytes()


def test_files_of_one_folder_do_not_disturb_each_other(tmp_path, tsv, tokenizer):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/other.tsv.part").write_text("begun by another command\n")
    call = ("encode", "--images", tsv, "--tokenizer", tokenizer, "--code-image-size", 32)
    assert run(*call, "--for", "pretraining", "--out", tmp_path / "out/image.tsv") == 0
    assert run(*call, "--for", "generation", "--out", tmp_path / "out/gen.tsv") == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [
        "gen.tsv",
        "gen.tsv.manifest.json",
        "image.tsv",
        "image.tsv.manifest.json",
        "other.tsv.part",
    ]


def test_another_tokenizer_makes_the_file_anew(tmp_path, tsv, tokenizer, capsys):
    call = (
        "encode",
        "--images",
        tsv,
        "--tokenizer",
        tokenizer,
        "--for",
        "generation",
        "--code-image-size",
        64,
        "--out",
        tmp_path / "g.tsv",
    )
    assert run(*call) == 0 and run(*call) == 0 and "already complete" in capsys.readouterr().out
    before = (tmp_path / "g.tsv").read_bytes()
    save_tokenizer(tmp_path, num_codes=8)
    assert run(*call) == 0 and (tmp_path / "g.tsv").read_bytes() != before


def test_a_broken_image_is_named_with_its_row_or_left_out(tmp_path, tsv, tokenizer, capsys):
    with tsv.open("a") as file:
        file.write(f"broken\t{field(IMAGES[0])[:200]}\tx\nlast\t{field(IMAGES[0])}\ty\n")
    call = (
        "encode",
        "--images",
        tsv,
        "--tokenizer",
        tokenizer,
        "--for",
        "pretraining",
        "--code-image-size",
        32,
        "--out",
        tmp_path / "i.tsv",
    )
    assert run(*call) == 2
    assert (
        "world.tsv:6: expects a whole image" in capsys.readouterr().err
        and not (tmp_path / "i.tsv").exists()
    )
    assert run(*call, "--skip-broken") == 0
    assert [row[0] for row in columns(tmp_path / "i.tsv")] == ["0", "1", "2", "3", "4", "last"]
    assert "1 image skipped" in capsys.readouterr().out
    assert (
        "world.tsv:6" in json.loads((tmp_path / "i.tsv.manifest.json").read_text())["left_out"][0]
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--code-image-size", "60"], "--code-image-size 60: expected a multiple of 8 pixels"),
        (["--id-column", "1"], "--id-column 1 expects a column of text, found the images"),
        (["--text-column", "7"], "--text-column 7 expects a column of text, found columns 0 to 2"),
        (["--image-column", "9"], "column 9 is asked for"),
        (
            ["--image-column", "0", "--id-column", "2"],
            "world.tsv:1: expects an image file in base64",
        ),
        (["--sample", "1"], "--sample 1: expected a GumbelVQ"),
        (["--batch-size", "0"], "--batch-size: expected an integer of at least 1, found '0'"),
        (["--device", "tpu"], "cuda, mps, cuda:1, ..., found 'tpu'"),
        (["--tokenizer", "nowhere"], "nowhere: expected an image tokenizer, found none"),
    ],
)
def test_mistakes_in_encoding_have_one_message(
    tmp_path, tsv, tokenizer, capsys, arguments, message
):
    given = [
        "encode",
        "--images",
        tsv,
        "--tokenizer",
        tokenizer,
        "--for",
        "generation",
        "--out",
        tmp_path / "out.tsv",
    ]
    assert run(*given, *arguments) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out.tsv").exists()


def test_files_without_images_or_captions_are_named(tmp_path, tokenizer, capsys):
    given = [
        "encode",
        "--tokenizer",
        tokenizer,
        "--for",
        "generation",
        "--code-image-size",
        64,
        "--out",
        tmp_path / "out.tsv",
    ]
    (tmp_path / "text.tsv").write_text("1\ta\tb\n")
    (tmp_path / "empty.tsv").write_text("")
    (tmp_path / "mute.tsv").write_text(f"1\t{field(IMAGES[0])}\t \n")
    (tmp_path / "photos").mkdir()
    IMAGES[0].save(tmp_path / "photos/a.png")
    for name, message in (
        (
            "text.tsv",
            "text.tsv:1: expects a column with an image file in base64, found none among 3 columns",
        ),
        ("empty.tsv", "empty.tsv"),
        ("mute.tsv", "mute.tsv:1: expects a caption in column 2, found none"),
        ("photos", "--for generation expects a TSV with captions, found a folder of images"),
    ):
        assert run(*given, "--images", tmp_path / name) == 2
        assert message in capsys.readouterr().err


# -----------------------------------------------------------------------------------------------
# decode


def coded_tsv(path, codes) -> object:
    path.write_text(
        "".join(f"a/{i}: b\t{codes_to_text(found)}\tcaption {i}\n" for i, found in enumerate(codes))
    )
    return path


def test_decode_writes_an_image_per_row_and_names_them(tmp_path, tokenizer):
    codes = encode_images(small_tokenizer(), IMAGES)
    path = coded_tsv(tmp_path / "gen.tsv", codes)
    assert (
        run(
            "decode",
            path,
            "--tokenizer",
            tokenizer,
            "--out",
            tmp_path / "out",
            "--text-column",
            2,
            "--batch-size",
            2,
        )
        == 0
    )
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())["images"]
    assert manifest[3] == {
        "row": 4,
        "id": "a/3: b",
        "text": "caption 3",
        "file": "000003_a_3_b.png",
        "size": [64, 64],
    }
    for entry, expected in zip(manifest, decode_images(small_tokenizer(), codes), strict=True):
        assert Image.open(tmp_path / "out" / entry["file"]).tobytes() == expected.tobytes()


def test_decode_reads_result_files_and_grids_that_are_not_square(tmp_path, tokenizer):
    (tmp_path / "test_predict.json").write_text(
        json.dumps([{"id": "7", "caption": "x", "codes": " ".join(["3"] * 24)}])
    )
    assert (
        run(
            "decode",
            tmp_path / "test_predict.json",
            "--tokenizer",
            tokenizer,
            "--out",
            tmp_path / "out",
            "--grid",
            "4x6",
        )
        == 0
    )
    entry = json.loads((tmp_path / "out/manifest.json").read_text())["images"][0]
    assert entry == {"row": 1, "id": "7", "text": "x", "file": "000000_7.png", "size": [48, 32]}


@pytest.mark.parametrize(
    "name, content, arguments, message",
    [
        (
            "a.tsv",
            "1\t1 2 3 4\n2\t1 2 3 32\n",
            [],
            "a.tsv:2: expects image codes from 0 to 31, found 32",
        ),
        ("a.tsv", "1\t1 2 3 4\n2\t1 2 3\n", [], "a.tsv:2: expects the codes of a square image"),
        ("a.tsv", "1\t1 2 3 4\n2\t1 2 x 4\n", [], "a.tsv:2: expects image codes, integers"),
        ("a.tsv", "1\t1 2 3 4\n", ["--grid", "2x3"], "a.tsv:1: expects 6 image codes, found 4"),
        ("a.tsv", "1\tno codes\n", [], "a.tsv:1: expects a column of image codes"),
        ("a.tsv", "1\t1 2 3 4\n", ["--code-column", "5"], "column 5 is asked for, found 2 columns"),
        ("a.json", '[{"id": 1}]', [], "a.json: entry 1: expects 'codes', found none"),
        ("a.json", '[{"id"', [], "found damaged JSON"),
        ("a.json", "{}", [], "evaluate or ofa draw, found an object"),
        (
            "a.json",
            '[{"codes": "1 2 3 99"}]',
            [],
            "a.json: entry 1: expects image codes from 0 to 31, found 99",
        ),
        ("a.json", None, [], "ofa draw, found no readable file (No such file"),
        (
            "a.tsv",
            "1\t1 2 3 4\n",
            ["--rows", "0"],
            "--rows: expected an integer of at least 1, found '0'",
        ),
    ],
)
def test_mistakes_in_decoding_have_one_message_with_the_row(
    tmp_path, tokenizer, capsys, name, content, arguments, message
):
    if content is not None:
        (tmp_path / name).write_text(content)
    assert (
        run(
            "decode",
            tmp_path / name,
            "--tokenizer",
            tokenizer,
            "--out",
            tmp_path / "out",
            *arguments,
        )
        == 2
    )
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--size", "60"], "--size 60: expected a multiple of 8 from 16 on"),
        (["--codes", "1"], "num_codes 1: expected at least 2"),
        (["--lr", "0"], "--lr 0.0: expected a positive number"),
        (["--batch-size", "0"], "--batch-size 0: expected a positive number"),
        (["--minutes", "-1"], "--minutes -1.0: expected a positive number"),
        (["--max-images", "0"], "expected an integer of at least 1, found '0'"),
        (["--max-images", "1"], "expected at least 2 readable images, found 1"),
        (["--images", "nowhere.tsv"], "nowhere.tsv"),
    ],
)
def test_mistakes_in_training_have_one_message(tmp_path, tsv, capsys, arguments, message):
    assert run("train", "--images", tsv, "--out", tmp_path / "out", *SHORT, *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_training_without_end_is_refused(tmp_path, tsv, capsys):
    assert run("train", "--images", tsv, "--out", tmp_path / "out", "--minutes", "0") == 2
    assert "expected --updates or --minutes, found neither" in capsys.readouterr().err


def test_broken_images_are_named_or_left_out_of_training(tmp_path, tsv, capsys):
    with tsv.open("a") as file:
        file.write("broken\tAAAA\tx\n")
    assert run("train", "--images", tsv, "--out", tmp_path / "out", *SHORT) == 2
    assert "world.tsv:6: expects a whole image" in capsys.readouterr().err
    assert run("train", "--images", tsv, "--out", tmp_path / "out", *SHORT, "--skip-broken") == 0
    assert "1 image skipped, unreadable" in capsys.readouterr().out
    assert len(TsvFile(tsv)) == 6


# ------------------------------------------------------------------------------------- files of
# others


def test_a_training_of_others_is_not_overwritten_without_force(tsv, tmp_path, capsys, monkeypatch):
    out = tmp_path / "a"
    monkeypatch.setattr(vq_vae_training, "SECONDS_BETWEEN_SAVES", -1.0)
    real = vq_vae_training.update
    monkeypatch.setattr(
        vq_vae_training,
        "update",
        lambda *given: real(*given) if given[4] < 3 else (_ for _ in ()).throw(KeyboardInterrupt),
    )
    assert run("train", "--images", tsv, "--out", out, *SHORT) == 130
    monkeypatch.setattr(vq_vae_training, "update", real)
    before = (out / "training.pt").read_bytes()
    assert run("train", "--images", tsv, "--out", out, *SHORT, "--seed", 5) == 2
    assert "training.pt: expected no training or one of these settings" in capsys.readouterr().err
    assert (out / "training.pt").read_bytes() == before
    assert (
        run("train", "--images", tsv, "--out", out, *SHORT, "--seed", 5, "--force") == 0
        and not (out / "training.pt").exists()
    )


def test_an_interrupted_decode_continues_where_it_was(tmp_path, tokenizer, monkeypatch, capsys):
    path = coded_tsv(tmp_path / "gen.tsv", encode_images(small_tokenizer(), IMAGES))
    real, batches = codec.decode_images, []

    def stops_at_the_third(tokenizer, codes):
        batches.append(len(codes))
        if len(batches) == 3:
            raise KeyboardInterrupt
        return real(tokenizer, codes)

    monkeypatch.setattr(codec, "decode_images", stops_at_the_third)
    call = ["decode", path, "--tokenizer", tokenizer, "--batch-size", 1, "--out"]
    run(*call, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.png"))) == 2
    assert run(*call, tmp_path / "out") == 0 and len(batches) == 1 + len(IMAGES)
    assert run(*call, tmp_path / "whole") == 0
    whole, continued = (
        {file.name: file.read_bytes() for file in (tmp_path / name).glob("*.png")}
        for name in ("whole", "out")
    )
    assert continued == whole and len(whole) == len(IMAGES)
    assert run(*call, tmp_path / "out") == 0 and "already complete" in capsys.readouterr().out


def test_decode_does_not_overwrite_the_manifest_of_another_command(tmp_path, tokenizer, capsys):
    path = coded_tsv(tmp_path / "gen.tsv", encode_images(small_tokenizer(), IMAGES[:1]))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/manifest.json").write_text('{"made_by": "ofa prepare vqa2"}')
    assert run("decode", path, "--tokenizer", tokenizer, "--out", tmp_path / "out") == 2
    assert "expected the manifest of an earlier call" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["manifest.json"]


def test_decode_writes_below_its_folder_whatever_the_ids_are(tmp_path, tokenizer):
    codes = codes_to_text(encode_images(small_tokenizer(), IMAGES[:1])[0])
    ids = ["../../x", "/etc/passwd", "a\0b", "..", "CON", "x" * 300, "\u202eabc", "x" * 300]
    (tmp_path / "r.json").write_text(
        json.dumps([{"id": name, "caption": "x", "codes": codes} for name in ids])
    )
    assert (
        run("decode", tmp_path / "r.json", "--tokenizer", tokenizer, "--out", tmp_path / "in/out")
        == 0
    )
    assert len(list((tmp_path / "in/out").glob("*.png"))) == len(ids) and [
        path.name for path in (tmp_path / "in").iterdir()
    ] == ["out"]


@pytest.mark.parametrize("codes", [5, None, {"a": 1}, [[1], [2]], [1.5, 2], [1e400], ["x"], [True]])
def test_codes_of_a_result_file_that_are_none_are_one_message(tmp_path, tokenizer, capsys, codes):
    (tmp_path / "r.json").write_text(json.dumps([{"id": 1, "codes": codes}]))
    assert (
        run("decode", tmp_path / "r.json", "--tokenizer", tokenizer, "--out", tmp_path / "out") == 2
    )
    assert "r.json: entry 1: expects" in capsys.readouterr().err and not (tmp_path / "out").exists()
