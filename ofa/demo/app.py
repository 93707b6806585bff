"""The page of ``ofa demo``, made by Gradio; ``ofa.demo.service`` says what it shows.

Stock components show the results: ``AnnotatedImage``, ``Label``, ``Gallery``, ``JSON``, ``Dataset``
(the examples). Ours are, because Gradio's would not do: messages, as Gradio's vanish from a corner
of the window; the button of the settings, as an ``Accordion`` forgets what is typed while it opens;
the masks of boxes, as ``AnnotatedImage`` draws all boxes alike and covers what is in them; the
order of the columns on a phone (``demo.css``).

It works without a network and asks nothing of other machines: a content security policy makes the
browser refuse whatever a library might want from elsewhere. The only files that it opens are those
of one folder, which is made for this process: uploads and examples.
"""

import json
import logging
import os
import socket
import sys
import tempfile
import webbrowser
from collections.abc import Collection
from functools import partial
from inspect import signature
from itertools import chain, cycle
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from ofa.demo.service import (
    LETTERS,
    MOST_ANSWERS,
    MOST_IMAGES,
    Demo,
    DemoResult,
    example_image,
    texts_of,
)
from ofa.errors import UserError
from ofa.io.atomic import replacing

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
try:
    import gradio as gr
    from starlette.middleware import Middleware

    from ofa.demo.middleware import FOREIGN_FILE, LARGEST_UPLOAD, Gate, is_below
except ImportError as error:
    raise UserError(
        f"ofa demo: expects the package gradio, found none ({error}); run: pip install"
        " 'ofa-fairseq[demo]', or pip install 'gradio>=6.7'"
    ) from None

FILES = tempfile.TemporaryDirectory(prefix="ofa_demo_")  # goes with the process
os.environ["GRADIO_TEMP_DIR"] = FILES.name  # read whenever gradio looks for its folder
FIRST_PORT, PORTS = 7860, 100
EXAMPLES, SHOWN = 18, 6  # in all, and at a time
WAITING = 32  # requests at most
THREADS = 8  # for what is done at once, such as looking whether an upload is an image
DELETING = 600, 4 * 3600  # seconds: how often, and how old uploads and results may be
SESSIONS = 1000  # whose place among the examples is remembered
MODEL = "model"  # requests of this name wait for each other
# of boxes, the best first, then again from the second on
COLORS = ("#ff6a2b", "#18b4d8", "#f2c53d", "#5cc48b", "#d08cf0")
IMAGES = "Images to draw"
SEED = "Seed: the same number draws the same images"
MONO = ("ui-monospace", "monospace")
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Helvetica Neue", "sans-serif")
# By the browser alone: gradio's accordion is made when it is first opened, and then takes back what
# somebody types before all of it is there, on a slow machine half a second later.
TOGGLE = "() => { document.getElementById('settings').classList.toggle('ofa-closed'); }"
TEMPLATES = Path(__file__).parent / "templates"


def serve(
    demo: Demo, host: str = "127.0.0.1", port: int | None = None, names: Collection[str] = ()
) -> gr.Blocks:
    """The page, answering in a thread of its own; ``local_url`` is its address, ``close()`` ends
    it.

    Args: names: host names under which it is reached, besides those of this machine.
    Raises: UserError if the port is taken.
    """
    port = check_address(host, port)
    theme = gr.themes.Base(  # sober: grays, one blue, the machine's fonts
        primary_hue="blue", neutral_hue="zinc", radius_size="md", font=FONTS, font_mono=MONO
    )
    off = ("share", "ssr_mode", "mcp_server", "pwa", "enable_monitoring", "run_history")
    settings: dict[str, Any] = dict(
        **dict.fromkeys(off, False),
        server_name=host,
        server_port=port,
        quiet=True,
        prevent_thread_lock=True,
        max_file_size=LARGEST_UPLOAD,
        max_threads=THREADS,
        state_session_capacity=SESSIONS,
        footer_links=[],
        css=(TEMPLATES / "demo.css").read_text(encoding="utf-8"),
        theme=theme.set(**json.loads((TEMPLATES / "theme.json").read_text(encoding="utf-8"))),
        allowed_paths=[],
        app_kwargs={
            "middleware": [Middleware(Gate, folder=Path(FILES.name), host=host, names=names)],
            **dict.fromkeys(("docs_url", "redoc_url", "openapi_url")),
        },
    )
    for name in ("no_proxy", "NO_PROXY"):  # gradio asks its own page whether it is there
        past = (os.environ.get(name), host, "127.0.0.1", "localhost")
        os.environ[name] = ",".join(filter(None, past))
    # tells of every request of the page to itself
    logging.getLogger("httpx").setLevel(logging.WARNING)
    page = build(demo)
    page.queue(max_size=WAITING, api_open=False)
    known = signature(page.launch).parameters
    page.launch(**{name: value for name, value in settings.items() if name in known})
    return page


