"""What a training comes to, worked out from its flags, and how --auto fits it to few rows."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest

from ofa.checkpoints.header import Header
from ofa.errors import UserError
from ofa.io import jobs
from ofa.io.terminal import in_time, in_units, with_noun
from ofa.tasks import spec_of
from ofa.trainer import auto, plan
from ofa.trainer.auto import fit, words
from ofa.trainer.checks import Facts
from ofa.trainer.launch import Chosen, LaunchOptions, fitted
from ofa.trainer.plan import COSTS, Plan

RECIPE = (
    "--arch=ofa_nano --batch-size=4 --update-freq=128 --max-epoch=15 --lr=5e-5 --store-ema"
    " --ema-decay=0.9999 --patch-image-size=480 --keep-best-checkpoints=1 --keep-last-epochs=15"
).split()


def planned(*flags: str, rows=165, task="vqa_gen", start=None, **processes) -> Plan:
    facts = Facts(spec_of(task), rows, entries=10_000, start=start or Header())
    return Plan(facts, [*RECIPE, *flags], **processes)


@pytest.fixture(autouse=True)
def a_machine(monkeypatch):
    """Two cores, 8 GB, no GPU."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(auto, "usable_memory", lambda: 8 * 10**9)


# --- what the flags come to


def test_updates_follow_from_rows_batches_and_epochs():
    found = planned()  # 42 batches of 4 are one update of 512
    assert (found.effective_batch, found.epoch_updates, found.updates) == (512, 1, 15)
    assert planned("--update-freq=1", processes=2).updates == 15 * 21  # 165 / 8
    assert planned("--max-update=7").updates == 7
    assert planned("--max-update=7", rows=None).updates == 7
    assert planned("--max-epoch=0").updates is None


def test_the_line_says_what_will_happen():
    found = planned("--no-epoch-checkpoints", "--update-freq=8")
    assert found.line() == (
        f"165 rows, batch 32, 15 epochs, 90 updates, about {in_time(found.seconds() or 0)} on"
        f" 2 cores; checkpoints {in_units(found.expected_checkpoint_bytes or 0)} each, 3 kept"
    )
    assert planned(rows=1).line().startswith("1 row, batch 512")
    assert planned(rows=None, task="caption").line().startswith("batch 512; checkpoints")


def test_a_checkpoint_holds_weights_moments_and_averages():
    weights = 2.34e6 + 10_000 * 128
    assert planned().expected_checkpoint_bytes == pytest.approx(weights * (4 + 8 + 4))
    bare = planned("--no-save-optimizer-state", "--ema-fp32").expected_checkpoint_bytes
    assert bare == pytest.approx(weights * (4 + 4 + 4))
    no_averages = replace(planned("--ema-fp32"), flags=["--arch=ofa_nano", "--ema-fp32"])
    assert no_averages.expected_checkpoint_bytes == pytest.approx(weights * (4 + 8))
    assert planned("--lora-rank=4").expected_checkpoint_bytes is None  # tuned weights alone


@pytest.mark.parametrize(
    "flags, kept",
    [
        ((), 3 + 15),  # last, best, best by score, and 15 epochs
        (("--no-epoch-checkpoints",), 3),
        (("--keep-last-epochs=4",), 3 + 4),
        (("--save-interval=5",), 3 + 3),
        (("--no-epoch-checkpoints", "--save-interval-updates=5"), 3 + 3),
        (
            (
                "--no-epoch-checkpoints",
                "--save-interval-updates=5",
                "--keep-interval-updates=1",
                "--keep-best-checkpoints=-1",
            ),
            2 + 1,
        ),
        (("--no-save",), 0),
    ],
)
def test_checkpoints_that_will_be_kept_are_counted(flags, kept):
    assert planned(*flags).kept_checkpoints == kept


def test_a_disk_without_room_for_three_checkpoints_is_refused(tmp_path, monkeypatch):
    size = planned().expected_checkpoint_bytes
    free = SimpleNamespace(free=int(2.5 * size))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with pytest.raises(UserError, match=r"run: expected .* MB for checkpoints of .* \(--out\)"):
        planned().check_expected_space(tmp_path / "run")
    free.free = 4 * size
    assert "--keep-last-epochs=1" in planned().check_expected_space(tmp_path / "run")
    free.free = 20 * size
    assert planned().check_expected_space(tmp_path / "run") == ""


def test_larger_images_and_batches_need_more_memory_and_time():
    small, large = planned("--patch-image-size=96"), planned()
    assert small.memory(8) < large.memory(8) < large.memory(16)
    assert small.seconds() < large.seconds()
    assert large.largest_batch(8e9, 512) < small.largest_batch(8e9, 512) <= 512
    assert large.largest_batch(1e9, 512) == 0


