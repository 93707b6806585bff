"""``OFA`` inside of a service: threads, copies, processes, and a process that stays as it was."""

import copy
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_checkpoint import save_checkpoint
from small_tokenizer import small_tokenizer

import ofa
from ofa import OFA
from ofa.cli.main import main
from ofa.errors import UserError
from ofa.inference.api import CallRows
from ofa.task.task_spec import Decoding

pytestmark = pytest.mark.slow

COLORS = ["red", "green", "blue"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("service"))


@pytest.fixture
def model(checkpoint):
    return OFA.load(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 255, (40, 30, 3), dtype=np.uint8)) for _ in range(3)]


def calls(model, images):
    """Calls of every kind; each returns texts, boxes, codes and scores to the last bit."""
    tokenizer = small_tokenizer(16)  # one for all: its weights come from torch's own generator

    def told(found):
        return [(str(one), one.score.hex()) for one in (found, *found.others)]

    def drawn(seed):
        return [
            (image.tobytes(), image.info["score"].hex())
            for image in model.draw("a red cube", 2, seed, tokenizer=tokenizer)
        ]

    for image in images:
        yield lambda image=image: told(model.caption(image, best=3, max_len_b=6))
        yield lambda image=image: told(
            model.answer(image, "what is it?", best=2, max_len_b=3, beam=2)
        )
        yield lambda image=image: told(model.answer(image, "what color?", answers=COLORS, best=3))
        yield lambda image=image: model.ground(image, "a cube").box
        yield lambda image=image: told(model.entails(image, "a cube", best=3))
        yield lambda image=image: [
            told(one)
            for one in model.generate([image] * 2, "what does the image describe?", max_len_b=4)
        ]
    for seed in (7, 8):
        yield lambda seed=seed: drawn(seed)


def test_calls_from_threads_give_what_they_give_alone(model, images):
    work = list(calls(model, images))
    alone = [call() for call in work]
    # whose threads make all that is made once
    fresh = OFA.load(model.checkpoint.path, device="cpu")
    for used in (model, fresh):
        work = list(calls(used, images))
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda call: call(), work * 3))
        assert found == alone * 3


def test_calls_give_the_same_in_any_order(model, images):
    work = list(calls(model, images))
    forward = [call() for call in work]
    assert [call() for call in work[::-1]][::-1] == forward


def test_calls_leave_the_network_as_it_was(model, images):
    before = {
        name: (value.data_ptr(), value.clone())
        for name, value in model.network.state_dict().items()
    }
    attributes = {name: set(vars(module)) for name, module in model.network.named_modules()}
    for call in calls(model, images[:1]):
        call()
    after = model.network.state_dict()
    assert all(
        after[name].data_ptr() == place and torch.equal(after[name], value)
        for name, (place, value) in before.items()
    )
    assert {name: set(vars(module)) for name, module in model.network.named_modules()} == attributes
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["deepcopy", "pickle"],
)
def test_copies_of_a_used_model_predict_the_same(model, images, copied):
    work = list(calls(model, images[:1]))
    expected = [call() for call in work]
    other = copied(model)
    assert other.network is other.checkpoint.network is not model.network
    assert [call() for call in calls(other, images[:1])] == expected


def ask_in_process(model, image, answers) -> None:
    answers.put(str(model.caption(image, max_len_b=6)))


def test_a_used_model_goes_to_a_spawned_process(model, images):
    context = multiprocessing.get_context("spawn")
    expected = str(model.caption(images[0], max_len_b=6))
    answers = context.Queue()
    process = context.Process(target=ask_in_process, args=(model, images[0], answers))
    process.start()
    try:
        assert answers.get(timeout=120) == expected
    finally:
        process.join(60)
    assert process.exitcode == 0


def test_changed_weights_are_seen(model, images):
    before = model.caption(images[0], max_len_b=6)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.mul_(1.5)
    after = model.caption(images[0], max_len_b=6)
    assert after.score != before.score
    assert after.score == pickle.loads(pickle.dumps(model)).caption(images[0], max_len_b=6).score


def test_what_is_given_to_draw_stays_with_the_call(model):
    model.draw("a red cube", 1, tokenizer=small_tokenizer(16))
    with pytest.raises(UserError, match="--image-tokenizer"):
        model.draw("a red cube", 1)


def test_tasks_with_ever_new_answers_do_not_pile_up(model, images, monkeypatch):
    monkeypatch.setattr("ofa.inference.predictor.KEPT_TASKS", 3)
    for number in range(6):
        model.answer(images[0], "what color?", answers=[*COLORS, f"color {number}"])
    assert len(model._tasks) == 3


