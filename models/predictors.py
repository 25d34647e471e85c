"""Predictors packed beside a model: `predictors.bin`, and `predictors.json`, written last. A checkpoint's own lie in its spine."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tqdm import tqdm

from models.arena import allocate
from models.bits import BITS, FormatName
from models.errors import BadArtefact, WrongModel
from models.layout import aligned
from models.manifest import StoredTensor, first_line, read_json_artefact
from models.packed import PackedModel
from models.paths import check_disk, whole_file
from models.predictor import Predictor, State
from models.predictor_folder import PredictorSource
from models.reading import contiguous, opened, read
from models.rows import Rows

VERSION = 1
REMEDY = "pack them again with `models pack MODEL --predictors FOLDER`"
HEADER, DATA = "predictors.json", "predictors.bin"


class Header(BaseModel):
    """`tensors`: 'layers.3.experts.0.inward' and so on, where they lie in the data."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    version: int = VERSION
    fingerprint: str  # of the model
    source: str
    threshold: float
    reads: State
    tensors: dict[str, StoredTensor]
    nbytes: int = Field(gt=0)


@dataclass(frozen=True, slots=True)
class PackedPredictors:
    folder: Path
    header: Header
    n_experts: int

    def load(self, layer: int) -> list[Predictor]:
        """One per expert, in file order and in CPU memory."""
        with opened(self.folder / DATA) as descriptor:
            return [self._load(descriptor, f"layers.{layer}.experts.{expert}") for expert in range(self.n_experts)]

    def _load(self, descriptor: int, name: str) -> Predictor:
        inward, outward = (self._rows(descriptor, f"{name}.{part}") for part in ("inward", "outward"))
        return Predictor(inward, outward, self.header.threshold, self.header.reads)

    def _rows(self, descriptor: int, name: str) -> Rows:
        stored = self.header.tensors[name]
        data = allocate(stored.nbytes)
        read(descriptor, [contiguous(stored.offset, data)])
        return Rows.view(stored.format, stored.width, data.view(stored.rows, -1))


@dataclass(frozen=True, slots=True)
class Available:
    """Predictors that selection can use, wherever they are kept."""

    load: Callable[[int], list[Predictor]]
    nbytes: int


def available(model: PackedModel) -> Available | None:
    """Those packed beside the model, else those that came with it; None when there are none. A mask is no choice, but part of the model."""
    beside = open_predictors(model)
    if beside is not None:
        return Available(beside.load, beside.header.nbytes)
    spec = model.manifest.spec
    return None if spec.predictors is None or spec.masked else Available(model.load_predictors, model.manifest.sizes.predictors)


def open_predictors(model: PackedModel) -> PackedPredictors | None:
    """What is packed beside `model`, checked against it; None when nothing is. BadArtefact or WrongModel says what is wrong."""
    path = model.folder / HEADER
    if not path.is_file():
        return None
    try:
        header = Header.model_validate(read_json_artefact(path, VERSION, REMEDY))
    except ValidationError as error:
        raise BadArtefact(path, first_line(error), REMEDY) from None
    if header.fingerprint != model.manifest.fingerprint:
        raise WrongModel(path, header.fingerprint, model.manifest.fingerprint, REMEDY)
    _check_fits(model, header, path)
    return PackedPredictors(model.folder, header, model.manifest.spec.n_experts)


def _check_fits(model: PackedModel, header: Header, path: Path) -> None:
    spec, data = model.manifest.spec, model.folder / DATA
    for layer in range(spec.n_layers):
        for expert in range(spec.n_experts):
            inward, outward = (header.tensors.get(f"layers.{layer}.experts.{expert}.{part}") for part in ("inward", "outward"))
            shapes = None if inward is None or outward is None else (inward.width, outward.rows, outward.width, inward.rows)
            if inward is None or outward is None or shapes != (spec.hidden, spec.n_neurons, inward.rows, outward.width):
                raise BadArtefact(path, f"the predictor of layer {layer} is not one of this model's", REMEDY)
            if any(part.format != format_for(model.manifest.formats.neurons, part.width) for part in (inward, outward)):
                raise BadArtefact(path, f"the predictor of layer {layer} is in a format that is not the model's", REMEDY)
    end = max(stored.offset + stored.nbytes for stored in header.tensors.values())
    if not data.is_file() or data.stat().st_size != header.nbytes or end > header.nbytes:
        raise BadArtefact(data, f"is missing, or has not its {header.nbytes} bytes", REMEDY)


def pack_predictors(model: PackedModel, source: PredictorSource, *, quiet: bool = False) -> PackedPredictors:
    """Writes them beside `model`, in its format where its groups fit, over any that were there."""
    spec, tensors = model.manifest.spec, dict[str, StoredTensor]()
    (model.folder / HEADER).unlink(missing_ok=True)  # it would describe other data
    check_disk(model.folder, sum(4 * part.numel() for layer in range(spec.n_layers) for part in source.matrices(layer, 0)))
    with whole_file(model.folder / DATA) as part, part.open("wb") as file:
        for layer in tqdm(range(spec.n_layers), "packing predictors", unit="layer", disable=quiet):
            for expert in range(spec.n_experts):
                for name, matrix in zip(("inward", "outward"), source.matrices(layer, expert), strict=True):
                    rows = Rows.encode(format_for(model.manifest.formats.neurons, matrix.shape[1]), matrix.float())
                    file.write(bytes(aligned(file.tell()) - file.tell()))
                    where = f"layers.{layer}.experts.{expert}.{name}"
                    tensors[where] = StoredTensor(format=rows.format.name, rows=rows.n, width=rows.k, offset=file.tell())
                    file.write(rows.records().numpy().data)
        nbytes = file.tell()
    header = Header(
        fingerprint=model.manifest.fingerprint,
        source=source.name,
        threshold=source.threshold,
        reads=source.reads,
        tensors=tensors,
        nbytes=nbytes,
    )
    with whole_file(model.folder / HEADER) as part:
        part.write_text(header.model_dump_json(indent=1) + "\n")
    return PackedPredictors(model.folder, header, spec.n_experts)


def format_for(name: FormatName, width: int) -> FormatName:
    """Formats with scales need rows of whole groups; a predictor of another rank is kept as bf16."""
    return "bf16" if BITS[name].grouped and width % 32 else name