def test_samples_of_the_model_have_no_known_time():
    assert planned("--criterion=scst_reward_criterion").seconds() is None


@pytest.mark.parametrize(
    "seconds, text", [(7, "5 s"), (600, "10 min"), (7200, "2.0 h"), (3 * 86400, "3.0 days")]
)
def test_times_are_said_in_words(seconds, text):
    assert in_time(seconds) == text


def test_the_table_keeps_the_rows_of_an_update():
    found = planned("--arch=ofa_base", rows=400_000)
    lines = found.table().splitlines()
    assert len(lines) == 1 + 4 * 4 and len(set(map(len, lines))) == 1
    for line in lines[1:]:
        gpus, *_, batch, freq, rows, number, unit = line.split()
        assert int(gpus) * int(batch) * int(freq) == int(rows) == 512
        assert unit in ("s", "min", "h", "days") and float(number) > 0
    huge = planned("--arch=ofa_huge").table()
    assert "does not fit" in huge.splitlines()[1]


def test_several_tasks_are_fitted_to_few_rows_together_but_not_a_pretraining():
    facts = Facts(rows=165, entries=10_000)
    joint = fit(replace(planned("--task=joint"), facts=facts), [], False)
    assert joint[:2] == (16, 16) and "--patch-image-size=96" in joint[2].flags
    pretraining = fit(replace(planned("--task=unify_task"), facts=facts), [], False)
    assert pretraining == (4, 512, auto.Fit(frozenset()))


def test_gpus_with_the_same_plan_share_a_line():
    lines = planned("--update-freq=4").table().splitlines()
    assert len(lines) == 1 + 4
    assert lines[1].startswith("   1  16 GB (V100, fp16) to 80 GB (H100, bf16)     16 ")


def test_costs_are_those_of_the_networks():
    """Parameters of the small networks; benchmarks/training_memory.py measures the rest."""
    import torch

    from ofa.models.config import ModelConfig
    from ofa.models.ofa_model import OFAModel

    common = {"scale_attn": True, "scale_fc": True, "scale_heads": True, "disable_entangle": True}
    for arch in ("ofa_nano", "ofa_tiny"):
        with torch.device("meta"):
            model = OFAModel(ModelConfig.from_namespace(common, arch), 100)
        width = model.config.encoder_embed_dim
        number = sum(weight.numel() for weight in model.parameters()) - 100 * width
        assert number == pytest.approx(COSTS[arch].parameters * 1e6, rel=0.01)


def test_a_vocabulary_that_nobody_names_is_upstreams_english_one():
    from ofa.tokens.published import gpt2_dictionary

    lines = len(gpt2_dictionary().splitlines())
    unknown = replace(planned(), facts=Facts(spec_of("vqa_gen"), 165))
    assert unknown.entries == 4 + lines + 1 + 8192 + 1000 == 59_457


# --- --auto


def flags_of(found: Plan, own=(), keep_batch=False) -> tuple[int, int, dict[str, str]]:
    batch, effective, changed = fit(found, own, keep_batch)
    return batch, effective, dict(flag.partition("=")[::2] for flag in changed.flags)


def test_few_rows_get_small_batches_and_enough_updates():
    batch, effective, flags = flags_of(planned())
    assert (batch, effective) == (16, 16)
    assert flags["--max-epoch"] == "91"  # 11 updates each: 1001
    assert flags["--patch-image-size"] == "96" and flags["--lr"] == "0.001"
    assert float(flags["--ema-decay"]) == pytest.approx(1 - 10 / 1001, abs=1e-4)
    assert flags["--save-interval"] == flags["--validate-interval"] == "7"
    fitted_plan = planned(*(f"{k}={v}" if v else k for k, v in flags.items()))
    assert fitted_plan.kept_checkpoints == 2


def test_batches_grow_with_the_rows_up_to_the_recipes():
    sizes = [flags_of(planned(rows=rows))[1] for rows in (20, 675, 5000, 10_000)]
    assert sizes == [16, 16, 128, 256]


def test_what_is_changed_is_said():
    line = words(planned(), fit(planned(), (), False)[2], 1001)
    assert line.startswith("the recipe would make 15 updates of 165 rows: batch 16 instead of 512")
    assert "epochs 91 instead of 15" in line and line.endswith("(--no-auto keeps the recipe)")


def test_updates_that_stay_few_are_said():
    own = ["--max-epoch=2"]
    line = words(planned(*own), fit(planned(*own), own, False)[2], 22)
    assert line.startswith("batch 16") and "; 22 updates: more rows" in line


