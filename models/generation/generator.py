"""Generation: from encoded images and text to hypotheses with scores.

    generator = SequenceGenerator(models, GenerationOptions(beam=5, max_len_b=16),
    vocab_size=len(vocabulary))
    hypotheses = generator.generate(models, batch)      # hypotheses[image][0]["tokens"] is the best

`ofa.models.generation.batch` holds the settings and the search over one batch.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ofa.errors import UserError
from ofa.models.encoder import EncoderOutput
from ofa.models.generation.batch import GenerationBatch, GeneratorSettings
from ofa.models.inference_weights import inference_network


class SequenceGenerator(GeneratorSettings):
    """Generates for a batch; follows fairseq's generator in names, arguments and results."""

    @torch.no_grad()
    def generate(
        self,
        models: Sequence[nn.Module] | None,
        sample: dict[str, Any],
        prefix_tokens: Tensor | None = None,
        constraints: None = None,
        bos_token: int | None = None,
        encoded: Sequence[EncoderOutput] | None = None,
    ) -> list[list[dict[str, Tensor]]]:
        """Hypotheses of every row of a batch, best first.

        Args:
            models: the ensemble; None: the one given when the generator was made.
            sample: a collated batch; ``sample["net_input"]`` goes to the encoder.
                ``sample["seeds"]``, an int per row, makes what is sampled depend on the row's own
                seed alone; without it torch's random numbers are used.
            prefix_tokens: int64[B, P], each hypothesis begins with its row; padded at the end.
            constraints: fairseq's lexical constraints; not offered.
            bos_token: what the decoder begins with; default <s>.
            encoded: what ``encode`` returned for this batch, to generate several times from one
                encoding.

        Returns: see `FinishedHypotheses.as_lists`. An image has fewer than ``beam`` hypotheses only
            where constraints leave fewer.
        """
        if constraints is not None:
            raise UserError("constraints of fairseq are not offered; use constraint_trie")
        models = inference_networks(models or self.models)
        encoded = encoded or encode_all(models, sample)
        return GenerationBatch(self, models, sample, encoded, prefix_tokens, bos_token).run()

    @torch.no_grad()
    def encode(
        self, models: Sequence[nn.Module] | None, sample: dict[str, Any]
    ) -> list[EncoderOutput]:
        """The encoder's output of every model for a batch, for ``generate``."""
        return encode_all(inference_networks(models or self.models), sample)


def inference_networks(models: Sequence[nn.Module]) -> list[Any]:
    """The networks themselves, in evaluation mode and as fast as they can be; ``models`` stay as
    they are."""
    return [inference_network(unwrapped(model)) for model in models]


def encode_all(models: Sequence[Any], sample: dict[str, Any]) -> list[EncoderOutput]:
    return [model.encode(**sample["net_input"]) for model in models]


def unwrapped(model: Any) -> Any:
    """The network inside the wrappers of distributed training (fairseq puts two around it)."""
    while hasattr(model, "module"):
        model = model.module
    return model
