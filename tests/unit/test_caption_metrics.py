"""CIDEr-D against a plain reading of its formula, and what the scorers say about bad input."""

import math
import os
import pickle
import random
import runpy
import shutil
import subprocess
import sys
from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from ofa.errors import UserError
from ofa.metrics import Bleu, CiderD, Meteor, Spice, cider, coco_caption_scores


def plain_cider_d(hyp, refs, document_frequency, num_images):
    """One caption, straight from the definition."""

    def vector(text, n):
        words = text.split()
        counts = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
        return {
            g: c * (math.log(num_images) - math.log(max(1, document_frequency.get(g, 0))))
            for g, c in counts.items()
        }

    total = 0
    for ref in refs:
        delta = max(len(hyp.split()) - 1, 0) - max(len(ref.split()) - 1, 0)
        for n in range(1, 5):
            h, r = vector(hyp, n), vector(ref, n)
            norm = math.sqrt(sum(x * x for x in h.values())) * math.sqrt(
                sum(x * x for x in r.values())
            )
            overlap = sum(min(h[g], r.get(g, 0)) * r.get(g, 0) for g in h)
            total += (overlap / norm if norm else overlap) * math.exp(-(delta**2) / 72) / 4
    return 10 * total / len(refs)


def document_frequencies(documents):
    frequency = Counter()
    for refs in documents:
        frequency.update(
            {
                tuple(t[i : i + n])
                for t in map(str.split, refs)
                for n in range(1, 5)
                for i in range(len(t) - n + 1)
            }
        )
    return dict(frequency)


def random_captions(seed, images=12, words=("a", "b", "c", "d", "e", "f")):
    """Ragged references, repeated words, an empty caption, several hypotheses for some images."""
    rng = random.Random(seed)

    def text():
        return " ".join(rng.choices(words, k=rng.randint(1, 9)))

    gts = {i: [text() for _ in range(rng.randint(1, 5))] for i in range(images)}
    res = [{"image_id": rng.randrange(images), "caption": [text()]} for _ in range(30)]
    res[3]["caption"] = [""]
    return gts, res


def test_corpus_scores_follow_the_definition():
    gts, res = random_captions(1)
    frequency = document_frequencies(gts[r["image_id"]] for r in res)
    expected = [
        plain_cider_d(r["caption"][0], gts[r["image_id"]], frequency, len(res)) for r in res
    ]
    mean, scores = CiderD().compute_score(gts, res)
    np.testing.assert_allclose(scores, expected, atol=1e-12)
    assert mean == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_cached_scores_follow_the_definition_also_for_n_grams_the_file_does_not_have(
    tmp_path, monkeypatch, chunk
):
    monkeypatch.setattr(cider, "CHUNK", chunk)
    known, _ = random_captions(2, words="a b c d".split())
    frequency = document_frequencies(known.values())
    del frequency["a", "b"]  # a trigram whose beginning has no entry of its own
    file = tmp_path / "words.p"
    file.write_bytes(pickle.dumps({"ref_len": 40, "document_frequency": frequency}))
    gts, res = random_captions(3)
    expected = [plain_cider_d(r["caption"][0], gts[r["image_id"]], frequency, 40) for r in res]
    np.testing.assert_allclose(CiderD(df=file).compute_score(gts, res)[1], expected, atol=1e-12)


def test_scores_stay_the_same_when_kept_references_are_forgotten(monkeypatch):
    gts, res = random_captions(4)
    scorer = pickle.loads(pickle.dumps(CiderD()))
    expected = scorer.compute_score(gts, res)[1]
    monkeypatch.setattr(cider, "reference_words", lru_cache(2)(cider.hash_words))
    np.testing.assert_array_equal(scorer.compute_score(gts, res)[1], expected)
    assert CiderD().compute_score({}, [])[1].shape == (0,)


class Dangerous:
    def __reduce__(self):
        return print, ("code from a pickle",)


