"""The whole network with the kernels of a GPU, on a CPU, compared with the CPU's own; and when
attention takes which of them."""

import itertools
import logging
import random
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from flex_written_out import flex_written_out
from small_network import build_small
from torch._subclasses import FakeTensorMode
from torch.nn.attention import flex_attention as flex

from ofa.models import attention, attention_trial, flex_attention, layers
from ofa.models.attention import choose_kernel, masked_attention, shared_bias_attention
from ofa.models.attention_trial import Kind, takes_parts
from ofa.models.flex_attention import attend_by_parts, join_parts, table_of_parts
from ofa.trainer.mfu import Utilization

VOCAB, PAD = 90, 1
MODES = {
    "text": dict(images=0),
    "image": {},
    "two images": dict(images=2, num_image_types=2),
    "missing image": dict(masks=[True, False, True]),
    "sampled patches": dict(masks=[True, False, True], sample_patch_num=3),
    "prompts": dict(
        encoder_prompt=True,
        encoder_prompt_length=3,
        decoder_prompt=True,
        decoder_prompt_length=2,
        prompt_dropout=0.0,
    ),
    "image codes": dict(codes=[True] * 3),
    "image codes and text": dict(codes=[False, True, False]),
    "all parts": dict(
        scale_attn=True, scale_fc=True, scale_heads=True, scale_resids=True, disable_entangle=True
    ),
}


GPU, CPU = torch.device("cuda:0"), torch.device("cpu")
KIND = Kind(causal=False, per_sample=False)
SIZE = 4, 2, 100  # samples, heads, positions of a small trial


@pytest.fixture(autouse=True)
def small_masks_are_large(monkeypatch):
    monkeypatch.setattr(attention, "LARGE_MASK", 0)


def outputs_and_gradients(images=1, masks=None, codes=None, sample_patch_num=None, **switches):
    """Logits of what is no padding, and the gradient of every parameter."""
    model = build_small(VOCAB, **switches).train()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():  # away from the start, where biases are almost 0
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    tokens = torch.randint(4, VOCAB, (3, 7), generator=generator)
    tokens[1, 4:], tokens[2, 6:] = PAD, PAD
    shown = torch.randn(2, 3, 3, 48, 48, generator=generator)
    inputs = dict(zip(("patch_images", "patch_images_2"), shown[:images]))
    inputs["patch_masks"] = None if masks is None else torch.tensor(masks)
    inputs["code_masks"] = None if codes is None else torch.tensor(codes)
    random.seed(0)
    logits, _ = model(
        tokens, prev_output_tokens=tokens, sample_patch_num=sample_patch_num, **inputs
    )
    logits = logits[tokens.ne(PAD)]
    (logits * torch.randn(logits.shape, generator=generator)).sum().backward()
    return logits, {name: one.grad for name, one in model.named_parameters()}


def check(found, expected):
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=1e-5)
    gradients = {name: one for name, one in expected[1].items() if one is not None}
    scale = max(one.abs().max() for one in gradients.values())
    for name, wanted in gradients.items():
        difference = (found[1][name] - wanted).abs().max()
        assert difference < 1e-6 * scale + 1e-5 * wanted.abs().max(), name


@pytest.mark.parametrize("mode", MODES)
def test_a_bias_shared_by_all_samples_changes_no_output_and_no_gradient(mode, monkeypatch):
    expected, calls = outputs_and_gradients(**MODES[mode]), []

    def choose(*inputs):
        calls.append(inputs)
        return shared_bias_attention

    monkeypatch.setattr(attention, "choose_kernel", choose)
    check(outputs_and_gradients(**MODES[mode]), expected)
    assert calls


# ------------------------------------------------------------------ a bias in parts


@pytest.fixture
def by_parts(monkeypatch):
    """Self-attention takes parts of a bias. Returns: function that sets what stands for the kernel;
    its calls."""
    calls = []
    # FlexAttention lets no gradient pass on a CPU, for which there is no kernel
    monkeypatch.setattr(flex, "_validate_device", lambda *tensors: None)
    monkeypatch.setattr(layers, "takes_parts", lambda *inputs: True)

    def use(function):
        def noted(*inputs, **options):
            calls.append(inputs)
            return function(*inputs, **options)

        monkeypatch.setattr(flex_attention, "compiled_flex", lambda: noted)

    use(flex_written_out)
    return SimpleNamespace(calls=calls, use=use)


