"""Generation: from encoded images and text to hypotheses with scores.

    options = GenerationOptions(beam=5, max_len_b=16)
    generator = SequenceGenerator(models, options, vocab_size=len(vocabulary))
    hypotheses = generator.generate(models, batch)  # hypotheses[row][0]["tokens"] is the best

All hypotheses of all images of a batch advance together, one token a step; nothing loops over
images, beams or tokens. An image is encoded once, its beams are further query positions of the same
image, and it leaves the batch when its hypotheses are complete.

Letters: B images still searched, K beams (one before the first token, ``beam`` later), V
vocabulary, M columns that are scored, N candidates, T tokens so far (<s> included).
"""

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa.errors import UserError
from ofa.models.decoder import Decoder
from ofa.models.encoder import EncoderOutput
from ofa.models.generation.constraints import (
    TrieRule,
    VocabularySubset,
    apply_hook,
    repeated_ngrams,
)
from ofa.models.generation.options import GenerationOptions
from ofa.models.generation.search import Candidates, FinishedHypotheses, Sampling, make_search
from ofa.models.inference_weights import encode_all, inference_networks, slice_linear
from ofa.tokens.trie import as_trie

logger = logging.getLogger(__name__)


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


class GenerationBatch:
    """Searches the hypotheses of one batch.

    State: ``images`` int64[B], numbers of the images that remain; ``tokens`` int64[B, K, T];
    ``totals`` float32[B, K, T], summed log-probability up to each token (0 at <s>; -inf for a beam
    that cannot continue).
    """

    def __init__(
        self,
        generator: SequenceGenerator,
        models: Sequence[Any],
        sample: dict[str, Any],
        encoded: Sequence[Any],
        prefix_tokens: Tensor | None,
        bos_token: int | None,
    ):
        self.generator, self.options = generator, generator.options
        self.columns, self.beam = generator.columns, generator.beam
        source, lengths = (sample["net_input"].get(key) for key in ("src_tokens", "src_lengths"))
        batch, device = source.size(0), source.device
        lengths = source.ne(generator.pad).sum(1) if lengths is None else lengths
        self.source_lengths = lengths.to(device)
        self.max_len = generator.longest(models, source.size(1), self.source_lengths)
        self.images = torch.arange(batch, device=device)
        ids = sample.get("id")
        self.ids = ids.tolist() if isinstance(ids, Tensor) else list(range(batch))
        prefix = source.new_empty(batch, 0) if prefix_tokens is None else prefix_tokens
        self.prefix = prefix.to(device)
        begin = generator.bos if bos_token is None else bos_token
        self.tokens = source.new_full((batch, 1, 1), begin)
        self.totals = torch.zeros(batch, 1, 1, device=device)
        self.finished = FinishedHypotheses(batch, self.beam, self.max_len + 1, device)
        self.search = generator.search
        if sample.get("seeds") is not None and isinstance(self.search, Sampling):
            self.search = self.search.seeded(sample["seeds"], self.max_len + 1, self.beam, device)
        self.cut_short = 0  # images whose hypotheses all came to a point where nothing may follow
        self.trie = None
        if generator.constraint_trie is not None:
            trie = as_trie(generator.constraint_trie, generator.bos, generator.eos)
            self.trie = TrieRule(trie, generator.bos, self.prefix.ne(generator.pad).sum(1))
        codes = torch.full((batch,), self.options.gen_code, dtype=torch.bool, device=device)
        self.decoders: list[Decoder] = [model.decoder for model in models]
        self.projections = [self.projection(decoder) for decoder in self.decoders]
        self.caches = [
            decoder.start(output, beam=self.beam, max_len=self.max_len + 1, code_masks=codes)
            for decoder, output in zip(self.decoders, encoded)
        ]

    def run(self) -> list[list[dict[str, Tensor]]]:
        """The finished hypotheses, see `FinishedHypotheses.as_lists`."""
        for step in range(self.max_len + 1):  # one more for </s>
            self.advance(step, self.candidates(step))
            if not self.images.numel():
                break
        if self.cut_short:
            logger.warning(
                f"{self.cut_short} of {len(self.ids)} rows end early: nothing may follow. In force:"
                f" {self.generator.constraint_names()}. Do the constraints allow an answer, and are"
                " the model's outputs finite?"
            )
        return self.finished.as_lists()

    def projection(self, decoder: Decoder) -> nn.Module | None:
        """What makes the logits of the constraint range alone; None where all are needed."""
        # a decoder that is not ours may have none
        layer = getattr(decoder, "output_projection", None)
        if layer is None or self.columns.whole or self.generator.zero_shot:
            return None
        return slice_linear(layer, self.columns.rows(layer.weight))

    # ------------------------------------------------- what may follow, and how likely it is

    def candidates(self, step: int) -> Candidates:
        """The best continuations by one token."""
        eos = self.generator.eos
        log_probs = self.score(step)
        if step == self.max_len:
            if self.options.ignore_eos:
                log_probs[..., eos] = 1.0
            elif self.options.match_source_len:
                log_probs[..., eos] = self.match_source(step)
            return self.fixed(log_probs, torch.full_like(self.images, eos))
        forced = None
        if step < self.prefix.size(1):
            given = self.prefix[:, step]
            free = given.eq(self.generator.pad)[:, None]
            forced = self.copy_first(self.fixed(log_probs, given), given.eq(eos))
            if not bool(free.any()):
                return forced
        self.forbid(log_probs, step)
        found = self.search(log_probs, self.totals[..., -1], self.beam)
        if forced is not None:
            found = Candidates(*(torch.where(free, a, b) for a, b in zip(found, forced)))
        return found

    def score(self, step: int) -> Tensor:
        """Log-probability of every next token, (B, K, M); -inf where a constraint forbids it."""
        every = []
        for decoder, cache, projection in zip(self.decoders, self.caches, self.projections):
            if projection is None:
                logits = decoder.step(self.tokens[..., -1], cache).float()
            else:
                logits = projection(decoder.states(self.tokens[..., -1], cache)).float()
            if self.options.temperature != 1:
                logits = logits / self.options.temperature
            if not self.generator.zero_shot:
                logits = self.constrain(logits, step, selected=projection is not None)
            every.append(logits.log_softmax(-1))  # one fused pass; logsumexp alone takes longer
        log_probs = every[0]
        if len(every) > 1:
            log_probs = torch.stack(every).logsumexp(0) - math.log(len(every))
        # nothing is allowed, or the model returned NaN; either makes the whole row NaN
        broken = log_probs[..., self.generator.eos].isnan()
        if bool(broken.any()):
            log_probs.masked_fill_(broken[..., None], -math.inf)
        if self.generator.zero_shot:
            log_probs = self.constrain(log_probs, step)
        hook = self.options.prefix_allowed_tokens_fn
        if hook is not None:
            ids = [self.ids[image] for image in self.images.tolist()]
            apply_hook(log_probs, hook, ids, self.tokens, self.columns)
        if self.options.unkpen:
            log_probs[..., self.generator.unk] -= self.options.unkpen
        return log_probs

    def constrain(self, scores: Tensor, step: int, selected: bool = False) -> Tensor:
        """(B, K, V), or M if ``selected`` -> (B, K, M): the range, -inf where the trie forbids."""
        scores = scores if selected else self.columns.select(scores)
        if self.trie is not None:
            self.trie.apply(scores, step, self.columns)
        return scores

    def forbid(self, log_probs: Tensor, step: int) -> None:
        """In place on (B, K, M): -inf for what must not be chosen, without renormalizing."""
        generator, options = self.generator, self.options
        log_probs[..., generator.pad] = -math.inf
        if options.gen_code:
            log_probs[..., : self.columns.specials] = -math.inf
        if options.only_range is not None:
            self.columns.keep_span(log_probs, *options.only_range)
        # as upstream: the longest prefix of the batch switches the minimum length off
        if self.prefix.size(1) <= step < options.min_len:
            log_probs[..., generator.eos] = -math.inf
        if options.match_source_len:
            log_probs[..., generator.eos] = self.match_source(step)
        if options.no_repeat_ngram_size > 0:
            repeated = repeated_ngrams(self.tokens, options.no_repeat_ngram_size, generator.pad)
            log_probs.scatter_(2, self.columns.of_tokens(repeated, generator.pad), -math.inf)

    def match_source(self, step: int) -> Tensor:
        """Log-probability (B, 1) of </s>: impossible before the source's length, then free."""
        free = self.totals.new_zeros(self.images.shape)
        return free.masked_fill_(step < self.source_lengths, -math.inf)[:, None]

    def fixed(self, log_probs: Tensor, tokens: Tensor) -> Candidates:
        """Candidates where each image has one next token. Args: tokens: int64[B]; pad: none."""
        columns = self.columns.of_tokens(tokens, absent=self.generator.pad)[:, None]
        values = log_probs.gather(2, columns[..., None].expand(-1, log_probs.size(1), 1))
        values = values.masked_fill(columns.eq(self.generator.pad)[..., None], -math.inf)
        found = self.search(values, self.totals[..., -1], self.beam)
        return found._replace(columns=columns.expand_as(found.scores))

    def copy_first(self, found: Candidates, rows: Tensor) -> Candidates:
        """Where a prefix ends with </s> (``rows``, bool[B]), all its hypotheses are the prefix."""
        places = torch.arange(found.scores.size(1), device=rows.device)
        copies = rows[:, None] & (places < self.beam)
        return Candidates(*(torch.where(copies, part[:, :1], part) for part in found))

    # ------------------------------------------------- taking the step

    def advance(self, step: int, found: Candidates) -> None:
        """Finish candidates that end, continue the ``beam`` best others, let complete images go."""
        stuck = (found.scores == -math.inf).all(1)
        any_stuck = bool(stuck.any())
        if any_stuck:
            found = self.rescue(found, stuck)
        scores, tokens, parents = found.scores, self.columns.tokens(found.columns), found.parents
        ends = tokens.eq(self.generator.eos) & (scores > -math.inf)
        any_ends = bool(ends.any())
        if any_ends:  # those further right than `beam` are not good enough and are dropped
            self.finish(step, *(part[:, : self.beam] for part in (ends, scores, parents)))
            scores = scores.masked_fill(ends, -math.inf)
        rank = torch.arange(ends.size(1), device=ends.device)
        going = (ends * ends.size(1) + rank).argsort(1)[:, : self.beam]
        scores, tokens, parents = (part.gather(1, going) for part in (scores, tokens, parents))
        if any_ends or any_stuck or step == self.max_len:
            complete = self.finished.counts[self.images] >= self.beam
            goes_on = (scores > -math.inf).any(1) & ~complete & (step < self.max_len)
            if not bool(goes_on.all()):
                rows = goes_on.nonzero().squeeze(1)
                self.select(rows)
                scores, tokens, parents = scores[rows], tokens[rows], parents[rows]
        if self.images.numel():
            self.extend(step, scores, tokens, parents)

    def rescue(self, found: Candidates, stuck: Tensor) -> Candidates:
        """Stuck images without hypotheses get their beams as they are, </s> for free."""
        needy = stuck & self.finished.counts[self.images].eq(0)
        self.cut_short += int(needy.sum())
        scores, order = self.totals[..., -1].sort(1, descending=True)
        empty = (0, found.scores.size(1) - scores.size(1))
        scores, order = F.pad(scores, empty, value=-math.inf), F.pad(order, empty)
        ended = Candidates(scores, torch.full_like(found.columns, self.generator.eos), order)
        return Candidates(*(torch.where(needy[:, None], a, b) for a, b in zip(ended, found)))

    def finish(self, step: int, ends: Tensor, scores: Tensor, parents: Tensor) -> None:
        """Keep the candidates (B, K) that end."""
        last = torch.full_like(parents, self.generator.eos)
        tokens, totals = (part[..., 1:] for part in self.continued(last, scores, parents))
        if not self.options.unnormalized:
            scores = scores / (step + 1) ** self.options.lenpen
        if self.options.match_source_len:
            scores = scores.masked_fill((step > self.source_lengths)[:, None], -math.inf)
        self.finished.add(self.images, ends, tokens, totals, scores)

    def select(self, rows: Tensor) -> None:
        """Only these images remain."""
        state = self.images, self.tokens, self.totals, self.prefix, self.source_lengths
        self.images, self.tokens, self.totals, self.prefix, self.source_lengths = (
            part[rows] for part in state
        )
        for part in (self.trie, self.search, *(self.caches if rows.numel() else ())):
            if hasattr(part, "select"):
                part.select(rows)

    def extend(self, step: int, scores: Tensor, tokens: Tensor, parents: Tensor) -> None:
        """Beam k of each image becomes beam ``parents[:, k]`` with one more token."""
        beams = torch.arange(self.beam, device=parents.device)
        if self.tokens.size(1) != self.beam or not bool(parents.eq(beams).all()):
            for cache in self.caches:
                cache.reorder(parents)
        self.tokens, self.totals = self.continued(tokens, scores, parents)
        if self.trie is not None:
            self.trie.advance(tokens, parents, step)

    def continued(self, tokens: Tensor, scores: Tensor, parents: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and totals (B, K, T + 1) of the beams ``parents`` with one more token each."""
        history = parents[..., None].expand(-1, -1, self.tokens.size(2))
        more = torch.cat([self.tokens.gather(1, history), tokens[..., None]], 2)
        return more, torch.cat([self.totals.gather(1, history), scores[..., None]], 2)