def test_few_updates_that_the_user_asked_for_are_not_said_to_be_few_rows():
    own = ["--max-update=12"]
    line = words(planned(*own), fit(planned(*own), own, False)[2], 12)
    assert "; 12 updates, the limit of --max-update (" in line and "more rows" not in line


def test_enough_rows_keep_the_recipe_but_for_memory():
    start = Header({"patch_image_size": 480}, {"encoder.embed_tokens.weight": (10_000, 768)})
    found = planned("--arch=ofa_base", rows=400_000, start=start)
    batch, effective, flags = flags_of(found)
    assert (effective, flags) == (512, {}) and batch < 512


def test_a_finetuning_keeps_the_image_size_of_its_checkpoint():
    start = Header({"patch_image_size": 128}, {"encoder.embed_tokens.weight": (10_000, 128)})
    _, _, flags = flags_of(planned(start=start))
    assert flags["--patch-image-size"] == "128" and flags["--lr"] == "0.0005"
    assert flags["--max-epoch"] == "46"  # 11 updates each: 506


def test_flags_of_the_user_win():
    own = ["--max-epoch=5", "--lr=1e-4"]
    found = planned(*own)
    _, _, flags = flags_of(found, own)
    assert not {"--max-epoch", "--lr"} & {*flags}
    assert flags_of(found, own, keep_batch=True)[:2] == (4, 512)


def test_the_recipes_own_flags_are_told_from_the_users():
    options = LaunchOptions(batch_size=4, effective_batch=512, jobs=1)
    flags = [*RECIPE, "--lr=1e-4"]
    found, all_flags, _ = fitted(planned("--lr=1e-4"), options, flags, Chosen(1))
    assert (found.batch_size, found.effective_batch) == (16, 16)
    assert all_flags[: len(flags)] == flags
    assert not any(flag.startswith("--lr") for flag in all_flags[len(flags) :])
    everything = Chosen(len(flags), batch=True)
    found, all_flags, _ = fitted(planned(), options, flags, everything)
    assert found.effective_batch == 512 and "--max-epoch=15" in all_flags
    assert not any(flag.startswith("--max-epoch") for flag in all_flags[len(flags) :])


def test_steps_per_update_of_the_user_count_once():
    """16 rows per update are 4 steps of 4, not 4 of 16."""
    found = planned("--update-freq=4")
    assert flags_of(found, ["--update-freq=4"])[:2] == (4, 16)
    assert flags_of(planned("--update-freq=4", processes=2), ["--update-freq=4"])[:2] == (2, 16)


def test_the_batch_is_that_of_whole_steps_of_all_processes():
    assert flags_of(planned(processes=3))[:2] == (6, 18)  # not 2 steps of 3 * 5


def test_validations_and_averages_follow_the_epochs_of_the_user():
    own = ["--max-epoch=5"]
    _, _, flags = flags_of(planned(*own), own)  # 5 * 11 updates
    assert flags["--validate-interval"] == flags["--save-interval"] == "1"
    assert float(flags["--ema-decay"]) == pytest.approx(1 - 10 / 55, abs=1e-4)
    assert flags["--max-update"] == "0" and "--max-epoch" not in flags


def test_no_epochs_end_a_training_before_the_updates_of_the_user():
    own = ["--max-update=400"]
    _, _, flags = flags_of(planned(*own), own)  # 36.4 epochs of 11 updates
    assert flags["--max-epoch"] == "0" and "--max-update" not in flags
    assert flags["--validate-interval"] == "3"
    assert float(flags["--ema-decay"]) == pytest.approx(1 - 10 / 400, abs=1e-4)


def test_many_epochs_of_the_user_keep_the_recipes_batch():
    own = ["--max-epoch=200"]
    found = planned(*own, rows=10_000)  # 20 updates each
    _, effective, flags = flags_of(found, own)
    assert effective == 512 and "--save-interval" not in flags


@pytest.mark.parametrize(
    "flags, replaced",
    [
        (("--criterion=scst_reward_criterion",), False),
        (("--lora-rank=4",), False),
        (("--lora-rank=0",), True),
        (("--adapter",), False),
        (("--adapter", "--adapter-train-backbone"), True),
        (("--bitfit",), False),
        (("--encoder-prompt",), False),
    ],
)
def test_samples_and_parameter_efficient_tuning_keep_their_learning_rate(flags, replaced):
    start = Header({"patch_image_size": 128}, {"encoder.embed_tokens.weight": (10_000, 128)})
    assert ("--lr" in flags_of(planned(*flags, start=start))[2]) == replaced


