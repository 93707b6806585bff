"""CLIP from local files: features as open_clip computes them, weights read without executing
them, one message for what is wrong."""

import builtins
import shlex
import subprocess
import sys

import pytest
import torch
from golden import load_json
from PIL import Image

from ofa.errors import UserError
from ofa.metrics.clip_score import ClipScorer, conversion, load_scorer

open_clip = pytest.importorskip("open_clip")
VISION = {"layers": 1, "width": 64, "patch_size": 16, "image_size": 32}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
IMAGES = [Image.new("RGB", (40, 30), "red"), Image.linear_gradient("L").convert("RGB")]


def network(quick_gelu: bool = False):
    torch.manual_seed(0)
    return open_clip.CLIP(32, VISION, TEXT, quick_gelu=quick_gelu).eval()


class Archive(torch.nn.Module):
    """OpenAI's networks as they are published: weights in half precision and three numbers, in
    TorchScript."""

    def __init__(self, weights):
        super().__init__()
        for name, value in {
            **weights,
            "input_resolution": torch.tensor(32),
            "context_length": torch.tensor(77),
            "vocab_size": torch.tensor(49408),
        }.items():
            module = self
            *path, last = name.split(".")
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, torch.nn.Module())
                module = getattr(module, part)
            module.register_buffer(last, value.half() if value.is_floating_point() else value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.fixture(scope="module", params=["open_clip", "openai"])
def saved(request, tmp_path_factory):
    """A file of weights and the network they are of."""
    path = tmp_path_factory.mktemp("clip") / "clip.pt"
    model = network(quick_gelu=request.param == "openai")
    if request.param == "openai":
        weights = {
            name: value.half().float() if value.is_floating_point() else value
            for name, value in model.state_dict().items()
        }
        model.load_state_dict(weights)
        archive = path.with_name("ViT-B-16.pt")
        torch.jit.script(Archive(weights)).save(str(archive))
        subprocess.run(
            shlex.split(conversion(archive).replace("python", sys.executable, 1)), check=True
        )
        path = path.with_name("ViT-B-16.weights.pt")
    else:
        torch.save(
            {"state_dict": {f"module.{name}": value for name, value in model.state_dict().items()}},
            path,
        )
    return path, model


def test_scores_are_those_of_open_clip(saved):
    path, model = saved
    transform = open_clip.image_transform(32, is_train=False)
    texts = ["two dogs", "a red house by the lake"]
    with torch.no_grad():
        images = model.encode_image(
            torch.stack([transform(image) for image in IMAGES]), normalize=True
        )
        words = model.encode_text(open_clip.tokenize(texts), normalize=True)
    scorer = load_scorer(str(path))
    torch.testing.assert_close(
        scorer.score(IMAGES, texts), (images * words).sum(-1), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        scorer.compare(IMAGES, IMAGES[::-1]), (images * images.flip(0)).sum(-1), atol=1e-5, rtol=0
    )


def test_a_torchscript_archive_is_refused_with_the_command_that_makes_weights_of_it(tmp_path):
    torch.jit.script(torch.nn.ReLU()).save(str(tmp_path / "ViT-B-16.pt"))
    with pytest.raises(
        UserError, match=r"TorchScript program, .* python -c 'import torch; .*ViT-B-16\.weights\.pt"
    ):
        load_scorer(str(tmp_path / "ViT-B-16.pt"))


def test_texts_are_cut_into_the_tokens_of_upstream(saved):
    recorded = load_json("criterion_scst")["clip"]
    tokens = ClipScorer(saved[0]).tokenize(recorded["texts_given_to_clip"])
    assert tokens[:, :12].tolist() == recorded["clip_text_tokens_first12"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "found no file at"),
        (b"no weights", "expects the weights of CLIP"),
        ({"a": torch.zeros(1)}, "expects a CLIP with a vision transformer"),
    ],
)
def test_a_file_that_is_no_clip_is_one_message(content, message, tmp_path):
    path = tmp_path / "ViT-B-16.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        torch.save(content, path)
    with pytest.raises(UserError, match=message) as found:
        load_scorer(str(path))
    assert "--clip-model-path" in str(found.value)


def test_without_open_clip_the_message_says_how_to_get_it(monkeypatch, tmp_path):
    stock = builtins.__import__
    monkeypatch.setattr(
        builtins,
        "__import__",
        lambda name, *rest: (
            (_ for _ in ()).throw(ImportError(name)) if name == "open_clip" else stock(name, *rest)
        ),
    )
    with pytest.raises(UserError, match="pip install open_clip_torch"):
        load_scorer(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:Scorer", "that Python can import"),
        ("json:JSONDecoder", r"a method score\(images, texts\)"),
        ("drawing_files", "MODULE:CLASS"),
    ],
)
def test_a_class_that_is_no_scorer_is_one_message(name, message):
    with pytest.raises(UserError, match=message):
        load_scorer(None, name)


@pytest.mark.parametrize(
    "name, shape",
    [
        ("visual.positional_embedding", (10**9, 0)),
        ("token_embedding.weight", (10**9, 0)),
        ("visual.conv1.weight", (10**9, 0, 16, 16)),
        ("visual.conv1.weight", (0, 3, 16, 16)),
        ("visual.conv1.weight", (64, 3, 0, 0)),
        ("text_projection", (3,)),
        ("ln_final.weight", ()),
    ],
)
def test_weights_that_claim_other_sizes_take_no_memory_and_are_refused(tmp_path, name, shape):
    torch.save(network().state_dict() | {name: torch.zeros(shape)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="expects a CLIP with a vision transformer"):
        ClipScorer(tmp_path / "a.pt", device="cpu")
