"""What the demo page shows and says, with a model that answers at once; the page itself is not
needed."""

import math
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from ofa.cli.main import build_parser
from ofa.demo.service import (
    AMONG_ANSWERS,
    LARGEST,
    PER_TOKEN,
    Demo,
    DemoResult,
    example_image,
    outlined,
    page_tasks,
    questions_about,
)
from ofa.errors import UserError
from ofa.inference.predictions import Answer, Region

WORDS, PIECES = 8, 20  # what the model reads at most


class Model:
    """Stands for ``OFA``: remembers the images that it was asked about."""

    def __init__(self, trained=("caption",), tokenizer=None):
        self.seen, self.trained = [], trained
        self.network, self.device = torch.nn.Linear(10, 10), torch.device("cpu")
        config = {
            "max_src_length": WORDS,
            "max_source_positions": PIECES,
            "image_tokenizer": tokenizer,
        }
        self.checkpoint = SimpleNamespace(
            path="runs/best.pt",
            trained=dict.fromkeys(trained),
            overrides={},
            config=lambda name: config,
            task=self.task,
            bpe=SimpleNamespace(kind="gpt2", encode=lambda text: " ".join(text.strip())),
        )

    def task(self, name):
        def check_tokenizer():
            if self.checkpoint.config(name)["image_tokenizer"] is None:
                raise UserError("expected --image-tokenizer")

        return SimpleNamespace(check_tokenizer=check_tokenizer)

    def task_and_builder(self, name):
        inference = "allcand" if name == "snli_ve" else "beamsearch"
        return SimpleNamespace(options=lambda: SimpleNamespace(val_inference_type=inference)), None

    def was_trained_on(self, name):
        return name in self.trained

    def caption(self, image, best):
        self.seen.append(image)
        others = [
            Answer("a dog", -0.9),
            Answer("a <b>cat</b> {{ 1 }}", -1.2),
            Answer("silence", math.nan),
        ][: best - 1]
        return Answer("a <b>cat</b> {{ 1 }}", -0.5, others=others)

    def answer(self, image, question, best):
        raise MemoryError("no memory left")

    def ground(self, image, text, best):
        self.seen.append(image)
        width, height = image.size
        whole = Region((0.0, 0.0, width / 2, height), (0, 0, 0.5, 1), (0, 0, 9, 19), -0.1)
        whole.others = [Region((0.0, 0.0, 0.0, 0.0), (0, 0, 0, 0), None, -2.0)]
        return whole if text != "nothing" else whole.others[0]

    def read(self, image, best):
        return Answer("EXIT", -0.1)

    def entails(self, image, statement, best):
        return Answer("maybe", -0.7, others=[Answer("yes", -1.1), Answer("no", -1.6)])

    def generate(self, image, instruction, best):
        box = (1.0, 1.0, 5.0, 5.0)
        return Answer("<bin_1> <bin_1> <bin_5> <bin_5>", -0.2, Region(box, box, (1, 1, 5, 5)))

    def draw(self, text, samples, seed):
        images = [Image.new("RGB", (16, 16), (seed, 40 * number, 0)) for number in range(samples)]
        for number, image in enumerate(images):
            image.info = {
                "codes": (),
                "score": -1.5,
                "clip_score": 1 - number / 10 if "fit" in text else math.nan,
                "seed": seed,
            }
        return images


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.new("RGB", (40, 30), "red").save(path)
    return str(path)


def said(result: DemoResult) -> str:
    """The message of a result that is nothing else."""
    assert result == DemoResult(result.message)
    return result.message


def test_answers_come_with_the_mean_probability_per_token(photo):
    found = Demo(Model()).ask("caption", photo, best=4)
    assert found.measure == PER_TOKEN and not found.message
    assert list(found.answers) == ["a <b>cat</b> {{ 1 }}", "a dog", "silence"], "each once"
    assert list(found.answers.values()) == pytest.approx([math.exp(-0.5), math.exp(-0.9), 0.0])
    assert len(Demo(Model()).ask("caption", photo, best=1).answers) == 1


def test_the_details_are_plain_data_with_the_time(photo):
    details = Demo(Model()).ask("caption", photo, best=2).details
    assert details.pop("seconds") >= 0
    other = {"answer": "a dog", "score": -0.9}
    assert details == {"answer": "a <b>cat</b> {{ 1 }}", "score": -0.5, "others": [other]}