def check_address(host: str, port: int | None) -> int:
    """A port that is free: the given one, else the first from ``FIRST_PORT`` on. Raises:
    UserError if there is none."""
    if port is not None and not 1 <= port <= 65535:
        raise UserError(f"--port: expects a number from 1 to 65535, found {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in [port] if port else range(FIRST_PORT, FIRST_PORT + PORTS):
        try:
            socket.create_server((host, number), family=family).close()
            return number
        except OSError as error:
            reason = error.strerror or str(error)
    place = f"--port {port}" if port else f"ports {FIRST_PORT} to {FIRST_PORT + PORTS - 1}"
    raise UserError(
        f"{place} of {host}: expects a free port, found none ({reason}); give another by --port, or"
        " leave it out"
    )


def open_browser(url: str) -> None:
    """Where there is a screen."""
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if screen or sys.platform in ("darwin", "win32"):
        webbrowser.open(url)


def build(demo: Demo) -> gr.Blocks:
    """The components and what happens when they are used."""
    draws = any(spec.generates_images for spec in demo.tasks.values())
    with gr.Blocks(title="OFA", analytics_enabled=False, delete_cache=DELETING) as page:
        gr.HTML(f"<h1>OFA</h1><p>{escape(demo.subtitle())}</p>", elem_classes="ofa-head")
        chosen = gr.Radio(
            [(spec.title, key) for key, spec in demo.tasks.items()],
            value=demo.first,
            label="What the model should do",
            elem_id="task",
            visible=len(demo.tasks) > 1,
        )
        has_image = demo.tasks[demo.first].has("image")
        settings = [
            gr.Slider(1, MOST_ANSWERS, 5, step=1, label="Answers", render=False),
            gr.Slider(1, MOST_IMAGES, 4, step=1, label=IMAGES, visible=draws, render=False),
            gr.Number(7, precision=0, label=SEED, visible=draws, render=False),
        ]
        with gr.Column(elem_id="work"):
            with gr.Column(visible=has_image, elem_id="image-column") as image_column:
                image, notice = image_part()
            with gr.Column(elem_id="ask-column"):
                panels = {key: panel(demo, key, image, settings) for key in demo.tasks}
                toggle = gr.Button("Settings", size="sm", elem_id="settings-button")
                with gr.Column(elem_id="settings", elem_classes="ofa-closed"):
                    for setting in settings:
                        setting.render()
            examples = examples_part(has_image)

        def show(key: str) -> list[Any]:
            with_image = demo.tasks[key].has("image")
            visible = [with_image, with_image, *(key == one for one in panels)]
            return [gr.update(visible=one) for one in visible]

        columns, texts, *_ = zip(*panels.values())
        gone: dict[Any, Any] = {}  # of answers, with their image; drawings are of none, and stay
        for spec, (_, _, message, result) in zip(demo.tasks.values(), panels.values()):
            if not spec.generates_images:
                gone |= {message: "", result: gr.update(visible=False)}

        def look(path: str | None) -> dict[Any, Any]:
            return {notice: notice_of(demo.check(path)), **gone}

        # at once, also while the model is at work
        light: dict[str, Any] = dict(queue=False, show_progress="hidden", api_name=False)
        chosen.change(show, chosen, [image_column, examples, *columns], **light)
        image.change(look, image, [notice, *gone], **light)
        toggle.click(None, js=TOGGLE)
        examples.click(partial(choose_example, demo), examples, [image, *chain(*texts)], **light)
    return page


def image_part() -> tuple[gr.Image, gr.HTML]:
    """Where an image is chosen, and what is wrong with it."""
    image: Any = gr.Image(
        label="Image",
        sources=["upload", "clipboard"],
        type="filepath",
        image_mode=None,
        height=300,
        elem_id="image",
        placeholder="Drop an image here, or click to choose one",
        buttons=[],
    )
    image.preprocess = path_of  # whether it is an image is said by us
    return image, gr.HTML(elem_id="notice", elem_classes="ofa-notice")


def examples_part(visible: bool) -> gr.Dataset:
    """Images to try; they stay when uploads and results are deleted."""
    examples = gr.Dataset(
        label="No image at hand? Try one of these",
        components=["image"],
        samples=[[example_file(number)] for number in range(EXAMPLES)],
        samples_per_page=SHOWN,
        type="index",
        visible=visible,
        elem_id="examples",
    )
    examples.keep_in_cache = {path for (path,) in examples.raw_samples}
    return examples


def panel(
    demo: Demo, key: str, image: gr.Image, settings: list[Any]
) -> tuple[gr.Column, list[gr.Textbox], gr.HTML, gr.Column]:
    """The part of the page that belongs to a task: its texts, its button, what is wrong, its
    result. Button, or Enter in a text, ask; one request of the whole page at a time."""
    spec = demo.tasks[key]
    with gr.Column(visible=key == demo.first, elem_id=f"panel-{key}") as column:
        note = demo.note(key) and f'<p class="ofa-note">{escape(demo.note(key))}</p>'
        gr.HTML(f"<p>{escape(spec.usage.about)}</p>{note}", elem_classes="ofa-about")
        texts = [
            gr.Textbox(
                label=one.public_name.capitalize(),
                placeholder=one.example,
                lines=1,
                max_lines=4,
                max_length=LETTERS,
                elem_id=f"text-{key}" + (f"-{number}" if number else ""),
            )
            for number, one in enumerate(texts_of(spec))
        ]
        button = gr.Button(spec.usage.button, variant="primary", elem_id=f"ask-{key}")
        message = gr.HTML(elem_id=f"message-{key}", elem_classes="ofa-notice")
        with gr.Column(visible=False, elem_id=f"result-{key}") as result:
            boxes = gr.AnnotatedImage(height=400)
            answers = gr.Label(num_top_classes=MOST_ANSWERS)
            images = gr.Gallery(columns=4, height="auto", buttons=["fullscreen"])
            with gr.Accordion("Details", open=False):
                details = gr.JSON(show_label=False, buttons=["copy"])

    def ask(path: str | None, *given: Any) -> list[Any]:
        *typed, best, samples, seed = given
        return shown(demo.ask(key, path, typed, best, samples, seed))

    gr.on(
        [button.click, *(text.submit for text in texts)],
        ask,
        [image, *texts, *settings],
        [message, result, boxes, answers, images, details],
        concurrency_limit=1,
        concurrency_id=MODEL,
        api_name=False,
        show_progress="full",
        show_progress_on=message,
        trigger_mode="once",
    )
    return column, texts, message, result


def shown(found: DemoResult) -> list[Any]:
    """Values of a panel's message, result and its parts, of which the empty ones are hidden."""

    def part(value: Any, **more: Any) -> dict[str, Any]:
        return gr.update(value=value or None, visible=bool(value), **more)

    legends = [legend for _, legend in found.boxes]
    return [
        notice_of(found.message),
        gr.update(visible=not found.message),
        part(
            found.boxes and (found.image, found.boxes),
            label="Boxes" if found.answers else f"Boxes by {found.measure}",
            color_map=dict(zip(legends, chain(COLORS, cycle(COLORS[1:])))),
        ),
        part(found.answers, label=found.measure.capitalize()),
        part(found.drawn, label=f"Images by {found.measure}"),
        found.details,
    ]


def notice_of(text: str) -> str:
    """HTML of something that the user can fix. It is ours and stays in its place: gradio's own
    messages appear in a corner of the window and vanish."""
    return text and str(Markup('<p class="ofa-message" role="alert">{}</p>').format(text))


def example_file(number: int) -> str:
    """The path of an example, an image of synthetic shapes, made when it is first needed."""
    path = f"{FILES.name}/example_{number}.png"
    if not os.path.exists(path):
        with replacing(path, "wb") as file:
            example_image(number).save(file, "PNG")
    return path


def choose_example(demo: Demo, number: Any) -> list[str]:
    """The image that was clicked, and a text for each of the page's tasks that has one."""
    if number not in range(EXAMPLES):
        raise gr.Error(FOREIGN_FILE)
    texts = [text for key in demo.tasks for text in demo.example_texts(number, key)]
    return [example_file(number), *texts]


def path_of(payload: Any) -> str | None:
    """Gradio's image component passes the file as it was chosen. Raises: gr.Error if it is
    no upload and no example."""
    if payload is None or payload.path is None:
        return None
    if not is_below(payload.path, Path(FILES.name)):
        raise gr.Error(FOREIGN_FILE)
    return payload.path
