"""From a model's name to an engine that is ready: packs, measures, profiles and places what is missing, and says so.

Knows the machine; knows no HTTP. Everything made here is kept, so that the next start skips it.
"""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

import cpu_ops
import gpu_ops
from cpu_ops.encode import encode
from cpu_ops.topology import release_threads, set_threads
from gpu_ops.transfer import Staging
from models.arena import Arena, allocate, neurons_room, spine_room
from models.chat import ChatTemplate
from models.errors import BadArtefact, BadCheckpoint, BadValue
from models.kv_cache import KvCache
from models.manifest import Manifest
from models.ops import Ops
from models.pack import packed
from models.packed import Allocate, PackedModel
from models.predictor_folder import open_predictor_folder
from models.predictors import Available, available, pack_predictors
from models.step import Step
from models.tokenizer import Tokenizer
from models.transformer import Transformer
from placement.artefact import Placement, default_path, load_placement, save_placement
from placement.cli import chosen_context
from placement.machine import Wish, check_vram
from placement.plan import answer, ask
from profiles.activation import activation_folder, read_activation
from profiles.corpus import read_standard_library
from profiles.firing import FiringProfile, save_profile
from profiles.hardware import HardwareProfile, load_hardware, save_hardware
from profiles.others import Others, warning
from profiles.probe import measure_hardware
from profiles.record import record
from profiles.shelf import hardware_path, profile_of, profile_path
from server.config import Config
from server.engine import Engine
from server.held import Held
from server.memory import give_back
from server.meter import Clocked, SplitMeter
from server.pace import Pace
from server.scheduler import MOST_WRITERS, Scheduler
from server.slots import Slots
from server.split_ffn import SplitBank, SplitFfn
from server.watching import Layout, Watch, Watched, WatchingFfn

PROFILE_SECONDS = 120
PROFILE_TOKENS = 200_000
VRAM_STEP = 1 << 28
TRIAL_TOKENS = 32  # more than the kernels for few tokens take
DEFAULT_KEEP = 1 << 30
NO_GPU = (
    "There is no GPU that PyTorch can use: every neuron is computed on the CPU, from memory. The text is the same, only slower; "
    "exact selection still skips the neurons that do not fire."
)


@dataclass(frozen=True, slots=True)
class Ready:
    engine: Engine
    plan: Placement
    held: Held
    manifest: Manifest
    tokenizer: Tokenizer
    watch: Watch
    chat: ChatTemplate | None


def load(config: Config) -> Ready:
    """Everything that has to be there before the first request, which another thread may compute. Raises the errors of `models.errors`.

    With logs for programs there are no bars: those go to where logs go, and are no lines of JSON.
    """
    quiet = config.log_format == "json"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        print(NO_GPU if config.vram_bytes is None else f"{NO_GPU} --vram has no effect.")
    set_threads(config.threads)
    model = packed(config.model, config.format, encode=encode, quiet=quiet)
    tokenizer = Tokenizer.open(model.folder, model.manifest.spec.vocab)
    chat = chat_template(config.chat_template, tokenizer, model.folder)
    predictors = chosen_predictors(model, config)
    hardware, profile = known_hardware(device), known_profile(model, tokenizer, device, quiet=quiet)
    plan = known_plan(model.manifest, profile, hardware, config, vram_budget(config.vram_bytes, hardware, device), predictors)
    staging = Staging(device, tokens=config.prompt_chunk, hidden=model.manifest.spec.hidden)
    watch = Watch(Layout.of(plan))
    forward, cache, held = load_model(model, profile, plan, staging, watch, predictors, quiet=quiet)
    formats = model.manifest.formats
    cpu_ops.warm_up((formats.neurons, formats.spine, formats.embedding))
    pace = Pace(config.prompt_chunk, config.stall_ms / 1e3)
    warm_up(forward, min(config.prompt_chunk, plan.question.context), config.slots, pace, device)
    release_threads()
    slots = Slots(config.slots, cache, keep_bytes(config.keep_bytes, plan))
    engine = Engine(
        Clocked(forward, staging.clock) if device.type == "cuda" else forward,
        Scheduler(slots, pace),
        plan.question.context,
        meter=SplitMeter(staging.clock, forward.ffn),
        recover=partial(check_device, device),
    )
    return Ready(engine, plan, held, model.manifest, tokenizer, watch, chat)


