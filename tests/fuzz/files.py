"""Files of every kind that the project reads, whole ones, and what reads them: the second kind
of input that is damaged."""

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from caption_files import caption, make_image
from PIL import Image
from small_network import build_small
from small_tokenizer import save_tokenizer

from ofa.checkpoints.read import read_source
from ofa.cli.main import main
from ofa.data.image_rows import open_coded
from ofa.data.negatives import NegativeSampler
from ofa.data.rows import open_rows
from ofa.data.shard_writer import pack
from ofa.errors import UserError
from ofa.inference.requests import read_requests, usual_tasks
from ofa.io.image_files import table_images
from ofa.io.safe_load import load_checkpoint
from ofa.io.tensor_files import write_checkpoint
from ofa.metrics.document_frequency import (
    count_document_frequencies,
    read_document_frequencies,
    write_document_frequencies,
)
from ofa.metrics.fid import read_statistics
from ofa.models.image_tokenizer.vq_vae import load_vq_vae
from ofa.models.image_tokenizer.vqgan import read_config
from ofa.task.answers import read_label_file
from ofa.task.mixture_file import read_members
from ofa.task.results import read_predictions
from ofa.tasks import declared_specs
from ofa.tokens.bpe import load_language


@dataclass(frozen=True)
class FileTarget:
    """One kind of file: ``path`` is damaged and then read.

    Args: whole: what is damaged. read: what is called; it may return anything. named: what an error
        has to name. wrap: the damaged part -> the content of the file.
    """

    name: str
    path: Path
    whole: bytes
    read: Callable[[], Any]
    named: str
    wrap: Callable[[bytes], bytes] = bytes


def target(name: str, path: Path, read: Callable[[], Any], named: str = "") -> FileTarget:
    """A file that is damaged as a whole. Args: named: default: the file."""
    return FileTarget(name, path, path.read_bytes(), read, named or path.name)


def member(name: str, path: Path, part: str, read: Callable[[], Any]) -> FileTarget:
    """One member of a zip archive is damaged, with a check sum that is right again."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    chosen = next(found for found in members if found.endswith(part))

    def wrap(data: bytes) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for found, content in members.items():
                archive.writestr(found, data if found == chosen else content)
        return file.getvalue()

    return FileTarget(name, path, members[chosen], read, path.name, wrap)


def command(*arguments: object) -> None:
    """A command of ``ofa`` in this process. Raises: UserError with what it printed, if it ended
    with status 2."""
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        status = main(list(map(str, arguments)))
    errors = [
        line.removeprefix("error: ")
        for line in printed.getvalue().splitlines()
        if line.startswith("error: ")
    ]
    if status == 2 and len(errors) == 1:
        raise UserError(errors[0])
    assert status == 0, f"status {status}: {printed.getvalue()[-300:]}"


def written(path: Path, content: Any) -> Path:
    """Bytes as they are, texts in UTF-8, anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = (
        content
        if isinstance(content, bytes)
        else (content if isinstance(content, str) else json.dumps(content)).encode()
    )
    path.write_bytes(data)
    return path


def all_texts(path: Path) -> list:
    rows = open_rows(path)
    return [rows[index] for index in range(len(rows))]


def file_targets(folder: Path, vocabularies: dict[str, Path]) -> list[FileTarget]:
    """Every side file. Args: folder: for the files. vocabularies: folders by kind of BPE, which
    are copied."""
    return [
        *tables(folder / "tables"),
        *labels(folder / "labels"),
        *json_files(folder / "json"),
        *vocabulary_files(folder / "bpe", vocabularies),
        *weights(folder / "weights"),
        *indices(folder / "indices"),
        *sources(folder / "sources"),
    ]


def tables(folder: Path) -> list[FileTarget]:
    """TSV files, shards, image tables and the lines of requests."""
    rows = "".join(
        f"{number}\timg{number}\t{caption(number)}\t\t{make_image('red')}\n" for number in range(3)
    )
    tsv = written(folder / "caption_val.tsv", rows)
    images = written(
        folder / "images.tsv", "".join(f"{number}\t{make_image('blue')}\n" for number in range(3))
    )
    coded = written(folder / "coded.tsv", "1\t0 3 2 1\ta cat\n2\t3 3 2 1\ta dog\n")
    written(folder / "a.jpg", b"no image, and never opened here")
    requests = written(
        folder / "requests.jsonl",
        '{"image": "a.jpg", "question": "is it red?", "region": [1, 2, 30, 20]}\n{"image":'
        ' "a.jpg"}\n',
    )
    pack(str(tsv), str(folder / "shards"), name="rows")
    shard = next((folder / "shards").glob("*.tar"))
    alone = folder / "alone" / "alone.tar"
    alone.parent.mkdir()
    shutil.copy(shard, alone)
    return [
        target("tsv", tsv, partial(all_texts, tsv)),
        target("image table", images, lambda: list(table_images(images))),
        target("coded tsv", coded, lambda: open_coded(coded)),
        target("requests", requests, lambda: read_requests(str(requests), usual_tasks(), {})),
        target("shard", alone, partial(all_texts, alone)),
        target(
            "shards' manifest",
            folder / "shards" / "rows.shards.json",
            partial(all_texts, folder / "shards"),
            "rows",
        ),
    ]


