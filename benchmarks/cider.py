"""CIDEr-D: captions per second compared with pycocoevalcap's scorer in pure Python, with given
document frequencies and with those of the call.

Both score the same made-up captions in one process and one thread, and have to agree to 1e-9; of
all rounds the best counts.
"""

import random
from collections import Counter

import numpy as np
from frame import Args, fastest, program
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.cider.cider_scorer import CiderScorer, precook

from ofa.metrics import CiderD
from ofa.metrics.cider import reference_words

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


def pure_python(gts: dict, res: list[dict], frequency: dict) -> np.ndarray:
    """pycocoevalcap's scorer with given document frequencies."""
    scorer = CiderScorer()
    scorer.compute_doc_freq = lambda: scorer.document_frequency.update(frequency)
    for row in res:
        scorer += (row["caption"][0], gts[row["image_id"]])
    return scorer.compute_score()[1]


@program(captions=500, rounds=10)
def main(args: Args) -> dict:
    gts, res = make_captions(args.captions)
    steps = [[row for row in res[i : i + 4] for _ in range(SAMPLES)] for i in range(0, len(res), 4)]
    captions = {row["image_id"]: row["caption"] for row in res}
    frequency: Counter = Counter()
    for refs in gts.values():
        frequency.update({ngram for ref in refs for ngram in precook(ref)})
    scorer = CiderD(df={"ref_len": len(gts), "document_frequency": dict(frequency)})

    def fresh() -> np.ndarray:
        reference_words.cache_clear()
        return scorer.compute_score(gts, res)[1]

    works = {
        "pure Python": lambda: pure_python(gts, res, frequency),
        "new references": fresh,
        "known references": lambda: scorer.compute_score(gts, res)[1],
        "CIDEr optimization": lambda: [scorer.compute_score(gts, step) for step in steps],
        "pure Python, corpus": lambda: Cider().compute_score(gts, captions)[1],
        "corpus": lambda: CiderD(df="corpus").compute_score(gts, res)[1],
    }
    np.testing.assert_allclose(fresh(), works["pure Python"](), atol=1e-9)
    np.testing.assert_allclose(works["corpus"](), works["pure Python, corpus"](), atol=1e-9)
    _, times = fastest(works, args.rounds)
    counts = dict.fromkeys(works, len(res)) | {"CIDEr optimization": SAMPLES * len(res)}
    rates = {name: counts[name] / times[name] for name in works}
    for name, rate in rates.items():
        base = rates["pure Python, corpus" if "corpus" in name else "pure Python"]
        print(f"{name:20s} {rate:9.0f} captions/s {rate / base:6.1f} x")
    return rates
