"""CIDEr-D: captions per second beside pycocoevalcap's scorer in pure Python, with the frequencies
of a file and of the call.

    python benchmarks/cider.py [--captions 500] [--rounds 10]

Both score the same made-up captions in one process and one thread. Processor time is measured and
the best of all rounds counts, as other programs only ever slow a round down. The scores have to
agree to 1e-9.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

import numpy as np
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.cider.cider_scorer import CiderScorer, precook

from ofa.metrics import CiderD

REFERENCES = 5
SAMPLES = 5  # hypotheses per image in CIDEr optimization
NOUNS = "man woman child dog cat horse bus train street beach table pizza kite ball bench".split()
REST = (
    "a the of on in with and two red small large young sitting standing riding holding near wearing"
    " white".split()
)


def make_captions(images: int, seed: int = 0) -> tuple[dict, list[dict]]:
    """References that share words with each other, 9 to 13 words as in COCO, and one hypothesis
    per image."""
    rng = random.Random(seed)
    gts = {}
    for image in range(images):
        theme = rng.sample(NOUNS, 4)
        gts[image] = [
            " ".join(
                rng.choice(theme if rng.random() < 0.4 else REST) for _ in range(rng.randint(9, 13))
            )
            for _ in range(REFERENCES)
        ]
    res = [
        {"image_id": i, "caption": [refs[0].rsplit(" ", 3)[0] + " " + refs[1].split(" ", 6)[-1]]}
        for i, refs in gts.items()
    ]
    return gts, res


def save_document_frequencies(gts: dict, folder: str) -> tuple[Path, dict]:
    import pickle

    frequency: dict = {}
    for refs in gts.values():
        for ngram in {ngram for ref in refs for ngram in precook(ref)}:
            frequency[ngram] = frequency.get(ngram, 0.0) + 1
    path = Path(folder) / "words.p"
    path.write_bytes(pickle.dumps({"ref_len": len(gts), "document_frequency": frequency}))
    return path, frequency


class PurePython(CiderScorer):
    """pycocoevalcap's scorer with given document frequencies."""

    def __init__(self, frequency):
        super().__init__()
        self.given = frequency

    def compute_doc_freq(self):
        self.document_frequency.update(self.given)


def seconds(function) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captions", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    gts, res = make_captions(args.captions)
    steps = [[row for row in res[i : i + 4] for _ in range(SAMPLES)] for i in range(0, len(res), 4)]
    with tempfile.TemporaryDirectory() as folder:
        path, frequency = save_document_frequencies(gts, folder)
        scorer = CiderD(df=path)
    found = {}

    def pure():
        upstream = PurePython(frequency)
        for row in res:
            upstream += (row["caption"][0], gts[row["image_id"]])
        found["pure"] = upstream.compute_score()[1]

    def fresh():
        scorer.references.clear()
        found["ours"] = scorer.compute_score(gts, res)[1]

    def reward():
        for step in steps:
            scorer.compute_score(gts, step)

    def pure_corpus():
        found["pure corpus"] = Cider().compute_score(
            gts, {row["image_id"]: row["caption"] for row in res}
        )[1]

    def corpus():
        found["corpus"] = CiderD(df="corpus").compute_score(gts, res)[1]

    work = {
        "pure Python": (pure, len(res)),
        "new references": (fresh, len(res)),
        "known references": (lambda: scorer.compute_score(gts, res), len(res)),
        "CIDEr optimization": (reward, SAMPLES * len(res)),
        "pure Python, corpus": (pure_corpus, len(res)),
        "corpus": (corpus, len(res)),
    }
    best = {name: 0.0 for name in work}
    for _ in range(args.rounds):
        for name, (function, captions) in work.items():
            best[name] = max(best[name], captions / seconds(function))
    np.testing.assert_allclose(found["ours"], found["pure"], atol=1e-9)
    np.testing.assert_allclose(found["corpus"], found["pure corpus"], atol=1e-9)
    for name, rate in best.items():
        base = best["pure Python, corpus" if "corpus" in name else "pure Python"]
        print(f"{name:20s} {rate:9.0f} captions/s {rate / base:6.1f} x")


if __name__ == "__main__":
    main()
