"""Prefix prompts: learned keys and values that every layer sees before its own."""

from torch import Tensor, nn

from ofa.models.attention import KeyValue


class PrefixPrompt(nn.Module):
    """A table (length, layers * 2 * width), or a smaller one (length, width) blown up by a
    projection.

    Args: hidden: width inside the projection, 0 for none. Source: P-tuning v2, as used
    upstream.
    """

    def __init__(
        self, length: int, width: int, num_layers: int, num_heads: int, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        self.num_layers, self.num_heads = num_layers, num_heads
        total = num_layers * 2 * width
        self.embedding = nn.Embedding(length, width if hidden else total)
        if hidden:
            self.trans = nn.Sequential(
                nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, total)
            )
        self.dropout = nn.Dropout(dropout)

    def forward(self) -> list[KeyValue]:
        """Returns: keys and values (1, heads, length, head width) for each layer."""
        table: Tensor = self.embedding.weight
        if hasattr(self, "trans"):
            table = self.trans(table)
        table = self.dropout(table).unflatten(1, (self.num_layers, 2, self.num_heads, -1))
        # (layers, 2, 1, heads, length, head width)
        table = table.permute(1, 2, 3, 0, 4).unsqueeze(2)
        return [(layer[0], layer[1]) for layer in table]
