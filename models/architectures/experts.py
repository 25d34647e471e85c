"""What a config says of experts."""

from dataclasses import replace

from models.architectures.config import Config
from models.errors import BadConfig
from models.spec import ModelSpec, Routing

MOST_EXPERTS = 1 << 16


def with_experts(config: Config, spec: ModelSpec, count: str, routing: Routing, *, active: str = "num_experts_per_tok") -> ModelSpec:
    """`spec` with the experts that the keys `count` and `active` number."""
    experts, chosen = config.count(count), config.count(active)
    if not 1 < experts <= MOST_EXPERTS:
        raise BadConfig(config.path, count, f"{experts} is not a number of experts we can use")
    if chosen > experts:
        raise BadConfig(config.path, active, f"{chosen} is more than the {experts} experts there are")
    if spec.ffn_bias:
        raise BadConfig(config.path, "mlp_bias", "True has not been tested with experts")
    return replace(spec, n_experts=experts, experts_per_token=chosen, routing=routing)
