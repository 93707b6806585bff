"""Every number and switch of the network, under the names of upstream's command line.

A command-line namespace, a checkpoint's ``args`` and a test's keyword arguments become a
``ModelConfig``. ``PRESETS`` holds the sizes: what an architecture name changes in the defaults.
"""

from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Optional

from ofa.errors import UserError
from ofa.io.flags import UNSET, add_flag, option

# --lora-targets -> last part of the layer's name. "image" is the projection of image patches.
LORA_TARGETS = dict(
    q="q_proj", k="k_proj", v="v_proj", out="out_proj", fc1="fc1", fc2="fc2", image="image_proj"
)


@dataclass
class ModelConfig:
    """The defaults are those of ``ofa_large``; a width left at 0 follows from the encoder's width.

    ``belongs_to="task"``: the task, not the model, declares the flag.
    """

    # sizes
    encoder_embed_dim: int = option(1024, "width of the encoder")
    encoder_ffn_embed_dim: int = option(0, "feed-forward width of the encoder (0: 4 x width)")
    encoder_layers: int = option(12, "number of encoder layers")
    encoder_attention_heads: int = option(16, "attention heads of each encoder layer")
    decoder_embed_dim: int = option(0, "width of the decoder, that of the encoder (0: the same)")
    decoder_ffn_embed_dim: int = option(0, "feed-forward width of the decoder (0: the encoder's)")
    decoder_layers: int = option(12, "number of decoder layers")
    decoder_attention_heads: int = option(16, "attention heads of each decoder layer")
    max_source_positions: int = option(1024, "longest source text in tokens", belongs_to="task")
    max_target_positions: int = option(1024, "longest target in tokens", belongs_to="task")

    # regularization
    dropout: float = option(0.0, "dropout after embeddings, attention and feed-forward layers")
    attention_dropout: float = option(0.0, "dropout of attention weights")
    activation_dropout: float = option(0.0, "dropout after the activation of feed-forward layers")
    relu_dropout: float = option(0.0, "old name of --activation-dropout")
    encoder_drop_path_rate: float = option(0.0, "stochastic depth of the last encoder layer")
    decoder_drop_path_rate: float = option(0.0, "stochastic depth of the last decoder layer")
    resnet_drop_path_rate: float = option(0.0, "stochastic depth of the last ResNet block")
    encoder_layerdrop: float = option(0.0, "chance to skip an encoder layer in training")
    decoder_layerdrop: float = option(0.0, "chance to skip a decoder layer in training")
    encoder_layers_to_keep: Optional[str] = option(None, "encoder layers to keep, as in 0,2,4")
    decoder_layers_to_keep: Optional[str] = option(None, "decoder layers to keep, as in 0,2,4")

    # starting weights
    init_std: float = option(0.02, "standard deviation of the starting weights; 0.02 as upstream")

    # shape of a layer
    activation_fn: str = option("gelu", "feed-forward: gelu, relu, tanh, linear, gelu_accurate")
    encoder_normalize_before: bool = option(True, "LayerNorm before encoder blocks")
    decoder_normalize_before: bool = option(True, "LayerNorm before decoder blocks")
    scale_attn: bool = option(False, "LayerNorm after each attention (NormFormer)")
    scale_fc: bool = option(False, "LayerNorm inside each feed-forward layer (NormFormer)")
    scale_heads: bool = option(False, "a learned factor per attention head (NormFormer)")
    scale_resids: bool = option(False, "a factor per channel of feed-forward residuals")

    # embeddings
    share_all_embeddings: bool = option(True, "all inputs and outputs share one table")
    share_decoder_input_output_embed: bool = option(True, "the decoder has one table")
    no_scale_embedding: bool = option(True, "do not multiply embeddings by sqrt(width)")
    layernorm_embedding: bool = option(True, "LayerNorm on token embeddings")
    patch_layernorm_embedding: bool = option(True, "LayerNorm on image patch embeddings")
    code_layernorm_embedding: bool = option(True, "LayerNorm on image code embeddings")
    add_type_embedding: bool = option(True, "add a learned vector that tells text from image")
    num_image_types: int = option(1, "kinds of images in one sample; 2 enables patch_images_2")

    # positions
    attn_scale_factor: float = option(2.0, "scale scores by (head width x this)^-0.5")
    token_bucket_size: int = option(256, "text distances up to half of it have a bucket each")
    image_bucket_size: int = option(42, "side of the largest grid of image patches or codes")
    entangle_position_embedding: bool = option(False, "add position vectors to the encoder's input")
    disable_entangle: bool = option(False, "do not add position vectors to the decoder's input")
    interpolate_position: bool = option(False, "stretch the --orig-patch-image-size grid to images")
    orig_patch_image_size: int = option(256, "image side of the trained grid", belongs_to="task")
    code_image_size: int = option(128, "side in pixels of images as codes (8 a code)")

    # image stem
    resnet_type: str = option("resnet152", "image stem: resnet18/34/50/101/152 or ViT-B/16")
    resnet_width: int = option(64, "channels of the ResNet's first stage")
    resnet_model_path: Optional[str] = option(None, "ImageNet weights of the image stem")
    freeze_resnet: bool = option(False, "BatchNorm keeps its statistics, weight and bias")
    sync_bn: bool = option(False, "BatchNorm statistics over all processes")

    # parameter-efficient fine-tuning
    encoder_prompt: bool = option(False, "learn a prefix of keys and values in every encoder layer")
    encoder_prompt_type: str = option("prefix", "kind of encoder prompt", choices=("prefix",))
    encoder_prompt_length: int = option(100, "positions of the encoder prefix")
    encoder_prompt_projection: bool = option(False, "make the encoder prefix by a projection")
    encoder_prompt_dim: int = option(0, "hidden width of that projection (0: 2 x width)")
    decoder_prompt: bool = option(False, "learn a prefix of keys and values in every decoder layer")
    decoder_prompt_type: str = option("prefix", "kind of decoder prompt", choices=("prefix",))
    decoder_prompt_length: int = option(100, "positions of the decoder prefix")
    decoder_prompt_projection: bool = option(False, "make the decoder prefix by a projection")
    decoder_prompt_dim: int = option(0, "hidden width of that projection (0: 2 x width)")
    prompt_dropout: float = option(0.2, "dropout of prefix keys and values; 0.2 as upstream")
    adapter: bool = option(False, "a small bottleneck at the end of every layer; trains alone")
    adapter_dim: int = option(200, "width of the adapters' bottleneck")
    adapter_train_backbone: bool = option(False, "with --adapter, train all but token embeddings")
    bitfit: bool = option(False, "train only the biases of layer norms and feed-forward layers")
    lora_rank: int = option(0, "rank of LoRA in linear layers, which trains alone (0: no LoRA)")
    lora_alpha: float = option(16.0, "what LoRA adds is scaled by this / rank")
    lora_targets: str = option("q,v", "linear layers with LoRA: some of q,k,v,out,fc1,fc2,image")
    lora_dropout: float = option(0.0, "dropout of the input of LoRA")
    freeze_encoder_embedding: bool = option(False, "do not train the encoder's token embedding")
    freeze_decoder_embedding: bool = option(False, "do not train the decoder's token embedding")

    # classification heads
    pooler_activation_fn: str = option("tanh", "activation of a classification head")
    pooler_dropout: float = option(0.0, "dropout of a classification head")
    pooler_classifier: str = option("mlp", "shape of a head", choices=("mlp", "linear"))
    load_checkpoint_heads: bool = option(False, "add the classification heads of a checkpoint")
    spectral_norm_classification_head: bool = option(False, "spectral norm on a head's output")

    # memory
    checkpoint_activations: bool = option(False, "recompute layers in the backward pass")
    offload_activations: bool = option(False, "as --checkpoint-activations, inputs in CPU memory")

    def __post_init__(self) -> None:
        width = self.encoder_embed_dim
        self.encoder_ffn_embed_dim = self.encoder_ffn_embed_dim or 4 * width
        self.decoder_embed_dim = self.decoder_embed_dim or width
        self.decoder_ffn_embed_dim = self.decoder_ffn_embed_dim or self.encoder_ffn_embed_dim
        self.encoder_prompt_dim = self.encoder_prompt_dim or 2 * width
        self.decoder_prompt_dim = self.decoder_prompt_dim or 2 * self.decoder_embed_dim
        self.share_decoder_input_output_embed |= self.share_all_embeddings
        self.activation_dropout = self.activation_dropout or self.relu_dropout
        if self.decoder_embed_dim != width:
            raise UserError(
                f"--decoder-embed-dim {self.decoder_embed_dim} must equal --encoder-embed-dim"
                f" {width}: both sides share the position vectors"
            )
        for side in ("encoder", "decoder"):
            kept = getattr(self, f"{side}_layers_to_keep")
            heads = getattr(self, f"{side}_attention_heads")
            if kept:
                setattr(self, f"{side}_layers", len(kept.split(",")))
            if heads < 1 or width % heads:
                raise UserError(
                    f"--{side}-attention-heads {heads} must divide --{side}-embed-dim {width}"
                )
        if not self.lora_target_names or not LORA_TARGETS.keys() >= set(self.lora_target_names):
            raise UserError(
                f"--lora-targets expects some of {','.join(LORA_TARGETS)}, found"
                f" '{self.lora_targets}'"
            )
        if self.lora_rank < 0 or not 0 <= self.lora_dropout < 1:
            raise UserError(
                "--lora-rank expects at least 0 and --lora-dropout at least 0 and below 1, found "
                f"{self.lora_rank} and {self.lora_dropout}"
            )

    @property
    def lora_target_names(self) -> list[str]:
        return [name.strip() for name in self.lora_targets.split(",") if name.strip()]

    @property
    def peft_methods(self) -> list[str]:
        """The methods by which only few weights train; none in ordinary training."""
        chosen = {
            "prefix": self.encoder_prompt or self.decoder_prompt,
            "bitfit": self.bitfit,
            "lora": self.lora_rank > 0,
        }
        methods = [name for name, used in chosen.items() if used]
        if self.adapter and (methods or not self.adapter_train_backbone):
            methods.append("adapter")
        return methods

    @classmethod
    def from_namespace(cls, namespace: Any, arch: Optional[str] = None) -> "ModelConfig":
        """The configuration of a command line or a checkpoint.

        Args:
            namespace: object or mapping with some of the fields; other entries are ignored.
            arch: architecture whose preset fills what is missing; default: the namespace's own
                ``arch``, or ``ofa_large``.
        """
        given = dict(namespace) if isinstance(namespace, Mapping) else vars(namespace)
        values = preset(arch or given.get("arch") or "ofa_large")
        names = [item.name for item in fields(cls) if given.get(item.name) is not None]
        return cls(**{**values, **{name: given[name] for name in names}})


