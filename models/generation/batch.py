"""The hypotheses of one batch while they grow, one token a step.

All hypotheses of all images advance together; nothing loops over images, beams or tokens. An image
is encoded once, its beams are further query positions of the same image, and it leaves the batch
when its hypotheses are complete.

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
from ofa.models.generation.constraints import (
    TrieRule,
    VocabularySubset,
    apply_hook,
    repeated_ngrams,
)
from ofa.models.generation.hypotheses import FinishedHypotheses
from ofa.models.generation.options import GenerationOptions
from ofa.models.generation.search import Candidates, Sampling, SeededSampling, make_search
from ofa.models.inference_weights import slice_linear
from ofa.tokens.trie import as_trie

logger = logging.getLogger(__name__)


class GeneratorSettings:
    """How a generator searches, whatever the batch.

    Args:
        models: an ensemble; probabilities are averaged.
        options: see `GenerationOptions`.
        vocab_size: entries of the output vocabulary.
        bos, pad, eos, unk: ids of the special tokens, which are the first entries of the
            vocabulary.

    Attributes:
        constraint_trie: None, or the answers that may be generated: an `ofa.tokens.trie.Trie` whose
            sequences begin with <s> and end with </s> (or an object with its method
            ``get_next_layer``). May be set at any time.
        zero_shot: constraints act on probabilities, without renormalizing. May be set at any time.
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
        self.columns = VocabularySubset.of_range(
            options.constraint_range, max(bos, pad, eos, unk) + 1, vocab_size
        )
        self.search = make_search(options)
        self.constraint_trie: Any = None
        self.zero_shot = options.zero_shot

    def longest(self, models: Sequence[Any], source_width: int, source_lengths: Tensor) -> int:
        """Most tokens of a hypothesis in a batch, </s> not counted. Args: source_lengths:
        int64[B]."""
        options = self.options
        limit = min(longest_input(model.decoder, options.gen_code) for model in models) - 1
        if options.match_source_len:
            longest = min(int(source_lengths.max()), limit)
        else:
            longest = min(int(options.max_len_a * source_width + options.max_len_b), limit)
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
        generator: GeneratorSettings,
        models: Sequence[Any],
        sample: dict[str, Any],
        encoded: Sequence[Any],
        prefix_tokens: Tensor | None,
        bos_token: int | None,
    ):
        self.generator, self.options = generator, generator.options
        self.columns, self.beam = generator.columns, generator.beam
        net_input = sample["net_input"]
        source = net_input["src_tokens"]
        batch, device = source.size(0), source.device
        lengths = net_input.get("src_lengths")
        self.source_lengths = (
            source.ne(generator.pad).sum(1) if lengths is None else lengths.to(device)
        )
        self.max_len = generator.longest(models, source.size(1), self.source_lengths)
        self.images = torch.arange(batch, device=device)
        self.ids = (
            sample["id"].tolist() if isinstance(sample.get("id"), Tensor) else list(range(batch))
        )
        self.prefix = (
            source.new_empty(batch, 0) if prefix_tokens is None else prefix_tokens.to(device)
        )
        self.tokens = source.new_full(
            (batch, 1, 1), generator.bos if bos_token is None else bos_token
        )
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
                "%d of %d rows end early: nothing may follow. In force: %s. Do the constraints"
                " allow an answer, and are the model's outputs finite?",
                self.cut_short,
                len(self.ids),
                self.generator.constraint_names(),
            )
        return self.finished.as_lists()

    def projection(self, decoder: Decoder) -> nn.Module | None:
        """What makes the logits of the constraint range alone; None where all of them are
        needed."""
        # a decoder that is not ours may have none
        layer = getattr(decoder, "output_projection", None)
        if layer is None or self.columns.whole or self.generator.zero_shot:
            return None
        return slice_linear(layer, self.columns.rows(layer.weight))

    # ---------------------------------------------------------------- what may follow, and how
    # likely it is

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
        """Log-probability of every next token, (B, K, M); -inf where a constraint does not allow
        it."""
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
        log_probs = (
            every[0] if len(every) == 1 else torch.stack(every).logsumexp(0) - math.log(len(every))
        )
        # nothing is allowed, or the model returned NaN; either makes the whole row NaN
        broken = log_probs[..., self.generator.eos].isnan()
        if bool(broken.any()):
            log_probs.masked_fill_(broken[..., None], -math.inf)
        if self.generator.zero_shot:
            log_probs = self.constrain(log_probs, step)
        if self.options.prefix_allowed_tokens_fn is not None:
            ids = [self.ids[image] for image in self.images.tolist()]
            apply_hook(
                log_probs, self.options.prefix_allowed_tokens_fn, ids, self.tokens, self.columns
            )
        if self.options.unkpen:
            log_probs[..., self.generator.unk] -= self.options.unkpen
        return log_probs

    def constrain(self, scores: Tensor, step: int, selected: bool = False) -> Tensor:
        """(B, K, V) -> (B, K, M): the constraint range, -inf where the trie does not allow a
        token. Args: selected: M are there."""
        scores = scores if selected else self.columns.select(scores)
        if self.trie is not None:
            self.trie.apply(scores, step, self.columns)
        return scores

    def forbid(self, log_probs: Tensor, step: int) -> None:
        """In place on (B, K, M): -inf for what must not be chosen; probabilities are not
        renormalized."""
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
            if repeated is not None:
                log_probs.scatter_(
                    2, self.columns.of_tokens(repeated, absent=generator.pad), -math.inf
                )

    def match_source(self, step: int) -> Tensor:
        """Log-probability (B, 1) of </s>: impossible before the length of the source, free from
        there on."""
        free = self.totals.new_zeros(self.images.shape)
        return free.masked_fill_(step < self.source_lengths, -math.inf)[:, None]

    def fixed(self, log_probs: Tensor, tokens: Tensor) -> Candidates:
        """Candidates where each image has one possible next token. Args: tokens: int64[B]; pad:
        none."""
        columns = self.columns.of_tokens(tokens, absent=self.generator.pad)[:, None]
        values = log_probs.gather(2, columns[..., None].expand(-1, log_probs.size(1), 1))
        values = values.masked_fill(columns.eq(self.generator.pad)[..., None], -math.inf)
        found = self.search(values, self.totals[..., -1], self.beam)
        return found._replace(columns=columns.expand_as(found.scores))

    def copy_first(self, found: Candidates, rows: Tensor) -> Candidates:
        """Where a prefix ends with </s>, all hypotheses of the image are that prefix. Args:
        rows: bool[B]."""
        copies = rows[:, None] & (
            torch.arange(found.scores.size(1), device=rows.device) < self.beam
        )
        return Candidates(*(torch.where(copies, part[:, :1], part) for part in found))

    # ---------------------------------------------------------------- taking the step

    def advance(self, step: int, found: Candidates) -> None:
        """Finish the candidates that end, continue with the ``beam`` best others, let complete
        images leave."""
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
            goes_on = (
                (scores > -math.inf).any(1)
                & ~self.finished.complete(self.images)
                & (step < self.max_len)
            )
            if not bool(goes_on.all()):
                rows = goes_on.nonzero().squeeze(1)
                self.select(rows)
                scores, tokens, parents = scores[rows], tokens[rows], parents[rows]
        if self.images.numel():
            self.extend(step, scores, tokens, parents)

    def rescue(self, found: Candidates, stuck: Tensor) -> Candidates:
        """Where nothing may follow, an image without hypotheses gets its beams as they are, </s>
        for free."""
        needy = stuck & self.finished.counts[self.images].eq(0)
        self.cut_short += int(needy.sum())
        scores, order = self.totals[..., -1].sort(1, descending=True)
        empty = (0, found.scores.size(1) - scores.size(1))
        ended = Candidates(
            F.pad(scores, empty, value=-math.inf),
            torch.full_like(found.columns, self.generator.eos),
            F.pad(order, empty),
        )
        return Candidates(*(torch.where(needy[:, None], a, b) for a, b in zip(ended, found)))

    def finish(self, step: int, ends: Tensor, scores: Tensor, parents: Tensor) -> None:
        """Keep the candidates (B, K) that end."""
        history = parents[..., None].expand(-1, -1, self.tokens.size(2))
        last = torch.full_like(parents, self.generator.eos)[..., None]
        tokens = torch.cat([self.tokens.gather(1, history), last], 2)[..., 1:]
        totals = torch.cat([self.totals.gather(1, history), scores[..., None]], 2)[..., 1:]
        if not self.options.unnormalized:
            scores = scores / (step + 1) ** self.options.lenpen
        if self.options.match_source_len:
            scores = scores.masked_fill((step > self.source_lengths)[:, None], -math.inf)
        self.finished.add(self.images, ends, tokens, totals, scores)

    def select(self, rows: Tensor) -> None:
        """Only these images remain."""
        self.images, self.tokens, self.totals = (
            self.images[rows],
            self.tokens[rows],
            self.totals[rows],
        )
        self.prefix, self.source_lengths = self.prefix[rows], self.source_lengths[rows]
        for part in (self.trie, self.search):
            if isinstance(part, (TrieRule, SeededSampling)):
                part.select(rows)
        if rows.numel():
            for cache in self.caches:
                cache.select(rows)

    def extend(self, step: int, scores: Tensor, tokens: Tensor, parents: Tensor) -> None:
        """Beam k of each image becomes beam ``parents[:, k]`` with one more token."""
        beams = torch.arange(self.beam, device=parents.device)
        if self.tokens.size(1) != self.beam or not bool(parents.eq(beams).all()):
            for cache in self.caches:
                cache.reorder(parents)
        history = parents[..., None].expand(-1, -1, self.tokens.size(2))
        self.tokens = torch.cat([self.tokens.gather(1, history), tokens[..., None]], 2)
        self.totals = torch.cat([self.totals.gather(1, history), scores[..., None]], 2)
        if self.trie is not None:
            self.trie.advance(tokens, parents, step)
