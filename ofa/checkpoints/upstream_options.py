"""The options that upstream's own programs expect in a checkpoint: flags that change nothing here,
and those of its tasks."""

from collections.abc import Mapping
from typing import Any

from ofa.models.config import ModelConfig

# Flags of upstream that change nothing here: (name, default, why). Another value warns once.
WITHOUT_EFFECT = (
    ("encoder_embed_path", None, "embeddings are learned or come with the checkpoint"),
    ("decoder_embed_path", None, "embeddings are learned or come with the checkpoint"),
    ("no_token_positional_embeddings", False, "positions are part of the attention"),
    ("adaptive_input", False, "the vocabulary has one table"),
    ("adaptive_softmax_cutoff", None, "the vocabulary has one table"),
    ("adaptive_softmax_dropout", 0.0, "the vocabulary has one table"),
    ("tie_adaptive_weights", False, "the vocabulary has one table"),
    ("no_cross_attention", False, "the decoder always attends to the encoder"),
    ("cross_self_attention", False, "the decoder attends to itself and to the encoder separately"),
    ("quant_noise_pq", 0.0, "quantization noise is not offered"),
    ("quant_noise_pq_block_size", 8, "quantization noise is not offered"),
    ("quant_noise_scalar", 0.0, "quantization noise is not offered"),
    ("min_params_to_wrap", 100_000_000, "fully sharded training is not offered"),
)
ALWAYS_ON = ("encoder_learned_pos", "decoder_learned_pos")  # accepted; there are no other positions
SAME_WIDTH = ("decoder_input_dim", "decoder_output_dim")  # accepted when equal to the width

# Options of upstream's tasks; its programs refuse a checkpoint with any other.
EVERY_TASK = (
    "data selected_cols bpe bpe_dir max_source_positions max_target_positions max_src_length"
    " max_tgt_length code_dict_size patch_image_size orig_patch_image_size num_bins"
    " imagenet_default_mean_and_std constraint_range"
).split()
UPSTREAM_TASKS = {
    "caption": (
        "eval_bleu eval_cider eval_args eval_print_samples eval_cider_cached_tokens scst scst_args"
    ),
    "refcoco": "eval_acc eval_args eval_print_samples max_image_size scst scst_args",
    "snli_ve": "ans2label_dict add_caption valid_batch_size prompt_type",
    "vqa_gen": (
        "max_object_length ans2label_dict ans2label_file unconstrained_training add_object"
        " valid_batch_size prompt_type uses_ema val_inference_type eval_args"
    ),
    "image_classify": "ans2label_dict ans2label_file valid_batch_size uses_ema",
    "image_gen": (
        "sampling_times code_image_size eval_clip_method vqgan_model_path vqgan_config_path"
        " clip_model_path gen_images_path eval_args scst scst_args"
    ),
    "unify_task": (
        "max_image_size text_data image_data detection_data text_selected_cols image_selected_cols"
        " detection_selected_cols neg_sample_dir code_image_size pretrain_seed mask_ratio"
        " random_ratio keep_ratio mask_length poisson_lambda replace_length"
    ),
    "gigaword": "eval_rouge eval_args eval_print_samples noise_ratio",
    **dict.fromkeys(
        ("cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2"), "ans2label_dict prompt_type"
    ),
}


def upstream_task(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a task that upstream's programs take; a task of ours becomes captioning."""
    name = options.get("_name") or options.get("task")
    name = name if name in UPSTREAM_TASKS else "caption"
    known = {*EVERY_TASK, *UPSTREAM_TASKS[name].split()}
    return {"_name": name, **{key: value for key, value in options.items() if key in known}}


def upstream_model(config: ModelConfig, arch: str) -> dict[str, Any]:
    """All options of a network that upstream's programs look up."""
    return {
        **{name: default for name, default, _ in WITHOUT_EFFECT},
        **dict.fromkeys(ALWAYS_ON, True),
        **dict.fromkeys(SAME_WIDTH, config.decoder_embed_dim),
        **vars(config),
        "arch": arch,
        "_name": arch,
    }