def labels(folder: Path) -> list[FileTarget]:
    """Label files and document frequencies."""
    found = {"yes": 0, "no": 1, "a red ball": 2}
    pickled, listed = (
        written(folder / "trainval_ans2label.pkl", pickle.dumps(found)),
        written(folder / "labels.json", found),
    )
    frequencies = folder / "coco-train-words.p"
    write_document_frequencies(
        frequencies, count_document_frequencies([[caption(number)] for number in range(4)])
    )
    return [
        target("label pickle", pickled, lambda: read_label_file(pickled)),
        target("label JSON", listed, lambda: read_label_file(listed)),
        target("document frequencies", frequencies, lambda: read_document_frequencies(frequencies)),
    ]


def json_files(folder: Path) -> list[FileTarget]:
    """Results, mixtures, negatives, model descriptions."""
    results = written(
        folder / "test_predict.json",
        [{"image_id": "1", "caption": "a cat"}, {"image_id": "2", "caption": "a dog"}],
    )
    codes = written(
        folder / "codes_predict.json", [{"id": "1", "caption": "a cat", "codes": "0 1 2 3"}]
    )
    specs = {spec.name: spec for spec in declared_specs()}
    mixture = written(
        folder / "joint.json",
        {
            "caption": {"data": "a.tsv,b.tsv", "weight": 2, "selected_cols": "0,4,2"},
            "vqa_gen": {"data": "c.tsv"},
        },
    )
    ddconfig = {
        "ch": 32,
        "ch_mult": [1, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [4],
        "resolution": 8,
        "z_channels": 32,
        "double_z": False,
    }
    params = {"embed_dim": 4, "n_embed": 16, "ddconfig": ddconfig}
    described = written(
        folder / "model.yaml",
        f"model:\n  target: taming.models.vqgan.VQModel\n  params: {json.dumps(params)}\n",
    )
    negatives = written(
        folder / "negatives" / "type2ans.json",
        {"how many": ["1", "2"], "color": ["red"], "other": ["yes", "no"]},
    ).parent
    written(negatives / "all_captions.txt", "a cat\na dog on a mat\n")
    written(negatives / "object.txt", "cat\ndog\n")
    return [
        target("results", results, lambda: read_predictions(results)),
        target("results with codes", codes, lambda: open_coded(codes)),
        target("mixture", mixture, lambda: read_members(str(mixture), specs)),
        target("model.yaml", described, lambda: read_config(described)),
        target("negatives", negatives / "type2ans.json", lambda: NegativeSampler(negatives)),
        target(
            "negative captions",
            negatives / "all_captions.txt",
            lambda: list(NegativeSampler(negatives).captions),
        ),
        target("negative objects", negatives / "object.txt", lambda: NegativeSampler(negatives)),
    ]


def vocabulary_files(folder: Path, vocabularies: dict[str, Path]) -> list[FileTarget]:
    """dict.txt and the files of each BPE. An error may name the folder: the files belong
    together."""
    found = []
    for kind, source in vocabularies.items():
        copy = folder / kind
        shutil.copytree(source, copy)
        for path in sorted(
            file for file in copy.iterdir() if file.is_file() and file.suffix != ".vocab"
        ):
            found.append(
                target(
                    f"{kind} {path.name}",
                    path,
                    partial(load_language, copy, None, 16, 20),
                    copy.name,
                )
            )
    return found


def weights(folder: Path) -> list[FileTarget]:
    """Checkpoints, zipped and older, safetensors, image tokenizers, statistics."""
    folder.mkdir(parents=True)
    content = {
        "model": {"encoder.a": torch.arange(6.0).reshape(2, 3), "decoder.b": torch.ones(2)},
        "cfg": {"task": {"_name": "caption"}, "model": {}},
        "args": None,
        "extra_state": {"epoch": 1},
    }
    zipped, older, safe, statistics = (
        folder / "new.pt",
        folder / "old.pt",
        folder / "safe.safetensors",
        folder / "real.npz",
    )
    torch.save(content, zipped)
    torch.save(content, older, _use_new_zipfile_serialization=False)
    write_checkpoint(content, safe)
    np.savez(statistics, mu=np.zeros(4), sigma=np.eye(4))
    foreign = folder / "foreign.pt"
    torch.save({"model": build_small(60).state_dict()}, foreign)
    (folder / "tokenizer").mkdir()
    tokenizer = save_tokenizer(folder / "tokenizer", 8)
    return [
        target("checkpoint", zipped, lambda: load_checkpoint(zipped)),
        target("mapped checkpoint", zipped, lambda: load_checkpoint(zipped, mapped=True)),
        target("older checkpoint", older, lambda: load_checkpoint(older)),
        target("safetensors", safe, lambda: load_checkpoint(safe)),
        member("checkpoint's pickle", zipped, "data.pkl", lambda: load_checkpoint(zipped)),
        member("statistics' array", statistics, "mu.npy", lambda: read_statistics(statistics, 4)),
        target("foreign model", foreign, lambda: read_source(foreign)),
        member("foreign model's pickle", foreign, "data.pkl", lambda: read_source(foreign)),
        member("image tokenizer's pickle", tokenizer, "data.pkl", lambda: load_vq_vae(tokenizer)),
        target("image tokenizer", tokenizer, lambda: load_vq_vae(tokenizer)),
        target("statistics", statistics, lambda: read_statistics(statistics, 4)),
    ]


def indices(folder: Path) -> list[FileTarget]:
    """Indices beside a TSV and beside a shard, upstream's and ours: a wrong one never changes
    what is read."""
    rows = "".join(f"{number}\t{caption(number)}\n" for number in range(5))
    ours, theirs = written(folder / "ours.tsv", rows), written(folder / "theirs.tsv", rows)
    starts = np.cumsum([0, *(len(line) + 1 for line in rows.splitlines()[:-1])]).tolist()
    index = written(Path(f"{theirs}.index"), pickle.dumps((5, starts)))
    saved = os.environ.pop("OFA_INDEX_DIR", None)
    try:
        all_texts(ours)
    finally:
        if saved is not None:
            os.environ["OFA_INDEX_DIR"] = saved
    expected = [line.split("\t") for line in rows.splitlines()]

    def read(path: Path, remove: bool) -> None:
        if remove:
            Path(f"{path}.idx").unlink(missing_ok=True)
        assert all_texts(path) == expected, f"{path}: a damaged index changed what was read"

    return [
        target("index", Path(f"{ours}.idx"), partial(read, ours, False), ours.name),
        target("upstream's index", index, partial(read, theirs, True), theirs.name),
    ]


def sources(folder: Path) -> list[FileTarget]:
    """What people prepare data from, and the manifest of what was prepared."""
    images = folder / "images"
    images.mkdir(parents=True)
    for number in (1, 2, 3):
        Image.new("RGB", (40, 30), (60 * number, 90, 90)).save(images / f"{number}.png")
    text = "image,question,answer\n1.png,is it red?,yes\n2.png,what is it?,a ball\n"
    lines = (
        '{"image": "1.png", "text": "the ball", "box": [1, 2, 30, 20]}\n{"image": "2.png", "text":'
        ' "a cat", "box": [0, 0, 9, 9]}\n'
    )
    coco = {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in (1, 2, 3)],
        "annotations": [
            {"id": number, "image_id": number, "caption": caption(number)} for number in (1, 2, 3)
        ],
    }
    asked = {
        "data_subtype": "train2014",
        "questions": [{"question_id": 1, "image_id": 1, "question": "is it red?"}],
    }
    answered = {
        "data_subtype": "train2014",
        "annotations": [{"question_id": 1, "image_id": 1, "answers": [{"answer": "yes"}] * 10}],
    }
    table, listed = written(folder / "photos.csv", text), written(folder / "boxes.jsonl", lines)
    captions, questions, answers = (
        written(folder / name, content)
        for name, content in (
            ("captions.json", coco),
            ("questions.json", asked),
            ("answers.json", answered),
        )
    )
    Image.new("RGB", (40, 30)).save(images / "COCO_train2014_000000000001.jpg")
    out = folder / "out"
    of_table = partial(
        command,
        "prepare",
        "csv",
        table,
        "--task",
        "vqa_gen",
        "--images",
        images,
        "--out",
        out / "csv",
    )
    of_questions = partial(
        command,
        "prepare",
        "vqa2",
        "--questions",
        questions,
        "--annotations",
        answers,
        "--images",
        images,
        "--out",
        out / "vqa2",
    )
    again = partial(
        command,
        "prepare",
        "csv",
        written(folder / "same.csv", text),
        "--task",
        "vqa_gen",
        "--images",
        images,
        "--out",
        out / "again",
    )
    again()
    manifest = next(
        path
        for path in (out / "again").iterdir()
        if path.suffix == ".json" and "made_by" in path.read_text()
    )
    return [
        target("prepare csv", table, of_table),
        target(
            "prepare jsonl",
            listed,
            partial(
                command,
                "prepare",
                "jsonl",
                listed,
                "--task",
                "refcoco",
                "--images",
                images,
                "--out",
                out / "jsonl",
            ),
        ),
        target(
            "prepare coco-captions",
            captions,
            partial(
                command,
                "prepare",
                "coco-captions",
                "--annotations",
                captions,
                "--images",
                images,
                "--val-fraction",
                "0.3",
                "--out",
                out / "coco",
            ),
        ),
        target("prepare vqa2 questions", questions, of_questions, "s.json"),
        target("prepare vqa2 answers", answers, of_questions, "s.json"),
        target("manifest of prepare", manifest, again),
    ]
