"""Synthetic words as training files in upstream's columns of text recognition.

ocr_train.tsv, ocr_val.tsv, ocr_test.tsv   id, image, text
texts.txt                                  the training texts, one per line
"""

import functools

from ofa.io.resumable import fingerprint
from ofa.prepare.tsv_writer import IMAGE, Group, PreparedFolder
from ofa.synthetic.words import World, encode, make_split

VERSION = 1


def write_signs(folder: str, counts: dict[str, int], world: World, jobs: int) -> PreparedFolder:
    """All files of a world; no word of validation and test occurs in training.

    Args: counts: signs of ``train``, ``val`` and ``test``.
    """
    plan = fingerprint(
        f"sign-world {VERSION}", counts["train"], counts["val"], counts["test"], vars(world)
    )
    out = PreparedFolder(folder, plan, "ofa prepare synthetic-words")
    signs = {split: list(make_split(world, split, count)) for split, count in counts.items()}
    if out.is_finished():
        return out
    for split, found in signs.items():
        groups = [Group(sign, ((sign.sign_id, IMAGE, sign.text),)) for sign in found]
        out.embed(f"ocr_{split}.tsv", groups, functools.partial(encode, world=world), jobs)
    texts = [sign.text for sign in signs["train"]]
    out.write_text("texts.txt", "".join(f"{text}\n" for text in texts), len(texts))
    out.save_manifest(finished=True)
    return out
