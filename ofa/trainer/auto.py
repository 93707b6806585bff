"""Settings that fit the data and the device: what ``--auto`` changes in a recipe.

Recipes are made for 100 000 rows and more. Of few rows they make a handful of updates, keep
averages that never leave the starting weights, and a checkpoint for each epoch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

from ofa.errors import UserError
from ofa.io.jobs import count_threads
from ofa.io.terminal import in_units, with_noun
from ofa.trainer.flags import given, value_of
from ofa.trainer.plan import Plan, gpu_memory, usable_memory

ENOUGH = 500  # updates; of fewer hardly anything is learned
WANTED = {"scratch": 1000, "checkpoint": 500}  # updates of a training on few rows
MOST_EPOCHS = 100
LENGTH = ("--max-epoch", "--max-update")
BATCHES_PER_EPOCH = 32  # at least
SMALLEST_BATCH = 16
VALIDATIONS = 12
WARM_UP = 0.06
SMALL_ARCHS = ("ofa_nano", "ofa_tiny")  # several threads gain little in their products
ROWS_PER_PROCESS = 8  # of a CPU, at least
AVERAGED = 10  # the averages reach over a tenth of the updates
# Learning rates: measured for ofa_nano, the others follow upstream's pretraining (1e-4 for large)
# and the widths.
FROM_SCRATCH = {
    "ofa_nano": 1e-3,
    "ofa_tiny": 5e-4,
    "ofa_medium": 3e-4,
    "ofa_base": 2e-4,
    "ofa_large": 1e-4,
    "ofa_huge": 1e-4,
}
FROM_CHECKPOINT = {"ofa_nano": 5e-4, "ofa_tiny": 2e-4}  # others: the recipe's
PIXELS = {1_000: 96, 10_000: 128, 10**12: 224}  # rows -> side of an image, from random weights
WORDS = {
    "--patch-image-size": "pixels",
    "--lr": "learning rate",
    "--max-epoch": "epochs",
    "--ema-decay": "EMA decay",
}


@dataclass
class Fit:
    """Flags that go behind a recipe's, and what they say in words. Args: own: flags of the user,
    which stay as they are."""

    own: frozenset[str]
    flags: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)

    def set(self, plan: Plan, flag: str, value: object) -> None:
        before = value_of(flag, plan.flags)
        if flag in self.own or before is not None and before.strip("[]") == str(value):
            return
        self.flags.append(f"{flag}={value}")
        if flag in WORDS:
            self.changes.append(f"{WORDS[flag]} {value}{f' instead of {before}' if before else ''}")


def fit(plan: Plan, own: Sequence[str], keep_batch: bool) -> tuple[int, int, Fit]:
    """Rows per process and step, rows per update, and flags that fit.

    Args: plan: of the recipe. own: flags of the user, which win. keep_batch: so do the batches.
    Raises: UserError if not even one row fits into memory.
    """
    found, rows = Fit(frozenset(given(own))), plan.facts.rows
    batch, effective = plan.batch, plan.effective_batch
    if plan.cost is None or rows is None or plan.has_auxiliary_rows:
        return batch, effective, found
    _fit_image_size(plan, found)
    _fit_learning_rate(plan, found)
    is_long = (plan.epochs or 0) > MOST_EPOCHS and not found.own & set(LENGTH)
    is_misfit = is_long or (plan.updates or 0) < ENOUGH
    if is_misfit and not keep_batch:
        effective = min(effective, _power_of_two(max(rows // BATCHES_PER_EPOCH, SMALLEST_BATCH)))
    if not keep_batch:
        fitted = replace(plan, flags=[*plan.flags, *found.flags])
        frequency = plan.update_freq if "--update-freq" in found.own else 1
        batch = _fit_memory(fitted, math.ceil(effective / (plan.processes * frequency)))
        step = batch * plan.processes
        steps = frequency if "--update-freq" in found.own else math.ceil(effective / step)
        effective = step * steps
    if is_misfit:
        _fit_length(plan, effective, found)
        if effective != plan.effective_batch:
            found.changes.insert(0, f"batch {effective} instead of {plan.effective_batch}")
    return batch, effective, found


def fitting_processes(plan: Plan) -> int:
    """Processes that share a step of a small network on a CPU, with a part of the cores each. Args:
    plan: of one process, with what fits."""
    if plan.gpus or plan.processes > 1 or plan.arch not in SMALL_ARCHS or plan.has_auxiliary_rows:
        return 1
    most = min(count_threads(), plan.batch // ROWS_PER_PROCESS)
    equal = [count for count in range(most, 1, -1) if plan.batch % count == 0]
    fits = (one for one in equal if one * plan.memory(plan.batch // one) <= usable_memory())
    return next(fits, 1)


def _fit_image_size(plan: Plan, found: Fit) -> None:
    """Small images where a network learns to see from few rows; those of its training where it has
    learned to, unless a GPU affords the recipe's."""
    spec, start = plan.facts.spec, plan.facts.start
    if not plan.pixels:
        return
    if start.table is None:
        side = next(side for most, side in PIXELS.items() if (plan.facts.rows or 0) < most)
        if plan.gpus:
            side = max(side, 224)
    else:
        trained_with = start.options.get("patch_image_size")
        if not isinstance(trained_with, int) or plan.gpus and plan.arch != "ofa_nano":
            return
        side = trained_with
    if side < plan.pixels:
        found.set(plan, "--patch-image-size", side)
        options = fields(spec.options) if spec else ()  # those of a mixture say it themselves
        if start.table is None and any(one.name == "max_image_size" for one in options):
            found.set(plan, "--max-image-size", side)