@pytest.mark.parametrize(
    "content, finding",
    [
        (None, "no such file"),
        (b"not a pickle", "not a file of document frequencies"),
        (pickle.dumps({"ref_len": 3}), "document_frequency"),
        (pickle.dumps({"ref_len": 3, "document_frequency": {"word": 1}}), "n-gram 'word'"),
        (pickle.dumps(Dangerous()), "builtins.print"),
        *(
            (
                pickle.dumps({"ref_len": count, "document_frequency": {("a",): 1.0}}),
                "document frequencies",
            )
            for count in (0, -1, float("nan"), 1e400, 10**400, True, None)
        ),
        *(
            (
                pickle.dumps({"ref_len": 3, "document_frequency": {("a",): count}}),
                "document frequencies",
            )
            for count in (-1.0, float("nan"), 1e400, 10**400, None)
        ),
    ],
)
def test_a_wrong_file_of_document_frequencies_is_refused_with_its_name(
    tmp_path, capsys, content, finding
):
    file = tmp_path / "words.p"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=finding) as error:
        CiderD(df=file)
    assert str(file) in str(error.value) and "ref_len" in str(error.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "gts, res, finding",
    [
        (
            {1: ["a"]},
            [{"image_id": 2, "caption": ["a"]}],
            "image 2 needs a list of references, found None",
        ),
        ({1: []}, [{"image_id": 1, "caption": ["a"]}], "found \\[\\]"),
        ({1: ["a"]}, [{"image_id": 1, "caption": "a"}], "expects a list of one string"),
    ],
)
def test_captions_without_references_are_named(gts, res, finding):
    for scorer in (CiderD(), Bleu()):
        with pytest.raises(UserError, match=finding):
            scorer.compute_score(gts, res)


def test_an_unknown_score_lists_the_known_ones():
    with pytest.raises(
        UserError,
        match="unknown caption score 'CIDER'; known are BLEU-1, .*CIDEr, ROUGE-L, METEOR, SPICE",
    ):
        coco_caption_scores({1: ["a"]}, [{"image_id": 1, "caption": ["a"]}], names=["CIDER"])


def test_missing_java_and_missing_parser_are_explained(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="METEOR is a Java program"):
        Meteor()
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/java")
    monkeypatch.setattr(Spice, "PARSER", "no-such.jar")
    with pytest.raises(UserError, match="SPICE needs no-such.jar"):
        Spice()


def test_the_benchmark_runs_and_agrees_with_pycocoevalcap(monkeypatch, capsys):
    script = Path(__file__).parents[2] / "benchmarks" / "cider.py"
    monkeypatch.syspath_prepend(script.parent)
    monkeypatch.setattr(sys, "argv", [str(script), "--captions", "8", "--rounds", "1"])
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out.count("captions/s") == 6


@pytest.mark.parametrize(
    "df", ["corpus", {"ref_len": 9, "document_frequency": {("a",): 3, ("a", "cat"): 2}}]
)
def test_the_sign_for_the_end_of_a_sentence_is_a_word_like_any_other_in_a_caption(df):
    gts = {0: ["a cat x sleeps on it", "a cat x is here"], 1: ["x x", "a dog"]}
    res = [{"image_id": 0, "caption": ["a cat x on it x"]}, {"image_id": 1, "caption": ["x"]}]

    def with_ends(text):
        return text.replace("x", "\0")

    odd = [{**row, "caption": [with_ends(row["caption"][0])]} for row in res]
    expected = CiderD(df=df).compute_score(gts, res)[1]
    assert expected.max() > 0
    found = CiderD(df=df).compute_score(
        {k: [*map(with_ends, refs)] for k, refs in gts.items()}, odd
    )[1]
    np.testing.assert_array_equal(found, expected)


def test_scores_do_not_depend_on_the_process():
    """Weights are added in the order of hashes, which Python salts anew in every process."""
    program = (
        "import random; from ofa.metrics import CiderD; rng = random.Random(1);"
        "text = lambda: ' '.join(rng.choices('a red big star on tan old paper'.split(), k=12));"
        "gts = {image: [text() for _ in range(5)] for image in range(40)};"
        "res = [{'image_id': image, 'caption': [text()]} for image in gts];"
        "print(CiderD().compute_score(gts, res)[1].tobytes().hex())"
    )
    scores = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).resolve().parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in map(str, range(4))
    }
    assert len(scores) == 1
