"""The forward pass, number for number."""

import pytest
import torch
from golden import STRIDE, load, names
from recorded_model import assert_near, recorded_inputs, recorded_model


def thin(x: torch.Tensor) -> torch.Tensor:
    return x[:, ::STRIDE]


@pytest.mark.parametrize("name", names("forward_*"))
@torch.no_grad()
def test_forward_equals_the_recording(name):
    case = load(name)
    model = recorded_model(case["meta"], num_image_types=2 if "patch_images_2_u8" in case else 1)
    features = []
    model.encoder.embed_images.register_forward_hook(
        lambda module, inputs, output: features.append(output)
    )
    x, extra = model(**recorded_inputs(case), return_all_hiddens=True, return_attention=True)
    encoder = extra["encoder_output"]
    batch = encoder.states.size(0)
    assert (thin(encoder.padding_mask).numpy() == case["encoder_padding_mask"]).all()
    assert_near(thin(encoder.states), case["encoder_out"], 1e-4)
    assert_near(thin(encoder.positions).expand(batch, -1, -1), case["position_embeddings"], 1e-4)
    if "head_logits" in case:
        assert_near(x, case["head_logits"], 1e-4)
    else:
        check_logits(x, case)
    for index, state in enumerate(encoder.hidden if "encoder_state_0" in case else []):
        assert_near(thin(state), case[f"encoder_state_{index}"], 1e-4)
    for index, state in enumerate(extra["inner_states"] if "decoder_state_0" in case else []):
        assert_near(state, case[f"decoder_state_{index}"], 1e-4)
    if "cross_attn_last_layer_mean_heads" in case:
        assert_near(extra["attn"][0], case["cross_attn_last_layer_mean_heads"], 1e-4)
    if "image_features_shape" in case:
        assert list(features[0].shape) == case["image_features_shape"].tolist()
        assert_near(features[0][0, :8], case["image_features_b0_c0_8"], 1e-4)


def check_logits(logits: torch.Tensor, case: dict) -> None:
    assert_near(logits[:, :, case["logit_cols"]], case["logits_slice"], 1e-4)
    assert_near(logits.double().logsumexp(-1), case["logits_logsumexp"], 1e-4)
    assert_near(logits.double().mean(-1), case["logits_mean"], 1e-4)
    assert_near(logits.double().std(-1, correction=0), case["logits_std"], 1e-4)
    assert_near(
        logits.gather(-1, torch.from_numpy(case["logits_top5_idx"])), case["logits_top5_val"], 1e-4
    )
