"""Writing the training files: rows with their images embedded, in files that appear whole or not
at all.

A row of a caption file, for example, has five columns::

    391895_0 <tab> 391895 <tab> a man on a red motorcycle <tab> <tab> /9j/4AAQSkZJRgABAQ...
    uniq-id        image-id     caption, captions joined by &&   objects (empty)   image in base64

A file is written under the name ``NAME.part`` and renamed when it is complete. ``manifest.json`` in
the same folder lists the complete files with rows, bytes and SHA-256, what they were made from, and
the *plan*, a fingerprint of all that decides their content. A second call with the same plan keeps
complete files and continues an incomplete one after its last whole image; with another plan it
starts over. Files of others are neither overwritten nor deleted.
"""

import functools
import hashlib
import itertools
import json
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa.errors import UserError
from ofa.io.atomic import names_file, replacing
from ofa.io.folder_lock import FolderLock, lock_folder
from ofa.io.image_files import read_image
from ofa.io.images import encode_image, upright_file
from ofa.io.json_files import load_json
from ofa.io.paths import delete_below, path_below
from ofa.io.progress import Progress
from ofa.io.values import one_line
from ofa.process_state import silence_known_warnings

logger = logging.getLogger(__name__)

JOINED_BY = "&&"
STAGE1, STAGE2 = "caption_stage1_train.tsv", "caption_stage2_train.tsv"
VAL, TEST = "caption_val.tsv", "caption_test.tsv"
MANIFEST = "manifest.json"
PART = ".part"
ENDINGS = (".tsv", ".txt", ".json", ".jsonl")  # of what preparations write
WINDOW = 256  # images handed to the worker processes at a time
IMAGE = "\0image"  # stands in a row where the image's base64 goes
FURTHER = "\0further"  # and the path of another image of the row: where that one's goes


@dataclass(frozen=True)
class Group:
    """Rows, one after the other, that show the same image.

    Args: source: what ``encode`` needs to make the base64 text. rows: their columns, ``IMAGE`` for
    the image.
    """

    source: Any
    rows: tuple[tuple[str, ...], ...]

    def block(self, image: str) -> bytes:
        """The rows as they stand in the file."""
        lines = (
            "\t".join(image if cell == IMAGE else cell_text(cell) for cell in row)
            for row in self.rows
        )
        return "".join(f"{line}\n" for line in lines).encode("utf-8")

    @property
    def paths(self) -> list[str]:
        """All images that it needs."""
        further = (
            cell.removeprefix(FURTHER)
            for row in self.rows
            for cell in row
            if cell.startswith(FURTHER)
        )
        return [self.source, *further]


def further_image(path: str) -> str:
    """The cell of a second image."""
    return f"{FURTHER}{path}"


def cell_text(cell: str) -> str:
    """The text of a cell; of a second image its file in base64."""
    return base64_of_file(cell.removeprefix(FURTHER)) if cell.startswith(FURTHER) else cell


@dataclass(frozen=True)
class CaptionedImage:
    """An image, its captions, and what ``encode`` needs to make its base64 text."""

    image_id: str
    captions: tuple[str, ...]
    source: Any

    def one_row_per_caption(self) -> list[tuple[str, str]]:
        return [(f"{self.image_id}_{i}", caption) for i, caption in enumerate(self.captions)]

    def one_row(self) -> list[tuple[str, str]]:
        return [(self.image_id, JOINED_BY.join(self.captions))]

    def group(self, rows: list[tuple[str, str]]) -> Group:
        """The rows ``(uniq_id, caption)`` with all columns of a caption file."""
        return Group(
            self.source,
            tuple((uniq_id, self.image_id, caption, "", IMAGE) for uniq_id, caption in rows),
        )


@dataclass
class CaptionCleaner:
    """Makes captions fit for a TSV and counts what it had to change."""

    whitespace: int = 0
    joined: int = 0
    empty: int = 0

    def __call__(self, caption: str) -> str:
        """One line without tabs and without ``&&``; empty if nothing is left."""
        text = one_line(caption)
        if any(mark in caption.strip() for mark in "\t\r\n\v\f\x85\u2028\u2029"):
            self.whitespace += 1
        if JOINED_BY in text:
            self.joined += 1
            while JOINED_BY in text:
                text = text.replace(JOINED_BY, "&")
        self.empty += not text
        return text

    def report(self) -> str:
        return (
            f"{self.whitespace} captions with tabs or line breaks and {self.joined} with"
            f" '{JOINED_BY}' cleaned, {self.empty} empty ones left out"
        )


