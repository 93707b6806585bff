"""``ofa negatives build``: the files that wrong examples of pretraining are drawn from, made
from the training rows."""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ofa.errors import UserError
from ofa.io.flags import Parser, command, option
from ofa.io.json_files import load_json
from ofa.io.paths import path_below

logger = logging.getLogger(__name__)

PAIR_COLUMNS = ("id", "image", "caption", "question", "answers", "objects", "dataset", "type")
PAIR_COLS, DETECTION_COLS = "0,1,2,3,4,5,6,7", "0,1,2"
DONE = "negative_samples.json"  # what the files were made from


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Rows to collect from."""

    data: tuple[str, ...] = option(help="image-text rows: vision_language_examples.tsv, or shards")
    detection: tuple[str, ...] = option(
        (), "rows of images and objects: detection_examples.tsv, or shards"
    )
    selected_cols: str = option("0,1,2,3,4,5,6,7", "columns of --data")
    detection_selected_cols: str = option("0,1,2", "columns of --detection")
    out: str = option(help="folder to write")


def set_up(parser: Parser) -> None:
    """The actions of ``ofa negatives``."""
    add = parser.add_actions()
    command(
        add("build", help="collect captions, objects and answers of training rows"),
        BuildOptions,
        run_build,
        description="Reads the training rows once, without their images, and writes "
        "all_captions.txt, object.txt and type2ans.json, for --neg-sample-dir. The same rows make "
        "the same files. Files that were made from the same rows are kept.",
        example="example: ofa negatives build --data vision_language_examples.tsv --detection "
        "detection_examples.tsv --out negative_sample",
    )


def run_build(args: BuildOptions) -> int:
    build_negatives(
        args.data, args.detection, args.out, args.selected_cols, args.detection_selected_cols
    )
    return 0


def build_negatives(
    data: Sequence[str],
    detection: Sequence[str],
    folder: str,
    selected_cols: str = PAIR_COLS,
    detection_selected_cols: str = DETECTION_COLS,
) -> None:
    """Collect captions, objects and answers of training rows; print what was found."""
    from ofa.data.negatives import ANSWERS, CAPTIONS, OBJECTS
    from ofa.io.atomic import names_file, replacing
    from ofa.io.folder_lock import lock_folder
    from ofa.prepare.itm_negatives import NegativeSamples

    pairs = [_open(path, selected_cols, len(PAIR_COLUMNS), "--selected-cols") for path in data]
    objects = [
        _open(path, detection_selected_cols, 3, "--detection-selected-cols") for path in detection
    ]
    made_from = {"data": list(map(_state, pairs)), "detection": list(map(_state, objects))}
    out = Path(folder)
    ours = _read(out / DONE)
    if (
        all((out / name).is_file() for name in (ANSWERS, CAPTIONS, OBJECTS))
        and ours.get("made_from") == made_from
    ):
        print(f"{out}: already complete")
        return
    with lock_folder(out), names_file(out), NegativeSamples(out) as found:
        if not ours:
            keep_files_of_others(out, (ANSWERS, CAPTIONS, OBJECTS))
        (out / DONE).unlink(missing_ok=True)
        for file in pairs:
            columns = dict(zip(PAIR_COLUMNS[2:], file.selected_cols[2:]))
            for texts, where in _rows(file, list(columns.values())):
                found.add_pair(dict(zip(columns, texts)), where)
        for file in objects:
            for (text,), where in _rows(file, file.selected_cols[2:3]):
                found.add_detections(text, where)
        counts = found.write(out)
        with replacing(out / DONE) as file:
            json.dump({"made_from": made_from, "entries": counts}, file, indent=1)
    print(
        f"{out}: {counts[CAPTIONS]} captions, {counts[OBJECTS]} objects, {counts[ANSWERS]} answers"
    )


def keep_files_of_others(folder: Path, names: Sequence[str]) -> None:
    """Rename files that are not known to be ours to ``NAME.old``, such as those that upstream
    provides."""
    for name in names:
        path, old = path_below(folder, name), path_below(folder, f"{name}.old")
        if path.exists() and not old.exists():
            logger.warning("%s: not made by ofa negatives build, kept as %s", path, old.name)
            os.replace(path, old)


def _open(path: str, columns: str, expected: int, flag: str):
    from ofa.data.rows import open_rows

    file = open_rows(path, columns)
    if len(file.selected_cols) != expected:
        raise UserError(
            f"{flag}={columns}: expects {expected} columns, found {len(file.selected_cols)}"
        )
    return file


def _rows(file, columns: list[int]) -> Iterator[tuple[list[str], str]]:
    """(texts of some columns, ``file:row``) of every row, with progress."""
    from ofa.io.progress import counted

    for row in counted(range(len(file)), len(file), file.path, "rows"):
        yield file.texts(row, columns), file.where(row)


def _state(file) -> list:
    """What tells whether the rows are others than before."""
    paths = getattr(file, "shards", [file.path])
    return [
        file.selected_cols,
        *(
            [os.path.realpath(path), os.stat(path).st_size, os.stat(path).st_mtime_ns]
            for path in paths
        ),
    ]


def _read(path: Path) -> dict:
    try:
        content = load_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
