"""Image files before they are embedded: found in folders, looked at once, checked whole.

One in a TSV file of lines ``image-id <tab> base64`` is called ``FILE.tsv:ROW@OFFSET+LENGTH``: row
from 1, offset and length of the base64 text in bytes.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ofa.errors import UserError, listed
from ofa.io.atomic import names_file
from ofa.io.image_archives import inside, members, read_inside
from ofa.io.images import (
    MAX_FILE,
    decode_base64,
    image_header,
    read_image_file,
    upright_box,
    upright_size,
)
from ofa.io.jobs import map_by_jobs
from ofa.io.json_files import load_json
from ofa.io.paths import path_below, path_within
from ofa.io.progress import counted
from ofa.io.terminal import with_noun

logger = logging.getLogger(__name__)

# How files of the formats of ``ofa.io.images`` are called, in lower case.
IMAGE_SUFFIXES = tuple(
    ".jpg .jpeg .jpe .jfif .mpo .png .apng .webp .gif .bmp .tif .tiff .ppm .pgm .pbm .pnm .avif"
    " .jp2 .j2k .jpf .jpx .j2c .jpc".split()
)
SKIPPED_NAMES = 5  # in the message about the others of a folder
NAMED_AT_MOST = 10  # offending files listed in one message
TABLE = ".tsv"
IN_TABLE = re.compile(
    rf"(?P<file>.+{re.escape(TABLE)}):[0-9]+@(?P<offset>[0-9]{{1,18}})\+(?P<length>[0-9]{{1,18}})",
    re.DOTALL,
)


def list_images(folder: str | Path, may_be_empty: bool = False) -> list[Path]:
    """The image files of a folder by name; one warning counts and names the others.

    Raises: UserError if there are no images, unless that may be.
    """
    images: list[Path] = []
    others: list[Path] = []
    for path in sorted(Path(folder).iterdir()):
        if not is_hidden(path.name):
            is_image = path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
            (images if is_image else others).append(path)
    if not images and not may_be_empty:
        known = ", ".join(IMAGE_SUFFIXES)
        raise UserError(f"{folder}: expected image files ({known}), found none in this folder")
    if others:
        names = listed([path.name for path in others], SKIPPED_NAMES)
        skipped = with_noun(len(others), "entry")
        logger.warning("%s: %s skipped, of another type: %s", folder, skipped, names)
    return images


def is_hidden(name: str) -> bool:
    """``.DS_Store``, ``._a.jpg`` of a Mac, and the folder of them in a ZIP archive."""
    return name.startswith(".") or name == "__MACOSX"


class ImageFolders:
    """The files below some folders, by relative path or by bare name, for data sets name images
    ``val2014/a.jpg`` or ``a.jpg``; those of ZIP archives likewise; and images of TSV files, by id.

    Raises: UserError if a folder or file is missing, or if a bare name stands for several files.
    """

    def __init__(self, folders: Sequence[str | Path]):
        self.tables = [
            Path(path) for path in folders if str(path).endswith(TABLE) and Path(path).is_file()
        ]
        self.archives = [Path(path) for path in folders if zipfile.is_zipfile(path)]
        files = [*self.tables, *self.archives]
        self.folders = [Path(path) for path in folders if Path(path) not in files]
        for folder in self.folders:
            if not folder.is_dir():
                raise UserError(
                    f"{folder}: expected the folder of the image files, a ZIP archive of them, or a"
                    " TSV file of image ids and images in base64, found none; check --images"
                )

    @functools.cached_property
    def in_tables(self) -> dict[str, str]:
        """Image id -> image of a TSV file."""
        found: dict[str, str] = {}
        for table in self.tables:
            for image_id, image in table_images(table):
                if image_id in found:
                    raise UserError(
                        f"{image.split('@')[0]}: expected every image once, found {image_id!r}"
                        f" again, as in {found[image_id].split('@')[0]}; remove one of the rows"
                    )
                found[image_id] = image
        return found

    @functools.cached_property
    def _by_name(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for top in self.folders:
            seen = set()  # once, however many links lead to a folder
            for folder, inner, names in os.walk(top, followlinks=True):
                real = os.path.realpath(folder)
                if real in seen:
                    inner.clear()
                    continue
                seen.add(real)
                for name in names:
                    found.setdefault(name, []).append(os.path.join(folder, name))
        for archive in self.archives:
            for name, path in members(archive).items():
                found.setdefault(os.path.basename(name), []).append(path)
        return found

    def find(self, *names: str) -> str | None:
        """Path of the first of the names that is there."""
        for name in names:
            for image_id in (name, Path(name).stem) if self.tables else ():
                if image_id in self.in_tables:
                    return self.in_tables[image_id]
            for folder in self.folders if os.path.dirname(name) else ():
                with suppress(UserError):  # elsewhere, from where annotations may not read
                    path = path_within(folder, name)
                    if path.is_file():
                        return str(path)
            paths = self._by_name.get(os.path.basename(name), [])
            if os.path.dirname(name):
                paths = [one for one in paths if one.endswith((f":{name}", f"/{name}"))] or paths
            if len(paths) > 1:
                raise UserError(
                    f"{paths[0]}: expected one file called {os.path.basename(name)!r}, found"
                    f" {len(paths)}, also {paths[1]}; give a folder of --images that holds one of"
                    " them only"
                )
            if paths:
                return paths[0]
        return None

    def __str__(self) -> str:
        return ", ".join(map(str, [*self.folders, *self.archives, *self.tables]))


def table_images(path: str | Path, column: int = 1) -> Iterator[tuple[str, str]]:
    """First column and image of each row of a TSV file. Args: column: of the base64 text.
    Raises: UserError naming the row."""
    try:
        with open(path, "rb") as file:
            start = 0
            for row, line in enumerate(file, 1):
                cells = line.rstrip(b"\r\n").split(b"\t")
                if len(cells) <= column:
                    raise UserError(
                        f"{path}:{row}: expected an image in base64 in column {column} (from 0),"
                        f" found {len(cells)} columns; is it a file of rows 'image-id <tab>"
                        " base64'?"
                    )
                offset = start + sum(len(cell) + 1 for cell in cells[:column])
                yield cells[0].decode("utf-8"), f"{path}:{row}@{offset}+{len(cells[column])}"
                start += len(line)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: expected ids in UTF-8, found other bytes ({error}); save it as UTF-8"
        ) from None


def read_image(path: str) -> bytes:
    """Bytes of an image file, of an image in a TSV file, in either alphabet of base64, or in one of
    ``image_archives``. Raises: OSError, ValueError."""
    if place := inside(path):
        return read_inside(place, MAX_FILE)
    place = IN_TABLE.fullmatch(str(path))
    if place is None:
        return read_image_file(path)
    with open(place["file"], "rb") as file:
        file.seek(int(place["offset"]))
        # a name may be made up: read() takes the memory first
        length = min(int(place["length"]), os.fstat(file.fileno()).st_size)
        return decode_base64(file.read(length))


@dataclass(frozen=True)
class ImageFile:
    """What looking at an image file found.

    Args: broken: why it cannot be used. size: width, height in pixels, upright. orientation: of its
    EXIF data, 1 for stored upright.
    """

    broken: str = ""
    size: tuple[int, int] = (0, 0)
    num_bytes: int = 0
    sha256: str = ""
    orientation: int = 1

    @property
    def stored_size(self) -> tuple[int, int]:
        return upright_size(self.size, self.orientation)


def look_at(path: str) -> ImageFile:
    try:
        data = read_image(path)
        size, turn = image_header(data, whole=True)
        digest = hashlib.sha256(data).hexdigest()
        return ImageFile("", upright_size(size, turn), len(data), digest, turn)
    except FileNotFoundError:
        return ImageFile("missing")
    except OSError as error:
        return ImageFile(f"not a readable image ({error.strerror})")
    except UserError as error:
        return ImageFile(f"not a readable image ({str(error).partition('found ')[2]})")


def look_at_all(paths: Sequence[str], jobs: int, notes: Path) -> dict[str, ImageFile]:
    """``look_at`` of each path, by several processes when it pays.

    Args: notes: file of what was seen, from which an interrupted call continues; then removed.
    Raises: UserError if a file of others lies there.
    """
    notes = path_below(notes.parent, notes.name)
    seen = _read_notes(notes)
    left = [path for path in paths if path not in seen]
    notes.parent.mkdir(parents=True, exist_ok=True)
    images = counted(map_by_jobs(look_at, left, jobs), len(left), "looking at the images", "img")
    with names_file(notes), open(notes, "a", encoding="utf-8") as file:
        for path, image in zip(left, images):
            seen[path] = image
            file.write(json.dumps([file_state(path), dataclasses.astuple(image)]) + "\n")
    notes.unlink(missing_ok=True)
    return {path: seen[path] for path in paths}


def _read_notes(notes: Path) -> dict[str, ImageFile]:
    """What an interrupted call saw, if unchanged; a line that was cut off ends the notes."""
    seen: dict[str, ImageFile] = {}
    text = notes.read_bytes() if notes.is_file() else b""
    if text and not text.startswith(b'[["'):
        raise UserError(
            f"{notes}: expected notes of an interrupted call, found another file; move it away, or"
            " choose another --out"
        )
    try:
        for line in text.decode("utf-8").splitlines():
            (path, *state), (broken, size, num_bytes, sha256, orientation) = load_json(line)
            if (path, *state) == file_state(path):
                seen[path] = ImageFile(broken, tuple(size), num_bytes, sha256, orientation)
    except (OSError, ValueError, TypeError):
        pass
    return seen


def image_size(path: str) -> tuple[int, int]:
    """Width and height in pixels, upright, by the head of the file; (0, 0) if it is broken."""
    return upright_size(*stored_form(path))


def stored_form(path: str) -> tuple[tuple[int, int], int]:
    """Width and height as stored, and the EXIF orientation; (0, 0) and 1 if it is broken."""
    try:
        return image_header(read_image(path))
    except (OSError, UserError):  # said properly when the whole file is looked at
        return (0, 0), 1


def turned_box(
    box: tuple[float, ...], stated: tuple[int, int], form: tuple[tuple[int, int], int]
) -> tuple[tuple[float, ...], tuple[int, int]]:
    """A box of annotations that state the size of their image, in pixels of the upright image; and
    that image's size.

    COCO's tools never applied an EXIF orientation: the box is turned with the image, unless the
    stated size is that of the upright image alone. Args: form: of ``stored_form``.
    """
    size, orientation = form
    if orientation == 1 or stated != size:
        return box, stated
    return upright_box(box, size, orientation), upright_size(size, orientation)


def readable(paths: Sequence[Path]) -> tuple[list[Path], dict[str, str]]:
    """The whole images, and why the others are not; these are named in one warning.

    Raises: UserError if none is left.
    """
    broken = {str(path): found for path in paths if (found := look_at(str(path)).broken)}
    named = name_broken(broken)
    if len(broken) == len(paths):
        raise UserError(f"expected images that can be read, found none: {named}; export them again")
    if broken:
        images = with_noun(len(paths), "image")
        logger.warning("%d of %s skipped, unreadable: %s", len(broken), images, named)
    return [path for path in paths if str(path) not in broken], broken


def name_broken(broken: dict[str, str]) -> str:
    """``a.jpg: missing; b.jpg: ...; and 3 more`` for a message."""
    faults = [f"{path}: {reason}" for path, reason in broken.items()]
    return listed(faults, NAMED_AT_MOST, "; ")


def file_state(path: str) -> tuple:
    """Path, bytes and time of the last change: enough to see that a file is another one."""
    place = inside(path) or IN_TABLE.fullmatch(path)
    try:
        state = os.stat(place["file"] if place else path)
        return path, state.st_size, state.st_mtime_ns
    except OSError:
        return path, None, None
