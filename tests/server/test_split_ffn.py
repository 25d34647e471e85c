"""The split equals dense: for every cut, format and kind of FFN, over prompts and decoding. The GPU's part runs on the CPU device."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import cpu_ops
from gpu_ops.transfer import Staging
from models.bits import BITS, FORMAT_NAMES, FormatName
from models.ffn import DenseFfn
from models.ops import Ffn
from models.packed import PackedModel
from models.paths import BUNDLED_MODEL
from models.predictor import Predictor
from models.rows import Rows
from models.tokenizer import Tokenizer
from models.transformer import Transformer
from server.split_ffn import SplitBank, SplitFfn, routes
from tests.conftest import PackedOf
from tests.models.running import Part, cache_for, dense, run_in_pieces, run_step

TOLERANCE = 1e-4  # of the largest logit: float32 rounding through a few layers
A_STEP = 2e-2  # the same where rounding moved an int8 input or a threshold by one step, which a token carries on from there
MARGIN = 1e-3  # of the largest logit: greedy text may part where the two best were closer than this


def on_the_cpu(packed: PackedModel) -> Staging:
    return Staging(torch.device("cpu"), tokens=64, hidden=packed.manifest.spec.hidden)


def shuffled(packed: PackedModel) -> list[Tensor]:
    """An order per layer, int64 [E, N], as a profile would give one."""
    dice, spec = torch.Generator().manual_seed(7), packed.manifest.spec
    return [torch.stack([torch.randperm(spec.n_neurons, generator=dice) for _ in range(spec.n_experts)]) for _ in range(spec.n_layers)]


def split(packed: PackedModel, hot: Sequence[int]) -> Transformer:
    """`hot` [L]: neurons of each layer on the hot side."""
    spec = packed.manifest.spec
    pairs = [packed.load_banks(layer, order, [hot[layer]]) for layer, order in enumerate(shuffled(packed))]
    banks = [[SplitBank(*pair) for pair in experts] for experts in pairs]
    return Transformer(spec, packed.load_spine(), SplitFfn(spec.rule, banks, on_the_cpu(packed)), cpu_ops)


def cuts(packed: PackedModel) -> list[list[int]]:
    """None, one, 37 %, all but one, all, and a different cut in every layer."""
    n, layers = packed.manifest.spec.n_neurons, packed.manifest.spec.n_layers
    even = [[count] * layers for count in (0, 1, n * 37 // 100, n - 1, n)]
    return [*even, [(n * (layer + 1) // layers) for layer in range(layers)]]


@pytest.mark.parametrize("format_name", FORMAT_NAMES)
@pytest.mark.parametrize("name", ["relu", "silu", "mlp_bias", "sparsellama", "bamboo"])
def test_every_cut_equals_dense(name: str, format_name: FormatName, packed_of: PackedOf) -> None:
    packed = packed_of(name, format_name)
    tokens = torch.randint(0, packed.manifest.spec.vocab, (24,), generator=torch.Generator().manual_seed(1)).tolist()
    sizes = [17, 1, 1, 2, 1, 1, 1]
    wanted = run_in_pieces(dense(packed, cpu_ops), tokens, sizes)
    for hot in cuts(packed):
        got = run_in_pieces(split(packed, hot), tokens, sizes)
        apart = (got - wanted).abs().amax(1) / wanted.abs().max()  # [T]
        assert apart.median() <= TOLERANCE, hot
        assert apart.max() <= (A_STEP if BITS[format_name].grouped or name == "sparsellama" else TOLERANCE), hot


def greedy(model: Transformer, prompt: list[int], count: int) -> tuple[list[int], list[Tensor]]:
    """The likeliest tokens, one after the other, and the logits [V] each was chosen from."""
    kept, cache_here = list(prompt), cache_for(model, context=len(prompt) + count)
    (logits,) = run_step(model, cache_here, [Part(0, 0, prompt)])
    chosen_from = [logits[-1]]
    for _ in range(count):
        kept.append(int(chosen_from[-1].argmax()))
        chosen_from.append(run_step(model, cache_here, [Part(0, len(kept) - 1, kept[-1:])])[0][-1])
    return kept[len(prompt) :], chosen_from


def same_text(one: tuple[list[int], list[Tensor]], other: tuple[list[int], list[Tensor]]) -> bool:
    """Equal up to the first token whose two best logits were closer than the margin."""
    for mine, theirs, logits in zip(one[0], other[0], one[1], strict=False):
        if mine != theirs:
            best, second = logits.topk(2).values.tolist()
            return bool(best - second < MARGIN * float(logits.abs().max()))
    return True


@pytest.mark.parametrize("format_name", ["bf16", "int8", "int4"])
def test_the_bundled_model_writes_the_same_text_at_any_share(format_name: FormatName, packed_of: PackedOf) -> None:
    packed = packed_of("bundled", format_name)
    prompt = Tokenizer.open(BUNDLED_MODEL).encode("def fibonacci(")
    spec = packed.manifest.spec
    texts = [greedy(split(packed, [spec.n_neurons * share // 100] * spec.n_layers), prompt, 40) for share in (0, 37, 100)]
    assert len(texts[0][0]) == 40
    assert all(same_text(texts[0], text) for text in texts[1:])


def test_a_token_has_the_same_bits_whatever_is_in_the_batch(packed_of: PackedOf) -> None:
    packed = packed_of("relu", "int4")
    model = split(packed, [packed.manifest.spec.n_neurons // 3] * packed.manifest.spec.n_layers)
    alone = cache_for(model, slots=2)
    together = cache_for(model, slots=2)
    for cache_here in (alone, together):
        run_step(model, cache_here, [Part(0, 0, [5, 6, 7])])
        run_step(model, cache_here, [Part(1, 0, [9, 8])])
    (single,) = run_step(model, alone, [Part(0, 3, [11])])
    both = run_step(model, together, [Part(0, 3, [11]), Part(1, 2, [12])])
    assert torch.equal(single, both[0])


class WithRouting:
    """Experts as a mixture has them: the FFN is asked with routing weights, and a token reaches some of them."""

    def __init__(self, ffn: Ffn, routing: Tensor) -> None:
        self.ffn, self.routing = ffn, routing

    def run(self, x: Tensor) -> Tensor:
        return self.ffn.start(0, x, x, self.routing).finish()


def test_experts_compute_only_the_tokens_that_reach_them(packed_of: PackedOf) -> None:
    packed = packed_of("relu", "float32")
    spec = packed.manifest.spec
    layers = [packed.load_banks(layer, None, [spec.n_neurons // 2]) for layer in range(spec.n_layers)]
    experts = [pairs[0] for pairs in layers]  # two layers' banks stand for two experts of one
    whole = [[packed.load_banks(layer)[0][1] for layer in range(spec.n_layers)]]
    routing = torch.tensor([[0.75, 0.25], [0.0, 1.0], [0.0, 0.0], [1.0, 0.0]])[:, : spec.n_layers]
    x = torch.randn(4, spec.hidden, generator=torch.Generator().manual_seed(3))
    parted = SplitFfn(spec.rule, [[SplitBank(*pair) for pair in experts]], on_the_cpu(packed))
    got = WithRouting(parted, routing).run(x)
    wanted = WithRouting(DenseFfn(spec.rule, whole), routing).run(x)
    assert torch.allclose(got, wanted, atol=1e-5)
    assert not got[2].any()


def naming(n: int, hidden: int, threshold: float) -> Predictor:
    """Names all of n neurons or none: every score is 0."""
    return Predictor(Rows.encode("float32", torch.zeros(32, hidden)), Rows.encode("float32", torch.zeros(n, 32)), threshold, "residual")


@pytest.mark.parametrize("name", ["relu", "bamboo"])
def test_a_predictor_decides_which_cold_neurons_are_computed(name: str, packed_of: PackedOf) -> None:
    """One that names every neuron changes nothing; one that names none leaves what the hot neurons add."""
    packed = packed_of(name, "int4")
    spec = packed.manifest.spec
    hot, cold = packed.load_banks(0, None, [spec.n_neurons // 2])[0]
    state, staging = torch.randn(3, spec.hidden, generator=torch.Generator().manual_seed(0)), on_the_cpu(packed)
    results = []
    for predictor in (None, naming(len(cold), spec.hidden, -1.0), naming(len(cold), spec.hidden, 1.0)):
        ffn = SplitFfn(spec.rule, [[SplitBank(hot, cold, predictor)]], staging)
        results.append(ffn.start(0, state, state, None).finish())
    hot_alone = SplitFfn(spec.rule, [[SplitBank(hot, cold[:0])]], staging).start(0, state, state, None).finish()
    assert torch.equal(results[1], results[0])
    assert torch.equal(results[2], hot_alone)
    assert not torch.equal(results[0], hot_alone)


def test_a_predictor_of_an_expert_sees_the_tokens_routed_to_it(packed_of: PackedOf) -> None:
    packed = packed_of("relu", "float32")
    spec = packed.manifest.spec
    _, cold = packed.load_banks(0, None, [0])[0]
    state = torch.randn(4, spec.hidden, generator=torch.Generator().manual_seed(0))
    half = Predictor(
        Rows.encode("float32", torch.eye(spec.hidden)), Rows.encode("float32", torch.ones(len(cold), spec.hidden)), 0.4 * spec.hidden
    )
    bank = SplitBank(cold[:0], cold, half)
    routing = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.0, 1.0]])
    ffn = SplitFfn(spec.rule, [[bank, bank]], on_the_cpu(packed))
    whole = SplitFfn(spec.rule, [[bank]], on_the_cpu(packed))
    expected = whole.start(0, state, state, None).finish()
    torch.testing.assert_close(ffn.start(0, state, state, routing).finish(), expected, rtol=1e-5, atol=1e-6)


def test_routes_name_only_the_experts_that_are_reached() -> None:
    routing = torch.tensor([[0.75, 0.0, 0.25, 0.0], [0.0, 0.0, 1.0, 0.0]])
    first, second = routes(routing)
    assert (first.expert, second.expert) == (0, 2)
    assert first.tokens is not None
    assert first.tokens.tolist() == [0]
    assert second.tokens is None  # all of them
    assert second.weights.tolist() == [[0.25], [1.0]]
    assert routes(routing[:0]) == []