def test_a_region_is_framed_in_a_thick_line_and_the_others_in_thin_ones(photo):
    demo = Demo(Model())
    second = Region((10.0, 10.0, 40.0, 20.0), (0.25, 0.3, 1, 0.6), (4, 6, 19, 12), -2.0)
    first = Region((0.0, 0.0, 20.0, 30.0), (0, 0, 0.5, 1), (0, 0, 9, 19), -0.1, [second])
    demo.model.ground = lambda image, text, best: first
    found = demo.predict("ground", photo, "the left half")
    (mask, best), (thin, other) = found.boxes
    assert (best, other) == ("90%: 0, 0, 20, 30", "14%: 10, 10, 40, 20")
    assert found.image.size == (480, 360) and mask.shape == thin.shape == (360, 480)
    columns, rows = mask.any(0).nonzero()[0], mask.any(1).nonzero()[0]
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (0, 239, 0, 359)
    assert mask[180].sum() > thin[180].sum() > 0 and not mask[180, 120]


def test_a_model_that_names_no_region_says_so(photo):
    found = Demo(Model()).predict("ground", photo, "nothing")
    assert found.message == "The model named no region." and found.image is None


def test_boxes_in_words_are_shown_too(photo):
    found = Demo(Model()).predict("generate", photo, "where?")
    assert [legend for _, legend in found.boxes] == list(found.answers)


def test_all_objects_are_shown_alike(photo):
    demo = Demo(Model())
    two = [(Region((0.0, 0.0, 9.0, 9.0), (0, 0, 0, 0), (0, 0, 1, 1)), "a dog")] * 2
    demo.model.caption = lambda image, best: Answer("a dog, a dog", -0.1, objects=two)
    (first, name), (second, other) = demo.predict("caption", photo).boxes
    assert name == other == "a dog" and (first == second).all()


def test_text_on_images_is_read(photo):
    assert list(Demo(Model(), ["read"]).predict("read", photo).answers) == ["EXIT"]


def test_statements_get_all_three_answers_by_their_probability_among_these(photo):
    found = Demo(Model(trained=("snli_ve",))).predict("entails", photo, "it is a dog")
    assert list(found.answers) == ["maybe", "yes", "no"] and found.measure == AMONG_ANSWERS


def test_drawn_images_are_large_enough_to_be_seen_and_tell_their_fit():
    demo = Demo(Model(tokenizer="t.pt"), ["draw"])
    found = demo.ask("draw", None, "a fit dog", samples=3, seed=9)
    assert [line for _, line in found.drawn] == ["1.00", "0.90", "0.80"]
    assert found.measure == "CLIP score" and found.drawn[0][0].getpixel((0, 0)) == (9, 0, 0)
    found = demo.ask("draw", None, "a dog")
    assert [line for _, line in found.drawn] == ["22.3%"] * 4 and found.measure == PER_TOKEN
    assert [image.size for image, _ in found.drawn] == [(512, 512)] * 4, "of 16 pixels"


@pytest.mark.parametrize("size", [(3000, 20), (5000, 4000), (5000, 1), (16, 9)])
def test_images_with_boxes_have_a_size_to_be_looked_at(size):
    image, [(mask, _)] = outlined(Image.new("RGB", size), [((0, 0, *size), "all")], 0.01)
    assert 500 < max(image.size) <= LARGEST and mask.shape == image.size[::-1] and mask.any()


@pytest.mark.parametrize(
    "key, text, words",
    [
        ("caption", "", "There is no image yet."),
        (
            "answer",
            "   ",
            "The question is empty. Type one, for example: what color is the circle?",
        ),
        ("ground", None, "The text is empty."),
        (
            "generate",
            "word " * (WORDS + 1),
            f"The text has {WORDS + 1} words; this checkpoint reads at most {WORDS}. Shorten it.",
        ),
        ("entails", "x" * (PIECES + 1), f"at most {PIECES - 2} pieces of words"),
        ("draw", "", "The text is empty."),
        ("answer", "why?", "The terminal in which ofa demo runs has the details"),
    ],
)
def test_what_is_missing_or_wrong_is_said(photo, caplog, key, text, words):
    path = None if "image" in words else photo
    assert words in said(Demo(Model(tokenizer="t.pt"), [key]).ask(key, path, text))
    assert ("no memory left" in caplog.text) == (text == "why?")


@pytest.mark.parametrize(
    "name, value",
    [
        ("best", 0),
        ("best", 11),
        ("best", 10**9),
        ("best", math.nan),
        ("best", "5"),
        ("best", None),
        ("best", True),
        ("samples", 17),
        ("samples", []),
        ("seed", -1),
        ("seed", 2**70),
        ("seed", math.inf),
    ],
)
def test_numbers_that_the_page_does_not_offer_are_refused(photo, name, value):
    assert "has to be a number from" in said(Demo(Model()).ask("caption", photo, **{name: value}))


