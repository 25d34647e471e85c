"""Running the engine without a server: some sequences, from their submission to their end, on this thread. Knows no HTTP."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from cpu_ops.topology import release_threads, set_threads
from models.arguments import size
from server.config import Config
from server.detokenize import TextStream
from server.engine import Engine
from server.load import Ready, load
from server.sequence import Event, Failed, Params, Sequence, generator
from server.settings import BY_NAME

Loader = Callable[[Config], Ready]


class Mute:
    """A decoder of which nobody wants the text."""

    def push(self, token_id: int) -> str:
        return ""

    def finish(self) -> str:
        return ""


def build(prompt: Iterable[int], params: Params) -> Sequence:
    """A sequence that raises what its step raises."""
    return Sequence(tuple(prompt), params, TextStream(Mute()), generator(0, 0), emit=complain)


def complain(event: Event) -> None:
    if isinstance(event, Failed):
        raise event.error


def finish(engine: Engine, sequences: Iterable[Sequence]) -> None:
    for sequence in sequences:
        engine.submit(sequence)
    while not engine.idle:
        engine.step()


@contextmanager
def loaded(config: Config, loader: Loader = load) -> Iterator[Ready]:
    """A model with its threads, on this thread."""
    ready = loader(config)
    set_threads(config.threads)
    try:
        yield ready
    finally:
        release_threads()


def variants(config: Config, formats: list[str] | None, vrams: list[str] | None) -> list[Config]:
    """Every format with every VRAM; BadValue for one that is none."""
    read_format = BY_NAME["format"].read("--formats")
    chosen_formats = [read_format(name) for name in formats] if formats else [config.format]
    chosen_vrams = [size("--vrams")(text) for text in vrams] if vrams else [config.vram_bytes]
    return [replace(config, format=name, vram_bytes=vram) for name in chosen_formats for vram in chosen_vrams]


def named(ready: Ready) -> tuple[str, str]:
    """(format, how the neurons are split): 'int4', '34 % on the GPU'."""
    plan = ready.plan
    share = sum(plan.hot) / (len(plan.hot) * plan.n_neurons)
    return plan.question.format, f"{share:.0%} on the GPU" if plan.question.vram_bytes is not None else "CPU only"
