"""Classification heads: a label from the decoder's last state, as an alternative to generating
its name."""

from torch import Tensor, nn

from ofa.models.config import ModelConfig
from ofa.models.layers import activation


class ClassificationHead(nn.Module):
    """Args: use_two_images: a label for a pair of samples, rows 2i and 2i + 1 of the batch."""

    def __init__(
        self, config: ModelConfig, num_classes: int, inner_dim: int, use_two_images: bool
    ) -> None:
        super().__init__()
        self.use_two_images = use_two_images
        width = config.decoder_embed_dim * (2 if use_two_images else 1)
        self.dropout = nn.Dropout(config.pooler_dropout)
        if config.pooler_classifier == "mlp":
            self.dense = nn.Linear(width, inner_dim)
            self.activation = activation(config.pooler_activation_fn)
        self.out_proj = nn.Linear(
            inner_dim if config.pooler_classifier == "mlp" else width, num_classes
        )
        if config.spectral_norm_classification_head:
            self.out_proj = nn.utils.spectral_norm(self.out_proj)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Args: features: (B, T, C); lengths: int64[B], the last real position plus one.

        Returns: (B or B / 2, classes).
        """
        rows = features[range(features.size(0)), lengths - 1]  # (B, C)
        if self.use_two_images:
            rows = rows.reshape(-1, 2 * rows.size(1))
        if hasattr(self, "dense"):
            rows = self.activation(self.dense(self.dropout(rows)))
        return self.out_proj(self.dropout(rows))
