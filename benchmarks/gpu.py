"""What one GPU does in under ten minutes: training steps, captioning, an update of CIDEr
optimization, image codes, reading images, and what 16 bits change, as a table with upper bounds and
goals. ``bash benchmarks/gpu.sh`` runs it and keeps the table.

Weights are random, batches are made up. What fails, for want of memory say, is a line of the table
too, and what the time does not suffice for is listed. --small: tiny sizes, to try it on a CPU.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any

import frame
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ofa.devices import has_bf16
from ofa.io.jobs import count_cores
from ofa.models import attention
from ofa.models.attention_trial import Kind, tried
from ofa.models.compiling import compile_network
from ofa.trainer.mfu import peak_of

# (arch, pixels of an image's side) -> images of a batch in training
TRAINING = {("ofa_base", 384): (4, 8, 32, 64), ("ofa_large", 480): (4, 16, 32)}
# An H100's captions per second, of five beams and 16 tokens: the most that its arithmetic allows,
# and the goal. Other chips: in proportion to their peak.
CAPTIONS = {("ofa_base", 384): (4200, 2000), ("ofa_large", 480): (1040, 600)}
MFU_GOALS = {"ofa_base": 0.25, "ofa_large": 0.35}  # of a training step
SMALL = ("ofa_nano", 64)
H100_PEAK = 989e12
CODE_RANGE = (50265, 58457)
TOKENS, BEAM = 16, 5
SECONDS = 3.0  # that a work is repeated for, at least three times


@dataclass
class Figure:
    """A line of the table. Args: bound: what nothing on this chip can exceed. note: why there is no
    value, or what else was seen."""

    what: str
    value: float | None
    unit: str
    bound: float | None = None
    goal: float | None = None
    note: str = ""

    def row(self) -> str:
        share = self.value / self.bound if self.value and self.bound else None
        cells = [number(self.value), self.unit, number(self.bound)]
        cells += [f"{share:.0%}" if share is not None else "", number(self.goal), self.note]
        return f"| {self.what} | {' | '.join(cells)} |"


def number(value: float | None) -> str:
    """Three digits, or none."""
    return "" if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


@dataclass
class Setting:
    """Where and how large. Args: ends: time after which no further work starts."""

    device: torch.device
    dtype: torch.dtype  # of 16 bits on a GPU
    small: bool
    ends: float

    @cached_property
    def peak(self) -> float | None:
        return peak_of(self.device, half=True)

    @property
    def scale(self) -> float | None:
        """Of an H100's figures."""
        return self.peak and self.peak / H100_PEAK

    def sizes(self, table: dict) -> dict:
        """The small size in place of a table's, with the smallest of its entries."""
        return {SMALL: next(iter(table.values()))} if self.small else table

    def model(self, arch: str, dtype: torch.dtype | None = None, **switches: Any) -> Any:
        return frame.random_model(arch, **switches).to(self.device, dtype or self.dtype)

    def inputs(self, images: int, pixels: int, dtype: torch.dtype | None = None) -> dict[str, Any]:
        made = frame.caption_inputs(images, pixels)
        return {
            name: one.to(self.device, (dtype or self.dtype) if one.is_floating_point() else None)
            for name, one in made.items()
        }

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object], warm_up: int = 3) -> float:
        """Of one call, the mean over ``SECONDS`` or three calls."""
        for _ in range(1 if self.small else warm_up):
            work()
        self.wait()
        started, calls = time.perf_counter(), 0
        while calls < (1 if self.small else 3) or time.perf_counter() - started < SECONDS:
            work()
            calls += 1
            self.wait()
            if self.small:
                break
        return (time.perf_counter() - started) / calls


Measurement = Callable[[Setting], Iterator[Figure]]


# --- training


@contextmanager
def attention_choice(name: str) -> Iterator[None]:
    """As OFA_ATTENTION."""
    before, cudnn = attention.CHOICE, torch.backends.cuda.cudnn_sdp_enabled()
    attention.CHOICE = name
    torch.backends.cuda.enable_cudnn_sdp(name == "cudnn")
    try:
        yield
    finally:
        attention.CHOICE = before
        torch.backends.cuda.enable_cudnn_sdp(cudnn)


