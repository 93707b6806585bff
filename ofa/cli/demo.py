"""``ofa demo``: a page in the browser on which a model can be tried."""

import argparse
import logging

from ofa.cli.predict import add_model_flags, load
from ofa.inference.requests import NEEDED

logger = logging.getLogger(__name__)

EXAMPLE = """\
examples:
  ofa demo checkpoint_best.pt
  ofa demo checkpoint_best.pt --image-tokenizer tokenizer.pt --tasks caption draw
  ofa demo ofa_base.pt --bpe-dir BPE --cpu --port 8000 --no-browser

The page is seen from this machine alone and loads nothing from elsewhere. Ctrl-C ends it."""
TASKS = (*NEEDED, "draw")


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="try a model in the browser",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument(
        "--image-tokenizer",
        metavar="PATH",
        help=(
            "what makes images of codes, to draw: tokenizer.pt, or a folder with "
            "model.yaml and last.ckpt"
        ),
    )
    parser.add_argument(
        "--tasks",
        nargs="+",
        choices=TASKS,
        default=(),
        metavar="TASK",
        help=(
            f"what the page offers: {', '.join(TASKS)}; default: all; read if it was trained, draw"
            " if there is a tokenizer"
        ),
    )
    parser.add_argument(
        "--port", type=int, metavar="N", help="of the page; default: the first free one from 7860"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="%(default)s: this machine alone; 0.0.0.0: whoever reaches it",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help=(
            "host name under which the page is reached, besides this machine's own; may be repeated"
        ),
    )
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    add_model_flags(parser.add_argument_group("model and machine"))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Open the page; until Ctrl-C."""
    from ofa.demo.app import check_address, open_browser, serve  # says at once if gradio is missing

    check_address(args.host, args.port)
    from ofa.demo.service import Demo

    given = {"image_tokenizer": args.image_tokenizer} if args.image_tokenizer else {}
    demo = Demo(load(args, **given), args.tasks)
    page = serve(demo, args.host, args.port, args.allow_host)
    print(f"{demo.subtitle()}\nopen {page.local_url} in a browser; Ctrl-C ends it", flush=True)
    if args.host not in ("127.0.0.1", "localhost", "::1"):
        logger.warning("--host %s: everyone who reaches this machine can use the page", args.host)
    if not args.no_browser:
        open_browser(str(page.local_url))
    page.block_thread()
    return 0
