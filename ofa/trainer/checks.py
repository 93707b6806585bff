"""What a training needs, looked at before torch is imported: files, columns, vocabulary, the
checkpoint that it starts from."""

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path

from ofa.checkpoints.header import TOKEN_TABLES, Header, read_header
from ofa.data.negatives import complete_folder
from ofa.data.row_files import column_numbers, index_places, stored
from ofa.data.shards import find_shards, names_shards
from ofa.data.tsv import BOM, MAGIC, data_files, open_index
from ofa.errors import UserError
from ofa.models.config import PRESETS, ModelConfig
from ofa.task.columns import TsvSchema
from ofa.task.mixture_file import TEMPLATE, parse_members, read_members
from ofa.task.pretraining_tasks import TASKS, PretrainingOptions, RowKind, parse_weights
from ofa.task.task_spec import TaskOptions, TaskSpec
from ofa.tasks import OTHERS, declared_specs, spec_of, specs_called
from ofa.tasks.pretraining import EXTRAS, MATCHING, PAIRS
from ofa.tasks.template import UNBOUND
from ofa.tokens.bpe import recognize
from ofa.tokens.vocabulary import DICTIONARY, count_entries, read_dictionary
from ofa.trainer.flags import int_of, value_of

SOON_INDEXED = 1 << 30  # bytes of a file whose rows are counted at once
SAMPLE = 1 << 24  # bytes of a larger one that tell how long its rows are
# base64 of at least 64 characters, which the smallest image has; or nothing, where a row has none
IMAGE = re.compile(r"[A-Za-z0-9+/=_\-\s]{64,}|\s*")
BUCKETS = ("token_bucket_size", "image_bucket_size")  # options that decide shapes
CARRIED = (*BUCKETS, "code_image_size", "code_dict_size", "num_bins", "max_image_size")
SHOWN = 40  # characters of a cell in a message


@dataclass(frozen=True)
class Source:
    """Files whose rows are of one kind. Args: data: their paths, as tasks take them. columns: the
    numbers of their columns; None: the usual ones. rate: how often an epoch shows each row; 0: rows
    that go along with others."""

    schema: TsvSchema
    data: str
    columns: str | None = None
    rate: float = 1.0

    def training_files(self, validates: bool) -> list[str]:
        # a pretraining that does not validate takes all files
        return data_files(self.data, "train", isinstance(self.schema, RowKind) and not validates)


@dataclass(frozen=True)
class Facts:
    """What the files of a training tell.

    Args: spec: of its task; None for several tasks, or one that is not ours. rows: of an epoch, on
    average, of a pretraining those of pairs; None: not known. exact: whether they were counted.
    entries: of the vocabulary. start: of the checkpoint that it starts from. carried: flags that
    give the network its shapes.
    """

    spec: TaskSpec | None = None
    rows: int | None = None
    exact: bool = True
    entries: int | None = None
    start: Header = field(default_factory=Header)
    carried: tuple[str, ...] = ()


def look_at(data: str, start: str | None, flags: Sequence[str], carries: bool = False) -> Facts:
    """The facts. Args: data, flags: as of ``fairseq-train``. start: a checkpoint; None: random
    weights. carries: the shapes of the checkpoint count where no flag gives others.

    Raises: UserError for what would end the training later.
    """
    refuse_sharing(value_of("--ddp-backend", flags), "--cpu-offload" in flags)
    if value_of("--wandb-project", flags) and find_spec("wandb") is None:
        raise UserError(
            "--wandb-project: expected the package wandb, found none; pip install"
            " 'ofa-fairseq[wandb]', or leave the flag out: TensorBoard's files are written anyway"
        )
    if start is not None:
        _check_start(start, flags)
    _check_document_frequencies(data, flags)
    header = Header() if start is None else read_header(start)
    spec = _spec_of(flags)
    sources = _sources_of_several(data, flags)
    if spec is not None:
        sources = [Source(spec, data, value_of("--selected-cols", flags))]
    if not sources:
        return Facts(start=header)
    options = PretrainingOptions if spec is None else spec.options
    carried = carried_flags(header, options) if carries else ()
    flags = [*carried, *flags]
    for source in sources:
        _check_files(source, _validates(flags))
    entries = _entries_of(flags)
    _check_fit(start, header, entries, flags)
    rows, exact = rows_of_epoch(sources, _validates(flags))
    return Facts(spec=spec, rows=rows, exact=exact, entries=entries, start=header, carried=carried)


def refuse_sharing(backend: str | None, offloads: bool) -> None:
    """Raises: UserError for ways to share the work among processes that are not offered. Args:
    backend: --ddp-backend. offloads: --cpu-offload."""
    if backend == "slowmo" or offloads:
        flag = "--ddp-backend slowmo" if backend == "slowmo" else "--cpu-offload"
        raise UserError(
            f"{flag}: needs fairscale, which does not work with this torch; use --ddp-backend"
            " fully_sharded, which divides weights and Adam's moments among the processes, and"
            " --checkpoint-activations"
        )


SEVERAL_PRECISIONS = "precision of a training: expected one, found {}; leave one out"


