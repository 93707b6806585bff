"""``ofa predict``: captions, answers, regions for one image, a folder or a file of requests, as
JSON lines."""

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ofa.errors import UserError

logger = logging.getLogger(__name__)

EXAMPLE = """\
examples:
  ofa predict checkpoint_best.pt photos/                                     captions of every image
  ofa predict checkpoint_best.pt dog.jpg --question "what color is the sofa?"
  ofa predict checkpoint_best.pt dog.jpg --text "the left cushion" --draw drawn/
  ofa predict checkpoint_best.pt signs/ --task read                          the text on every image
  ofa predict checkpoint_best.pt requests.jsonl --out replies.jsonl

A line of a .jsonl file: {"image": "a.jpg", "question": "what is it?", "region": [3, 4, 90, 80]};
paths are as seen from the file. An image that cannot be read is named and left out (its line holds
the reason); the exit status is 1 then."""
GENERATION = ("beam", "max_len_b", "min_len", "lenpen", "temperature", "no_repeat_ngram_size")
WINDOW = 4  # batches of images in memory


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "predict",
        help="ask a model about images",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("input", help="an image, a folder of images, or a .jsonl file")
    parser.add_argument(
        "--images",
        metavar="DIR",
        action="append",
        default=[],
        help="further folder that lines of a .jsonl file may name images of; may be repeated",
    )
    ask = parser.add_argument_group("what to ask (a line of a .jsonl file goes before it)")
    ask.add_argument(
        "--task",
        help=(
            "caption, answer, ground, entails, read or generate; default: what the words below are"
            " for, or caption"
        ),
    )
    ask.add_argument("--question", metavar="TEXT", help="answer it")
    ask.add_argument(
        "--region", metavar="X0,Y0,X1,Y1", help="the question is about this box, pixels"
    )
    ask.add_argument("--text", metavar="TEXT", help="find the region that it describes")
    ask.add_argument("--hypothesis", metavar="TEXT", help="does the image show it?")
    ask.add_argument("--premise", metavar="TEXT", help="... given this text as well")
    ask.add_argument("--instruction", metavar="TEXT", help="any instruction")
    ask.add_argument(
        "--answers", metavar="TEXT,...", help="choose the answer to questions among these"
    )
    out = parser.add_argument_group("what comes out")
    out.add_argument(
        "--out",
        metavar="FILE",
        help="JSON lines, written as a whole at the end; default: printed as they come",
    )
    out.add_argument(
        "--draw", metavar="DIR", help="write every image with its boxes and texts drawn on it"
    )
    out.add_argument(
        "--best",
        type=int,
        default=1,
        metavar="N",
        help="replies per request, with scores (%(default)s)",
    )
    out.add_argument(
        "--stop-on-broken",
        action="store_true",
        help="an image that cannot be read ends the command",
    )
    _add_machine(parser)
    parser.set_defaults(run=run)


def add_model_flags(group) -> None:
    """Which model, on what. Args: group: of a parser."""
    group.add_argument(
        "--base",
        metavar="FILE",
        help="of a checkpoint that holds tuned weights only: its base, if it has moved",
    )
    group.add_argument(
        "--bpe-dir", metavar="DIR", help="vocabulary folder, if it has moved since training"
    )
    group.add_argument(
        "--ans2label-file", metavar="FILE", help="set of answers, if it has moved since training"
    )
    group.add_argument(
        "--ema-eval", action="store_true", help="take the averaged weights (EMA) of the checkpoint"
    )
    group.add_argument("--cpu", action="store_true", help="do not use a GPU")
    precision = group.add_mutually_exclusive_group()
    precision.add_argument(
        "--fp16", action="store_const", const="fp16", dest="precision", default="fp32"
    )
    precision.add_argument("--bf16", action="store_const", const="bf16", dest="precision")


def _add_machine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model and machine")
    add_model_flags(group)
    group.add_argument("--batch-size", type=int, default=16, help="images at a time (%(default)s)")
    for name in GENERATION:
        kind = float if name in ("lenpen", "temperature") else int
        group.add_argument(
            "--" + name.replace("_", "-"), type=kind, help="of the search; default: as in training"
        )