def chat_template(asked: Path | None, tokenizer: Tokenizer, folder: Path) -> ChatTemplate | None:
    """The one that was asked for, else the model's own. A model whose own is broken is served without chats, and that is said."""
    if asked is not None:
        return ChatTemplate.read(asked, tokenizer.specials)
    if tokenizer.chat_template is None:
        return None
    try:
        return ChatTemplate.build(tokenizer.chat_template, tokenizer.specials, folder)
    except BadCheckpoint as error:
        print(f"Chats will be refused: {error}")
        return None


def known_hardware(device: torch.device) -> HardwareProfile:
    """What was measured here before, unless its file is old or damaged, or a GPU has come or gone since."""
    path = hardware_path()
    kept = kept_hardware(path)
    if kept is not None and (kept.gpu is not None) == (device.type == "cuda"):
        return kept
    print("Measuring this machine, once, for some seconds …", flush=True)
    others = Others.beginning()
    hardware = measure_hardware()
    disturbed = warning(others.share())
    if disturbed is None:
        save_hardware(hardware, path)
    else:
        print(f"{disturbed} It is not kept.")
    return hardware


def kept_hardware(path: Path) -> HardwareProfile | None:
    """None when it is missing, damaged or old: measuring again takes seconds, asking the user to do it takes longer."""
    try:
        return load_hardware(path) if path.is_file() else None
    except BadArtefact:
        return None


def known_profile(model: PackedModel, tokenizer: Tokenizer, device: torch.device, *, quiet: bool = False) -> FiringProfile:
    """The model's profile; PowerInfer's counts beside it, or recorded now, within PROFILE_SECONDS, when there is none."""
    profile = profile_of(model.manifest)
    if profile is not None:
        return profile
    if (folder := activation_folder(model.manifest)) is not None:
        print(f"This model has no profile yet: taking the counts in {folder} for one (`profiles record` makes a better one)", flush=True)
        profile = read_activation(folder, model.manifest)
        save_profile(profile, profile_path(model.manifest.fingerprint))
        return profile
    print(f"This model has no profile yet: recording one, for at most {PROFILE_SECONDS} s (`profiles record` takes more text)", flush=True)
    text = read_standard_library(tokenizer.encode, tokens=PROFILE_TOKENS, context=model.manifest.spec.context)
    profile = record(model, text, max_seconds=PROFILE_SECONDS, device=device, quiet=quiet)
    save_profile(profile, profile_path(model.manifest.fingerprint))
    return profile


def vram_budget(asked_bytes: int | None, hardware: HardwareProfile, device: torch.device) -> int | None:
    """What was asked for, else what other programs leave free, in whole VRAM_STEPs so that the plan of the last start is found."""
    if device.type == "cpu":
        return None
    check_vram(Wish(gpu=None, vram_bytes=asked_bytes), hardware.gpu)
    return asked_bytes or torch.cuda.mem_get_info(device)[0] // VRAM_STEP * VRAM_STEP


def chosen_predictors(model: PackedModel, config: Config) -> Available | None:
    """What `--selection predictor` uses, packed now when a folder is given; None for exact selection. BadValue when there is none."""
    if config.selection == "exact":
        return None
    if config.predictors is not None:
        pack_predictors(model, open_predictor_folder(config.predictors, model.manifest.spec), quiet=config.log_format == "json")
    found = available(model)
    if found is None:
        why = "part of the model, and always used" if model.manifest.spec.masked else "not there; name a folder of them with --predictors"
        raise BadValue("--selection", config.selection, f"cannot be chosen: predictors of {model.manifest.name} are {why}")
    return found


def known_plan(
    manifest: Manifest,
    profile: FiringProfile,
    hardware: HardwareProfile,
    config: Config,
    vram_bytes: int | None,
    predictors: Available | None = None,
) -> Placement:
    """The plan kept for exactly this question, else a new one. DoesNotFit says what is missing."""
    question = ask(
        manifest,
        profile,
        hardware,
        vram_bytes=vram_bytes,
        ram_bytes=config.ram_bytes or hardware.cpu.ram_bytes,
        context=chosen_context(config.context, manifest.spec.context),
        slots=config.slots,
        predictor_bytes=0 if predictors is None else predictors.nbytes,
    )
    path = default_path(question)
    kept = kept_plan(path)
    if kept is not None and kept.question == question:
        return kept
    plan = answer(manifest, profile, question)
    save_placement(plan, path)
    return plan


def kept_plan(path: Path) -> Placement | None:
    """None when it is missing, damaged or old: a plan takes less time to make than to ask about."""
    try:
        return load_placement(path)
    except BadArtefact:
        return None