def _fit_learning_rate(plan: Plan, found: Fit) -> None:
    """That of CIDEr optimization and of parameter-efficient tuning stays: the method decides."""
    if plan.samples_model or plan.is_peft:
        return
    rates = FROM_SCRATCH if plan.facts.start.table is None else FROM_CHECKPOINT
    if plan.arch in rates:
        found.set(plan, "--lr", f"{rates[plan.arch]:g}")


def _fit_memory(plan: Plan, most: int) -> int:
    """Rows of a step."""
    memory = gpu_memory() if plan.gpus else None
    size = memory * 1e9 if memory else usable_memory() * plan.nodes / plan.processes
    if plan.gpus and not memory:
        return min(plan.batch, most)
    batch = plan.largest_batch(size, most)
    if not batch:
        raise UserError(
            f"--auto: expected {in_units(round(plan.memory(1)))} of memory for a step of one row of"
            f" {plan.arch} with {plan.pixels} pixels, found {in_units(round(size))}; take a smaller"
            " --size or --patch-image-size, or --checkpoint-activations"
        )
    return batch


def _fit_length(plan: Plan, effective: int, found: Fit) -> None:
    """Epochs, warm-up, averages, validations and checkpoints for few rows, or for the length that
    the user gave."""
    epoch_updates = math.ceil((plan.facts.rows or 1) / effective)
    wanted = WANTED["scratch" if plan.facts.start.table is None else "checkpoint"]
    epochs = min(max(math.ceil(wanted / epoch_updates), 1), MOST_EPOCHS)
    given = [int(plan.number(flag)) if flag in found.own else 0 for flag in LENGTH]
    if any(given):  # 0 is no limit
        limits = [given[0] * epoch_updates, given[1]]
        updates = min(filter(None, limits))
        epochs = math.ceil(updates / epoch_updates)
        found.flags += [f"{flag}=0" for flag in LENGTH if flag not in found.own]
    else:
        updates = epochs * epoch_updates
        found.set(plan, "--max-epoch", epochs)
        found.set(plan, "--max-update", 0)
    every = max(epochs // VALIDATIONS, 1)
    for flag, value in (
        ("--warmup-updates", 0),
        ("--warmup-ratio", WARM_UP),
        ("--save-interval", every),
        ("--validate-interval", every),
        ("--save-interval-updates", 0),
        ("--validate-interval-updates", 0),
        ("--keep-best-checkpoints", -1),
    ):
        found.set(plan, flag, value)
    if plan.has("--store-ema"):
        decay = min(plan.number("--ema-decay", 0.9999), max(1 - AVERAGED / updates, 0))
        found.set(plan, "--ema-decay", f"{decay:.4g}")
    if not plan.has("--no-epoch-checkpoints"):
        found.flags.append("--no-epoch-checkpoints")
    if plan.kept_checkpoints > 2:
        found.changes.append("only the last and the best checkpoint kept")


def _power_of_two(most: int) -> int:
    return 1 << most.bit_length() - 1


def words(plan: Plan, found: Fit, updates: int | None) -> str:
    """A line about what was changed, or "". Args: plan: of the recipe. updates: that come of it."""
    if not found.changes:
        return ""
    why, few = "", ""
    if plan.updates and plan.updates < ENOUGH and not found.own & set(LENGTH):
        rows = with_noun(plan.facts.rows or 0, "row")
        why = f"the recipe would make {with_noun(plan.updates, 'update')} of {rows}: "
    if updates and updates < ENOUGH:
        few = f"; {with_noun(updates, 'update')}"
        is_limit = "--max-update" in found.own and updates == int(plan.number("--max-update"))
        few += ", the limit of --max-update" if is_limit else ": more rows or --max-epoch make more"
    return f"{why}{', '.join(found.changes)}{few} (--no-auto keeps the recipe)"
