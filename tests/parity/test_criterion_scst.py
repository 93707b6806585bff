"""CIDEr optimization: loss, rewards and gradients equal those of upstream, with each image
encoded once."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import bpe_folder
from fill import images_from_u8
from golden import load, load_json, path
from recorded_model import VOCAB_SIZE, recorded_model

pytest.importorskip("fairseq")
from ofa.criterions import losses  # noqa: E402
from ofa.criterions.caption_reward import CaptionReward  # noqa: E402
from ofa.criterions.fairseq_scst import ScstRewardCriterion  # noqa: E402

ARRAYS, RECORDED = load("criterion_scst"), load_json("criterion_scst")
CAPTIONS = [text for texts in RECORDED["captions"] for text in texts]
FREQUENCIES = path("cider_cached_df.p")
PAD = 1


def array(name: str) -> torch.Tensor:
    return torch.from_numpy(ARRAYS[name])


@pytest.mark.parametrize("case", ["pad_ignored", "no_reduce", "float32_reward"])
def test_the_loss_of_given_rewards_equals_upstream(case):
    lprobs, target, reward = array("scst_lprobs"), array("scst_target"), array("scst_reward")
    reward = reward.float() if case == "float32_reward" else reward
    rows = (target != PAD).view(-1).nonzero()[:, 0]
    each = losses.rewarded(
        lprobs.flatten(0, 1), target.flatten(), reward.repeat_interleave(target.size(1))
    )
    loss = torch.zeros_like(each).index_put((rows,), each[rows]).view(target.shape)
    loss = loss if case == "no_reduce" else loss.sum()
    assert str(loss.dtype) == RECORDED[case]["dtype"] and len(rows) == RECORDED[case]["ntokens"]
    np.testing.assert_allclose(loss.numpy(), RECORDED[case]["loss"], rtol=1e-5)


def test_scores_and_rewards_equal_upstream():
    references = [text.split("&&") for text in RECORDED["references"]]
    scores = CaptionReward(FREQUENCIES)(CAPTIONS, references, [0, 0, 0, 1, 1, 1, 2, 2, 2])
    np.testing.assert_allclose(scores, RECORDED["criterion"]["scores"], atol=1e-6)
    rewards = losses.leave_one_out(torch.from_numpy(scores).view(3, 3)).flatten()
    np.testing.assert_allclose(rewards, RECORDED["criterion"]["reward"], atol=1e-6)


class Recorder:
    """Dictionary and BPE that know the recorded sequences only."""

    def __init__(self):
        samples = [row[row != PAD].tolist() for row in array("criterion_sampled_tokens")]
        targets = [row[row != PAD].tolist() for row in array("criterion_target")]
        self.texts = dict(zip(map(str, samples + targets), CAPTIONS + RECORDED["references"]))
        self.samples = [torch.tensor(row) for row in samples]

    def string(self, tokens):
        return str(tokens.tolist())

    def decode(self, pieces):
        return " " + self.texts[pieces]

    def bos(self):
        return 0

    def eos(self):
        return 2

    def pad(self):
        return PAD

    def generate(self, models, sample):
        hypotheses = [{"tokens": tokens, "score": torch.tensor(0.0)} for tokens in self.samples]
        return [hypotheses[start : start + 3] for start in (0, 3, 6)]


def recorded_task():
    recorder = Recorder()
    return SimpleNamespace(target_dictionary=recorder, bpe=recorder, scst_generator=recorder)


def recorded_sample() -> dict:
    names = ("src_tokens", "src_lengths", "patch_masks", "prev_output_tokens")
    net_input = {name: array(f"criterion_{name}") for name in names}
    net_input["patch_images"] = torch.from_numpy(
        images_from_u8(ARRAYS["criterion_patch_images_u8"])
    )
    return {"net_input": net_input, "target": array("criterion_target"), "nsentences": 3}


class SharesNothing(torch.nn.Module):
    """The same model for a caller who only knows (logits, extra)."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, **net_input):
        assert len(net_input["src_tokens"]) == len(net_input["prev_output_tokens"]) == 9
        return self.network(**net_input)


@pytest.mark.parametrize("shared", [True, False], ids=["encoded once", "a plain model"])
@pytest.mark.parametrize("case", ["criterion", "criterion_sentence_avg", "criterion_range"])
def test_the_criterion_equals_upstream_on_a_real_model(case, shared):
    recorded, meta = RECORDED[case], RECORDED["model"]
    model = recorded_model(meta).train()
    criterion = ScstRewardCriterion(
        recorded_task(),
        scst_cider_cached_tokens=str(FREQUENCIES),
        **{"sentence_avg": False, **recorded["args"]},
    )
    encoded = []
    model.encoder.register_forward_hook(
        lambda module, inputs, output: encoded.append(len(output.states))
    )
    loss, sample_size, log = criterion(
        model if shared else SharesNothing(model), recorded_sample(), update_num=0
    )
    (loss / sample_size).backward()
    assert encoded == [3 if shared else 9]
    assert (
        loss.item() == pytest.approx(recorded["loss"], rel=1e-5)
        and str(loss.dtype) == recorded["loss_dtype"]
    )
    assert log["score"] == pytest.approx(recorded["score"], abs=1e-6)
    counts = ("ntokens", "nsentences", "sample_size")
    assert [log[name] for name in counts] == [
        recorded[name] for name in counts
    ] and sample_size == log["sample_size"]
    parameters = dict(model.named_parameters())
    found = {name: float(parameters[name].grad.norm()) for name in recorded["grad_norms"]}
    assert found == pytest.approx(recorded["grad_norms"], rel=1e-3)


def test_recorded_tokens_are_read_as_upstream_reads_them():
    from ofa.tasks.fairseq_task import fairseq_dictionary
    from ofa.tokens.bpe import load_language

    bpe, vocabulary = load_language(bpe_folder("gpt2"), "gpt2", 8192, 1000)
    task = SimpleNamespace(target_dictionary=fairseq_dictionary(vocabulary), bpe=bpe)
    assert len(vocabulary) == VOCAB_SIZE
    criterion = ScstRewardCriterion(
        task, scst_cider_cached_tokens=str(FREQUENCIES), sentence_avg=False
    )
    assert [
        criterion.decode(row[row != PAD]) for row in array("criterion_sampled_tokens")
    ] == CAPTIONS
    found = ["&&".join(criterion.references(row)) for row in array("criterion_target")]
    assert found == RECORDED["references"]
