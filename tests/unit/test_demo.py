"""What the demo page shows and says, with a model that answers at once; the page itself is not
needed."""

import math
import re
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from ofa.cli.main import build_parser
from ofa.demo.service import LARGEST, Demo, example_image, page_tasks, questions_about
from ofa.errors import UserError
from ofa.inference.predictions import Answer, Region
from ofa.report.page import data_url

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


def said(html: str) -> str:
    """The message of a result that is one."""
    assert "<table" not in html
    return re.fullmatch(r'<p class="ofa-message" role="alert">(.*)</p>', html)[1]


def test_answers_come_as_a_table_with_scores_and_are_shown_as_text(photo):
    html = Demo(Model()).ask("caption", photo, best=4)
    assert '<p class="ofa-best">a &lt;b&gt;cat&lt;/b&gt; {{ 1 }}</p>' in html
    cells = re.findall(r"<td[^>]*>(?:<span[^>]*></span>)?(.*?)</td>", html)
    assert cells == [
        "1",
        "a &lt;b&gt;cat&lt;/b&gt; {{ 1 }}",
        "",
        "61 %",
        "−0.50",
        "2",
        "a dog",
        "",
        "41 %",
        "−0.90",
        "3",
        "silence",
        "",
        "–",
        "–",
    ]
    assert Demo(Model()).ask("caption", photo, best=1).count('class="ofa-bar"><span') == 1


def test_a_region_is_drawn_on_the_image(photo):
    result = Demo(Model()).predict("ground", photo, "the left half")
    assert result.image.size[0] > 40 and list(result.rows) == ["0, 0, 20, 30", "no region"]
    orange = [
        pixel
        for pixel in result.image.resize((40, 30), Image.Resampling.NEAREST).getdata()
        if pixel == (255, 106, 43)
    ]
    assert orange and result.column == "Left, top, right, bottom in pixels of 40 × 30"
    assert Demo(Model()).predict("generate", photo, "where?").image is not None
    nothing = Demo(Model()).predict("ground", photo, "nothing")
    assert nothing.image is None and nothing.heading == "The model named no region."


def test_text_on_images_is_read(photo):
    assert Demo(Model(), ["read"]).predict("read", photo).heading == "EXIT"


def test_statements_get_all_three_answers(photo):
    assert list(Demo(Model()).predict("entails", photo, "it is a dog").rows) == [
        "maybe",
        "yes",
        "no",
    ]


def test_drawn_images_are_large_enough_to_be_seen_and_tell_their_fit():
    demo = Demo(Model(tokenizer="t.pt"), ["draw"])
    html = demo.ask("draw", None, "a fit dog", samples=3, seed=9)
    assert html.count("<figure>") == 3 and "2 · fit 0.90" in html and "as the scorer judges" in html
    assert "score −1.50" in demo.ask("draw", None, "a dog") and demo.predict(
        "draw", None, "a dog", seed=9
    ).drawn[0][0].getpixel((0, 0)) == (9, 0, 0)
    sides = [image.size for image, _ in demo.predict("draw", None, "a dog").drawn]
    assert sides == [(224, 224)] * 4, "of 16 pixels"


@pytest.mark.parametrize("size", [(3000, 20), (5000, 4000)])
def test_images_in_the_page_have_a_size_to_be_looked_at(size):
    import base64
    import io

    url = data_url(Image.new("RGB", size), LARGEST)
    image = Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))
    assert 200 < max(image.size) <= 1200


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
    html = Demo(Model(tokenizer="t.pt"), [key]).ask(key, None if "image" in words else photo, text)
    assert words in said(html)
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
    assert said(demo.check(str(path))).startswith(
        "broken &lt;i&gt;.jpg cannot be read as an image."
    )
    assert demo.ask("caption", str(path)) == demo.check(str(path)) and demo.check(None) == ""


def test_photos_are_turned_as_a_viewer_turns_them(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # the camera was held upright
    Image.new("RGB", (40, 30)).save(tmp_path / "turned.jpg", exif=exif)
    demo = Demo(Model())
    assert demo.check(str(tmp_path / "turned.jpg")) == ""
    assert "<table>" in demo.ask("caption", str(tmp_path / "turned.jpg")) and demo.model.seen[
        0
    ].size == (30, 40)


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
    with pytest.raises(UserError, match="expects some of caption, .*answer"):
        Demo(Model(), ["dance"])


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