def test_columns_may_be_called_as_arguments_are(model, checkpoint, images, tmp_path, capsys):
    line = "[image] [choices:answers] [text:best] [text:beam] [text:self] -> [label]"
    columns = {"answers": "red&&blue", "best": "a", "beam": "b", "self": "c"}
    images[0].save(tmp_path / "a.png")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"image": "a.png", **columns}))
    prediction = model.ask_columns(line, str(tmp_path / "a.png"), columns, beam=2)
    assert prediction in ("red", "blue")
    words = [str(checkpoint), str(tmp_path / "rows.jsonl"), "--task", line, "--beam=2", "--cpu"]
    assert main(["predict", *words]) == 0
    assert json.loads(capsys.readouterr().out)["answer"] == prediction


def test_an_option_that_generation_does_not_know_is_refused(model, images):
    with pytest.raises(UserError, match="task 'caption': .*found 'beems'; did you mean beam?"):
        model.caption(images[0], beems=3)


def test_between_batches_the_caller_is_not_in_inference_mode(model, images):
    task, builder = model.task_and_builder("caption")
    rows = CallRows(builder, [(image,) for image in images], [{}] * len(images))
    batches = [[row] for row in range(len(images))]
    predicted = model.predict(task, rows, batches, Decoding(), {"max_len_b": 6})
    modes = [torch.is_inference_mode_enabled() for _ in predicted]
    assert modes == [False] * len(images)


STATE = """
    import csv, logging, multiprocessing, os, random, signal, sys, threading, warnings
    import numpy, PIL.Image, PIL.ImageFile, tokenizers, torch, torchvision

    def state():
        root, backends = logging.getLogger(), torch.backends
        return {
            "filters": list(map(str, warnings.filters)), "showwarning": warnings.showwarning,
            "logging": (root.level, list(root.handlers), list(root.filters), root.manager.disable),
            "environment": dict(os.environ), "folder": os.getcwd(), "path": list(sys.path),
            "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
            "start method": multiprocessing.get_start_method(allow_none=True),
            "hooks": (sys.excepthook, threading.excepthook, sys.unraisablehook),
            "recursion": sys.getrecursionlimit(), "csv": csv.field_size_limit(),
            "threads": [thread.name for thread in threading.enumerate()],
            "PIL": (PIL.Image.MAX_IMAGE_PIXELS, PIL.ImageFile.LOAD_TRUNCATED_IMAGES),
            "random": (random.getstate(), str(numpy.random.get_state())),
            "torch random": torch.get_rng_state().tolist(),
            "numpy": (str(numpy.geterr()), str(numpy.get_printoptions())),
            "torch": (torch.get_num_threads(), torch.get_num_interop_threads(),
                      torch.get_default_dtype(), str(torch.get_default_device()),
                      torch.is_grad_enabled(), torch.is_inference_mode_enabled(),
                      torch.are_deterministic_algorithms_enabled(),
                      torch.get_float32_matmul_precision(),
                      torch.multiprocessing.get_sharing_strategy()),
            "backends": (backends.cudnn.enabled, backends.cudnn.benchmark,
                         backends.cudnn.deterministic, backends.cudnn.allow_tf32,
                         backends.cuda.matmul.allow_tf32),
        }

    def expect_the_same(when):
        now = state()
        changed = {name: (before[name], now[name]) for name in now if now[name] != before[name]}
        assert not changed, f"{when}: {str(changed)[:3000]}"

    before = state()
    import ofa
    expect_the_same("import ofa")
    assert "OFA" not in vars(ofa), "the Python API comes when it is asked for"
    from ofa import OFA
    assert OFA.__module__.startswith("ofa.") and callable(OFA.load)
    expect_the_same("from ofa import OFA")
    model = OFA.load(sys.argv[1], device="cpu")
    expect_the_same("OFA.load")
    image = PIL.Image.effect_mandelbrot((40, 30), (-2, -1, 1, 1), 50).convert("RGB")
    model.caption(image)
    model.answer(image, "what is it?", answers=["a cube", "a ball"])
    model.ground(image, "a cube")
    expect_the_same("predictions")
"""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"answers": ["a cube"]}, "answers: task 'caption' does not choose from a set, .*vqa_gen"),
        ({"beam": 0}, "beam: expects an integer of at least 1, found 0"),
        ({"best": "2"}, 'best expects an integer, found "2"'),
        ({"temperature": "hot"}, 'temperature expects a number, found "hot"'),
        ({"num_beams": 3}, "found 'num_beams'; did you mean beam[?]"),
    ],
)
def test_an_option_of_a_call_that_cannot_be_is_one_message(model, images, options, message):
    with pytest.raises(UserError, match=message):
        model.caption(images[0], **options)


def test_importing_loading_and_predicting_leave_the_process_as_it_was(checkpoint, tmp_path):
    # What is set already would hide that it is set.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK")
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(STATE), str(checkpoint)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(ofa.__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    assert not done.stdout and "INFO" not in done.stderr and "Warning" not in done.stderr, (
        done.stderr
    )  # nobody asked for a log


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match="OFO"):
        ofa.OFO  # noqa: B018


def test_locks_are_not_shared_by_copies(model):
    other = copy.copy(model)
    assert other._lock is not model._lock and isinstance(other._lock, type(threading.RLock()))
