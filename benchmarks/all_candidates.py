"""How much faster all answers are scored together than one decoder pass per answer, and that the
scores are equal.

The slow way is upstream's: the encoder's output is repeated for each batch of 20 answers. It is
timed on a part of the answers, which are all alike, and scaled up.
"""

import math
import random

import frame
import torch
from torch import Tensor

from ofa.models.encoder import EncoderOutput
from ofa.models.generation.ranking import AnswerRanker
from ofa.models.inference_weights import encode_all, inference_networks
from ofa.models.ofa_model import OFAModel
from ofa.tokens.trie import Trie

BOS, PAD, EOS = 0, 1, 2
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


def padded(rows: list[list[int]]) -> Tensor:
    tensors = [torch.tensor(row) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=PAD)


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
        previous = padded([[*prompt, *answer] for answer in some])
        target = padded([[*answer, EOS] for answer in some])
        masks = torch.zeros(*target.shape, frame.VOCAB_SIZE, dtype=torch.bool)
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


@frame.program(
    threads=torch.get_num_threads(),
    arch="ofa_tiny",
    answers=(3129, "number of made-up answers"),
    images=2,
    pixels=256,
    prompt=(12, "tokens of the decoder's prompt, <s> included"),
    part=(200, "answers that the slow way is timed on"),
)
def main(args: frame.Args) -> dict:
    model = frame.random_model(
        args.arch, layernorm_embedding=True, patch_layernorm_embedding=True, add_type_embedding=True
    ).eval()
    with torch.no_grad():  # fresh weights say everything alike
        model.decoder.output_projection.weight.mul_(10)
    answers = made_up_answers(args.answers)
    trie = Trie(EOS, [[BOS, *answer, EOS] for answer in answers])
    sample = {"net_input": frame.caption_inputs(args.images, args.pixels, args.prompt)}
    prompt = [BOS, *torch.randint(4, 50000, (args.prompt - 1,)).tolist()]
    ranker = AnswerRanker(trie, BOS, nodes_at_once=320)
    part = random.Random(2).sample(range(len(answers)), min(args.part, len(answers)))
    some, found = [answers[index] for index in part], {}

    @torch.no_grad()
    def encode() -> None:
        found["encoded"] = encode_all(inference_networks([model]), sample)[0]

    def one_by_one() -> None:
        found["slow"] = one_pass_per_answer(model, found["encoded"], prompt, some, trie)

    def together() -> None:
        prompts = [prompt] * args.images
        found["fast"] = ranker.scores([model], sample, prompts, [found["encoded"]])

    encoder = frame.fastest({"encode": encode}, 2)[0]["encode"]
    slow = frame.seconds(one_by_one) * len(answers) / len(part)
    fast = frame.fastest({"fast": together}, 3)[0]["fast"]
    difference = (found["fast"][:, part] - found["slow"]).abs().max().item()
    times = {"encoder": encoder, "one pass per answer": slow, "all together": fast}
    title = f"{args.arch}, {args.images} images of {args.pixels} px, {len(answers)} answers"
    ratios = {"ratio": slow / fast, "with_the_encoder": (slow + encoder) / (fast + encoder)}
    figures = frame.print_times(title, times, **ratios)
    print(f"largest difference of a score {difference:9.1e}")
    return {**figures, "difference": difference}
