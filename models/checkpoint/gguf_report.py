"""What packing keeps of a GGUF file's numbers, and what it encodes anew and to what error, in words. Torch-free."""

import re
from collections.abc import Iterator

from models.bits import FormatName
from models.checkpoint.gguf_config import Described
from models.checkpoint.gguf_tensors import View
from models.manifest import Formats

# (type, format): rows of the format hold the type's very numbers
KEPT: set[tuple[str, FormatName]] = {
    ("F32", "float32"),
    ("F16", "float32"),
    ("BF16", "float32"),
    ("BF16", "bf16"),
    ("Q8_0", "int8"),
    ("Q4_0", "int4"),
    ("Q4_0", "int8"),
    ("Q5_0", "int8"),
}
# Root mean square error over root mean square weight, at most, on normally distributed weights.
STATED_ERROR: dict[FormatName, float] = {"float32": 1e-7, "bf16": 0.003, "int8": 0.006, "int4": 0.09}
EMBEDDINGS = ("token_embd.weight", "output.weight")
MODULE = re.compile(r"(?:blk\.\d+\.)?(.*)\.weight(?:\[\d+\])?")


def report(found: Described, formats: Formats) -> Iterator[str]:
    """A line for what is kept, and one for every pair of type and format that something is encoded anew from and to."""
    kept: list[str] = []
    anew: dict[tuple[str, FormatName], list[str]] = {}
    for name, view in found.views.items():
        if len(view.shape) == 2 and (match := MODULE.fullmatch(name)) is not None:
            wanted = formats.embedding if name in EMBEDDINGS else formats.neurons
            _add(kept if is_kept(view, match[1], wanted) else anew.setdefault((view.stored.kind, wanted), []), match[1])
    if kept:
        yield f"as in the file: {', '.join(kept)}"
    for (kind, wanted), modules in anew.items():
        along = " (their blocks lie along the neurons)" if (kind, wanted) in KEPT else ""
        yield f"from {kind} to {wanted}, error at most {STATED_ERROR[wanted]:.2g} of the weights: {', '.join(modules)}{along}"


def is_kept(view: View, module: str, wanted: FormatName) -> bool:
    """Blocks of one weight lie along everything."""
    along_rows = view.turned or not module.startswith("ffn_down") or view.stored.type.weights == 1
    return along_rows and (view.stored.kind, wanted) in KEPT


def _add(modules: list[str], module: str) -> None:
    if module not in modules:
        modules.append(module)
