"""Predictors that lie in a checkpoint: their ranks, which only the tensors tell."""

from dataclasses import replace

from models.architectures.family import Shapes
from models.spec import ModelSpec, Predictors


def with_predictors(spec: ModelSpec, shapes: Shapes, inward: str, *, masks: bool) -> ModelSpec:
    """`spec` with the predictors whose inward matrices are called `inward`, with {layer} to fill in; a missing one has rank 1 here."""
    if spec.n_layers > len(shapes):
        return spec  # tensors are missing, which whoever compares them will say; and nobody counts to two thousand million here
    ranks = (shapes.get(inward.format(layer=layer), (1,))[0] for layer in range(spec.n_layers))
    return replace(spec, predictors=Predictors(tuple(max(1, rank) for rank in ranks), masks))