def fingerprint(*parts: object) -> str:
    """A short digest of plain data."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def base64_of_file(path: str) -> str:
    """The file in standard base64: its bytes as they are, or turned where its EXIF orientation
    says so (``upright_file``)."""
    return encode_image(upright_file(read_image(path), path))


class PreparedFolder:
    """The output folder of a preparation; knows which files are complete.

    Args:
        folder: made if need be.
        plan: digest of everything that decides the content (``fingerprint``).
        made_by: the command, for the manifest.
        make: at once; otherwise nothing is touched before ``make()``.
        manifest: its name; files of several plans may lie in one folder, each with a manifest of
            its own.
    Raises: UserError if the folder cannot be made or written to, or another process writes these
    files.
    """

    def __init__(
        self,
        folder: str | Path,
        plan: str,
        made_by: str,
        make: bool = True,
        manifest: str = MANIFEST,
    ):
        self.folder = Path(folder)
        self.manifest_path = self.folder / manifest
        self.manifest: dict[str, Any] = {
            "made_by": made_by,
            "plan": plan,
            "finished": False,
            "counts": {},
            "files": {},
            "begun": [],
        }
        self._previous = read_manifest(self.manifest_path)
        if self._previous.get("plan") == plan:
            self.manifest = self._previous
        self.lock: FolderLock | None = None
        if make:
            self.make()
        else:
            self._check_place()

    def _own(self) -> None:
        """From the first write on, until this object goes, no other process may write these
        files."""
        if self.lock is None:
            self.lock = lock_folder(self.folder, f"{self.manifest_path.name}.lock")

    def _check_place(self) -> None:
        """Say at once, not after hours of work, that the folder cannot be made. Raises:
        UserError."""
        place = self.folder
        while not place.exists() and place != place.parent:
            place = place.parent
        if not place.is_dir():
            raise UserError(
                f"{self.folder}: the output folder cannot be made ({place} is a file); choose"
                " another --out"
            )
        if not os.access(place, os.W_OK | os.X_OK):
            raise UserError(
                f"{self.folder}: the output folder cannot be made or written to ({place} is not"
                " yours to write to); choose another --out, or fix the permissions"
            )

    def make(self) -> None:
        """Make the folder; what another plan left there goes."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.folder}: the output folder cannot be made ({error.strerror}); choose"
                " another --out"
            ) from None
        self._check_place()
        self._own()
        if self._previous is not self.manifest:
            self._discard(self._previous)

    def path(self, name: str) -> Path:
        """The file of this name. Raises: UserError if it would lie elsewhere."""
        return path_below(self.folder, name, str(self.manifest_path))

    def _discard(self, previous: dict) -> None:
        """Files of another plan must not be mistaken for this plan's. What the manifest does not
        list stays.

        Raises: UserError, before anything is deleted, if it lists what no preparation has written.
        """
        files, where = previous.get("files", {}), str(self.manifest_path)
        for name, entry in files.items():
            path = self.path(name)
            if path.is_file() and path.stat().st_size != entry["bytes"]:
                raise UserError(
                    f"{path}: expected {entry['bytes']} bytes as {self.manifest_path.name} says,"
                    f" found {path.stat().st_size}: it was changed, and another preparation would"
                    " delete it; move it away, or choose another --out"
                )
        # the one file of a manifest NAME.manifest.json
        own = self.manifest_path.name.removesuffix(f".{MANIFEST}")
        parts = [f"{name}{PART}" for name in previous.get("begun", [])]
        delete_below(
            self.folder,
            [*files, *parts],
            tuple(f"{ending}{part}" for ending in (*ENDINGS, own) for part in ("", PART)),
            where,
        )

    def _begin(self, name: str) -> Path:
        """The file ``NAME.part`` to write or to continue. Raises: UserError if there is one of
        others."""
        self._own()
        path, part = self.path(name), self.path(f"{name}{PART}")
        begun = self.manifest.setdefault("begun", [])
        if name not in begun:
            foreign = next((file for file in (path, part) if file.exists()), None)
            if foreign is not None and name not in self.manifest["files"]:
                raise UserError(
                    f"{foreign}: expected no such file, found one that {self.manifest_path.name}"
                    " does not list; move it away, or choose another --out"
                )
            begun.append(name)
            self.save_manifest()
        return part

    def is_finished(self) -> bool:
        """Whether an earlier call with this plan has written everything, and it is still there."""
        return self.manifest["finished"] and all(map(self.is_complete, self.manifest["files"]))

    def note(self, **facts: object) -> None:
        """Keep facts in the manifest: ``inputs``, ``settings``, ..."""
        self.manifest.update(facts)
        self.save_manifest(self.manifest["finished"])

    def save_manifest(self, finished: bool = False, **counts: int) -> None:
        """Args: finished: nothing more is to be written; counts: figures to keep beside the
        files."""
        self._own()
        self.manifest["finished"] = finished
        self.manifest["counts"].update(counts)
        with replacing(self.manifest_path) as file:
            file.write(json.dumps(self.manifest, indent=1, ensure_ascii=False) + "\n")

    def is_complete(self, name: str) -> bool:
        entry, path = self.manifest["files"].get(name), self.path(name)
        return entry is not None and path.is_file() and path.stat().st_size == entry["bytes"]

    def complete(self, name: str, rows: int, sha256: str) -> None:
        """Give ``NAME.part`` its final name and list it."""
        path = self.path(name)
        os.replace(self.path(f"{name}{PART}"), path)
        size = path.stat().st_size
        self.manifest["files"][name] = {"rows": rows, "bytes": size, "sha256": sha256}
        self.save_manifest()

    def write_text(self, name: str, text: str, rows: int) -> None:
        """A small text file, written at once."""
        if not self.is_complete(name):
            data = text.encode("utf-8")
            with replacing(self._begin(name), "wb") as file:
                file.write(data)
            self.complete(name, rows, hashlib.sha256(data).hexdigest())

    def write_lines(self, name: str, lines: Iterable[str]) -> None:
        """A text file of any length, line by line; an incomplete one is written anew."""
        if self.is_complete(name):
            return
        digest, count = hashlib.sha256(), 0
        part = self._begin(name)
        with names_file(part), open(part, "wb") as file:
            for line in lines:
                data = f"{line}\n".encode()
                file.write(data)
                digest.update(data)
                count += 1
            file.flush()
            os.fsync(file.fileno())
        self.complete(name, count, digest.hexdigest())

    def write_rows(
        self,
        name: str,
        captioned: Sequence[CaptionedImage],
        rows_of: Callable[[CaptionedImage], list],
        images: Callable[[int], Iterator[str]],
    ) -> None:
        """A caption file.

        Args:
            rows_of: ``Image.one_row`` or ``Image.one_row_per_caption``.
            images: base64 texts of the images from the given one on.
        """
        self.write_groups(name, [one.group(rows_of(one)) for one in captioned], images)

    def write_groups(
        self, name: str, groups: Sequence[Group], images: Callable[[int], Iterator[str]]
    ) -> None:
        """A file of rows; continues ``NAME.part`` after its last whole group.

        Args: images: base64 texts of the groups' images from the given group on.
        """
        if self.is_complete(name):
            logger.info("%s: already complete", self.folder / name)
            return
        part = self._begin(name)
        done, digest = _resume(part, [len(group.rows) for group in groups])
        if done:
            logger.info("%s: continuing after %d of %d images", part, done, len(groups))
        with (
            names_file(part),
            open(part, "ab") as file,
            Progress(len(groups), name, "img", initial=done) as progress,
        ):
            for group, image in zip(groups[done:], images(done)):
                block = group.block(image)
                file.write(block)
                digest.update(block)
                progress.update()
            file.flush()
            os.fsync(file.fileno())
        self.complete(name, sum(len(group.rows) for group in groups), digest.hexdigest())


