"""Generation: from encoded images and text to hypotheses with scores.

    options = GenerationOptions(beam=5, max_len_b=16)
    generator = SequenceGenerator(models, options, vocab_size=len(vocabulary))
    hypotheses = generator.generate(models, batch)  # hypotheses[row][0]["tokens"] is the best

All hypotheses of all images of a batch advance together, one token a step; nothing loops over
images, beams or tokens. An image is encoded once, its beams are further query positions of the same
image, and it leaves the batch when its hypotheses are complete.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ofa.errors import UserError
from ofa.models.decoder import Decoder
from ofa.models.encoder import EncoderOutput
from ofa.models.generation.batch import GenerationBatch
from ofa.models.generation.constraints import VocabularySubset
from ofa.models.generation.options import GenerationOptions
from ofa.models.generation.search import make_search
from ofa.models.inference_weights import encode_all, inference_networks
from ofa.models.static_cache import StaticCache


class SequenceGenerator:
    """Generates for a batch; follows fairseq's generator in names, arguments and results.

    Args:
        models: an ensemble; probabilities are averaged.
        vocab_size: entries of the output vocabulary.
        bos, pad, eos, unk: ids of the special tokens, the first entries of the vocabulary.

    Attributes, which may be set at any time:
        constraint_trie: None, or the answers that may be generated: an `ofa.tokens.trie.Trie` whose
            sequences begin with <s> and end with </s> (or an object with its method
            ``get_next_layer``).
        zero_shot: constraints act on probabilities, without renormalizing.
        static: search with fixed shapes: complete images stay, and a decoder's step is a CUDA graph
            (`ofa.models.static_cache`). None: on CUDA, but for ``prefix_allowed_tokens_fn``, which
            is a function of the host and asked for the images that remain.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        options: GenerationOptions,
        vocab_size: int,
        bos: int = 0,
        pad: int = 1,
        eos: int = 2,
        unk: int = 3,
    ):
        self.models, self.options = list(models), options
        self.bos, self.pad, self.eos, self.unk = bos, pad, eos, unk
        self.beam = min(options.beam, vocab_size - 1)
        specials = max(bos, pad, eos, unk) + 1
        self.columns = VocabularySubset.of_range(options.constraint_range, specials, vocab_size)
        self.search = make_search(options)
        self.constraint_trie: Any = None
        self.zero_shot = options.zero_shot
        self.static: bool | None = None
        self.kept: dict[int, StaticCache] = {}  # of the last batch, by the place of the model

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "kept": {}}  # graphs are of one process

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

    def longest(self, models: Sequence[Any], source_width: int, source_lengths: Tensor) -> int:
        """Most tokens of a hypothesis in a batch, without </s>. Args: source_lengths: int64[B]."""
        options = self.options
        limit = min(longest_input(model.decoder, options.gen_code) for model in models) - 1
        wanted = int(options.max_len_a * source_width + options.max_len_b)
        longest = min(int(source_lengths.max()) if options.match_source_len else wanted, limit)
        if options.min_len > longest:
            raise UserError(
                f"generation option min_len={options.min_len}: expected at most {longest}, the"
                f" longest hypothesis here (max_len_a, max_len_b; the decoder knows {limit + 1}"
                " positions)"
            )
        return longest

    def constraint_names(self) -> str:
        """What restricts the next token, for a message."""
        options = self.options
        active = {
            "constraint_trie": self.constraint_trie is not None,
            "constraint_range": options.constraint_range is not None,
            "only_range": options.only_range is not None,
            "prefix_allowed_tokens_fn": options.prefix_allowed_tokens_fn is not None,
            "no_repeat_ngram_size": options.no_repeat_ngram_size > 0,
            "min_len": options.min_len > 0,
        }
        return ", ".join(name for name, on in active.items() if on) or "no option"


def longest_input(decoder: Decoder, code: bool) -> int:
    """Tokens that a decoder can be fed, <s> included."""
    return decoder.image_position_idx.numel() if code else decoder.config.max_target_positions
