"""The page of ``ofa demo``, made by Gradio; ``ofa.demo.service`` says what it shows.

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
from inspect import signature
from pathlib import Path
from typing import Any

from markupsafe import escape

from ofa.demo.service import LETTERS, MOST_ANSWERS, MOST_IMAGES, Demo, example_image, texts_of
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
EXAMPLES = 6  # shown at a time
EXAMPLES_IN_ALL = 120
WAITING = 32  # requests at most
THREADS = 8  # for what is done at once, such as looking whether an upload is an image
SESSIONS = 1000  # whose place among the examples is remembered
MODEL = "model"  # requests of this name wait for each other
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
    examples = ExampleFiles(demo)
    draws = any(spec.generates_images for spec in demo.tasks.values())
    with gr.Blocks(title="OFA", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        page.examples = examples  # their files live as long as the page
        gr.HTML(f"<h1>OFA</h1><p>{escape(demo.subtitle())}</p>", elem_classes="ofa-head")
        chosen = gr.Radio(
            [(spec.title, key) for key, spec in demo.tasks.items()],
            value=demo.first,
            label="What the model should do",
            elem_id="task",
            visible=len(demo.tasks) > 1,
        )
        has_image = demo.tasks[demo.first].has("image")
        with gr.Column(visible=has_image, elem_id="image-column") as image_column:
            image, notice, more, gallery = image_part(examples.files(0))
        settings = [
            gr.Slider(1, MOST_ANSWERS, 5, step=1, label="Answers in the table", render=False),
            gr.Slider(1, MOST_IMAGES, 4, step=1, label=IMAGES, visible=draws, render=False),
            gr.Number(7, precision=0, label=SEED, visible=draws, render=False),
        ]
        panels = {key: panel(demo, key, image, settings) for key in demo.tasks}
        toggle = gr.Button("Settings", size="sm", elem_id="settings-button")
        with gr.Column(elem_id="settings", elem_classes="ofa-closed"):
            for setting in settings:
                setting.render()

        def show(key: str) -> list[Any]:
            visible = [demo.tasks[key].has("image"), *(key == one for one in panels)]
            return [gr.update(visible=one) for one in visible]

        columns, texts, _ = zip(*panels.values())
        typed = [text for of_task in texts for text in of_task]
        # drawings are of no image, and stay
        of_image = [panels[key][2] for key, spec in demo.tasks.items() if not spec.generates_images]
        # at once, also while the model is at work
        light: dict[str, Any] = dict(queue=False, show_progress="hidden", api_name=False)
        chosen.change(show, chosen, [image_column, *columns], **light)
        clear = [""] * len(of_image)
        image.change(lambda path: [demo.check(path), *clear], image, [notice, *of_image], **light)
        toggle.click(None, js=TOGGLE)
        first = gr.State(0)
        more.click(examples.following, first, [first, gallery], **light)
        gallery.select(examples.chosen, first, [image, *typed], **light)
    return page


def image_part(examples: list[str]) -> tuple[gr.Image, gr.HTML, gr.Button, gr.Gallery]:
    """Where an image is chosen: the image, what is wrong with it, other examples, the examples."""
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
    notice = gr.HTML(elem_id="notice")
    with gr.Row(elem_id="examples-head"):
        gr.HTML("<p>No image at hand? Try one of these.</p>")
        more = gr.Button("Show others", size="sm", elem_id="more", min_width=110, scale=0)
    gallery = gr.Gallery(
        examples,
        label="Examples",
        show_label=False,
        columns=EXAMPLES,
        rows=1,
        height="auto",
        allow_preview=False,
        object_fit="cover",
        container=False,
        elem_id="examples",
        buttons=[],
    )
    return image, notice, more, gallery


def panel(
    demo: Demo, key: str, image: gr.Image, settings: list[Any]
) -> tuple[gr.Column, list[gr.Textbox], gr.HTML]:
    """The part of the page that belongs to a task: its texts, its button, its result. Button, or
    Enter in a text, ask; one request of the whole page at a time."""
    spec = demo.tasks[key]

    def ask(path: str | None, *given: Any) -> str:
        *typed, best, samples, seed = given
        return demo.ask(key, path, typed, best, samples, seed)

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
        result = gr.HTML(elem_id=f"result-{key}", min_height=24)
    gr.on(
        [button.click, *(text.submit for text in texts)],
        ask,
        [image, *texts, *settings],
        result,
        concurrency_limit=1,
        concurrency_id=MODEL,
        api_name=False,
        show_progress="full",
        trigger_mode="once",
    )
    return column, texts, result


class ExampleFiles:
    """Images of synthetic shapes as files, made when they are first shown; the folder goes
    with this object."""

    def __init__(self, demo: Demo):
        self.demo = demo
        self.folder = tempfile.TemporaryDirectory(prefix="examples_", dir=FILES.name)

    def files(self, first: int) -> list[str]:
        """Paths of the examples from ``first`` on."""
        paths = [f"{self.folder.name}/example_{first + shown}.png" for shown in range(EXAMPLES)]
        for number, path in enumerate(paths, first):
            if not os.path.exists(path):
                with replacing(path, "wb") as file:  # several sessions may look at once
                    example_image(number).save(file, "PNG")
        return paths

    def following(self, first: int) -> list[Any]:
        """The first of the next examples, and their paths; after the last ones the first ones
        come again."""
        following = (first + EXAMPLES) % EXAMPLES_IN_ALL
        return [following, self.files(following)]

    def chosen(self, first: int, event: gr.SelectData) -> list[str]:
        """The image that was clicked, and a text for each of the page's tasks that has one."""
        if event.index not in range(EXAMPLES):
            raise gr.Error(FOREIGN_FILE)
        number = first + int(event.index)
        texts = [text for key in self.demo.tasks for text in self.demo.example_texts(number, key)]
        return [self.files(first)[int(event.index)], *texts]


def path_of(payload: Any) -> str | None:
    """Gradio's image component passes the file as it was chosen. Raises: gr.Error if it is
    no upload and no example."""
    if payload is None or payload.path is None:
        return None
    if not is_below(payload.path, Path(FILES.name)):
        raise gr.Error(FOREIGN_FILE)
    return payload.path
