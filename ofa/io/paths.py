"""File names that come from data: made or refused, always below the folder that the user named.

path_below("out", "val2014/a.jpg")       out/val2014/a.jpg
path_below("out", "../notes.txt")        UserError; so do /etc/x, C:\\x, links to elsewhere
path_below("out", 300 * "a" + ".png")    out/aaaa...aaaa-3f5b2c....png, the same each time
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from ofa.errors import UserError, place

LONGEST = 255  # bytes of a component that file systems take
SHORTENED = 200  # bytes of a component that was longer: temporary names put some more around it
DIGEST = 16  # hexadecimal digits that tell shortened names apart
LONGEST_SUFFIX = 32  # bytes of an ending that a shortened name keeps
DEEPEST = 12  # components of a name: a path of more than 4096 bytes cannot be opened
SHOWN = 80  # characters of a name in a message
CONTROL = re.compile(r".*[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", re.DOTALL)
# What makes a text no name; the first that is found is said.
REFUSED = {
    CONTROL: "a control character",
    re.compile(r"[/\\~]|[A-Za-z]:"): "an absolute path",
    re.compile(r".*\\"): "a backslash",
    re.compile(r"(?:.*/)?\.\.(?:/|$)"): "'..'",
    re.compile(r"(?:.*/)?(?!\./)[. ]*(?:/|$)"): "an empty component",
    re.compile(rf"(?:[^/]*/){{{DEEPEST}}}"): f"more than {DEEPEST} components",
    re.compile(r"(?i)(?:.*/)?(?:con|prn|aux|nul|(?:com|lpt)[0-9¹²³])\s*(?:\.[^/]*)?(?:/|$)"): (
        "the name of a device"
    ),
}


def path_below(
    folder: str | Path, name: object, where: str = "", follow_links: bool = False
) -> Path:
    """The path of a file that data names, below a folder.

    Args:
        name: ``a.jpg`` or ``train/a.jpg``; of a long component the beginning and a digest.
        where: ``file:row`` or file, for messages.
        follow_links: symbolic links may lead elsewhere: for reading what the user has put there.
    Raises: UserError if the name is none, is absolute, or leads out by ``..`` or a link.
    """
    finding = _finding(name)
    if finding:
        raise _refused(folder, name, where, finding)
    path = Path(folder, *map(shortened, str(name).split("/")))
    if follow_links:
        return path
    top, real = os.path.realpath(folder), os.path.realpath(path)
    if not real.startswith(os.path.join(top, "")):
        raise _refused(folder, name, where, "a symbolic link that leads out of it")
    if os.path.lexists(real) and not (os.path.isfile(real) or os.path.isdir(real)):
        raise _refused(folder, name, where, "a device, a pipe or a broken link")
    return path


def path_within(
    folder: str | Path, name: object, where: str = "", roots: Iterable[str | Path] = ()
) -> Path:
    """The path of a file to read that data names as seen from ``folder``: it ends up below that, or
    below one of ``roots``; links that the user has put there may lead on.

    Raises: UserError if the file lies elsewhere.
    """
    if isinstance(name, str) and name.strip() and not CONTROL.match(name):
        path = os.path.join(os.path.abspath(folder), name)
        for top in (folder, *roots):
            from_top = os.path.relpath(path, os.path.abspath(top))
            if from_top.split(os.sep)[0] not in ("..", "."):
                return path_below(top, from_top, where, follow_links=True)
    return path_below(folder, name, where, follow_links=True)


def shortened(component: str) -> str:
    """The component, or what stands for one that is too long: ``aaaa-3f5b2c8d9e0f1a2b.png``."""
    data = component.encode()
    if len(data) <= LONGEST:
        return component
    suffix = os.path.splitext(component)[1]
    suffix = suffix if len(suffix.encode()) <= LONGEST_SUFFIX else ""
    end = f"-{hashlib.sha256(data).hexdigest()[:DIGEST]}{suffix}"
    return data[: SHORTENED - len(end.encode())].decode("utf-8", "ignore") + end


def delete_below(
    folder: str | Path, names: Iterable[object], endings: tuple[str, ...], where: str
) -> None:
    """Delete files that a manifest lists: all, or none if one of them cannot be ours.

    Args: endings: of the names that we write. where: the manifest, for messages.
    Raises: UserError as ``path_below``, for another ending, and for what is no regular file.
    """
    paths = []
    for name in names:
        path = path_below(folder, name, where)
        if not path.name.endswith(endings):
            raise _refused(folder, name, where, f"another ending than {' or '.join(endings)}")
        if os.path.lexists(path):
            if not stat.S_ISREG(os.lstat(path).st_mode):
                raise _refused(folder, name, where, "no regular file")
            paths.append(path)
    for path in paths:
        path.unlink(missing_ok=True)


def _finding(name: object) -> str:
    """Why a name is none, or an empty text."""
    if not isinstance(name, str) or not name.strip():
        return "no name"
    return next((finding for pattern, finding in REFUSED.items() if pattern.match(name)), "")


def _refused(folder: str | Path, name: object, where: str, finding: str) -> UserError:
    shown = name if len(str(name)) <= SHOWN else f"{str(name)[:SHOWN]}..."
    return UserError(
        f"{place(where)}expects the name of a file below {folder}, found {shown!r}: {finding}; "
        "correct the name, or take the file from a source that you trust"
    )
