"""Predictions that are images: sampling of codes, the images they stand for, and which fit best.

What ``OFATask`` inherits; only tasks whose target is image codes use it. Images are made and judged
by two objects, which may be replaced by any of their kind, from Python or by a flag:

    task.image_tokenizer      decode(int64[B, h, w]) -> float[B, 3, H, W] in [-1, 1]; num_codes
    task.image_text_scorer    score(images, texts) -> float[N]; compare(images, others) for
                              --eval-clip-method ii_sim
"""

import logging
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ofa.errors import UserError
from ofa.io.images import decode_image
from ofa.metrics.clip_score import check_weights, load_scorer
from ofa.models.generation.generator import SequenceGenerator
from ofa.task.prediction import BatchRow, Prediction
from ofa.task.task_spec import Decoding, seed_of
from ofa.tasks.fairseq_prediction import AnsweringTask
from ofa.tasks.image_gen import blank_image, caption_of, num_codes, true_codes
from ofa.tokens.image_codes import CODE_SIDE

logger = logging.getLogger(__name__)

AT_ONCE = 16  # images that are made together: a VQGAN needs some 100 MB for one of 256 pixels
READ = ("vqgan_model_path", "vqgan_config_path", "image_tokenizer", "clip_model_path")


class ImageGenerationTask(AnsweringTask):
    """A task that can answer, and generate images."""

    @property
    def generates_images(self) -> bool:
        return self.spec.generates_images

    # --- what images are made and judged with

    @cached_property
    def image_tokenizer(self) -> Any:
        """What makes images of codes; None if this run names nothing."""
        if not self.tokenizer_path:
            return None
        from ofa.models.image_tokenizer.codec import load_image_tokenizer

        return load_image_tokenizer(self.tokenizer_path)

    @cached_property
    def image_text_scorer(self) -> Any:
        """What knows how well image and text fit; None if this run names nothing."""
        if not self.names_scorer:
            return None
        return load_scorer(self.cfg.clip_model_path, self.cfg.image_text_scorer)

    def named(self, option: str) -> str | None:
        """An option of text to image; None if it is not given, or the task has no such option."""
        return getattr(self.cfg, option, None) or None

    @property
    def tokenizer_path(self) -> str | None:
        """Of the file or folder that ``--image-tokenizer`` or upstream's flags name."""
        path, model = self.named("image_tokenizer"), self.named("vqgan_model_path")
        if path or not model:
            return path
        config = self.named("vqgan_config_path")
        if config and Path(config).resolve().parent != Path(model).resolve().parent:
            raise UserError(
                f"--vqgan-config-path {config}: expects the folder of --vqgan-model-path {model};"
                " put model.yaml beside it"
            )
        return str(Path(model).parent) if Path(model).name == "last.ckpt" else model

    @property
    def names_scorer(self) -> bool:
        return bool(self.named("clip_model_path") or self.named("image_text_scorer"))

    def enabled_metrics(self) -> list:
        """The figures of this run's validation; objects that were put in by hand count as well."""
        loaded = map(vars(self).get, ("image_tokenizer", "image_text_scorer"))
        every = self.generates_images and all(one is not None for one in loaded)
        figures = self.spec.metrics.figures
        return [one for one in figures if every or one.enabled is None or one.enabled(self.cfg)]

    def begin_epoch(self, epoch: int, model) -> None:
        """Called by fairseq before each epoch: what validation will need is missed now."""
        super().begin_epoch(epoch, model)
        if not self.generates_images or epoch > 1:
            return
        for name in READ:
            if (path := self.named(name)) and not Path(path).exists():
                raise UserError(
                    f"--{name.replace('_', '-')}: expects a file or folder, found nothing at"
                    f" {path}; put it there, or leave the flag out to train without images"
                )
        if clip := self.named("clip_model_path"):
            check_weights(Path(clip))
        if self.named("gen_images_path"):
            logger.warning("--gen-images-path: 'ofa evaluate' writes images, training does not")
        scored = self.names_scorer or vars(self).get("image_text_scorer") is not None
        if scored and self.image_tokenizer is not None:
            self.check_tokenizer()

    def check_tokenizer(self) -> Any:
        """The tokenizer. Raises: UserError if there is none, or its codebook or its pixels per
        code are not the model's."""
        tokenizer, codebook = self.image_tokenizer, len(self.vocabulary.codes)
        if tokenizer is None:
            raise UserError(
                "images need what makes them of codes: expected --image-tokenizer, in Python"
                " tokenizer= (tokenizer.pt, or a folder with model.yaml and last.ckpt), found none;"
                " 'ofa tokenizer train' makes one"
            )
        expected = found = ""
        if (codes := getattr(tokenizer, "num_codes", codebook)) != codebook:
            expected = f"a codebook of {codebook} codes, as the model has (--code-dict-size)"
            found = str(codes)
        elif (side := getattr(tokenizer, "factor", CODE_SIDE)) != CODE_SIDE:
            expected = f"{CODE_SIDE} x {CODE_SIDE} pixels per code, as the model has"
            found = f"{side} x {side}"
        if expected:
            raise UserError(
                f"--image-tokenizer {self.tokenizer_path or ''}: expects {expected}, found {found};"
                " take the tokenizer that the training rows were made with"
            )
        return tokenizer

    # --- generating codes

    def build_generator(self, models, args, *more, **further) -> SequenceGenerator:
        """As for answers; of a task that draws the generator samples the codes of one image. As
        upstream a search strategy other than sampling has to be asked for."""
        if not self.generates_images:
            return super().build_generator(models, args, *more, **further)
        codes, count = self.vocabulary.codes, num_codes(self.cfg)
        given = {name: value for name, value in vars(args).items() if value is not None}
        chosen = {
            "gen_code": True,
            "constraint_range": self.cfg.constraint_range or (codes.start, codes.stop),
            "sampling": True,
            "min_len": count,
            "max_len_a": 0,
            "max_len_b": count,
            **given,
        }
        limits = (chosen.get("sampling_topk", 0), chosen.get("sampling_topp", 0))
        chosen["sampling"] = chosen["sampling"] or max(limits) > 0
        return super().build_generator(models, Namespace(**chosen), *more, **further)

    def predict(
        self, sample: Mapping[str, Any], models, generator, decoding: Decoding, count: int = 1
    ) -> list[Prediction]:
        """What the models answer to each row of a batch, or draw: ``beam`` x ``--sampling-times``
        images, the ``count`` best. ``sample["seeds"]`` (int per row, else from the row's id)
        decides what is drawn, whatever else is in the batch."""
        if not self.generates_images:
            return super().predict(sample, models, generator, decoding, count)
        rows = self.rows(sample)
        seeds = sample.get("seeds") or [seed_of(0, row.id) for row in rows]
        found: list[list[Prediction]] = [[] for _ in rows]
        for time in range(self.cfg.sampling_times):
            again = {**sample, "seeds": [seed_of(seed, time) for seed in seeds] if time else seeds}
            drawn = self.hypotheses(again, models, generator, decoding, generator.beam)
            for some, best, row in zip(found, drawn, rows):
                some += [self.spec.prediction(one, row, self.cfg) for one in best]
        if self.image_tokenizer is not None:
            every = [one for some in found for one in some]
            places = [row for row, some in enumerate(found) for _ in some]
            device = sample["net_input"]["src_tokens"].device
            images = self.images([one.codes or () for one in every], device)
            for one, image in zip(every, images):
                one.image = image
            if self.image_text_scorer is not None:
                for one, fit in zip(every, self.fits(images, places, sample, rows)):
                    one.clip_score = float(fit)
        for some, seed in zip(found, seeds):
            some.sort(key=quality, reverse=True)
            del some[count:]
            for one in some:
                one.seed = seed
            some[0].others = some[1:]
        return [some[0] for some in found]

    # --- images

    def images(
        self, codes: Sequence[Sequence[int]], device: torch.device | None = None
    ) -> list[Image.Image]:
        """The images that codes stand for. Raises: UserError if there is no tokenizer that fits."""
        from ofa.models.image_tokenizer.codec import decode_images

        tokenizer, count = self.check_tokenizer(), num_codes(self.cfg)
        short = next((len(some) for some in codes if len(some) != count), None)
        if short is not None:
            raise UserError(
                f"an image of --code-image-size {self.cfg.code_image_size} has {count} codes,"
                f" found {short}; leave --min-len and --max-len-b out, or give the model's code"
                " image size"
            )
        if isinstance(tokenizer, torch.nn.Module) and device is not None:
            tokenizer.to(device)
        side = int(count**0.5)
        grids = torch.tensor(codes, dtype=torch.int64, device=device).view(-1, side, side)
        return [image for part in grids.split(AT_ONCE) for image in decode_images(tokenizer, part)]

    def fits(
        self,
        images: Sequence[Image.Image],
        places: Sequence[int],
        sample: Mapping[str, Any],
        rows: Sequence[BatchRow],
    ) -> Iterable[float]:
        """How well each image fits. Args: places: of each image, its row in the batch."""
        scorer = self.image_text_scorer
        if self.cfg.eval_clip_method == "ti_sim":
            return scorer.score(list(images), [caption_of(rows[place].source) for place in places])
        if not hasattr(scorer, "compare"):
            raise UserError(
                "--eval-clip-method ii_sim: expects a scorer that compares images, found"
                f" {type(scorer).__name__}; use ti_sim, or CLIP (--clip-model-path)"
            )
        true = [self.true_image(row, image) for row, image in zip(rows, sample["code_images"])]
        return scorer.compare(list(images), [true[place] for place in places])

    def true_image(self, row: BatchRow, column: bytes, needed: bool = True) -> Image.Image | None:
        """The image of a row's caption: its image column, else what its codes stand for."""
        if column and column != blank_image(self.cfg.code_image_size):
            return decode_image(column.decode("ascii"), f"row {row.id}")
        codes = true_codes(row)
        if codes is None and needed:
            raise UserError(
                "--eval-clip-method ii_sim: expects rows with an image or its codes, found"
                f" neither in row {row.id}; use ti_sim"
            )
        return None if codes is None else self.images([codes])[0]

    def rewards_of_fit(
        self, answers: Sequence[Tensor], places: Sequence[int], sample: Mapping[str, Any]
    ) -> Tensor:
        """How well the images of sampled codes fit: float32[answers]. Args: places: of each,
        its row in the batch."""
        if self.image_text_scorer is None:
            raise UserError(
                "clip_scst_reward_criterion scores images: expected --clip-model-path (weights of"
                " CLIP) or --image-text-scorer, found neither"
            )
        ids = self.vocabulary.codes
        codes = [[token - ids.start for token in row.tolist() if token in ids] for row in answers]
        images = self.images(codes, sample["net_input"]["src_tokens"].device)
        fits = self.fits(images, places, sample, self.rows(sample))
        return torch.as_tensor(fits, dtype=torch.float32).cpu()

    def rows(self, sample: Mapping[str, Any]) -> list[BatchRow]:
        """What the rows of a batch are; with what is asked, if images are drawn for it."""
        rows = super().rows(sample)
        if self.generates_images:
            for row, tokens in zip(rows, sample["net_input"]["src_tokens"].tolist()):
                row.source = self.decode(tokens)
        return rows


def quality(drawn: Prediction) -> float:
    """How well an image fits, or how likely it is where nothing judges that."""
    return drawn.score if drawn.clip_score != drawn.clip_score else drawn.clip_score
