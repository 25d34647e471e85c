"""Routing: which experts a token reaches, and with what weight."""

import torch
from torch import Tensor

from models.ops import Ops
from models.rows import Rows
from models.spec import ModelSpec, Routing


def route(spec: ModelSpec, ops: Ops, router: Rows, state: Tensor) -> Tensor:
    """state [T, H], router [E, H] -> float32 [T, E]: the weight of each expert, zero where a token does not go."""
    logits = ops.linear(router, ops.input(router.format, state))
    return weights_of(logits, spec.routing, spec.experts_per_token)


def weights_of(logits: Tensor, routing: Routing, count: int) -> Tensor:
    """logits [T, E] -> the weights of the `count` largest of each token, the others zero. Ties go either way."""
    scores = logits.softmax(dim=1) if routing.score == "softmax" else logits.sigmoid()
    chosen = logits.topk(count, dim=1).indices
    weights = scores.gather(1, chosen)
    if routing.normalised:
        weights = weights / weights.sum(dim=1, keepdim=True)
    return torch.zeros_like(logits).scatter_(1, chosen, weights)