def program():
    """As of a GPU, but of torch's operators."""
    return torch.compile(flex.flex_attention, dynamic=True, fullgraph=True, backend="aot_eager")


@pytest.mark.parametrize("mode", MODES)
def test_a_bias_in_parts_changes_no_output_and_no_gradient(mode, by_parts, monkeypatch):
    found = outputs_and_gradients(**MODES[mode])
    assert len(by_parts.calls) == 4  # layers of encoder and decoder
    monkeypatch.setattr(layers, "takes_parts", lambda *inputs: False)
    check(found, outputs_and_gradients(**MODES[mode]))
    assert len(by_parts.calls) == 4


@pytest.mark.parametrize("mode", ["sampled patches", "prompts", "image codes and text"])
def test_flexattention_changes_scores_as_it_is_told(mode, by_parts, monkeypatch):
    by_parts.use(flex.flex_attention)
    found = outputs_and_gradients(**MODES[mode])
    assert len(by_parts.calls) == 4
    by_parts.use(flex_written_out)
    check(found, outputs_and_gradients(**MODES[mode]))


@pytest.mark.slow  # compiles
@pytest.mark.parametrize("way", ["compiled", "recomputed", "checkpoints"])
def test_parts_go_with_what_keeps_less_and_are_never_put_together(way, by_parts, monkeypatch):
    by_parts.use(program())
    monkeypatch.setattr(layers, "recomputing_pays", lambda x: way == "recomputed")
    mode = {**MODES["two images"], "masks": [True, False, True]}
    mode["checkpoint_activations"] = way == "checkpoints"
    kept = set()

    def keep(tensor):
        kept.add(tuple(tensor.shape))
        return tensor

    monkeypatch.setattr("ofa.models.recompute.keep", keep)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with nullcontext() if way == "recomputed" else hooks:
        found = outputs_and_gradients(**mode)
    assert len(by_parts.calls) == (8 if way == "checkpoints" else 4)
    positions, heads, width = 2 * 3 * 3 + 7, 2, 8
    assert ((3, heads, positions, width) in kept) == (way != "checkpoints")  # values
    assert not any(shape[-2:] == (positions, positions) and heads in shape[:-2] for shape in kept)
    assert ((3, heads, positions, 2 * width) in kept) == (way == "compiled")
    monkeypatch.setattr(layers, "takes_parts", lambda *inputs: False)
    check(found, outputs_and_gradients(**mode))


@pytest.mark.slow  # compiles
def test_layers_that_are_compiled_take_parts(by_parts, monkeypatch):
    mode = {**MODES["missing image"], "encoder_layers": 1, "decoder_layers": 1}
    monkeypatch.setattr(layers.TransformerStack, "compiled_by", "eager")
    found = outputs_and_gradients(**mode)
    monkeypatch.undo()
    assert not by_parts.calls  # they are in the layers' programs
    check(found, outputs_and_gradients(**mode))


def test_parts_of_one_type_reach_the_kernel_under_autocast(by_parts, monkeypatch):
    with torch.autocast("cpu", torch.bfloat16):
        outputs_and_gradients(**MODES["prompts"])
    types = {tensor.dtype for call in by_parts.calls for tensor in call}
    assert types == {torch.bfloat16}


def test_pairs_without_bucket_have_rows_of_zeros_and_no_other(by_parts):
    heads, length = 2, 600  # more keys than such rows
    buckets = torch.randint(0, 9, (1, length, length))
    table = table_of_parts(torch.cat([torch.zeros(1, heads), torch.randn(8, heads)]))
    vectors = torch.zeros(2, 1, heads, length, 4)
    rows = join_parts(*vectors, buckets, None).buckets
    found = table[:, rows[0].long()]
    assert (found[:, buckets[0] == 0] == 0).all() and (found[:, buckets[0] > 0] != 0).all()
    assert rows[buckets == 0].unique().numel() > 200