def test_the_processes_of_a_node_share_its_memory(monkeypatch):
    """8 GB for two processes each, whether there are two nodes or one."""
    one = planned("--arch=ofa_base", rows=400_000, processes=2)
    two = planned("--arch=ofa_base", rows=400_000, processes=4, nodes=2)
    monkeypatch.setattr(auto, "usable_memory", lambda: 16 * 10**9)
    assert flags_of(one)[0] == flags_of(two)[0]


@pytest.mark.parametrize(
    "cores, flags, shared",
    [
        (2, [], 2),
        (1, [], 1),
        (16, [], 2),  # of 8 rows each
        (6, ["--batch-size=32"], 4),  # equal parts
        (2, ["--batch-size=12"], 1),
        (2, ["--arch=ofa_base"], 1),  # its products are large enough for threads
    ],
)
def test_processes_share_the_steps_of_a_small_network_on_a_cpu(monkeypatch, cores, flags, shared):
    monkeypatch.setattr(auto, "count_threads", lambda: cores)
    given = ["--batch-size=16", "--patch-image-size=96", *flags]
    assert auto.fitting_processes(planned(*given)) == shared
    assert auto.fitting_processes(planned(*given, processes=2)) == 1
    assert auto.fitting_processes(planned(*given, gpus=1)) == 1


def test_processes_share_no_more_than_the_memory_is_for(monkeypatch):
    found = planned("--batch-size=16", "--patch-image-size=96")
    monkeypatch.setattr(auto, "usable_memory", lambda: found.memory(16) * 1.2)
    assert auto.fitting_processes(found) == 1


def test_rows_of_an_update_stay_where_processes_share_them():
    options, flags, found = fitted(planned(), LaunchOptions(auto=True), [], Chosen(0))
    assert (options.jobs, options.batch_size, options.num_workers) == (2, 8, 1)
    assert options.effective_batch == 16 and "2 processes" in found.changes
    options, *_ = fitted(planned(), LaunchOptions(auto=True, jobs=1), [], Chosen(0))
    assert (options.jobs, options.batch_size) == (1, 16)
    own = ["--distributed-world-size=1"]
    options, *_ = fitted(planned(*own), LaunchOptions(auto=True), own, Chosen(1))
    assert (options.jobs, options.batch_size) == (0, 16)


def test_a_container_may_use_what_its_limits_say(monkeypatch, tmp_path):
    (tmp_path / "memory").write_text(f"{10**9}\n")
    (tmp_path / "quota").write_text("150000 100000\n")
    (tmp_path / "none").write_text("max 100000\n")
    monkeypatch.setattr(jobs, "MEMORY_LIMIT", tmp_path / "memory")
    assert plan.usable_memory() == 700_000_000
    monkeypatch.setattr(jobs.os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    for name, cores in (("quota", 2), ("none", 8), ("missing", 8)):
        monkeypatch.setattr(jobs, "QUOTA", tmp_path / name)
        assert jobs.count_cores() == cores


def test_two_nodes_need_half_the_time():
    rows = planned(rows=400_000)
    alone, together = rows.seconds(), replace(rows, nodes=2).seconds()
    updates = (rows.updates or 0) * 0.03 + 15  # besides rows: of each update, and of the start
    assert together - updates == pytest.approx((alone - updates) / 2)


def test_a_batch_that_fits_is_taken_whole_and_else_in_equal_parts():
    found = planned("--patch-image-size=96")
    room = [(found.memory(rows) + 1) / 0.92 for rows in (24, 23, 5)]
    assert [found.largest_batch(bytes_, 24) for bytes_ in room] == [24, 12, 3]


def test_a_step_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(auto, "usable_memory", lambda: 2 * 10**9)
    with pytest.raises(UserError, match="--auto: expected .* GB of memory .* ofa_huge"):
        flags_of(planned("--arch=ofa_huge"))


def test_boxes_of_small_images_have_bins_of_their_size():
    _, _, flags = flags_of(planned(task="refcoco"))
    assert flags["--max-image-size"] == flags["--patch-image-size"] == "96"


def test_a_task_of_texts_has_no_images_to_fit():
    found = planned(task="gigaword")
    assert found.pixels == 0 and "--patch-image-size" not in flags_of(found)[2]
    assert replace(found, facts=Facts()).line().startswith("batch 512")


@pytest.mark.parametrize(
    "number, text", [(0, "0 rows"), (1, "1 row"), (9999, "9999 rows"), (12345, "12 345 rows")]
)
def test_a_number_has_its_noun_in_the_singular_or_the_plural(number, text):
    assert with_noun(number, "row") == text
    assert with_noun(2, "entry") == "2 entries" and with_noun(2, "key") == "2 keys"