def training(setting: Setting) -> Iterator[Figure]:
    """Forward, label-smoothed cross-entropy, backward and fused Adam of caption batches: batches,
    then ways of attention and compiled code at one of them; "auto" is the faster of two."""
    if setting.device.type == "cuda":
        found = tried(setting.device, setting.dtype, 64, Kind(causal=False, per_sample=False))
        value, note = (found.times, "") if found.right else (None, "it does not work here")
        yield Figure("bias in parts, over a shared one", value, "of the time", note=note)
    for (arch, pixels), batches in setting.sizes(TRAINING).items():
        batches = batches[:1] if setting.small else batches
        for batch in batches:
            yield training_step(setting, arch, pixels, batch)
        middle = batches[len(batches) // 2]
        for choice in ("masked",) if setting.small else filter("auto".__ne__, attention.CHOICES):
            with attention_choice(choice):
                yield training_step(setting, arch, pixels, middle, f"OFA_ATTENTION={choice}")
        if not setting.small:
            yield training_step(setting, arch, pixels, middle, "--compile", compiled=True)


def training_step(
    setting: Setting, arch: str, pixels: int, batch: int, how: str = "", compiled: bool = False
) -> Figure:
    model = setting.model(arch, **frame.DROPOUT).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, fused=True)
    target = torch.randint(4, 50000, (batch, TOKENS + 4), device=setting.device)
    inputs = {**setting.inputs(batch, pixels), "prev_output_tokens": target.roll(1, dims=1)}
    inputs["src_tokens"][: batch // 2, -2:] = 1  # padding, as most batches have it

    def loss() -> Tensor:
        logits = model(**inputs)[0].flatten(0, 1).float()
        return F.cross_entropy(logits, target.flatten(), label_smoothing=0.1)

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    with FlopCounterMode(display=False) as counter:
        loss().backward()
    flops = counter.get_total_flops() / batch
    if compiled:
        compile_network(model, setting.device)
    if setting.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(setting.device)
    value = batch / setting.seconds(step, warm_up=5)
    bound = setting.peak and setting.peak / flops
    name = f"training, {arch} {batch} x {pixels} px {how}".strip()
    goal = bound and arch in MFU_GOALS and bound * MFU_GOALS[arch]
    note = ""
    if setting.device.type == "cuda":
        note = f"{torch.cuda.max_memory_allocated(setting.device) / 2**30:.1f} GiB"
    return Figure(name, value, "images/s", bound, goal or None, note)


# --- generation


@torch.inference_mode()
def captions(setting: Setting) -> Iterator[Figure]:
    """Five beams, 16 tokens, no repeated trigram."""
    for (arch, pixels), (bound, goal) in setting.sizes(CAPTIONS).items():
        model = setting.model(arch).eval()
        options = {"max_len_b": TOKENS, "min_len": TOKENS, "no_repeat_ngram_size": 3}
        generator = frame.generator_of(model, beam=BEAM, **options)
        for batch in (2,) if setting.small else (16, 64, 128):
            sample = {"net_input": setting.inputs(batch, pixels)}
            value = batch / setting.seconds(partial(generator.generate, [model], sample))
            scale = None if setting.small else setting.scale
            name = f"beam-5 captions, {arch} {batch} x {pixels} px"
            limits = (scale and bound * scale, scale and goal * scale)
            yield Figure(name, value, "images/s", *limits)
            if batch == 16:
                generator.static = False
                value = batch / setting.seconds(partial(generator.generate, [model], sample))
                generator.static = None
                yield Figure(f"{name}, no CUDA graph", value, "images/s", *limits)


@torch.inference_mode()
def codes(setting: Setting) -> Iterator[Figure]:
    """Image codes sampled among the 256 likeliest, one image for each text."""
    arch = SMALL[0] if setting.small else "ofa_base"
    count, batch, side = (4, 1, 16) if setting.small else (1024, 16, 256)
    model = setting.model(arch, code_image_size=side).eval()
    options = {"gen_code": True, "min_len": count, "max_len_b": count, "beam": 1}
    options |= {"constraint_range": CODE_RANGE, "sampling": True, "sampling_topk": 256}
    generator = frame.generator_of(model, **options)
    tokens = torch.randint(4, 50000, (batch, 20), device=setting.device)
    sample = {"net_input": {"src_tokens": tokens}, "seeds": list(range(batch))}
    spent = setting.seconds(partial(generator.generate, [model], sample), warm_up=1)
    yield Figure(f"image codes, {arch}, {batch} texts", batch * count / spent, "codes/s")


def cider_optimization(setting: Setting) -> Iterator[Figure]:
    """An update of stage 2: five captions of each image, their rewards, forward and backward."""
    import scst

    arch, pixels = SMALL if setting.small else ("ofa_large", 480)
    images = 2
    model = setting.model(arch, dropout=0.0).train()
    options = {"max_len_b": TOKENS, "min_len": TOKENS, "no_repeat_ngram_size": 3}
    generator = frame.generator_of(model, beam=BEAM, **options)
    _, batch = scst.batches(images, pixels)
    inputs = setting.inputs(images, pixels)
    previous = batch["net_input"]["prev_output_tokens"].to(setting.device)
    batch["net_input"] = {**inputs, "prev_output_tokens": previous}
    batch["target"] = batch["target"].to(setting.device)
    with tempfile.TemporaryDirectory() as folder:
        _, criterion = scst.criterions(Path(folder), generator)
    spent = setting.seconds(lambda: scst.update(model, criterion, batch), warm_up=2)
    name = f"CIDEr optimization, {arch} {images} x {pixels} px, {BEAM} captions each"
    yield Figure(name, images / spent, "images/s")


# --- data and precision


def reading(setting: Setting) -> Iterator[Figure]:
    """Images of a TSV through data workers: base64, JPEG, resize, to the device; 640 x 480 pixels
    each. And with the device for JPEG and resize (``--decode-on-device``)."""
    from ofa.data.encoded_images import EncodedImage, EncodedImages
    from ofa.data.images import OFA_MEAN, OFA_STD, normalized, pixels_of, squashed
    from ofa.io.images import decode_image, open_undecoded

    fields, pixels = frame.photo_fields(4 if setting.small else 64), 64 if setting.small else 384
    statistics = torch.tensor([OFA_MEAN, OFA_STD], device=setting.device)

    class Photos(torch.utils.data.Dataset):
        on_device = False

        def __len__(self) -> int:
            return 8 if setting.small else 1 << 20

        def __getitem__(self, row: int) -> Any:
            field = fields[row % len(fields)]
            if self.on_device:
                return EncodedImage(open_undecoded(field), pixels)
            return pixels_of(squashed(decode_image(field, ""), pixels))

    counts = (0,) if setting.small else sorted({1, min(8, count_cores())})
    sizes = {"batch_size": 4 if setting.small else 32, "pin_memory": setting.device.type == "cuda"}
    for Photos.on_device, workers in product((False, True), counts):
        join = EncodedImages.join if Photos.on_device else torch.stack
        batches = torch.utils.data.DataLoader(
            Photos(), num_workers=workers, collate_fn=join, **sizes
        )
        rows, started = 0, None
        for batch in batches:
            batch = batch.pixels(setting.device) if Photos.on_device else batch
            normalized(batch.to(setting.device, non_blocking=True), statistics)
            if started is None:  # the workers have started
                started = time.perf_counter()
                continue
            rows += len(batch)
            if time.perf_counter() - started > SECONDS:
                break
        setting.wait()
        rate = rows / (time.perf_counter() - (started or 0))
        way = ", decoded on the device" if Photos.on_device else ""
        yield Figure(f"reading images, {pixels} px, {workers} workers{way}", rate, "rows/s")


@torch.inference_mode()
def precision(setting: Setting) -> Iterator[Figure]:
    """What captions and their scores in 16 bits differ by from those in float32, which is without
    TF32. Random weights are the worst case: no word is much likelier than another."""
    arch, pixels = SMALL if setting.small else ("ofa_base", 384)
    batch = 2 if setting.small else 16
    found, half = {}, torch.bfloat16 if setting.device.type == "cpu" else setting.dtype
    for dtype in (torch.float32, half):
        model = setting.model(arch, dtype).eval()
        generator = frame.generator_of(model, beam=BEAM, max_len_b=TOKENS, min_len=TOKENS)
        sample = {"net_input": setting.inputs(batch, pixels, dtype)}
        spent = setting.seconds(partial(generator.generate, [model], sample), warm_up=1)
        best = [beams[0] for beams in generator.generate([model], sample)]
        inputs = {**sample["net_input"], "prev_output_tokens": sample["net_input"]["src_tokens"]}
        scores = model(**inputs)[0].float().log_softmax(-1)
        found[dtype] = spent, [one["tokens"].tolist() for one in best], scores
    (slow, texts, exact), (fast, others, rounded) = found.values()
    kind = str(half).removeprefix("torch.")
    name = f"beam-5 captions, {arch}, {kind} over float32"
    yield Figure(name, slow / fast, "times as fast")
    same = sum(map(list.__eq__, texts, others)) / batch
    yield Figure(f"captions of random weights as in float32, {kind}", 100 * same, "%")
    largest = float((exact - rounded).abs().max())
    yield Figure(f"largest difference of a log-probability, {kind}", largest, "nats")


# --- the table

MEASUREMENTS: tuple[Measurement, ...] = (
    training,
    captions,
    cider_optimization,
    codes,
    reading,
    precision,
)


def run(measurements: list[Measurement], setting: Setting) -> Iterator[Figure]:
    """All figures; a measurement that fails is one without a value."""
    for measure in measurements:
        name = measure.__name__.replace("_", " ")
        figures = measure(setting)
        while True:
            if time.monotonic() > setting.ends:
                yield Figure(f"{name}, what is left of it", None, "", note="no time left")
                break
            try:
                yield next(figures)
            except StopIteration:
                break
            except (RuntimeError, NotImplementedError, ValueError) as error:
                reason = str(error).strip().split("\n")[0][:100].replace("|", "/")
                yield Figure(f"{name}, what is left of it", None, "", note=f"failed: {reason}")
                break
            finally:
                if setting.device.type == "cuda":
                    torch.cuda.empty_cache()


def table(figures: list[Figure], title: str) -> str:
    head = (
        "| what | measured | unit | at most | share | goal | note |\n|---|---|---|---|---|---|---|"
    )
    return "\n".join([title, "", head, *(figure.row() for figure in figures), ""])


@frame.program(
    device=(str, "cuda or cpu; else the GPU if there is one"),
    only=(str, "some measurements, separated by commas"),
    minutes=(9.0, "after which no further measurement starts"),
    small=(False, "tiny sizes, to try the program"),
    markdown=(str, "write the table to this file"),
)
def main(args: frame.Args) -> dict:
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    half = torch.bfloat16 if has_bf16(device) else torch.float16
    dtype = torch.float32 if device.type == "cpu" else half
    setting = Setting(device, dtype, args.small, time.monotonic() + 60 * args.minutes)
    known = {measure.__name__: measure for measure in MEASUREMENTS}
    wanted = args.only.split(",") if args.only else list(known)
    if missing := sorted({*wanted} - {*known}):
        raise SystemExit(f"--only {missing[0]}: expected some of {', '.join(known)}")
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    facts = f"{chip}, {count_cores()} cores, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}"
    figures = []
    for figure in run([known[name] for name in wanted], setting):
        figures.append(figure)
        print(figure.row(), flush=True)
        if args.markdown:  # after each, so that an interrupted run leaves what it has
            Path(args.markdown).write_text(table(figures, f"{facts}:"))
    peak = setting.peak and setting.peak / 1e12
    known_facts = {"chip": chip, "torch": torch.__version__, "date": time.strftime("%Y-%m-%d")}
    return {**known_facts, "peak_tflops": peak, "figures": [asdict(one) for one in figures]}
