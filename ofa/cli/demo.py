"""``ofa demo``: a page in the browser on which a model can be tried."""

import logging
from dataclasses import dataclass

from ofa.cli.options import load
from ofa.inference.options import ModelOptions, PrecisionOptions
from ofa.io.flags import Parser, command, option

logger = logging.getLogger(__name__)

EXAMPLE = """\
examples:
  ofa demo checkpoint_best.pt
  ofa demo checkpoint_best.pt --image-tokenizer tokenizer.pt --tasks caption draw
  ofa demo ofa_base.pt --bpe-dir BPE --device cpu --port 8000 --no-browser

The page is seen from this machine alone and loads nothing from elsewhere. Ctrl-C ends it."""


@dataclass(frozen=True, kw_only=True)
class DemoOptions(ModelOptions, PrecisionOptions):
    """A model, and the page it is tried on."""

    ans2label_file: str | None = option(None, "answer set, if it has moved since training")
    image_tokenizer: str | None = option(
        None, "image tokenizer to generate images: tokenizer.pt, or model.yaml and last.ckpt"
    )
    tasks: tuple[str, ...] = option((), "tasks of the page, if not those that the model knows")
    port: int | None = option(None, "port of the page, if not the first free one from 7860")
    host: str = option("127.0.0.1", "address to listen at; 0.0.0.0: whoever reaches this machine")
    allow_host: tuple[str, ...] = option(
        (), "another host name of the page; may be repeated", repeat=True
    )
    no_browser: bool = option(False, "only print the address")


def set_up(parser: Parser) -> None:
    """The flags of ``ofa demo``."""
    command(parser, DemoOptions, run, EXAMPLE)


def run(args: DemoOptions) -> int:
    """Open the page; until Ctrl-C."""
    from ofa.demo.app import check_address, open_browser, serve  # says at once if gradio is missing

    check_address(args.host, args.port)
    from ofa.demo.service import Demo

    demo = Demo(
        load(
            args,
            precision=args.precision,
            ans2label_file=args.ans2label_file,
            image_tokenizer=args.image_tokenizer,
        ),
        args.tasks,
    )
    page = serve(demo, args.host, args.port, args.allow_host)
    print(f"{demo.subtitle()}\nopen {page.local_url} in a browser; Ctrl-C ends it", flush=True)
    if args.host not in ("127.0.0.1", "localhost", "::1"):
        logger.warning("--host %s: everyone who reaches this machine can use the page", args.host)
    if not args.no_browser:
        open_browser(str(page.local_url))
    page.block_thread()
    return 0
