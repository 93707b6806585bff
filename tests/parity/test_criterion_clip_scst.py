"""Optimization of images by CLIP: rewards, loss and what CLIP and the tokenizer are given
equal upstream."""

import numpy as np
import pytest
import torch
from conftest import bpe_folder
from fairseq_setup import configuration
from golden import load, load_json
from recorded_model import recorded_model

pytest.importorskip("fairseq")

ARRAYS, RECORDED = load("criterion_scst"), load_json("criterion_scst")
CLIP, META = RECORDED["clip"], RECORDED["model"]


class Recorder:
    """Tokenizer, scorer and generator that note what they are given and answer what was
    recorded."""

    num_codes = 8192

    def __init__(self, first_code: int):
        codes = torch.from_numpy(ARRAYS["clip_codes"])
        end = torch.full_like(codes[..., :1], 2)
        first = first_code if int(codes.max()) < 8192 else 0
        self.tokens = torch.cat([codes + first, end], -1)
        self.codes, self.texts, self.places = [], [], []

    def generate(self, models, sample):
        return [
            [{"tokens": tokens, "score": torch.tensor(0.0)} for tokens in some]
            for some in self.tokens
        ]

    def decode(self, codes):
        self.codes.append(codes)
        return torch.zeros(len(codes), 3, 32, 32)

    def score(self, images, texts):
        self.texts = texts
        features = [
            torch.nn.functional.normalize(torch.from_numpy(ARRAYS[name]), dim=-1)
            for name in ("clip_image_features", "clip_text_features")
        ]
        return (features[0] * features[1].repeat_interleave(3, 0)).sum(-1)


def test_the_criterion_equals_upstream():
    flags = [
        "unused.tsv",
        f"--bpe-dir={bpe_folder('gpt2')}",
        "--task=image_gen",
        f"--arch={META['arch']}",
        *META["flags"],
        "--code-image-size=32",
        "--criterion=clip_scst_reward_criterion",
        "--constraint-range=50265,58457",
        "--scst",
        "--image-tokenizer=recorded",
        "--selected-cols=0,2,1",
    ]
    cfg = configuration(flags)
    from fairseq import tasks

    task = tasks.setup_task(cfg.task)
    criterion = task.build_criterion(cfg.criterion)
    recorder = Recorder(task.vocabulary.codes.start)
    task.image_tokenizer = task.image_text_scorer = task.scst_generator = recorder
    source = torch.from_numpy(ARRAYS["clip_src_tokens"])
    net_input = {
        "src_tokens": source,
        "src_lengths": source.ne(1).sum(1),
        "code_masks": torch.tensor([True, True]),
        "prev_output_tokens": torch.zeros(2, 1, dtype=torch.int64),
    }
    sample = {
        "net_input": net_input,
        "target": torch.full((2, 17), 2),
        "nsentences": 2,
        "code_images": np.array([b"", b""]),
    }
    model = recorded_model({**META, "flags": [*META["flags"], "--code-image-size=32"]}).train()
    loss, sample_size, log = criterion(model, sample, update_num=0)
    assert list(recorder.texts)[::3] == CLIP["texts_given_to_clip"]
    assert (
        torch.cat(recorder.codes)[-len(CLIP["decode_code_input_last"]) :].tolist()
        == CLIP["decode_code_input_last"]
    )
    assert (
        loss.item() == pytest.approx(CLIP["loss"], rel=1e-5)
        and str(loss.dtype) == CLIP["loss_dtype"]
    )
    assert float(log["score"]) == pytest.approx(CLIP["score"], rel=1e-5)
    counts = ("ntokens", "nsentences", "sample_size")
    assert [log[name] for name in counts] == [
        CLIP[name] for name in counts
    ] and sample_size == CLIP["sample_size"]


def test_rewards_are_two_and_a_half_times_the_cosine():
    from ofa.criterions.fairseq_scst import CLIP_WEIGHT as WEIGHT
    from ofa.criterions.losses import leave_one_out

    scores = torch.tensor(CLIP["scores"], dtype=torch.float64)
    images, texts = (
        torch.nn.functional.normalize(torch.from_numpy(ARRAYS[name]), dim=-1)
        for name in ("clip_image_features", "clip_text_features")
    )
    np.testing.assert_allclose(
        WEIGHT * (images * texts.repeat_interleave(3, 0)).sum(-1), scores, rtol=1e-5
    )
    np.testing.assert_allclose(
        leave_one_out(scores.view(2, 3)).flatten(), CLIP["reward"], rtol=1e-4
    )