def read_manifest(path: Path) -> dict:
    """The manifest of a preparation; an empty one if there is none. Raises: UserError if the
    file is something else."""
    try:
        manifest = load_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        finding = f"{type(error).__name__}: {error}"
    else:
        finding = _foreign(manifest)
    if finding:
        raise UserError(
            f"{path}: expected the manifest of an earlier call, found something else ({finding});"
            " choose another --out, or move it away"
        )
    return manifest


def _foreign(manifest: object) -> str:
    """Why the content is no manifest of a preparation, or an empty text."""
    if not isinstance(manifest, dict) or not str(manifest.get("made_by", "")).startswith("ofa "):
        return "not made by ofa"
    kinds = {"plan": str, "finished": bool, "counts": dict, "files": dict}
    wrong = next(
        (key for key, kind in kinds.items() if not isinstance(manifest.get(key), kind)), None
    )
    if wrong is not None or not isinstance(manifest.get("begun", []), list):
        return f"no '{wrong or 'begun'}'"
    for name, entry in manifest["files"].items():
        if not isinstance(entry, dict) or not all(
            type(entry.get(key)) is int and 0 <= entry[key] < 1 << 63 for key in ("rows", "bytes")
        ):
            return f"no rows and bytes of {name[:60]!r}"
    return ""


