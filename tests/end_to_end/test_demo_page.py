"""The demo page in a real browser, with a network that has hardly learned anything."""

import re
import threading
import time
from types import SimpleNamespace

import pytest
from browser import QUIET, browser_path
from PIL import Image
from small_tokenizer import save_tokenizer
from training_runs import flags, make_files, train

from ofa.cli.main import main

pytest.importorskip("gradio", reason="the page is made by gradio, which is not installed")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="the browser is driven by playwright, which is not installed"
)
NUMBER = "number input for Answers"
# Faster than any hand, as a slow machine is slower than many: what is typed as soon as the settings
# are open has to stay.
TYPED_AT_ONCE = """([label, number]) => {
    document.querySelector("#settings-button").click();
    const box = document.querySelector(`[aria-label="${label}"]`);
    box.value = number;
    box.dispatchEvent(new Event("input", {bubbles: true}));
}"""
PATIENCE = 90  # seconds, on a machine that has much else to do


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The page, its model, and a browser."""
    path = browser_path()
    from ofa import OFA
    from ofa.demo.app import serve
    from ofa.demo.service import Demo

    folder = tmp_path_factory.mktemp("demo")
    run = train(
        flags(
            make_files(folder),
            folder / "run",
            "--max-update=1",
            "--disable-validation",
            "--max-source-positions=256",
        )
    )
    assert run.code == 0, run.log
    checkpoint = folder / "run" / "checkpoint_last.pt"
    model = OFA.load(checkpoint, device="cpu", image_tokenizer=str(save_tokenizer(folder, 16)))
    page = serve(Demo(model))
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(QUIET))
        yield SimpleNamespace(
            folder=folder,
            checkpoint=checkpoint,
            model=model,
            url=page.local_url,
            browser=browser,
            port=page.server_port,
        )
        browser.close()
    page.close()


@pytest.fixture
def tab(served):
    """A fresh page of the browser; whatever it asks of other machines, and its errors, fail the
    test."""
    page = served.browser.new_page(viewport={"width": 900, "height": 900})
    page.set_default_timeout(PATIENCE * 1000)
    complaints: list[str] = []
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((served.url, "data:", "blob:"))
            else complaints.append(request.url)
        ),
    )
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(served.url)
    page.wait_for_selector("#task")
    yield page
    page.close()
    assert not complaints


def ask(tab, key: str, title: str) -> str:
    """Choose a task, press its button. Returns: the text of its result."""
    tab.locator("#task").get_by_label(title, exact=True).check()
    tab.locator(f"#ask-{key}").click()
    return result(tab, key)


def result(tab, key: str) -> str:
    """What a panel shows: a message, or an answer."""
    shown = tab.locator(f"#message-{key} .ofa-message, #result-{key}")
    shown.first.wait_for()
    return shown.first.inner_text()


def choose_example(tab, number: int) -> None:
    tab.locator("#examples .gallery-item").nth(number).click()
    tab.wait_for_selector("#image img")


def is_loaded(image) -> int:
    """The width of an image that the browser has shown, pixels; 0 before that."""
    image.wait_for()
    image.evaluate("image => image.decode()")
    return image.evaluate("image => image.naturalWidth")


def test_every_task_answers_about_an_example(tab):
    choose_example(tab, 1)
    assert "Mean probability per token" in ask(tab, "caption", "Caption")
    answers = tab.locator("#result-caption .confidence-set")
    assert 1 <= answers.count() <= 5
    best = tab.locator("#result-caption [data-testid=label-output-value]").inner_text()
    assert answers.first.inner_text().startswith(best.strip())
    assert ask(tab, "answer", "Question") and tab.locator(
        "#text-answer :is(textarea, input)"
    ).input_value().endswith("?")
    assert (
        tab.locator("#panel-answer .ofa-note")
        .inner_text()
        .startswith("This checkpoint was trained for captions, not for questions")
    )
    assert re.search(r"\d+%: \d+, |named no region", ask(tab, "ground", "Find"))
    found = ask(tab, "entails", "Check")
    assert "Probability among the answers" in found
    assert set(re.findall(r"\b(?:yes|no|maybe)\b", found)) == {"maybe", "no", "yes"}
    assert ask(tab, "generate", "Instruction")
    tab.set_viewport_size({"width": 400, "height": 800})
    assert tab.evaluate("document.documentElement.scrollWidth") == 400


def test_on_a_phone_the_answer_stands_between_the_image_and_the_examples(tab):
    tab.set_viewport_size({"width": 400, "height": 800})
    choose_example(tab, 0)
    ask(tab, "caption", "Caption")
    names = "#image", "#ask-caption", "#result-caption", "#examples"
    tops = [tab.locator(name).bounding_box()["y"] for name in names]
    assert tops == sorted(tops)


def test_boxes_are_drawn_and_the_number_of_answers_can_be_chosen(served, tab, monkeypatch):
    from ofa.inference.predictions import Region

    box = Region((0.0, 64.0, 128.0, 256.0), (0, 0.25, 0.5, 1), (0, 4, 9, 19), -0.1)
    box.others = [Region((0.0, 0.0, 256.0, 256.0), (0, 0, 1, 1), (0, 0, 19, 19), -1.0)]
    asked = []
    monkeypatch.setattr(
        served.model,
        "ground",
        lambda image, text, best: asked.append((image.size, text, best)) or box,
    )
    choose_example(tab, 0)
    tab.locator("#task").get_by_label("Find", exact=True).check()
    assert not tab.get_by_label(NUMBER).is_visible()
    tab.evaluate(TYPED_AT_ONCE, [NUMBER, "2"])
    tab.fill("#text-ground :is(textarea, input)", "the <b>left</b> half")
    tab.press("#text-ground :is(textarea, input)", "Enter")
    assert "90%: 0, 64, 128, 256" in result(tab, "ground")
    assert asked == [((256, 256), "the <b>left</b> half", 2)]
    images = tab.locator("#result-ground .image-container img")
    assert [is_loaded(images.nth(number)) for number in range(3)] == [512] * 3
    choose_example(tab, 2)  # answers about another image do not stay
    tab.wait_for_selector("#result-ground", state="detached")


def test_images_are_drawn_of_a_text(tab):
    assert "The text is empty. Type one" in ask(tab, "draw", "Draw")
    assert not tab.locator("#image").is_visible()
    tab.fill("#text-draw :is(textarea, input)", "a red cube")
    tab.locator("#ask-draw").click()
    images = tab.locator("#result-draw .thumbnail-item img")
    assert is_loaded(images.first) == 512 and images.count() == 4


def test_uploaded_photos_are_turned_and_broken_ones_are_said(served, tab, monkeypatch):
    assert "There is no image yet" in ask(tab, "caption", "Caption")
    broken = served.folder / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 no image")
    tab.set_input_files("#image input[type=file]", broken)
    tab.wait_for_selector("#notice .ofa-message")
    assert tab.locator("#notice").inner_text().startswith("broken.jpg cannot be read as an image.")
    tab.wait_for_selector("#message-caption .ofa-message", state="detached")
    assert "broken.jpg cannot be read" in ask(tab, "caption", "Caption")

    seen = []
    caption = served.model.caption
    monkeypatch.setattr(
        served.model,
        "caption",
        lambda image, best: seen.append(image.size) or caption(image, best=best),
    )
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (300, 200), "orange").save(served.folder / "turned.jpg", exif=exif)
    tab.get_by_label("Remove Image").click()
    tab.set_input_files("#image input[type=file]", served.folder / "turned.jpg")
    tab.wait_for_selector("#notice .ofa-message", state="detached")
    tab.locator("#ask-caption").click()
    tab.wait_for_selector("#result-caption")
    assert seen == [(200, 300)]


def test_one_request_at_a_time_and_the_page_stays_alive(served, tab, monkeypatch):
    """Of two pages; while the model is at work examples can still be chosen."""
    go_on, at_work, most = threading.Event(), [], []

    def slow(image, best):
        from ofa.inference.predictions import Answer

        at_work.append(1)
        most.append(len(at_work))
        go_on.wait(PATIENCE)
        at_work.pop()
        return Answer("done", -0.1)

    monkeypatch.setattr(served.model, "caption", slow)
    other = served.browser.new_page()
    other.set_default_timeout(PATIENCE * 1000)
    try:
        other.goto(served.url)
        for one in (tab, other):
            choose_example(one, 0)
            one.locator("#ask-caption").click()
        deadline = time.monotonic() + PATIENCE
        while not most and time.monotonic() < deadline:
            time.sleep(0.02)
        before = tab.locator("#examples img").first.get_attribute("src")
        tab.locator("#examples").get_by_role("button", name="2", exact=True).click()
        tab.wait_for_function(
            "before => document.querySelector('#examples img').src !== before", arg=before
        )
        other.locator("#task").get_by_label("Question", exact=True).check()
        other.wait_for_selector("#text-answer")
        other.locator("#task").get_by_label("Caption", exact=True).check()
        assert len(most) == 1
        go_on.set()
        assert (
            "done" in result(tab, "caption")
            and "done" in result(other, "caption")
            and most == [1, 1]
        )
    finally:
        go_on.set()
        other.close()


def test_the_page_is_for_this_machine_and_forbids_what_lies_elsewhere(served):
    import httpx

    answer = httpx.get(served.url, trust_env=False)
    assert served.url == f"http://127.0.0.1:{served.port}/"
    assert (
        "default-src 'self'" in answer.headers["content-security-policy"]
        and "connect-src 'self'" in answer.headers["content-security-policy"]
    )
    assert not re.findall(r'(?:src|href)="(https?:)?//', answer.text)


def test_the_command_opens_the_page_and_says_where(served, monkeypatch, capsys):
    import ofa.demo.app as module

    opened = []
    real = module.serve
    pages = []
    monkeypatch.setattr(module, "open_browser", opened.append)

    def serve(*arguments):
        pages.append(real(*arguments))
        monkeypatch.setattr(pages[0], "block_thread", lambda: None)
        return pages[0]

    monkeypatch.setattr(module, "serve", serve)
    assert main(["demo", str(served.checkpoint), "--cpu", "--tasks", "caption"]) == 0
    try:
        url = pages[0].local_url
        assert opened == [url] and f"open {url} in a browser" in capsys.readouterr().out
        tab = served.browser.new_page()
        tab.set_default_timeout(PATIENCE * 1000)
        tab.goto(url)
        tab.wait_for_selector("#ask-caption")
        assert not tab.locator("#task").is_visible() and not tab.locator("#ask-answer").count()
        tab.close()
    finally:
        pages[0].close()


@pytest.mark.parametrize(
    "more, words",
    [
        (["--port={taken}"], "expects a free port"),
        (["--port=70000"], "expects a number from 1 to 65535"),
        (["--tasks", "draw"], "expected --image-tokenizer"),
        (["--image-tokenizer=nowhere.pt"], "nowhere.pt"),
    ],
)
def test_what_cannot_be_opened_is_one_message(served, capsys, more, words):
    assert (
        main(
            [
                "demo",
                str(served.checkpoint),
                "--cpu",
                "--no-browser",
                *(word.format(taken=served.port) for word in more),
            ]
        )
        == 2
    )
    error = capsys.readouterr().err
    assert (
        words in error
        and len([line for line in error.splitlines() if line.startswith("error: ")]) == 1
    )


def test_a_missing_library_is_one_message(served, monkeypatch, capsys):
    import sys

    monkeypatch.delitem(sys.modules, "ofa.demo.app")
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo", str(served.checkpoint)]) == 2
    assert "expects the package gradio" in capsys.readouterr().err
