"""The backward pass: gradients of every parameter, and BatchNorm's statistics after one step."""

import pytest
import torch
from golden import load, load_json, names
from recorded_model import assert_near, recorded_inputs, recorded_model


def label_smoothed(
    logits: torch.Tensor, target: torch.Tensor, epsilon: float, pad: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed loss and negative log-likelihood over the real target positions."""
    log_probs = logits.log_softmax(-1)[target.ne(pad)]
    wanted = target[target.ne(pad)]
    nll = -log_probs.gather(1, wanted[:, None]).sum()
    share = epsilon / (logits.size(-1) - 1)
    return (1 - epsilon - share) * nll - share * log_probs.sum(), nll


@pytest.fixture(autouse=True)
def two_threads():
    """Sums depend on how they are split; the recording had two threads (and AVX2, see conftest)."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", names("grad_*"))
def test_gradients_equal_the_recording(name):
    case, norms = load(name), load_json(name)
    model = recorded_model(case["meta"]).train()
    target = torch.from_numpy(case["target"])
    logits, _ = model(**recorded_inputs(case))
    loss, nll = label_smoothed(logits, target, case["meta"]["label_smoothing"], model.pad)
    assert loss.item() == pytest.approx(float(case["loss"]), rel=1e-5)
    assert nll.item() == pytest.approx(float(case["nll_loss"]), rel=1e-5)
    (loss / int(case["sample_size"])).backward()
    gradients = {key: p.grad for key, p in model.named_parameters(remove_duplicate=False)}
    check_norms(gradients, norms.get("grads", norms))
    for key in [key for key in case if key.startswith("grad/")]:
        found = gradients[key.removeprefix("grad/")]
        if found.shape != case[key].shape:
            found = found.reshape(found.size(0), -1)[:48, :48]
        assert_near(found, case[key], 1e-4, 1e-3)
    rows = torch.from_numpy(case["grad_embed_tokens_rows"])
    assert_near(
        gradients["encoder.embed_tokens.weight"][rows], case["grad_embed_tokens"], 1e-4, 1e-3
    )
    stem = model.encoder.embed_images.bn1
    assert_near(stem.running_mean, case["bn1_running_mean_after"], 1e-5)
    assert_near(stem.running_var, case["bn1_running_var_after"], 1e-5, 1e-4)
    assert stem.num_batches_tracked == case["bn1_num_batches_tracked_after"]


def check_norms(gradients: dict, expected: dict) -> None:
    """Norm and largest entry of each gradient; parameters the loss does not reach have none (or
    zeros)."""
    checked = 0
    for key, numbers in expected.items():
        found = gradients[key]
        if numbers is None:
            assert found is None or not found.any(), key
            continue
        norm, _, largest = numbers
        assert found.norm().item() == pytest.approx(norm, rel=1e-3, abs=1e-6), key
        assert found.abs().max().item() == pytest.approx(largest, rel=1e-3, abs=1e-6), key
        checked += 1
    assert checked > 100