def test_texts_of_any_length_are_refused_before_they_are_read(photo):
    assert "too long" in said(Demo(Model()).ask("answer", photo, "x" * 20_001))


def test_broken_images_are_said_at_once_and_when_asked(tmp_path):
    path = tmp_path / "broken <i>.jpg"
    path.write_bytes(b"\xff\xd8 no image")
    demo = Demo(Model())
    assert demo.check(str(path)).startswith("broken <i>.jpg cannot be read as an image.")
    assert said(demo.ask("caption", str(path))) == demo.check(str(path)) and demo.check(None) == ""


def test_photos_are_turned_as_a_viewer_turns_them(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # the camera was held upright
    Image.new("RGB", (40, 30)).save(tmp_path / "turned.jpg", exif=exif)
    demo = Demo(Model())
    assert demo.check(str(tmp_path / "turned.jpg")) == ""
    assert demo.ask("caption", str(tmp_path / "turned.jpg")).answers
    assert demo.model.seen[0].size == (30, 40)


def test_tasks_that_the_checkpoint_was_not_trained_for_say_so():
    demo = Demo(Model(trained=("caption", "refcoco", "own_task")))
    assert demo.note("caption") == demo.note("ground") == ""
    assert demo.note("answer").startswith(
        "This checkpoint was trained for captions, finding regions, own_task, not for questions:"
    )
    assert (
        demo.subtitle()
        == "best.pt · trained for captions, finding regions, own_task · 0.0 million parameters"
        " · CPU"
    )
    assert "pretrained" in Demo(Model(trained=("unify_task",))).subtitle()


def test_the_page_offers_what_the_model_can_do():
    assert list(Demo(Model()).tasks) == [
        key for key, spec in page_tasks().items() if spec.usage.taught_by
    ]
    assert (
        "read" in Demo(Model(trained=("ocr",))).tasks
        and Demo(Model(trained=("ocr",))).first == "read"
    )
    assert (
        Demo(Model(trained=("refcoco",))).first == "ground"
        and Demo(Model(trained=())).first == "caption"
    )
    assert list(Demo(Model(tokenizer="t.pt"), ["draw", "caption"]).tasks) == ["caption", "draw"]
    with pytest.raises(UserError, match="--image-tokenizer"):
        Demo(Model(), ["draw"])
    with pytest.raises(UserError, match="expects some of caption, .*answer.*found 'dance'"):
        Demo(Model(), ["dance"])
    with pytest.raises(UserError, match="found 'captoin'; did you mean caption[?]"):
        Demo(Model(), ["captoin"])


def test_examples_are_always_the_same_and_ask_something_for_every_task():
    demo = Demo(Model(tokenizer="t.pt"), ["answer", "draw", "entails", "generate", "ground"])
    images = [example_image(number).tobytes() for number in range(4)]
    assert len(set(images)) == 4 and example_image(2).tobytes() == images[2]
    for number in range(4):
        asked = questions_about(number)
        assert asked == questions_about(number) and set(asked) == set(demo.tasks)
        assert all(asked.values())
        assert all(demo.example_texts(number, key) == [asked[key]] for key in asked)
    region = f'which region does the text " {questions_about(0)["ground"]} " describe?'
    assert questions_about(0)["generate"] == region
    assert questions_about(1)["generate"] == "what does the image describe?"


def test_the_command_takes_its_options():
    parsed = build_parser().parse_args(
        [
            "demo",
            "a.pt",
            "--bpe-dir=b",
            "--image-tokenizer=t.pt",
            "--port=8000",
            "--cpu",
            "--tasks",
            "caption",
            "draw",
        ]
    )
    assert (
        parsed.checkpoint,
        parsed.bpe_dir,
        parsed.image_tokenizer,
        parsed.port,
        parsed.device,
    ) == ("a.pt", "b", "t.pt", 8000, "cpu")
    assert (
        parsed.tasks == ["caption", "draw"]
        and parsed.host == "127.0.0.1"
        and parsed.allow_host == []
    )
    parsed = build_parser().parse_args(
        ["demo", "a.pt", "--allow-host", "a.example.org", "--allow-host", "b.example.org"]
    )
    assert parsed.allow_host == ["a.example.org", "b.example.org"]
