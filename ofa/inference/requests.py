"""What to ask about which image: images, folders of them, or files of JSON lines
(``docs/asking.md``) whose keys are the columns that a task asks with.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa.errors import UserError, did_you_mean, naming
from ofa.io.image_files import IMAGE_SUFFIXES, list_images
from ofa.io.paths import path_within
from ofa.io.text_files import holds_text, read_lines
from ofa.io.values import RowError, finding, in_fractions, load_values, read_box, text_of
from ofa.task.columns import NOUNS, Column
from ofa.task.text import JOIN, objects_field

if TYPE_CHECKING:
    from ofa.task.task_spec import TaskSpec  # imports torch

AS_LINES = (
    'write each row as a line such as {"image": "a.jpg", "question": "what?"} of a .jsonl file'
)
# ending of a table, which is not asked about -> what to do with it
TABLES = dict.fromkeys(".csv .tab .xls .xlsx .ods .parquet .arrow .feather".split(), AS_LINES)
TABLES[".tsv"] = (
    f"predict and score its rows: ofa evaluate CHECKPOINT FILE.tsv --out FOLDER, or {AS_LINES}"
)


@dataclass
class Request:
    """One thing to ask."""

    task: "TaskSpec"
    image: Path | None
    name: str  # of the image as it was given; none for tasks of texts alone
    words: dict[str, Any] = field(default_factory=dict)  # by column; a region is four numbers
    kept: dict[str, Any] = field(default_factory=dict)  # further keys of the line
    where: str = ""  # ``file:row`` or the path, for messages

    @property
    def images(self) -> dict[str, Path]:
        """The images that it asks about: the first one under no name, a second one by the name
        of its column."""
        further = {name: word for name, word in self.words.items() if isinstance(word, Path)}
        return further if self.image is None else {"": self.image, **further}

    @property
    def kind(self) -> tuple[str, ...]:
        """Requests of one kind can be asked together."""
        return self.task.name, *sorted(self.words)


def tasks_called(name: str, flag: str = "--task") -> list["TaskSpec"]:
    """What a name may mean: the task, then those of the same verb that ask with more. ``"vqa"`` ->
    vqa_gen, grounded_qa. Raises: UserError that lists the known names."""
    from ofa.tasks import declared_specs, spec_of, specs_called

    first = next(iter(specs_called(name)), None) or spec_of(name, flag)
    if first.generates_images:
        raise UserError(f"{flag}: task '{first.name}' makes images of texts; use ofa draw")
    needed = set(first.needed_names)
    same = [spec for spec in declared_specs() if spec.verb == first.verb]
    return [first, *(spec for spec in same if set(spec.needed_names) > needed)]


def usual_tasks(trained: Sequence["TaskSpec"] = ()) -> list["TaskSpec"]:
    """What may be asked where nobody says it: what the checkpoint was trained for first, then
    what most checkpoints know."""
    from ofa.tasks import declared_specs

    about_images = (spec for spec in declared_specs() if spec.has("image"))
    specs = sorted(about_images, key=lambda spec: not spec.usage.taught_by)
    first = [spec for spec in trained if not spec.generates_images]
    return list({spec.name: spec for spec in (*first, *specs)}.values())


def check_source(source: str) -> None:
    """Raises: UserError for an input that holds no requests, as far as its name and its first
    line show: before anything is loaded."""
    refuse_url(source)
    path, expected = Path(source), "an image, a folder of images or a .jsonl file"
    if not path.is_dir() and not path.is_file():
        raise UserError(f"{source}: expects {expected}, found nothing there")
    suffix = path.suffix.lower()
    if suffix in TABLES and path.is_file():
        raise UserError(f"{source}: expects {expected}, found a table; {TABLES[suffix]}")
    unknown = path.is_file() and not _holds_lines(path) and suffix not in IMAGE_SUFFIXES
    if unknown and holds_text(path):
        raise UserError(f"{source}: expects {expected}, found a text file; {AS_LINES}")
    for number, line in enumerate(read_lines(path) if _holds_lines(path) else (), 1):
        if line.strip():
            with naming(f"{path}:{number}"):
                _object_of(line)
            return


def read_requests(
    sources: str | Sequence[str],
    tasks: Sequence["TaskSpec"],
    words: Mapping[str, Any],
    images: Sequence[str] = (),
    flags: Iterable[str] = (),
) -> list[Request]:
    """What inputs ask, in their order.

    Args:
        sources: image files, folders of them, or JSON lines (``.jsonl``, ``.json``).
        tasks: what may be asked where a line does not say it: the first that its words are for.
        words: for every request that does not have them itself, by name.
        images: folders besides that of the file that its lines may name images of.
        flags: what the name of a misspelled word may have meant besides a column.
    Raises: UserError if there is nothing to read or a line is wrong.
    """
    sources = [sources] if isinstance(sources, str) else sources
    for source in sources:
        check_source(source)
    lines = all(_holds_lines(Path(source)) for source in sources)
    for name in () if lines else words:  # a line may name another task
        if not any(task.column(name) in task.asked for task in tasks):
            raise _unasked(name, tasks, flags)
    found: list[Request] = []
    for source in sources:
        if _holds_lines(path := Path(source)):
            found += _of_lines(path, tasks, words, images)
            continue
        for file in list_images(path) if path.is_dir() else [path]:
            with naming(file):
                request = _request({}, file, tasks, words)
            name = file.name if path.is_dir() and len(sources) == 1 else str(file)
            found.append(replace(request, name=name if path.is_dir() else source, where=str(file)))
    for name in filter(words.get, words):
        columns = [(request, request.task.column(name)) for request in found]
        if not any(column and column.public_name in request.words for request, column in columns):
            raise _unasked(name, [request.task for request in found], flags)
    return found


def _holds_lines(path: Path) -> bool:
    return path.suffix.lower() in (".jsonl", ".json") and path.is_file()


def _of_lines(
    path: Path, tasks: Sequence["TaskSpec"], words: Mapping[str, Any], images: Sequence[str]
) -> list[Request]:
    """The requests of a file of JSON lines."""
    found: list[Request] = []
    for number, line in enumerate(read_lines(path), 1):
        if line.strip():
            with naming(where := f"{path}:{number}"):
                request = _of_line(line, path.parent, tasks, words, images)
            found.append(replace(request, where=where))
    if not found:
        raise UserError(f'{path}: expects lines such as {{"image": "a.jpg"}}, found an empty file')
    return found


def _unasked(name: str, tasks: Sequence["TaskSpec"], flags: Iterable[str]) -> UserError:
    """What is said about a word that belongs to no column of the tasks."""
    flag = f"--{name.replace('_', '-')}"
    known = {f"--{column.public_name}": None for task in tasks for column in task.asked}
    return UserError(
        f"{flag}: no request asks with it; known: {', '.join(known) or 'none'}"
        + did_you_mean(flag, [*known, *flags])
    )


def _of_line(
    line: str,
    folder: Path,
    tasks: Sequence["TaskSpec"],
    words: Mapping[str, Any],
    images: Sequence[str],
) -> Request:
    """The request of a line of a file. Args: folder: of the file."""
    entry = _object_of(line)
    no_image = UserError(f'expects an object with "image": "path", found {line[:60]!r}')
    asked = tasks_called(str(entry["task"])) if "task" in entry else tasks
    key = next((key for key in image_keys(asked) if key in entry), "")
    if not key and (texts := [task for task in asked if not task.has("image")]):
        return _request(entry, None, texts, words)
    name = entry.get(key)
    if not isinstance(name, str) or not name.strip():
        raise no_image
    others = {name for task in asked for column in task.images[1:] for name in column.names}
    paths = {
        column: _image_path(folder, value, images)
        for column, value in entry.items()
        if column == key or (column in others and isinstance(value, str))
    }
    return replace(_request({**entry, **paths}, paths[key], asked, words), name=name)


def _object_of(line: str) -> dict[str, Any]:
    """Raises: UserError for a line that is no JSON object."""
    reason = ""
    try:
        if isinstance(entry := load_values(line), dict):
            return entry
    except ValueError as error:
        reason = f" ({error})"
    raise UserError(
        f'expects one JSON object per line, such as {{"image": "a.jpg"}}, found {line[:60]!r}'
        f"{reason}; write each entry of a list or of a longer object in a line of its own"
    )


def image_keys(tasks: Sequence["TaskSpec"]) -> list[str]:
    """What the key of the (first) image may be."""
    return ["image", *(name for task in tasks for one in task.images[:1] for name in one.names)]


def _image_path(folder: Path, name: str, images: Sequence[str]) -> Path:
    """An image that a line names. Raises: UserError if it lies elsewhere."""
    refuse_url(name)
    try:
        return path_within(folder, name, "", images)
    except UserError as error:
        raise UserError(f"{error}, or name its folder by --images") from None


def refuse_url(name: str) -> None:
    """Raises: UserError for ``https://...`` and the like: nothing is read from the network."""
    if "://" in name:
        raise UserError(
            f"expects an image on this machine, found the URL {name!r}; download it and give its"
            " path"
        )