def encoded(sources: list, encode: Callable[[Any], str], jobs: int) -> Iterator[str]:
    """``encode`` of each source in order, by several processes when it pays."""
    if jobs <= 1 or len(sources) < WINDOW:
        yield from map(encode, sources)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, silence_known_warnings) as pool:
        for start in range(0, len(sources), WINDOW):
            yield from pool.map(encode, sources[start : start + WINDOW], chunksize=16)


def images_of(path: Path, rows_per_image: Sequence[int]) -> Iterator[str]:
    """The base64 texts of a complete caption file, one per image."""
    with open(path, encoding="ascii", errors="replace") as file:
        for rows in rows_per_image:
            lines = [next(file) for _ in range(rows)]
            yield lines[0].rstrip("\n").rsplit("\t", 1)[1]


def _resume(part: Path, rows_per_image: list[int]):
    """Cut a partial file after its last whole image.

    Returns: number of images it keeps, and the SHA-256 object of the bytes kept.
    """
    digest = hashlib.sha256()
    if not part.is_file():
        return 0, digest
    done, kept, rows, pending = 0, 0, 0, []
    with open(part, "rb") as file:
        for line in file:
            if not line.endswith(b"\n") or done == len(rows_per_image):
                break
            pending.append(line)
            rows += 1
            if rows == rows_per_image[done]:
                block = b"".join(pending)
                digest.update(block)
                kept, done, rows, pending = kept + len(block), done + 1, 0, []
    os.truncate(part, kept)
    return done, digest


def coco_reference(images: Sequence[CaptionedImage]) -> str:
    """The captions as a COCO annotation file, with the image ids as strings as they stand in the
    TSV."""
    annotations = [
        {"image_id": p.image_id, "caption": caption} for p in images for caption in p.captions
    ]
    return (
        json.dumps(
            {
                "type": "captions",
                "info": {},
                "licenses": [],
                "images": [{"id": p.image_id} for p in images],
                "annotations": [
                    {"id": i, **annotation} for i, annotation in enumerate(annotations)
                ],
            },
            ensure_ascii=False,
        )
        + "\n"
    )


def write_caption_files(
    out: PreparedFolder,
    splits: Mapping[str, Sequence[CaptionedImage]],
    encode: Callable[[Any], str],
    jobs: int,
) -> None:
    """All files of a captioning data set: both training stages, evaluation splits, references,
    plain captions."""
    out.save_manifest(
        finished=False,
        **{f"{split}_images": len(images) for split, images in splits.items()},
        train_captions=sum(len(p.captions) for p in splits["train"]),
    )

    def encode_from(images: Sequence[CaptionedImage], first: int) -> Iterator[str]:
        return encoded([image.source for image in images[first:]], encode, jobs)

    def reuse_from(first: int) -> Iterator[str]:
        rows = [len(image.captions) for image in splits["train"]]
        return itertools.islice(images_of(out.folder / STAGE1, rows), first, None)

    out.write_rows(
        STAGE1,
        splits["train"],
        CaptionedImage.one_row_per_caption,
        functools.partial(encode_from, splits["train"]),
    )
    out.write_rows(STAGE2, splits["train"], CaptionedImage.one_row, reuse_from)
    for split, name in (("val", VAL), ("test", TEST)):
        if splits[split]:
            out.write_rows(
                name,
                splits[split],
                CaptionedImage.one_row,
                functools.partial(encode_from, splits[split]),
            )
        if any(image.captions for image in splits[split]):
            out.write_text(
                f"{split}_caption_coco_format.json",
                coco_reference(splits[split]),
                len(splits[split]),
            )
    lines = [caption for image in splits["train"] for caption in image.captions]
    out.write_text("captions.txt", "".join(f"{line}\n" for line in lines), len(lines))