def refuse_precisions(names: Collection[str]) -> None:
    """Raises: UserError if they are several. Args: names: of the precisions that flags ask for."""
    if len({name.removeprefix("memory-efficient-") for name in names}) > 1:
        raise UserError(SEVERAL_PRECISIONS.format(" and ".join(names)))


def _spec_of(flags: Sequence[str]) -> TaskSpec | None:
    if line := value_of("--template", flags):
        return spec_of(line)
    task = value_of("--task", flags)
    specs = specs_called(task) if task and task not in OTHERS else []
    return specs[0] if specs else None


def _sources_of_several(data: str, flags: Sequence[str]) -> list[Source]:
    """The files of the tasks of a mixture, or of a pretraining. Raises: UserError if they are not
    described as they should be."""
    task, mixture = value_of("--task", flags), value_of("--mixture", flags)
    if mixture and task != "joint":
        raise UserError(
            f"--mixture: expected with --task joint (ofa train joint), found --task {task}; name"
            " that task among those of the mixture"
        )
    if task == "joint":
        if bool(data) == bool(mixture):
            raise UserError(
                "--task joint: expected a JSON file of tasks (--data FILE.json) or --mixture, found"
                f" {'both' if data else 'neither'}; give one of them"
            )
        specs = {spec.name: spec for spec in (*declared_specs(), UNBOUND)}
        members = parse_members(mixture, specs) if mixture else read_members(data, specs)
        return [
            Source(
                spec_of(member.options.get(TEMPLATE) or member.task),
                member.options["data"],
                member.options.get("selected_cols"),
                member.weight,
            )
            for member in members
        ]
    if task != "unify_task":
        return []
    found, weights = {}, parse_weights(value_of("--task-weights", flags))
    for name in filter(weights.get, TASKS):
        kind = EXTRAS.get(name, PAIRS)
        files = data if kind is PAIRS else value_of(f"--{kind.name}-data", flags)
        if files and files != "none":
            rate = float(kind is PAIRS)
            found[kind.name] = Source(kind, files, value_of(kind.flag, flags), rate)
    if PAIRS.name in found and weights[MATCHING]:
        complete_folder(value_of("--neg-sample-dir", flags))
    return list(found.values())


def _validates(flags: Sequence[str]) -> bool:
    return "--disable-validation" not in flags


def _check_start(start: str, flags: Sequence[str]) -> None:
    if os.path.isfile(start):
        return
    found = f"--from (RESTORE) expects a checkpoint, found no file {start}"
    if (value_of("--criterion", flags) or "").startswith("scst"):
        raise UserError(
            f"{found}: CIDEr optimization starts from stage 1. Run caption-stage1 first (ofa train"
            " caption-stage1, or run_scripts/caption/train_stage1.sh), or name its checkpoint"
        )
    from ofa.checkpoints.published import advice  # what downloads, imported for this message alone

    raise UserError(
        f"{found}. Put it there, name another, or train from random weights (--from none)"
        f"{advice(start)}"
    )


def _check_document_frequencies(data: str, flags: Sequence[str]) -> None:
    for flag in ("--scst-cider-cached-tokens", "--eval-cider-cached-tokens"):
        path = value_of(flag, flags)
        if path and path != "corpus" and not os.path.isfile(path):
            raise UserError(
                f"{flag} (CIDER_DF) expects the document frequencies of the training captions,"
                f" found no file {path}; make it: ofa cider-df build --tsv"
                f" {data_files(data, 'train')[0]} --out {path}"
            )


# --- files


def _check_files(source: Source, validates: bool) -> None:
    """Raises: UserError if a file is missing or has not the columns of the task."""
    train = source.training_files(validates)
    (valid,) = data_files(source.data, "valid") or [""]
    for path in dict.fromkeys([*train, *([valid] if validates else [])]):
        is_valid = path == valid and path not in train
        if names_shards(path):
            find_shards(path)
        elif not os.path.isfile(path):
            what, remedy = "rows to learn from", "make it: ofa prepare"
            if is_valid:
                what = "rows to validate with"
                remedy = (
                    "take some of the training rows for it (ofa prepare ... --val-fraction 0.1), or"
                    " train without (--disable-validation)"
                )
            found = "a folder" if os.path.isdir(path) else "no such file"
            raise UserError(f"{path}: expected a TSV file with {what}, found {found}; {remedy}")
        else:
            _check_columns(path, source.schema, source.columns)


def _check_columns(path: str, schema: TsvSchema, selected_cols: str | None) -> None:
    """The first row has the columns of the task, and an image where one should be."""
    if not schema.columns:  # they follow from an option
        return
    cells = first_row(path)
    columns = selected_cols or schema.default_cols
    numbers = column_numbers(path, columns, len(cells))
    names = schema.names_of(len(numbers), path)
    for name, number in zip(names, numbers):
        column = schema.column(name)
        if column and column.kind == "image" and not IMAGE.fullmatch(cells[number]):
            raise UserError(
                f"{path}:1: {schema.flag}={columns}: expected an image in base64 in column"
                f" {number}, found {cells[number][:SHOWN]!r}; give the columns in the order"
                f" {','.join(names)}"
            )


