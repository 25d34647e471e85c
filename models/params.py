"""How many parameters a model has, and how many of them one token uses. Torch-free.

A neuron is one row of gate, one row of up and one column of down. It is used when its activation is not zero, so a sparse
model uses few of its FFN, and a mixture of experts only those of the experts that a token is routed to.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from models.spec import ModelSpec

EMBEDDINGS = ("embedding", "head")  # what "without embeddings" leaves out


@dataclass(frozen=True, slots=True)
class Activity:
    """Mean FFN neurons that fire at a token, over all layers, and where that number comes from."""

    neurons: float
    source: str


@dataclass(frozen=True, slots=True)
class Part:
    """Parameters of one class of weights; `active` is what one token uses of them, on average."""

    name: str
    total: float
    active: float


def routed_neurons(spec: ModelSpec) -> int:
    """FFN neurons that a token reaches: all of a dense model, those of the experts routed to otherwise."""
    return spec.n_layers * spec.experts_per_token * spec.n_neurons


def activity_at(spec: ModelSpec, sparsity: float) -> Activity:
    """When `sparsity` of the neurons that a token reaches are silent."""
    return Activity(routed_neurons(spec) * (1.0 - sparsity), f"{sparsity:.4g} of the neurons of each expert silent, as given")


def every_neuron(spec: ModelSpec) -> Activity:
    """When nothing is known of what fires, or nothing is ever silent."""
    why = "; nothing is recorded, and --sparsity not given" if spec.rule.is_sparse else ""
    return Activity(float(routed_neurons(spec)), f"every neuron that a token reaches{why}")


def parts_of(spec: ModelSpec, activity: Activity, predictor_rank: float | None = None) -> list[Part]:
    """Every parameter once. `predictor_rank` is the mean over banks, of predictors without biases; the checkpoint's own when None."""
    embedding = spec.vocab * spec.width
    head = 0 if spec.tied_head else embedding
    predictor = spec.predictor_parameters if predictor_rank is None else spec.n_banks * predictor_rank * (spec.hidden + spec.n_neurons)
    counted = embedding + head + spec.attention_parameters + spec.router_parameters + spec.neuron_parameters
    rest = spec.parameters - spec.predictor_parameters - counted
    return [
        Part("embedding", embedding, embedding),
        Part("attention", spec.attention_parameters, spec.attention_parameters),
        Part("router", spec.router_parameters, spec.router_parameters),
        Part("predictor", predictor, predictor * spec.experts_per_token / spec.n_experts),
        Part("FFN", spec.neuron_parameters, activity.neurons * spec.rows_per_neuron * spec.hidden),
        Part("head", head, head),
        Part("norms, biases, positions", rest, rest),
    ]


def summed(parts: Sequence[Part], name: str, *, embeddings: bool) -> Part:
    """All parts together, or all but embedding and head."""
    counted = [part for part in parts if embeddings or part.name not in EMBEDDINGS]
    return Part(name, sum(part.total for part in counted), sum(part.active for part in counted))


def table(parts: Sequence[Part]) -> Iterator[str]:
    """A line a part that is there, and two sums."""
    sums = [
        summed(parts, "without embedding and head", embeddings=False),
        summed(parts, "with embedding and head", embeddings=True),
    ]
    unit, scale = ("B", 1e9) if sums[-1].total >= 1e9 else ("M", 1e6)
    yield f"{'parameters, ' + unit:<28}{'total':>12}{'activated':>12}"
    for part in parts:
        if part.total:
            yield _line(part, scale)
    yield ""
    for part in sums:
        yield _line(part, scale)


def _line(part: Part, scale: float) -> str:
    return f"{part.name:<28}{part.total / scale:>12,.4f}{part.active / scale:>12,.4f}{part.active / part.total:>9.1%}"