def load_model(
    model: PackedModel,
    profile: FiringProfile,
    plan: Placement,
    staging: Staging,
    watch: Watch,
    predictors: Available | None = None,
    *,
    quiet: bool = False,
) -> tuple[Watched, KvCache, Held]:
    """The split model as one function from a step to logits, its cache, and what was loaded where."""
    spec, device = model.manifest.spec, staging.device
    ops: Ops = gpu_ops if device.type == "cuda" else cpu_ops
    on_cpu = device.type == "cpu"
    arena = Arena(neurons_room(model.manifest, plan.hot) + (spine_room(model.manifest) if on_cpu else 0))
    load_layer = layer_loader(model, profile, plan, device, arena.take, predictors)
    spine, banks = model.load(load_layer, device, arena.take if on_cpu else allocate, quiet=quiet)
    ffn = SplitFfn(spec.rule, banks, staging)
    transformer = Transformer(spec, spine, ffn, ops, device=device, repeat=cpu_ops.replayed if ffn.repeats else None)
    cache = KvCache(spec, slots=plan.question.slots, context=plan.question.context, device=device)
    watching = WatchingFfn(ffn, watch.layout)
    seen = Transformer(spec, spine, watching, ops, device=device)
    forward = Watched(partial(transformer.forward, cache=cache), partial(seen.forward, cache=cache), watching, watch)
    return forward, cache, Held.count(spine, ffn.banks, cache, device)


def layer_loader(
    model: PackedModel,
    profile: FiringProfile,
    plan: Placement,
    device: torch.device,
    take: Allocate,
    predictors: Available | None = None,
) -> Callable[[int], list[SplitBank]]:
    """What loads a layer's banks [E]: in the profile's order, its first `plan.hot` neurons on `device`; and what predicts the others."""
    order, spec = torch.from_numpy(profile.order), model.manifest.spec

    def load_layer(layer: int) -> list[SplitBank]:
        banks = slice(layer * spec.n_experts, (layer + 1) * spec.n_experts)
        parted = model.load_banks(layer, order[banks], plan.hot[banks], device, take)
        if predictors is None:
            return [SplitBank(hot, cold) for hot, cold in parted]
        naming = [one[own[len(hot) :]] for one, own, (hot, _) in zip(predictors.load(layer), order[banks], parted, strict=True)]
        return [SplitBank(hot, cold, predictor) for (hot, cold), predictor in zip(parted, naming, strict=True)]

    return load_layer


def warm_up(forward: Watched, chunk: int, slots: int, pace: Pace, device: torch.device) -> None:
    """Compiles every kernel a request can need: a token, a few, and a piece of a prompt, which also tells `pace` how fast they are read.

    The largest step that writes comes first: what it leaves to be played back is memory that smaller ones share.
    On a GPU a whole chunk too, for libraries choose by size; on a CPU that would take seconds and show nothing new.
    """
    forward(writing_step(min(slots, MOST_WRITERS)))
    sizes = [1, 2, *([chunk] if device.type == "cuda" else []), min(chunk, TRIAL_TOKENS)]
    for tokens in sizes:
        forward(trial_step(tokens))
    forward.watching(trial_step(1))
    forward.ffn.take(1)  # nobody asked for this token: no map and no share has it
    began = time.perf_counter()
    forward(trial_step(sizes[-1])).cpu()
    pace.took(sizes[-1], time.perf_counter() - began)


def settle() -> None:
    """What is loaded stays: the garbage collector need not look at it again, and so looks at what requests leave often enough.

    What loading alone needed goes back to the system.
    """
    gc.collect()
    gc.freeze()
    give_back()


def keep_bytes(asked: int | None, plan: Placement) -> int:
    """For keys and values of old texts: what was asked for, else DEFAULT_KEEP, and never more RAM than the plan leaves free."""
    return max(0, min(DEFAULT_KEEP if asked is None else asked, plan.ram.free_bytes))


def check_device(device: torch.device) -> None:
    """After a failed step: memory that nobody uses goes back to a GPU, and it must answer. An error means that it is lost."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.zeros(1, device=device).add_(1).cpu()


def writing_step(slots: int) -> Step:
    """The first token of each slot."""
    zeros, numbers = torch.zeros(slots, dtype=torch.int64), torch.arange(slots)
    return Step(zeros, zeros, numbers, numbers)


def trial_step(tokens: int) -> Step:
    """Token 0 again and again, in the first slot; whatever comes later is written over it."""
    zeros = torch.zeros(tokens, dtype=torch.int64)
    return Step(zeros, torch.arange(tokens), zeros, torch.tensor([tokens - 1]))