def run(args: argparse.Namespace) -> int:
    """Ask, write, draw. Returns: 0, or 1 if images could not be read."""
    from tqdm import tqdm

    from ofa.inference.requests import NEEDED, OPTIONAL, read_requests, verb_of
    from ofa.io.atomic import replacing

    if args.best < 1 or args.batch_size < 1:
        raise UserError("--best and --batch-size expect at least 1")
    words = {
        name: getattr(args, name) for name in (*filter(None, NEEDED.values()), *OPTIONAL.values())
    }
    requests = read_requests(args.input, args.task and verb_of(args.task), words, args.images)
    if args.draw:
        Path(args.draw).mkdir(parents=True, exist_ok=True)
    model = load(args, batch_size=args.batch_size)
    broken = 0
    with replacing(args.out) if args.out else nullcontext(sys.stdout) as file:
        with tqdm(total=len(requests), unit="image", disable=None) as bar:
            for line in lines(model, requests, args):
                broken += "error" in line
                file.write(text_of_line(line) + "\n")
                bar.update()
    if broken:
        logger.warning(
            "%d of %d images could not be read; their lines hold the reason", broken, len(requests)
        )
    return 1 if broken else 0


def text_of_line(line: dict[str, Any]) -> str:
    """A line of the output in JSON. What UTF-8 cannot hold, half of a character, stays as it
    came: an escape."""
    from ofa.io.values import SURROGATE, finite

    text = json.dumps(finite(line), ensure_ascii=False)
    return json.dumps(finite(line)) if SURROGATE.search(text) else text


def load(args: argparse.Namespace, **overrides: Any):
    """The model that the options of ``add_model_flags`` name. Args: overrides: as of
    ``OFA.load``."""
    from ofa import OFA

    if args.ans2label_file:
        overrides["ans2label_file"] = args.ans2label_file
    return OFA.load(
        args.checkpoint,
        args.bpe_dir,
        device="cpu" if args.cpu else None,
        precision=args.precision,
        ema=args.ema_eval,
        base=args.base,
        **overrides,
    )


def lines(model, requests: Sequence[Any], args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One line per request, in order."""
    from ofa.data.load_image import from_file
    from ofa.report.annotate import AnnotatedImageWriter

    drawer = AnnotatedImageWriter(args.draw) if args.draw else None
    size = WINDOW * args.batch_size
    for start in range(0, len(requests), size):
        window = requests[start : start + size]
        images: list[Any] = []
        for request in window:
            try:
                images.append(from_file(request.image, str(request.image)))
            except UserError as error:
                if args.stop_on_broken:
                    raise
                logger.warning("left out: %s", error)
                images.append(error)
        replies = replies_of(model, window, images, args)
        for request, image, reply in zip(window, images, replies):
            about = {"image": request.name, "task": request.verb, **request.words, **request.kept}
            if isinstance(image, UserError):
                yield {**about, "error": str(image)}
                continue
            if drawer:
                about["drawn"] = drawer.draw(request, image, reply)
            yield {**about, **reply.as_json()}


def replies_of(
    model, requests: Sequence[Any], images: Sequence[Any], args: argparse.Namespace
) -> list[Any]:
    """The model's reply to each request; requests of one kind are asked together."""
    generation = {
        name: getattr(args, name) for name in GENERATION if getattr(args, name) is not None
    }
    replies: list[Any] = [None] * len(requests)
    whole = [row for row, image in enumerate(images) if not isinstance(image, UserError)]
    for kind in dict.fromkeys(requests[row].kind for row in whole):
        rows = [row for row in whole if requests[row].kind == kind]
        words = {name: [requests[row].words[name] for row in rows] for name in kind[1:]}
        if kind[0] == "answer" and args.answers:
            words["answers"] = [text.strip() for text in args.answers.split(",")]
        found = getattr(model, kind[0])(
            [images[row] for row in rows], **words, best=args.best, **generation
        )
        for row, reply in zip(rows, found):
            replies[row] = reply
    return replies