def first_row(path: str) -> list[str]:
    """Its cells. Raises: UserError if the file is empty or cannot be read."""
    try:
        with open(path, "rb") as file:
            line = file.readline()
    except OSError as error:
        raise UserError(
            f"{path}: expected a TSV file, {error.strerror or error}; check the path"
        ) from error
    if not line.strip():
        raise UserError(
            f"{path}: expected rows of tab-separated columns, found an empty file; make it again"
        )
    return line.removeprefix(BOM).decode("utf-8", "replace").rstrip("\r\n").split("\t")


def rows_of_epoch(sources: Sequence[Source], validates: bool) -> tuple[int | None, bool]:
    """Rows that an epoch of training shows, of several files of a kind the average; and whether
    they were counted. None: not known."""
    total, all_exact = 0, True
    for source in filter(lambda source: source.rate, sources):
        counts = [count_rows(path) for path in source.training_files(validates)]
        known = [rows for rows, _ in counts if rows]
        if len(known) < len(counts):
            return None, True
        total += max(round(source.rate * sum(known) / len(known)), 1)
        all_exact &= all(exact for _, exact in counts)
    return total or None, all_exact


def count_rows(path: str) -> tuple[int | None, bool]:
    """Rows of a file, None if that is not known at once; and whether they were counted: those of a
    large file that has no index yet follow from the length of its first rows."""
    if names_shards(path):
        rows = [entry.get("rows") for entry in dict(find_shards(path)).values()]
        counted = [number for number in rows if number is not None]
        return (sum(counted), True) if len(counted) == len(rows) else (None, True)
    status = os.stat(path)
    for place in index_places(path):
        offsets = stored(place, MAGIC, status)
        if offsets is not None:
            return len(offsets) - 1, True
    if status.st_size <= SOON_INDEXED:
        return len(open_index(path)) - 1, True
    with open(path, "rb") as file:
        sample = file.read(SAMPLE)
    return round(status.st_size / len(sample) * max(sample.count(b"\n"), 1)), False


# --- vocabulary and checkpoint


def _entries_of(flags: Sequence[str]) -> int | None:
    """Entries of the vocabulary. Raises: UserError if its folder is not complete."""
    folder = value_of("--bpe-dir", flags)
    if not folder:  # the task says what it expects
        return None
    recognize(Path(folder).expanduser(), value_of("--bpe", flags))
    text = len(read_dictionary(Path(folder).expanduser() / DICTIONARY))
    codes = int_of("--code-dict-size", flags, TaskOptions.code_dict_size)
    bins = int_of("--num-bins", flags, TaskOptions.num_bins)
    return count_entries(text, codes, bins)


def _check_fit(
    start: str | None, header: Header, entries: int | None, flags: Sequence[str]
) -> None:
    """Raises: UserError if the checkpoint is of another size or another vocabulary."""
    arch = value_of("--arch", flags) or value_of("-a", flags) or ""
    if header.table is None or arch not in PRESETS or entries is None:
        return
    rows, width = header.table
    own = PRESETS[arch]["encoder_embed_dim"]
    if width != int_of("--encoder-embed-dim", flags, own):
        there = size_of(header) or f"one of width {width}"
        raise UserError(
            f"{start}: expected a model of the size {arch} (width {own}), found {there}; give"
            " --size (SIZE) as the checkpoint has it, or name another checkpoint"
        )
    for name in BUCKETS:
        flag, stored_value = f"--{name.replace('_', '-')}", header.options.get(name)
        here = int_of(flag, flags, getattr(ModelConfig, name))
        if isinstance(stored_value, int) and stored_value != here:
            raise UserError(
                f"{start}: expected a model with {name} {here}, found {stored_value}; give"
                f" {flag}={stored_value}"
            )
    if rows > entries:
        raise UserError(
            f"{start}: has {rows} vocabulary entries, the folder {value_of('--bpe-dir', flags)}"
            f" makes {entries} (with --num-bins and --code-dict-size); give the folder of its"
            " training by --bpe-dir"
        )


def carried_flags(header: Header, options: type[TaskOptions]) -> tuple[str, ...]:
    """What decides the shapes of a network, as its checkpoint has it."""
    known = {one.name for one in (*fields(options), *fields(ModelConfig))}
    values = {name: header.options.get(name) for name in CARRIED if name in known}
    return tuple(
        f"--{name.replace('_', '-')}={value}"
        for name, value in values.items()
        if isinstance(value, int)
    )


def stand_in(flags: Sequence[str]) -> Header:
    """Of a checkpoint of the size that the flags name, which nobody has looked at."""
    arch = value_of("--arch", flags) or value_of("-a", flags) or ""
    width = PRESETS.get(arch, {}).get("encoder_embed_dim", 0)
    return Header(shapes={TOKEN_TABLES[0]: (0, width)})


def size_of(header: Header) -> str | None:
    """The architecture of a checkpoint by its width."""
    if header.table is None:
        return None
    found = [arch for arch, size in PRESETS.items() if size["encoder_embed_dim"] == header.table[1]]
    return found[0] if found else None
