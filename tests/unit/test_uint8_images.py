"""Images that travel as uint8 and are normalized on their device have the numbers of upstream's
transforms."""

import pytest
import torch
from caption_files import make_language, write_tsv
from PIL import Image
from torchvision import transforms

from ofa.data.collate import collate
from ofa.data.fairseq_dataset import OFADataset
from ofa.data.images import IMAGE_STATISTICS, IMAGENET_MEAN, IMAGENET_STD, normalize_images
from ofa.data.sample import SampleBuilder
from ofa.data.tsv import TsvFile
from ofa.inference.predictor import to_device
from ofa.task.task_spec import Example
from ofa.tasks.caption import SPEC, CaptionOptions

SIDE = 48


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    return make_language(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (90, 70, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def builder_of(language, for_device: bool, **options) -> SampleBuilder:
    bpe, vocabulary = language
    found = CaptionOptions(patch_image_size=SIDE, **options)
    return SampleBuilder(SPEC, found, vocabulary, bpe, "train", for_device=for_device)


def sample_of(builder: SampleBuilder, image, **more):
    return builder.encode(Example(" what?", " a dog", id="1", image=image, **more), None)


@pytest.mark.parametrize("imagenet", [False, True])
def test_pixels_are_those_of_torchvision_to_the_last_bit(language, photo, imagenet):
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if imagenet else ((0.5,) * 3, (0.5,) * 3)
    squash = transforms.Resize((SIDE, SIDE), transforms.InterpolationMode.BICUBIC)
    expected = transforms.Compose([squash, transforms.ToTensor(), transforms.Normalize(mean, std)])(
        photo
    )
    options = {"imagenet_default_mean_and_std": imagenet}
    plain = sample_of(builder_of(language, False, **options), photo)
    assert torch.equal(plain["patch_image"], expected)
    sent = collate([sample_of(builder_of(language, True, **options), photo)] * 2)
    assert sent["net_input"]["patch_images"].dtype == torch.uint8
    found = normalize_images(sent)
    assert IMAGE_STATISTICS not in found and set(found) == set(collate([plain]))
    assert torch.equal(found["net_input"]["patch_images"], expected.expand(2, -1, -1, -1))
    assert found["net_input"]["patch_images"].is_contiguous()


def test_rows_of_one_batch_keep_their_own_mean_and_deviation(language, photo):
    both = [{"imagenet_default_mean_and_std": imagenet} for imagenet in (False, True)]
    expected = collate([sample_of(builder_of(language, False, **one), photo) for one in both])
    sent = collate([sample_of(builder_of(language, True, **one), photo) for one in both])
    found = normalize_images(sent)["net_input"]["patch_images"]
    assert torch.equal(found, expected["net_input"]["patch_images"])
    assert not torch.equal(found[0], found[1])


def test_the_second_image_of_a_pair_is_normalized_as_well(language, photo):
    pair = {"image": photo, "image_2": photo.transpose(Image.Transpose.ROTATE_90)}
    expected, sent = (
        collate([builder_of(language, sends).encode(Example(" a", " b", **pair), None)])
        for sends in (False, True)
    )
    found = normalize_images(sent)["net_input"]
    for name in ("patch_images", "patch_images_2"):
        assert torch.equal(found[name], expected["net_input"][name])


def test_a_filler_of_a_sample_without_image_stays_zero(language, photo):
    builder = builder_of(language, True)
    sent = collate([sample_of(builder, None), sample_of(builder, photo)])
    assert sent["net_input"]["patch_images"].dtype == torch.uint8
    images = normalize_images(sent)["net_input"]["patch_images"]
    assert not images[0].any() and images[1].any()
    assert sent["net_input"]["patch_masks"].tolist() == [False, True]


@pytest.mark.parametrize("first_is_float", [True, False])
def test_beside_images_that_are_float_all_are(language, photo, first_is_float):
    ready = torch.full((3, SIDE, SIDE), 0.25)
    samples = [sample_of(builder_of(language, True), image) for image in (ready, photo)]
    expected = [sample_of(builder_of(language, False), image) for image in (ready, photo)]
    step = 1 if first_is_float else -1
    batch = collate(samples[::step])
    assert IMAGE_STATISTICS not in batch
    assert torch.equal(
        batch["net_input"]["patch_images"], collate(expected[::step])["net_input"]["patch_images"]
    )
    assert samples[1]["patch_image"].dtype == torch.uint8, "the given samples stay as they are"


def test_batches_without_uint8_are_returned_as_they_are(language, photo):
    batch = collate([sample_of(builder_of(language, False), photo)])
    assert normalize_images(batch) is batch and normalize_images({}) == {}
    assert normalize_images([batch, {}])[0] is batch


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_what_float32_normalized(language, photo, dtype):
    plain, sent = (
        to_device(
            collate([sample_of(builder_of(language, sends), photo)]), torch.device("cpu"), dtype
        )
        for sends in (False, True)
    )
    assert plain["net_input"]["patch_images"].dtype == dtype
    assert torch.equal(sent["net_input"]["patch_images"], plain["net_input"]["patch_images"])


def test_a_data_set_gives_floats_until_somebody_normalizes_its_batches(language, tmp_path):
    rows = TsvFile(write_tsv(tmp_path / "rows.tsv", ["a dog"]), "0,4,2")
    dataset = OFADataset(rows, builder_of(language, False))
    before = dataset.collater([dataset[0]])
    assert before["net_input"]["patch_images"].dtype == torch.float32 and "facts" not in before
    dataset.prepare_for_device()
    after = dataset.collater([dataset[0]])
    assert after["net_input"]["patch_images"].dtype == torch.uint8 and "facts" in after
    assert torch.equal(
        normalize_images(after)["net_input"]["patch_images"], before["net_input"]["patch_images"]
    )
