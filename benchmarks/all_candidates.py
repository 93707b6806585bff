"""How much faster all answers are scored together than one decoder pass per answer, and that the
scores are equal.

    python benchmarks/all_candidates.py [--arch ofa_tiny] [--answers 3129] [--images 2] [--pixels
    256] [--vocabulary GPT2_FOLDER]

The slow way is upstream's: for each batch of 20 answers the encoder's output is repeated 20
times and the decoder reads the prompt and each whole answer. It is timed on a part of the answers,
which are all alike, and scaled up. Answers are those of --ans2label-file, or made up: of one to
four tokens, the longer ones with shared beginnings.
"""

import argparse
import math
import random
import time
from typing import Any

import torch
from torch import Tensor

from ofa.models.config import ModelConfig
from ofa.models.encoder import EncoderOutput
from ofa.models.generation.generator import encode_all, inference_networks
from ofa.models.generation.ranking import AnswerRanker
from ofa.models.ofa_model import OFAModel
from ofa.tokens.trie import Trie

BOS, PAD, EOS = 0, 1, 2
VOCAB_SIZE = 59457
TOGETHER = 20  # answers in a pass of upstream
LENGTHS = (0.5, 0.3, 0.14, 0.06)  # share of the answers with one, two, three and four tokens
BEGINNINGS = 500  # different first tokens of the longer ones; real answers share about as many


def made_up_answers(count: int, seed: int = 0) -> list[list[int]]:
    """Different answers; the longer ones begin alike, as "on the table" and "on the left" do."""
    draw = random.Random(seed)
    answers: dict[tuple[int, ...], None] = {}
    while len(answers) < count:
        length = draw.choices((1, 2, 3, 4), LENGTHS)[0]
        first = draw.randrange(4, 20000) if length == 1 else draw.randrange(4, 4 + BEGINNINGS)
        answers[(first, *(draw.randrange(4, 1000) for _ in range(length - 1)))] = None
    return [list(answer) for answer in answers]


def answers_of(path: str, folder: str) -> list[list[int]]:
    """Token ids of a label file's answers."""
    from ofa.task.label_file import read_label_file
    from ofa.tokens.bpe import load_language

    bpe, vocabulary = load_language(folder)
    return [vocabulary.ids(bpe.encode(f" {text}")) for text in read_label_file(path)]


@torch.no_grad()
def one_pass_per_answer(
    model: OFAModel, encoded: EncoderOutput, prompt: list[int], answers: list[list[int]], trie: Trie
) -> Tensor:
    """float[B, answers], as upstream computes them."""
    images = len(encoded.states)
    found = []
    decoder = inference_networks([model])[0].decoder
    for start in range(0, len(answers), TOGETHER):
        some = answers[start : start + TOGETHER]
        longest = max(map(len, some))
        previous = torch.tensor(
            [[*prompt, *answer] + [PAD] * (longest - len(answer)) for answer in some]
        )
        target = torch.tensor([[*answer, EOS] + [PAD] * (longest - len(answer)) for answer in some])
        masks = torch.zeros(len(some), longest + 1, VOCAB_SIZE, dtype=torch.bool)
        for row, answer in enumerate(some):
            for position in range(len(answer) + 1):
                masks[row, position, trie.get_next_layer([BOS, *answer[:position]])] = True
            masks[row, len(answer) + 1 :] = True
        rows = torch.arange(images).repeat_interleave(len(some))
        logits = decoder(previous.repeat(images, 1), encoded.select(rows))[0][:, len(prompt) - 1 :]
        log_probs = logits.masked_fill(~masks.repeat(images, 1, 1), -math.inf).log_softmax(-1)
        target = target.repeat(images, 1)
        scores = log_probs.gather(2, target[..., None])[..., 0].masked_fill(target.eq(PAD), 0)
        found.append(scores.sum(1).view(images, len(some)))
    return torch.cat(found, 1)


def seconds(work, repeats: int) -> tuple[float, Any]:
    """The fastest of some runs, and what it returned."""
    best, result = math.inf, None
    for _ in range(repeats):
        started = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - started)
    return best, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="ofa_tiny")
    parser.add_argument("--answers", type=int, default=3129, help="number of made-up answers")
    parser.add_argument("--ans2label-file", help="real answers instead; needs --vocabulary")
    parser.add_argument("--vocabulary", help="folder of the GPT-2 BPE")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument(
        "--prompt", type=int, default=12, help="tokens of the decoder's prompt, <s> included"
    )
    parser.add_argument(
        "--part", type=int, default=200, help="answers that the slow way is timed on"
    )
    args = parser.parse_args()

    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    flags = dict(
        layernorm_embedding=True,
        patch_layernorm_embedding=True,
        add_type_embedding=True,
        scale_attn=True,
        scale_fc=True,
        scale_heads=True,
        disable_entangle=True,
    )
    model = OFAModel(
        ModelConfig.from_namespace(argparse.Namespace(**flags), args.arch), VOCAB_SIZE
    ).eval()
    with torch.no_grad():  # fresh weights say everything alike
        model.decoder.output_projection.weight.mul_(10)
    answers = (
        answers_of(args.ans2label_file, args.vocabulary)
        if args.ans2label_file
        else made_up_answers(args.answers)
    )
    trie = Trie(EOS, [[BOS, *answer, EOS] for answer in answers])
    tokens = torch.randint(4, 50000, (args.images, args.prompt), generator=generator)
    images = torch.rand(args.images, 3, args.pixels, args.pixels, generator=generator) * 2 - 1
    sample = {
        "net_input": {
            "src_tokens": tokens,
            "patch_images": images,
            "patch_masks": torch.ones(args.images, dtype=torch.bool),
        }
    }
    prompt = [BOS, *torch.randint(4, 50000, (args.prompt - 1,), generator=generator).tolist()]

    ranker = AnswerRanker(trie, BOS, nodes_at_once=320)
    states = sum(len(part.tokens) for part in ranker.parts)
    part = random.Random(2).sample(range(len(answers)), min(args.part, len(answers)))
    encoding, encoded = seconds(lambda: encode(model, sample), 2)
    slow, expected = seconds(
        lambda: one_pass_per_answer(model, encoded, prompt, [answers[i] for i in part], trie), 1
    )
    slow *= len(answers) / len(part)
    fast, scores = seconds(
        lambda: ranker.scores([model], sample, [prompt] * args.images, [encoded]), 3
    )
    difference = (scores[:, part] - expected).abs().max().item()
    tokens_fed = sum(map(len, answers)) + len(answers) * args.prompt
    print(
        f"{args.arch}, {args.images} images of {args.pixels} px, {len(answers)} answers, prompt of"
        f" {args.prompt} tokens, {torch.get_num_threads()} threads"
    )
    print(f"encoder                            {encoding:9.2f} s")
    print(
        f"one pass per answer, {TOGETHER} at a time {slow:9.2f} s  {tokens_fed:8d} decoder states"
        " an image"
    )
    print(
        f"all answers together               {fast:9.2f} s  {states + args.prompt:8d} decoder"
        " states an image"
    )
    print(
        f"ratio                              {slow / fast:9.0f} x, with the encoder"
        f" {(slow + encoding) / (fast + encoding):.0f} x"
    )
    print(f"largest difference of a score      {difference:9.1e}")


@torch.no_grad()
def encode(model: OFAModel, sample: dict) -> EncoderOutput:
    return encode_all(inference_networks([model]), sample)[0]


if __name__ == "__main__":
    main()
