"""A vocabulary folder and a checkpoint under the doctor's eyes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ofa.doctor.negatives import is_negatives
from ofa.doctor.rule import Report, Rule
from ofa.errors import UserError
from ofa.tasks.caption import PROMPTS
from ofa.tokens.bpe import REMEDY

SAMPLES = (PROMPTS["en"], " a man's red-white shirt, 3 of 10!", PROMPTS["zh"])
EMBEDDINGS = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


VOCABULARY = Rule("vocabulary", "a folder with dict.txt and the files of its BPE", REMEDY)
PIECES = Rule(
    "vocabulary-pieces",
    "every piece of the BPE in dict.txt",
    "take dict.txt and the BPE files from the same source",
)
ROUND_TRIP = Rule(
    "vocabulary-text",
    "decoding to give back the text",
    "is the folder meant for this language?",
    note=True,
)
CHECKPOINT = Rule("checkpoint", "a checkpoint of tensors and settings", "download or copy it again")
WEIGHTS = Rule("checkpoint-weights", "finite weights", "use an older checkpoint of the run")
SIZE = Rule(
    "checkpoint-vocabulary",
    "one embedding for every entry of the vocabulary",
    "give the --bpe-dir it was trained with, and --code-dict-size and --num-bins",
)
ARCHITECTURE = Rule(
    "checkpoint-arch",
    "the options it was trained with",
    "give --arch and the model's flags yourself",
    note=True,
)


def kind_of(path: str) -> str:
    """What to check: ``checkpoint``, ``negatives``, ``vocabulary`` or ``rows``."""
    if Path(path).suffix in (".pt", ".pth", ".ckpt", ".bin"):
        return "checkpoint"
    if is_negatives(path):
        return "negatives"
    is_shards = any(Path(path).glob("*.tar"))
    return "vocabulary" if Path(path).is_dir() and not is_shards else "rows"


def check_vocabulary(folder: str) -> Report:
    """A vocabulary folder: readable, of one source, and what encoding does to ordinary text."""
    from ofa.tokens.bpe import load_bpe
    from ofa.tokens.vocabulary import Vocabulary

    report = Report(folder, "vocabulary", "text entries")
    try:
        vocabulary = Vocabulary.from_folder(folder)
        bpe = load_bpe(folder)
    except UserError as error:
        report.add(VOCABULARY.finding(str(error)))
        return report
    report.rows = len(vocabulary.text)
    missing, changed = [], []
    for text in SAMPLES:
        pieces = bpe.encode(text)
        missing += [piece for piece in pieces.split(" ") if piece and piece not in vocabulary]
        if "".join(bpe.decode(pieces).split()).lower() != "".join(text.split()).lower():
            changed.append(f"{text!r} -> {bpe.decode(pieces)!r}")
    if missing:
        found = f"{len(missing)} pieces of ordinary text that are not in it, the first"
        report.add(PIECES.finding(f"{found} {missing[0]!r}"))
    if changed:
        report.add(ROUND_TRIP.finding(changed[0]))
    return report


def check_checkpoint(path: str, bpe_dir: str | None = None) -> Report:
    """A checkpoint: whole, harmless, finite, and as large as the vocabulary."""
    from ofa.checkpoints.contents import arguments, upstream_state_dict
    from ofa.checkpoints.delta import load_complete

    report = Report(path, "checkpoint", "tensors")
    try:
        checkpoint = load_complete(path)
        weights = upstream_state_dict(checkpoint)
    except UserError as error:
        report.add(CHECKPOINT.finding(str(error).removeprefix(f"{path}: ")))
        return report
    report.rows = len(weights)
    broken = [
        name
        for name, tensor in weights.items()
        if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if broken:
        found = f"{len(broken)} tensors with NaN or infinity, the first {broken[0]}"
        report.add(WEIGHTS.finding(found))
    options = arguments(checkpoint)
    if not options.get("arch"):
        report.add(ARCHITECTURE.finding("none"))
    if bpe_dir and (found := _other_size(weights, options, bpe_dir)):
        report.add(SIZE.finding(found))
    return report


def _other_size(weights: Mapping[str, Any], options: Mapping[str, Any], bpe_dir: str) -> str:
    """How the embeddings differ from the vocabulary, or "". A smaller one grows when it is loaded;
    a larger one cannot be used."""
    from ofa.checkpoints.architecture import LARGEST
    from ofa.tokens.vocabulary import Vocabulary

    counts = options.get("code_dict_size") or 8192, options.get("num_bins") or 1000
    if not all(type(count) is int and 0 < count <= LARGEST for count in counts):
        return f"options that say code_dict_size and num_bins {str(counts)[:100]}"
    try:
        size = len(Vocabulary.from_folder(bpe_dir, *counts))
    except UserError:
        return ""  # said by check_vocabulary
    for name in EMBEDDINGS:
        if name in weights and len(weights[name]) != size:
            return f"{name} of {len(weights[name])} entries, {bpe_dir} of {size}"
    return ""
