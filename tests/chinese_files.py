"""Scenes of synthetic shapes with Chinese captions and expressions, of a kind that a small
network learns in seconds."""

import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

from ofa.synthetic.shapes import Scene, encode, make_scene
from ofa.synthetic.shapes_language import CHINESE
from ofa.tokens.train_tokenizer import build_vocabulary

SIDE = 32  # pixels
COLORS = ("red", "blue", "white", "yellow")
TRAINED, UNSEEN = 300, 60
PROMPTS = ("图片描述了什么内容?", '这段文字" "描述的是哪个区域？')


def scenes(split: str, count: int) -> Iterator[Scene]:
    """Scenes with one large thing in one of four colors."""
    index = 0
    while count > 0:
        scene = make_scene(1, split, index)
        index += 1
        if (
            len(scene.things) == 1
            and scene.things[0].size == "large"
            and scene.things[0].color in COLORS
        ):
            count -= 1
            yield scene


def caption_of(scene: Scene) -> str:
    return f"只有{CHINESE.names(scene, random.Random(0))[0]}，{CHINESE.ground(scene)[:2]}"


def write_scenes(folder: Path) -> SimpleNamespace:
    """``caption_SPLIT.tsv`` and ``refcoco_cn_SPLIT.tsv`` of both splits in their upstream columns,
    captions and boxes of training rows as lines of a text file, and a vocabulary of characters.
    """
    texts, boxes = [], []
    for split, count in (("train", TRAINED), ("test", UNSEEN)):
        captions, regions = [], []
        for scene in scenes(split, count):
            image, text = encode(scene, SIDE, "png"), caption_of(scene)
            captions.append(f"{scene.scene_id}\t{scene.scene_id}\t{text}\t\t{image}\n")
            box = ",".join(f"{corner:g}" for corner in scene.things[0].box_px(SIDE))
            regions += [
                f"{scene.scene_id}_0\t{expression}\t{box}\t{image}\n"
                for expression, _ in CHINESE.expressions(scene)
            ]
            if split == "train":
                texts.append(text)
                boxes.append(box)
        (folder / f"caption_{split}.tsv").write_text("".join(captions), encoding="utf-8")
        (folder / f"refcoco_cn_{split}.tsv").write_text("".join(regions), encoding="utf-8")
    (folder / "caption.txt").write_text("\n".join(dict.fromkeys(texts)), encoding="utf-8")
    (folder / "refcoco.txt").write_text("\n".join(boxes[:100]), encoding="utf-8")
    expressions = [
        line.split("\t")[1]
        for line in (folder / "refcoco_cn_train.tsv").read_text(encoding="utf-8").splitlines()
    ]
    build_vocabulary([*texts, *expressions, *PROMPTS], 300, folder / "vocabulary", bert=True)
    return SimpleNamespace(folder=folder, vocabulary=folder / "vocabulary")