def _request(
    entry: dict, image: Path | None, tasks: Sequence["TaskSpec"], words: Mapping[str, Any]
) -> Request:
    """Args: entry: a line. words: for columns that it has not. tasks: what it may ask."""
    said = {key: value for key, value in {**words, **entry}.items() if value is not None}
    task = _chosen(tasks, said)
    if "task" not in entry and not task.needed_names:
        others = {needed for other in tasks for needed in other.needed_names}
        if nulls := [key for key in entry if key in others and entry[key] is None]:
            raise UserError(
                f'expects "{nulls[0]}": a text, found null; fill it in, or leave it out for a'
                f" {task.name}"
            )
    chosen = {}
    for column in task.asked:
        known = next(filter(said.__contains__, (column.public_name, *column.names)), None)
        if known is not None:
            chosen[column.public_name] = _word(task, column, said[known])
        elif column.needed:
            raise _missing(task, column, None)
    used = {"task", *image_keys([task]), *(known for one in task.asked for known in one.names)}
    kept = {key: value for key, value in entry.items() if key not in used}
    return Request(task, image, "", chosen, kept)


def _missing(task: "TaskSpec", column: Column, found: Any) -> UserError:
    name = column.public_name
    return UserError(
        f"'{task.verb}' expects \"{name}\": {column.noun}, found {found!r}; give it in the line or"
        f" by --{name}"
    )


