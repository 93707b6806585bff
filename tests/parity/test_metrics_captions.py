"""Caption scores equal those recorded from upstream's scorers."""

import shutil

import numpy as np
import pytest
from golden import load_json, path

from ofa.metrics import CiderD, coco_caption_scores, ptb_tokenize

RECORDED = load_json("metrics_captions")
RESULTS = RECORDED["results"]
COCO = RESULTS["pycocoevalcap"]


def as_captions(hyps, refs, end=""):
    gts = {f"image{i}": [text + end for text in texts] for i, texts in enumerate(refs)}
    return gts, [{"image_id": f"image{i}", "caption": [text + end]} for i, text in enumerate(hyps)]


@pytest.mark.parametrize(
    "name, df, end",
    [
        ("ciderD_corpus", "corpus", ""),
        ("ciderD_cached", path("cider_cached_df.p"), ""),
        ("ciderD_cached_with_eos", path("cider_cached_df.p"), " <eos>"),
    ],
)
def test_cider_d_equals_upstreams_scorer(name, df, end):
    gts, res = as_captions(RECORDED["hyps"], RECORDED["refs"], end)
    scorer = CiderD(df=df)
    for _ in range(2):  # the second time from the kept references
        mean, scores = scorer.compute_score(gts, res)
        assert mean == pytest.approx(RESULTS[name]["mean"], abs=1e-6)
        np.testing.assert_allclose(scores, RESULTS[name]["scores"], atol=1e-6, rtol=0)
        assert scores.dtype == np.float64


def test_coco_scores_equal_pycocoevalcap():
    names = ["CIDEr", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L"] + ["METEOR"] * bool(
        shutil.which("java")
    )
    scores = coco_caption_scores(*as_captions(COCO["raw_hyps"], COCO["raw_refs"]), names=names)
    expected = {"CIDEr": "cider", "ROUGE-L": "rouge_l", "METEOR": "meteor"}
    for name, (mean, each) in scores.items():
        if name in expected:
            recorded, recorded_each = COCO[expected[name]], COCO[expected[name] + "_sentence"]
        else:
            order = int(name[-1]) - 1
            recorded, recorded_each = COCO["bleu"][order], COCO["bleu_sentence"][order]
        assert mean == pytest.approx(recorded, abs=1e-6), name
        np.testing.assert_allclose(each, recorded_each, atol=1e-6, rtol=0, err_msg=name)
    assert list(scores) == names


def test_tokens_equal_the_ptb_tokenizer():
    assert ptb_tokenize(COCO["raw_hyps"]) == COCO["tokenized_hyps"]
    assert ptb_tokenize([refs[0] for refs in COCO["raw_refs"]]) == COCO["tokenized_refs0"]