def _size(
    width: int, heads: int, layers: tuple[int, int], resnet_type: str, **more
) -> dict[str, Any]:
    size = dict(encoder_embed_dim=width, encoder_layers=layers[0], decoder_layers=layers[1])
    of_heads = dict(encoder_attention_heads=heads, decoder_attention_heads=heads)
    return {**size, **of_heads, "resnet_type": resnet_type, **more}


PRESETS: dict[str, dict[str, Any]] = {
    "ofa_nano": _size(
        128,
        4,
        (1, 3),
        "resnet18",
        resnet_width=24,
        # about 1 / sqrt(width): with BERT's 0.02 it would need hundreds of updates to wake up
        init_std=0.08,
        encoder_ffn_embed_dim=384,
        scale_attn=True,
        scale_fc=True,
        scale_heads=True,
        disable_entangle=True,
    ),
    "ofa_tiny": _size(256, 4, (4, 4), "resnet50"),
    "ofa_medium": _size(512, 8, (4, 4), "resnet101"),
    "ofa_base": _size(768, 12, (6, 6), "resnet101"),
    "ofa_large": _size(1024, 16, (12, 12), "resnet152"),
    "ofa_huge": _size(1280, 16, (24, 12), "resnet152"),
}
# the name of ofa_large inside some upstream checkpoints
PRESETS["m6_unify_large"] = PRESETS["ofa_large"]

# Side of the square image, in pixels, that upstream pretrained each size with.
IMAGE_SIZES = dict(ofa_tiny=256, ofa_medium=256, ofa_base=384, ofa_large=480, ofa_huge=480)


def preset(arch: str) -> dict[str, Any]:
    """The fields an architecture name sets. Raises: UserError that lists the known names."""
    if arch not in PRESETS:
        raise UserError(f"unknown architecture {arch!r}; known: {', '.join(PRESETS)}")
    return PRESETS[arch]


def add_flags(parser: ArgumentParser) -> None:
    """A flag for every field that is the model's own, without defaults: presets supply them."""
    for item in fields(ModelConfig):
        if item.metadata.get("belongs_to") != "task":
            add_flag(parser, item.name, item.type, UNSET, **item.metadata)
