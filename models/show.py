"""A model in words: its spec, its bytes in every format, what is sparse in it, which selections it allows, what is missing. Torch-free."""

from collections.abc import Callable, Iterator

from models.architectures import check_format
from models.bits import FORMAT_NAMES, FormatName
from models.errors import BadValue
from models.manifest import Formats, Manifest, Sizes, computed_sizes
from models.params import Activity, routed_neurons
from models.selection import modes, silence
from models.spec import ModelSpec, Rope
from models.units import format_bytes


def shown(manifest: Manifest, recorded: Activity | None, *, predictors: bool, packed: bool) -> Iterator[str]:
    """Blocks of lines, an empty line between them."""
    spec = manifest.spec
    yield f"{manifest.name}: {spec.family}, {format_count(spec.parameters)} parameters"
    yield from (f"  {line}" for line in (layers(spec), attention(spec), f"vocabulary of {spec.vocab:,}, {head(spec)}"))
    yield ""
    yield from bytes_table(spec, (manifest.formats.neurons,) if packed else FORMAT_NAMES)
    yield ""
    yield f"sparse: {silence(spec.rule)}"
    if spec.n_experts > 1:
        yield f"        and a token reaches {spec.experts_per_token} of {spec.n_experts} experts"
    if recorded is not None:
        yield f"        {recorded.neurons / routed_neurons(spec):.1%} of the neurons a token reaches fire, {recorded.source}"
    if spec.masked:
        yield "        and where its predictor does not name it: that mask is part of the model"
    for name, what in modes(spec, predictors=predictors).items():
        yield f"selection {name}: {what}"
    yield from missing(manifest, recorded, predictors=predictors)


def format_count(parameters: float) -> str:
    """6_950_144 -> '6.95 M'."""
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e9 else f"{parameters / 1e6:.2f} M"


def layers(spec: ModelSpec) -> str:
    kind = {"plain": "up and down", "gated": "gate, up and down", "gated_both": "gate, up and down, both activated"}[spec.rule.kind]
    experts = f"{spec.n_experts} experts of " if spec.n_experts > 1 else ""
    beside = ", beside its attention" if spec.residual == "parallel" else ""
    return f"{spec.n_layers} layers of width {spec.hidden:,}, each with {experts}{spec.n_neurons:,} neurons ({kind}){beside}"


def attention(spec: ModelSpec) -> str:
    shared = "" if spec.n_kv_heads == spec.n_heads else f" on {spec.n_kv_heads} of keys and values"
    window = f", seeing {spec.sliding_window:,} back" if spec.sliding_window is not None else ""
    return f"{spec.n_heads} heads of {spec.head_dim}{shared}, {positions(spec.rope)}, made for {spec.context:,} tokens{window}"


def positions(rope: Rope | None) -> str:
    if rope is None:
        return "learned positions"
    scaled = "" if rope.scaling == "none" else f" stretched {rope.factor:g}× ({rope.scaling})"
    return f"rotary positions of base {rope.theta:g}{scaled}"


def head(spec: ModelSpec) -> str:
    return "head tied to the embedding" if spec.tied_head else "a head of its own"


def bytes_table(spec: ModelSpec, names: tuple[FormatName, ...]) -> Iterator[str]:
    """A column a format, a line a class of weights."""
    sizes = {name: computed_sizes(spec, Formats.of(name)) for name in names if fits(spec, name)}
    rows: dict[str, Callable[[Sizes], int]] = {
        "embedding, head": lambda size: size.embedding,
        "positions": lambda size: size.positions,
        "rest of the spine": lambda size: size.spine,
        "predictors": lambda size: size.predictors,
        "neurons": lambda size: neurons_bytes(spec, size),
    }
    rows = {row: counted for row, counted in rows.items() if any(counted(size) for size in sizes.values())}
    parts = tuple(rows.values())
    rows["in all"] = lambda size: sum(counted(size) for counted in parts)
    yield f"{'bytes':<20}" + "".join(f"{name:>10}" for name in sizes)
    for row, counted in rows.items():
        yield f"{row:<20}" + "".join(f"{format_bytes(counted(size)):>10}" for size in sizes.values())
    yield f"one neuron: {', '.join(f'{size.neuron:,} as {name}' for name, size in sizes.items())}"
    yield f"KV cache: {format_bytes(spec.kv_bytes_per_token())} a token"


def fits(spec: ModelSpec, name: FormatName) -> bool:
    try:
        check_format(spec, name)
    except BadValue:
        return False
    return True


def neurons_bytes(spec: ModelSpec, size: Sizes) -> int:
    return size.neuron * spec.n_banks * spec.n_neurons


def missing(manifest: Manifest, recorded: Activity | None, *, predictors: bool) -> Iterator[str]:
    if manifest.assumed:
        yield "missing: weights; this is config.json alone"
    if recorded is None:
        yield "missing: a profile; `profiles record` makes one, and `server run` does by itself"
    if manifest.spec.rule.is_sparse and not predictors and not manifest.spec.masked:
        yield "missing: predictors; only selection by them needs any"
