"""Data sets as their authors ship them, in miniature: four images of known sizes and files
that speak of them."""

import json
import pickle
from pathlib import Path

from PIL import Image

SIZES = {1: (40, 30), 2: (64, 48), 3: (30, 50), 4: (20, 20)}


def coco_name(number: int) -> str:
    return f"COCO_train2014_{number:012d}.jpg"


def write_images(folder: Path, names: dict[int, str]) -> Path:
    """Four noisy-looking JPEG files. Args: names: image number -> file name."""
    for number, name in names.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZES[number], (60 * number, 90, 200)).save(path, "JPEG")
    return folder


def write_json(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_json_lines(path: Path, entries: list[dict]) -> Path:
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries), encoding="utf-8")
    return path


def question(number: int, image: int, text: str = "What is  it?") -> dict:
    return {"question_id": number, "image_id": image, "question": text}


def annotation(number: int, image: int, *answers: str) -> dict:
    ten = [
        {"answer": answer, "answer_confidence": "yes", "answer_id": i}
        for i, answer in enumerate(answers, start=1)
    ]
    return {"question_id": number, "image_id": image, "answers": ten}


def write_vqa2(
    folder: Path,
    subtype: str = "train2014",
    questions: list[dict] | None = None,
    annotations: list[dict] | None = None,
) -> Path:
    """``questions.json``, ``annotations.json`` and ``images/``: two questions on image 1, one
    on 2, one on 3."""
    write_images(folder / "images", {number: f"train2014/{coco_name(number)}" for number in SIZES})
    if questions is None:
        questions = [
            question(10, 1),
            question(11, 1, "How many?\t(all)"),
            question(20, 2),
            question(30, 3),
        ]
    if annotations is None:
        annotations = [
            annotation(30, 3, *["yes"] * 10),
            annotation(10, 1, *["The Dog."] * 6, *["a cat"] * 3, "dog,"),
            annotation(11, 1, *["two"] * 2, *["3"] * 8),
            annotation(20, 2, "x", *["red/white"] * 9),
        ]
    write_json(folder / "questions.json", {"data_subtype": subtype, "questions": questions})
    write_json(folder / "annotations.json", {"data_subtype": subtype, "annotations": annotations})
    return folder


def reference(number: int, annotation: int, image: int, split: str, *sentences: str) -> dict:
    texts = [
        {"sent_id": i, "sent": text.lower(), "raw": text, "tokens": text.lower().split()}
        for i, text in enumerate(sentences)
    ]
    return {
        "ref_id": number,
        "ann_id": annotation,
        "image_id": image,
        "split": split,
        "sentences": texts,
        "category_id": 1,
        "file_name": f"COCO_train2014_{image:012d}_{annotation}.jpg",
    }


def write_refer(
    folder: Path,
    by: str = "unc",
    boxes: dict[int, list] | None = None,
    refs: list[dict] | None = None,
) -> Path:
    """``refs(unc).p``, ``instances.json`` and ``images/``; the boxes 1, 2, 3 lie in the images
    1, 2, 2."""
    write_images(folder / "images", {number: coco_name(number) for number in SIZES})
    boxes = {1: [5, 6, 10, 12.5], 2: [0, 0, 64.5, 48], 3: [30.126, 1, 20, 20]} | (boxes or {})
    instances = {
        "images": [
            {"id": number, "file_name": coco_name(number), "width": size[0], "height": size[1]}
            for number, size in SIZES.items()
        ],
        "annotations": [
            {"id": number, "image_id": min(number, 2), "bbox": box} for number, box in boxes.items()
        ],
    }
    write_json(folder / "instances.json", instances)
    if refs is None:
        refs = [
            reference(7, 1, 1, "train", "The left dog", "dog\tthere"),
            reference(8, 2, 2, "testA", "All of it"),
            reference(9, 3, 2, "train", "a thing"),
        ]
    (folder / f"refs({by}).p").write_bytes(pickle.dumps(refs, protocol=2))
    return folder


def pair(number: int, image: str, label: str, hypothesis: str = "A man sleeps.") -> dict:
    return {
        "Flickr30K_ID": image,
        "pairID": f"{image}.jpg#{number}r1n",
        "gold_label": label,
        "sentence1": "A man runs.",
        "sentence2": hypothesis,
    }


def write_snli_ve(folder: Path, pairs: list[dict] | None = None) -> Path:
    """``snli_ve_train.jsonl`` and ``images/``."""
    write_images(folder / "images", {1: "111.jpg", 2: "222.jpg"})
    if pairs is None:
        pairs = [
            pair(0, "111", "entailment", "A person\nmoves."),
            pair(1, "111", "-"),
            pair(2, "222", "contradiction"),
        ]
    write_json_lines(folder / "snli_ve_train.jsonl", pairs)
    return folder


def write_imagenet(folder: Path) -> Path:
    """``train/SYNSET/``, ``val/``, ``val.txt``, Kaggle's list and ``synsets.txt`` of three
    synsets."""
    write_images(folder, {1: "train/n02/a.JPEG", 2: "train/n02/b.jpg", 3: "train/n01/c.JPEG"})
    write_images(folder, {1: "val/ILSVRC_1.JPEG", 4: "val/ILSVRC_2.JPEG"})
    (folder / "synsets.txt").write_text("n02 tench, Tinca tinca\nn01 crane\nn03 rugby ball\n")
    (folder / "val.txt").write_text("ILSVRC_1.JPEG 2\nILSVRC_2.JPEG 0\n")
    (folder / "kaggle.csv").write_text(
        "ImageId,PredictionString\nILSVRC_2,n02 85 1 499 272 \nILSVRC_1,n03 1 2 3 4 \n"
    )
    return folder