def test_a_row_that_sees_no_key_gets_the_average_of_all(by_parts):
    torch.manual_seed(0)
    query, keys, values = torch.randn(3, 2, 2, 6, 4, requires_grad=True)
    buckets, hidden = (
        torch.zeros(1, 6, 6, dtype=torch.long),
        torch.tensor([[False] * 6, [True] * 6]),
    )
    bias = join_parts(*torch.randn(2, 1, 2, 6, 4), buckets, hidden)
    bias = bias._replace(table=table_of_parts(torch.zeros(1, 2)))
    found = attend_by_parts(query, keys, values, bias, 0.5)
    found.sum().backward()
    torch.testing.assert_close(found[1], values[1].mean(1, keepdim=True).expand_as(found[1]))


def test_what_a_compiled_program_takes_is_decided_before(gpu, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not takes_parts(large(), 12, 588, 0.0, KIND) and not gpu.tried


def test_keys_of_a_prompt_count_too(monkeypatch):
    counts = []
    monkeypatch.setattr(layers, "takes_parts", lambda *inputs: bool(counts.append(inputs[2])))
    outputs_and_gradients(**MODES["prompts"])
    assert counts == [9 + 7 + 3, 7 + 2]


# ------------------------------------------------------------------ the choice


@pytest.fixture
def gpu(monkeypatch):
    """What the trial of a GPU's kernel found, which can be changed; what was tried."""
    state = SimpleNamespace(right=True, times=0.9, tried=[])

    def tried(*case):
        state.tried.append(case)
        return state

    monkeypatch.setattr(attention_trial, "tried", tried)
    return state


def large(dtype=torch.bfloat16, device=GPU, positions=588):
    return SimpleNamespace(device=device, dtype=dtype, size=lambda at: (8, positions, 768)[at])


def test_large_biases_in_16_bits_stay_in_parts_where_gradients_are_wanted(gpu, monkeypatch):
    def takes(*inputs, dropout=0.0, **options):
        return takes_parts(large(*inputs, **options), 12, 588, dropout, KIND)

    assert takes() and takes(torch.float16)
    assert gpu.tried == [(GPU, dtype, 64, KIND) for dtype in (torch.bfloat16, torch.float16)]
    monkeypatch.setattr(attention_trial, "LARGE_BIAS", 12 * 588 * 588)
    assert takes()
    monkeypatch.setattr(attention_trial, "LARGE_BIAS", 12 * 588 * 588 + 1)
    assert not takes()
    monkeypatch.undo()
    monkeypatch.setattr(attention_trial, "tried", lambda *case: gpu)
    assert not takes(torch.float32)
    assert not takes(dropout=0.1)
    assert not takes(positions=20)
    assert not takes(device=torch.device("cpu"))
    with torch.no_grad():
        assert not takes()
    with monkeypatch.context() as patch:  # torch turns autocast off where there is no GPU
        patch.setattr(torch, "is_autocast_enabled", lambda kind: True)
        patch.setattr(torch, "get_autocast_dtype", lambda kind: torch.bfloat16)
        assert takes(torch.float32)
    gpu.times = 1.1
    assert not takes()
    gpu.right, gpu.times = False, 0.5
    assert not takes()


def test_whoever_asks_for_the_same_sums_in_every_run_gets_them(gpu):
    torch.use_deterministic_algorithms(True)
    try:
        assert not takes_parts(large(), 12, 588, 0.0, KIND)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("choice", attention.CHOICES)
def test_the_environment_chooses(choice, gpu, monkeypatch):
    monkeypatch.setattr(attention, "CHOICE", choice)
    small_one, bias = large(torch.float32, positions=20), torch.zeros(1)
    assert takes_parts(large(), 12, 588, 0.0, KIND) == (choice in ("auto", "flex"))
    gpu.times = 1.1
    assert takes_parts(small_one, 12, 20, 0.0, KIND) == (choice == "flex")
    shared = choice not in ("masked", "cudnn")
    expected = shared_bias_attention if shared else masked_attention
    assert choose_kernel(large(), bias, 0.0) is expected
    assert choose_kernel(large(device=torch.device("mps")), bias, 0.0) is masked_attention


# ------------------------------------------------------------------ the trial of a kernel


@pytest.fixture
def trial(by_parts, monkeypatch):
    """A trial on the CPU, of a small size. Returns: function that runs it."""
    monkeypatch.setattr(attention_trial, "COMPARED", SIZE)
    monkeypatch.setattr(attention_trial, "TIMED", SIZE)
    monkeypatch.setattr(attention_trial, "capability_of", lambda device: (9, 0))
    attention_trial.tried.cache_clear()
    yield lambda dtype=torch.float32, kind=KIND: attention_trial.tried(CPU, dtype, 16, kind)
    attention_trial.tried.cache_clear()


@pytest.mark.parametrize(
    "kind", itertools.starmap(Kind, itertools.product([False, True], repeat=2))
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_right_kernel_passes_the_trial(dtype, kind, trial, caplog):
    state = torch.get_rng_state()
    with caplog.at_level(logging.INFO), torch.autocast("cpu", torch.bfloat16):
        assert trial(dtype, kind).right and 0 < trial(dtype, kind).times < torch.inf
    assert "times as long as the kernel that reads a bias" in caplog.text
    assert torch.equal(torch.get_rng_state(), state)
    difference = attention_trial.Case(CPU, dtype, 16, kind, *SIZE).difference()
    assert 0 < difference < (1e-5 if dtype == torch.float32 else 0.03)


def test_the_kernel_that_reads_a_bias_computes_the_same_case():
    for kind in itertools.starmap(Kind, itertools.product([False, True], repeat=2)):
        case = attention_trial.Case(CPU, torch.float32, 16, kind, *SIZE)
        for found, expected in zip(
            case.results(case.by_shared_bias, case.inputs),
            case.results(case.written_out, case.inputs),
            strict=True,
        ):
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_where_operators_are_counted_or_have_no_numbers_nothing_is_tried(gpu):
    with Utilization(1e12).counted(1):
        assert not takes_parts(large(), 12, 588, 0.0, KIND)
    with FakeTensorMode():
        assert not takes_parts(large(), 12, 588, 0.0, KIND)
    assert not gpu.tried
    assert takes_parts(large(), 12, 588, 0.0, KIND)


def wrong_by(change):
    def kernel(query, keys, values, **options):
        return change(flex_written_out(query, keys, values, **options))

    return kernel


def failing(*inputs, **options):
    raise RuntimeError("out of resource: shared memory\nand a long story")


@pytest.mark.parametrize(
    "kernel, reason",
    [
        (failing, "out of resource: shared memory"),
        (wrong_by(lambda y: y * 1.1), "its values are 0.1 off"),
        (wrong_by(lambda y: y + torch.nan), "its values are inf off"),
        (wrong_by(lambda y: y.detach() + 0 * y), "its values are 1 off"),  # gradients
    ],
)
@pytest.mark.parametrize("choice", ["auto", "flex"])
def test_a_kernel_that_fails_or_is_wrong_is_named_once_and_not_taken(
    kernel, reason, choice, trial, by_parts, monkeypatch, caplog
):
    by_parts.use(kernel)
    monkeypatch.setattr(attention, "CHOICE", choice)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            assert not trial().right
    named = [one for one in caplog.records if f"(RuntimeError: {reason})" in one.message]
    level = logging.WARNING if choice == "flex" else logging.INFO
    assert [one.levelno for one in named] == [level]
    assert "OFA_ATTENTION=shared" in caplog.text


def test_the_trial_compares_the_times_of_both_kernels(trial, monkeypatch):
    seconds = {"by_parts": 3.0, "by_shared_bias": 2.0}
    monkeypatch.setattr(
        attention_trial.Case, "seconds", lambda self, function: seconds[function.__name__]
    )
    assert trial() == (True, 1.5)


@pytest.mark.parametrize("capability, right", [((7, 5), False), ((8, 0), True)])
def test_gpus_from_sm_80_on_are_tried(capability, right, trial, by_parts, monkeypatch):
    monkeypatch.setattr(attention_trial, "capability_of", lambda device: capability)
    assert trial().right == right
    assert bool(by_parts.calls) == right


@pytest.mark.parametrize(
    "width, memory, changed",
    [
        (64, 232448, {"fwd_BLOCK_N"}),
        (128, 232448, set()),
        (128, 101376, {"fwd_BLOCK_N", "fwd_num_stages"}),
        (160, 166912, {"bwd_num_warps"}),
    ],
)
def test_tiles_of_the_kernel_suit_width_and_shared_memory(width, memory, changed):
    options = flex_attention.kernel_options(width, memory)
    assert options.keys() >= changed | {"BACKEND"}
    assert bool(changed) == (len(options) > 1)