def _chosen(tasks: Sequence["TaskSpec"], said: Mapping[str, Any]) -> "TaskSpec":
    """The first of the tasks that uses most of what is said, and lacks nothing; the first of all
    if each lacks something."""

    def is_said(column: Column) -> bool:
        return any(name in said for name in column.names)

    whole = [task for task in tasks if all(is_said(one) for one in task.asked if one.needed)]
    return max(whole, key=lambda task: sum(map(is_said, task.asked)), default=tasks[0])


def _word(task: "TaskSpec", column: Column, value: Any) -> Any:
    """What a request says for a column: a text, or a box."""
    name = column.public_name
    if column.kind == "image" and isinstance(value, (str, Path)):
        return Path(value)
    try:
        if column.kind == "box":
            return list(_region(value))
        if column.kind == "boxes" and isinstance(value, list):
            return objects_field(
                value, lambda one: "{:g},{:g},{:g},{:g}".format(*_region(one.get("box")))
            )
    except RowError as error:
        raise UserError(f'expects "{name}": {error}') from None
    parts = value if column.kind == "texts" and isinstance(value, list) else [value]
    try:
        text = JOIN.join(text_of(part, f'"{name}": {column.noun}') for part in parts)
    except RowError as error:
        raise UserError(f"'{task.verb}' expects {error}; write it in quotes") from None
    if column.needed and not text.strip():
        raise _missing(task, column, text)
    return text


def _region(value: Any) -> tuple[float, ...]:
    """Corners of a box, as of ``read_box``. Raises: RowError."""
    hint = "left is below right, top below bottom"
    with suppress(RowError):
        x0, y0, x1, y1 = region = read_box(value)
        if any(region) and in_fractions(region):
            hint = "are these fractions of the image?"
        elif x0 < x1 and y0 < y1:
            return region
    found = repr(value[:60]) if isinstance(value, str) else finding(value)
    raise RowError(f"{NOUNS['box']}, found {found}; {hint}")
