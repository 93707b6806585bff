"""The search of one batch: the hypotheses of all its images advance together, one token a step.

A host that looks at a number waits until the GPU has made it. So it looks once a step, at whether
the search continues: where a CPU asks ``if any image is stuck``, a GPU does what is done then for
the images that are, even if there are none.

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

from ofa.models.decoder import Decoder
from ofa.models.encoder import EncoderOutput
from ofa.models.generation.constraints import TrieRule, apply_hook, repeated_ngrams
from ofa.models.generation.search import Candidates, FinishedHypotheses, Sampling
from ofa.models.inference_weights import slice_linear
from ofa.models.static_cache import StaticCache
from ofa.tokens.trie import as_trie

logger = logging.getLogger(__name__)


class Ahead:
    """Whether the search continues, as the host learns it: with CUDA a step late, so that it has
    launched the next step before it waits for this one. A step too many changes nothing."""

    def __init__(self) -> None:
        self.told: list[tuple[Tensor, Any]] = []

    def tell(self, flag: Tensor) -> bool:
        """Args: flag: bool[]. Returns: the flag, or that of the call before (at first True)."""
        if flag.device.type != "cuda" or not torch.cuda.is_available():
            return bool(flag)
        copied = torch.empty((), dtype=torch.bool).pin_memory()
        copied.copy_(flag, non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(flag.device))
        self.told.append((copied, event))
        if len(self.told) == 1:
            return True
        before, made = self.told.pop(0)
        made.synchronize()
        return bool(before)


class GenerationBatch:
    """Searches the hypotheses of one batch.

    Args: generator: the `SequenceGenerator`; the others as those of its ``generate``.

    State: ``images`` int64[B], numbers of the images that remain, or all if the search is static;
    ``tokens`` int64[B, K, T]; ``totals`` float32[B, K, T], summed log-probability up to each token
    (0 at <s>; -inf for a beam that cannot continue).
    """

    def __init__(
        self,
        generator: Any,
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
        on_cuda, hook = device.type == "cuda", self.options.prefix_allowed_tokens_fn
        self.static = generator.static
        if self.static is None:
            self.static = on_cuda and hook is None
        # what the host looks at on a CPU, it does not wait for
        self.looks = device.type == "cpu" and not self.static
        self.going = Ahead()
        self.images = torch.arange(batch, device=device)
        self.places = torch.arange(2 * self.beam, device=device)  # of candidates
        self.eos = torch.full_like(self.places[:1], generator.eos)
        ids = sample.get("id") if hook is not None else None
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
        self.trie = None
        if generator.constraint_trie is not None:
            trie = as_trie(generator.constraint_trie, generator.bos, generator.eos)
            self.trie = TrieRule(trie, generator.bos, self.prefix.ne(generator.pad).sum(1))
        self.decoders: list[Decoder] = [model.decoder for model in models]
        self.projections = [self.projection(decoder) for decoder in self.decoders]
        self.encoded = encoded
        self.caches = [self.cache(number, output) for number, output in enumerate(encoded)]

    def cache(self, number: int, output: Any) -> Any:
        """The cache of a decoder. Args: number: of the model; output: of its encoder."""
        decoder, codes = self.decoders[number], bool(self.options.gen_code)
        settings: dict[str, Any] = {}
        if self.static and isinstance(decoder, Decoder):
            # one thread at a time has the graphs
            settings = {"static": True, "kept": self.generator.kept.pop(number, None)}
        room = {"beam": self.beam, "max_len": self.max_len + 1}
        return decoder.start(output, **room, code_masks=codes, **settings)

    def run(self) -> list[list[dict[str, Tensor]]]:
        """The finished hypotheses, see `FinishedHypotheses.as_lists`."""
        for step in range(self.max_len + 1):  # one more for </s>
            over = self.advance(step, self.candidates(step))
            if over:
                break
        hypotheses, cut_short = self.finished.as_lists()
        caches = enumerate(self.caches)
        self.generator.kept.update((n, one) for n, one in caches if isinstance(one, StaticCache))
        if cut_short:
            self.warn(cut_short)
        return hypotheses

    def warn(self, cut_short: int) -> None:
        """Say why rows ended early. Args: cut_short: how many."""
        rows = f"{cut_short} of {len(self.finished.counts)} rows end early"
        for states in (one.states for one in self.encoded if isinstance(one, EncoderOutput)):
            if not states.isfinite().all():
                kind = str(states.dtype).removeprefix("torch.")
                least = " (float16 ends at 65504)" * (states.dtype == torch.float16)
                logger.warning(
                    f"{rows}: the encoder's outputs are not finite in {kind}{least}. Use another"
                    " --precision, and look at the weights and the image"
                )
                return
        logger.warning(
            f"{rows}: nothing may follow. In force: {self.generator.constraint_names()}. Do the"
            " constraints allow an answer, and are the model's outputs finite?"
        )

    def holds(self, flags: Tensor) -> bool:
        """Whether a flag is set, or may be: only a CPU looks."""
        return not self.looks or bool(flags.any())

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
        if isinstance(self.search, Sampling):
            self.search.step = step
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
            if not self.holds(free):
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
        if self.holds(broken):
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
        places = self.places[: found.scores.size(1)]
        copies = rows[:, None] & (places < self.beam)
        return Candidates(*(torch.where(copies, part[:, :1], part) for part in found))

    # ------------------------------------------------- taking the step

    def advance(self, step: int, found: Candidates) -> bool:
        """Finish candidates that end, continue the ``beam`` best others, let complete images go.

        Returns: whether the search is over; a static one may say it a step late.
        """
        stuck = (found.scores == -math.inf).all(1)
        may_stick = self.holds(stuck)
        if may_stick:
            found = self.rescue(found, stuck)
        scores, tokens, parents = found.scores, self.columns.tokens(found.columns), found.parents
        ends = tokens.eq(self.generator.eos) & (scores > -math.inf)
        may_end = self.holds(ends)
        if may_end:  # those further right than `beam` are not good enough and are dropped
            self.finish(step, *(part[:, : self.beam] for part in (ends, scores, parents)))
            scores = scores.masked_fill(ends, -math.inf)
        if step == self.max_len:
            return True
        going = ends.view(torch.uint8).argsort(dim=1, stable=True)[:, : self.beam]
        scores, tokens, parents = (part.gather(1, going) for part in (scores, tokens, parents))
        over = False
        if may_end or may_stick:
            incomplete = self.finished.counts_of(self.images) < self.beam
            goes_on = (scores > -math.inf).any(1) & incomplete
            if self.static:
                scores = torch.where(goes_on[:, None], scores, -math.inf)
                over = not self.going.tell(goes_on.any())
            elif not bool(goes_on.all()):
                rows = goes_on.nonzero().squeeze(1)
                self.select(rows)
                scores, tokens, parents = scores[rows], tokens[rows], parents[rows]
                over = not len(rows)
        if not over:
            self.extend(step, scores, tokens, parents)
        return over

    def rescue(self, found: Candidates, stuck: Tensor) -> Candidates:
        """Stuck images without hypotheses get their beams as they are, </s> for free."""
        needy = stuck & self.finished.counts_of(self.images).eq(0)
        self.finished.cut(self.images, needy)
        beams, places = self.totals.size(1), found.scores.size(1)
        totals = F.pad(self.totals[..., -1], (0, places - beams), value=-math.inf)
        own = self.places[:places].clamp(max=beams - 1)
        needy = needy[:, None]
        return Candidates(
            torch.where(needy, totals, found.scores),
            found.columns.masked_fill(needy, self.generator.eos),
            torch.where(needy, own, found.parents),
        )

    def finish(self, step: int, ends: Tensor, scores: Tensor, parents: Tensor) -> None:
        """Keep the candidates (B, K) that end."""
        last = self.eos.expand_as(parents)
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
        beams = self.places[: self.beam]
        same = self.tokens.size(1) == self.beam
        if same and self.beam > 1:
            same = self.looks and bool((parents == beams).all())
        if not same:
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
