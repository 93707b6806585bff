"""Core time of a row on its way to the network, from the base64 of a 640 x 480 JPEG to a batch of
16: images as float32, normalized by who reads the rows, and as uint8, normalized on the device
(here the CPU); as files, which the device decodes and resizes (here the CPU); of images that ``ofa
pack --image-size`` made squares of; and of its stages.
"""

import time
from functools import partial

import torch
from frame import Args, photo_fields, print_figures, program

from ofa.data.collate import collate
from ofa.data.images import normalize_images, pixels_of, squashed
from ofa.data.sample import SampleBuilder
from ofa.data.shard_writer import squashed_file
from ofa.io.images import decode_base64, encode_image, open_image
from ofa.task.task_spec import Example
from ofa.tasks.caption import SPEC, CaptionOptions

BATCH = 16


def rows_of(pixels: int, for_device: bool, decode_on_device: bool = False):
    """Function: fields -> batch. Texts are empty: images alone are measured."""
    from types import SimpleNamespace

    words = SimpleNamespace(kind="gpt2", encode=lambda text: "")
    vocabulary = SimpleNamespace(ids=lambda text: [], bos=0, pad=1, eos=2, specials=range(4))
    options = CaptionOptions(patch_image_size=pixels, decode_on_device=decode_on_device)
    builder = SampleBuilder(SPEC, options, vocabulary, words, "train", for_device=for_device)

    def batch(fields: list[str]) -> dict:
        images = (builder.open_image(field, "") for field in fields)
        return collate([builder.encode(Example("", "", image=one), None) for one in images])

    return batch


def fastest_in_turn(works: dict, rows: int, repeats: int) -> dict[str, float]:
    """Milliseconds of a core per row."""
    best = dict.fromkeys(works, float("inf"))
    for _ in range(repeats):
        for name, work in works.items():
            start = time.process_time()
            work()
            best[name] = min(best[name], 1000 * (time.process_time() - start) / rows)
    return best


def measure(pixels: int, fields: list[str], repeats: int) -> dict[str, float]:
    as_float, as_uint8 = (rows_of(pixels, sends) for sends in (False, True))
    as_files = rows_of(pixels, for_device=True, decode_on_device=True)
    files = list(map(decode_base64, fields))
    packed = [encode_image(squashed_file(file, pixels, "")) for file in files]
    images = list(map(open_image, files))
    squares = [squashed(image, pixels) for image in images]
    tensors = list(map(pixels_of, squares))
    sent, undecoded = as_uint8(fields), as_files(fields)
    whole = normalize_images(sent)["net_input"]["patch_images"]
    assert torch.equal(as_float(fields)["net_input"]["patch_images"], whole)

    def each(function, values):
        return lambda: [function(value) for value in values]

    works = {
        "float32_batch": lambda: as_float(fields),
        "uint8_batch": lambda: as_uint8(fields),
        "uint8_batch_packed": lambda: as_uint8(packed),
        "files_batch": lambda: as_files(fields),
        "uint8_normalized_later": lambda: normalize_images(sent),
        "files_decoded_later": lambda: normalize_images(undecoded),
        "base64": each(decode_base64, fields),
        "jpeg": each(open_image, files),
        "bicubic": each(partial(squashed, size=pixels), images),
        "pixels": each(pixels_of, squares),
        "stack_uint8": lambda: torch.stack(tensors),
    }
    found = fastest_in_turn(works, len(fields), repeats)
    return {f"{pixels}px_{name}_ms": value for name, value in found.items()}


@program(threads=1, repeats=(12, "of which the fastest counts"))
def main(args: Args) -> dict:
    fields, figures = photo_fields(BATCH), {}
    for pixels in (384, 480):
        figures |= measure(pixels, fields, args.repeats)
    return print_figures(figures, digits=2)
