"""What a training needs besides its rows: a vocabulary folder, a checkpoint, and the folder of
negative samples, ``all_captions.txt``, ``object.txt`` and ``type2ans.json``."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ofa.checkpoints.header import TOKEN_TABLES
from ofa.data.negatives import ANSWERS, FILES, OTHER, read_answers
from ofa.doctor.rule import Report, shown
from ofa.doctor.scan import digest
from ofa.errors import UserError
from ofa.io.image_files import IMAGE_SUFFIXES, is_hidden
from ofa.tasks.caption import PROMPTS
from ofa.tokens.vocabulary import DICTIONARY

SAMPLES = (PROMPTS["en"], " a man's red-white shirt, 3 of 10!", PROMPTS["zh"])
# ending of a table -> kind of ``ofa prepare`` that reads it
TABLES = {".csv": "csv", ".jsonl": "jsonl", ".json": "jsonl"}
VOCABULARY = (".txt", ".bpe", ".json", ".model")  # endings of a vocabulary's files


def files_of(path: str) -> list[str]:
    """The TSV files of a folder and of the folders in it, as far as they hold neither shards nor a
    vocabulary."""
    found = []
    for folder, folders, names in os.walk(path):
        others = [name for name in ("*.tar", DICTIONARY, *FILES) if any(Path(folder).glob(name))]
        folders[:] = [] if others else [name for name in folders if not is_hidden(name)]
        tables = (name for name in names if name.endswith(".tsv") and not is_hidden(name))
        found += [] if others else [os.path.join(folder, name) for name in tables]
    return sorted(found)


def kind_of(path: str) -> str:
    """What to check: ``checkpoint``, ``negatives``, ``vocabulary`` or ``rows``. Raises: UserError
    for a table or an image, of which rows are made first."""
    folder = Path(path)
    if folder.suffix in TABLES:
        kind = TABLES[folder.suffix]
        raise UserError(
            f"{path}: expected training files, found the table that they are made of; make them:"
            f" ofa prepare {kind} {path} --task TASK --images FOLDER --out FOLDER"
        )
    if folder.suffix.lower() in IMAGE_SUFFIXES:
        raise UserError(
            f"{path}: expected training files, found an image; make them of a table that names"
            " images: ofa prepare csv, or of folders of them: ofa prepare image-folder"
        )
    if folder.suffix in (".pt", ".pth", ".ckpt", ".bin"):
        return "checkpoint"
    if not folder.is_dir():
        return "rows"
    if folder.name == "negative_sample" or any((folder / name).is_file() for name in FILES):
        return "negatives"
    if any(folder.glob("*.tar")):
        return "rows"
    if not any(path.suffix in VOCABULARY for path in folder.iterdir()):
        raise UserError(
            f"{path}: expected a folder of TSV files, shards, negative samples or a vocabulary,"
            " found none of their files; is it the right folder?"
        )
    return "vocabulary"


def check_vocabulary(folder: str) -> Report:
    """A vocabulary folder: readable, of one source, and what encoding does to ordinary text."""
    from ofa.tokens.bpe import load_bpe
    from ofa.tokens.vocabulary import Vocabulary

    report = Report(folder, "vocabulary", "text entries")
    try:
        vocabulary = Vocabulary.from_folder(folder)
        bpe = load_bpe(folder)
    except UserError as error:
        report.find("vocabulary", str(error))
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
        report.find("vocabulary-pieces", f"{found} {missing[0]!r}")
    if changed:
        report.find("vocabulary-text", changed[0])
    return report


def check_checkpoint(path: str, bpe_dir: str | None = None) -> Report:
    """A checkpoint: whole, harmless, finite, and as large as the vocabulary."""
    from ofa.checkpoints.read import read

    report = Report(path, "checkpoint", "tensors")
    try:
        checkpoint = read(path)
        weights = checkpoint.weights
    except UserError as error:
        report.find("checkpoint", str(error).removeprefix(f"{path}: "))
        return report
    report.rows = len(weights)
    broken = [
        name
        for name, tensor in weights.items()
        if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if broken:
        found = f"{len(broken)} tensors with NaN or infinity, the first {broken[0]}"
        report.find("checkpoint-weights", found)
    options = checkpoint.options
    if not options.get("arch"):
        report.find("checkpoint-arch", "none")
    if bpe_dir and (found := _other_size(weights, options, bpe_dir)):
        report.find("checkpoint-vocabulary", found)
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
    for name in TOKEN_TABLES:
        if name in weights and len(weights[name]) != size:
            return f"{name} of {len(weights[name])} entries, {bpe_dir} of {size}"
    return ""


# --- negative samples


def check_negatives(folder: str) -> list[Report]:
    """A report on each of the three files."""
    reports = []
    for path in (Path(folder) / name for name in FILES):
        report = Report(str(path), "negative samples", "entries")
        try:
            (_check_answers if path.name == ANSWERS else _check_lines)(path, report)
        except FileNotFoundError:
            report.find("negatives-file", f"no {path.name}")
        except OSError as error:
            found = f"{path.name}, which cannot be read ({error.strerror})"
            report.find("negatives-file", found)
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            report.find("negatives-file", f"{path.name} with the byte 0x{byte:02x}")
        report.sort()
        reports.append(report)
    return reports


def _check_lines(path: Path, report: Report) -> None:
    seen: set[int] = set()  # digests: a file of captions may be large
    with open(path, encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, 1):
            line = line.removesuffix("\n")
            text, report.rows = line.strip(), number
            if not text or text != line:
                found = shown(line) if line else "an empty line"
                report.find("negatives-line", found, number, 0)
            elif digest(text) in seen:
                report.find("negatives-again", shown(line), number, 0)
            seen.add(digest(text))
    if len(seen) < 2:
        report.find("negatives-few", str(len(seen)))


def _check_answers(path: Path, report: Report) -> None:
    text = path.read_text(encoding="utf-8")
    try:
        kinds = read_answers(path)
    except UserError:
        report.find("negatives-json", shown(text))
        return
    report.rows = sum(map(len, kinds.values()))
    if len(set(kinds.get(OTHER, ()))) < 2:
        report.find("negatives-other", str(len(set(kinds[OTHER]))) if OTHER in kinds else "none")
    kind_of: dict[str, str] = {}
    for kind, answers in kinds.items():
        if kind != OTHER and len(set(answers)) < 2:
            report.find("negatives-kind", f"{len(set(answers))} of {kind!r}")
        for answer in dict.fromkeys(answers):
            count = answers.count(answer)
            if not answer.strip() or count > 1:
                report.find("negatives-answer", f"{answer!r} {count} times in {kind!r}")
            elif kind != OTHER and kind_of.setdefault(answer, kind) != kind:
                found = f"{answer!r} in {kind_of[answer]!r} and {kind!r}"
                report.find("negatives-two-kinds", found)
