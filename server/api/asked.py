"""From a completions request to sequences for the engine: everything that can be wrong is found here, before anything runs."""

import asyncio
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from models.tokenizer import IncrementalDecoder
from server.api.errors import BadRequest, ContextOverflow, UnknownModel
from server.api.schemas import MOST_CHOICES, CompletionRequest
from server.detokenize import TextStream
from server.sequence import Params, Sequence, generator
from server.service import Service


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt: its text, as given or decoded, and its token ids."""

    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """`sequences` holds `body.tries` of them for each prompt, prompt by prompt."""

    id: str
    body: CompletionRequest
    prompts: tuple[Prompt, ...]
    sequences: tuple[Sequence, ...]


async def ask(body: CompletionRequest, service: Service) -> Asked:
    """BadRequest, UnknownModel or ContextOverflow when the request cannot be served."""
    if body.model not in (None, service.model):
        raise UnknownModel(str(body.model), service.model)
    check_together(body)
    prompts = tuple(await asyncio.to_thread(lambda: list(read_prompts(body, service))))
    check_prompts(prompts, body, service)
    group, params = f"cmpl-{uuid.uuid4().hex}", read_params(body, service)
    sequences = tuple(choice for prompt in prompts for choice in build_choices(prompt, params, body, service, group))
    return Asked(group, body, prompts, sequences)


def check_together(body: CompletionRequest) -> None:
    """Fields that do not go together."""
    if body.tries < body.choices:
        raise BadRequest("best_of", f"must be at least n, which is {body.choices}")
    if body.stream and body.tries > body.choices:
        raise BadRequest("best_of", "cannot be larger than n in a stream: the best are known only at the end")
    if body.stream_options is not None and not body.stream:
        raise BadRequest("stream_options", "is only allowed with stream")


def read_prompts(body: CompletionRequest, service: Service) -> Iterator[Prompt]:
    """The prompts in any of their four forms."""
    given = body.prompt if isinstance(body.prompt, list) else [body.prompt]
    if not given:
        raise BadRequest("prompt", "is an empty list")
    ids = [entry for entry in given if isinstance(entry, int)]
    if ids:
        yield from_ids(ids, service)
        return
    if len(given) * body.tries > MOST_CHOICES:
        raise BadRequest("prompt", f"{len(given)} prompts with {body.tries} choices each are more than {MOST_CHOICES} in one request")
    for entry in given:
        if isinstance(entry, str):
            yield Prompt(entry, tuple(service.tokenizer.encode(entry)))
        elif isinstance(entry, list):
            yield from_ids(entry, service)


def from_ids(ids: list[int], service: Service) -> Prompt:
    """Ids are taken as they are: nothing is put before them."""
    largest = service.vocab - 1
    if any(token > largest for token in ids):
        raise BadRequest("prompt", f"has a token id above {largest}, the last of the vocabulary")
    return Prompt(service.tokenizer.decode(ids), tuple(ids))


def check_prompts(prompts: tuple[Prompt, ...], body: CompletionRequest, service: Service) -> None:
    """Every prompt has a token, and leaves room for one more when something is to be written."""
    for prompt in prompts:
        if not prompt.ids:
            raise BadRequest("prompt", "has no tokens")
        if len(prompt.ids) + (body.max_tokens != 0) > service.context:
            raise ContextOverflow(len(prompt.ids), service.context)


def read_params(body: CompletionRequest, service: Service) -> Params:
    """Null means the same as leaving a field out."""
    for field, ids in (("logit_bias", list(body.biases)), ("stop_token_ids", body.stop_token_ids or [])):
        for token in ids:
            if token >= service.vocab:
                raise BadRequest(field, f"token id {token} is outside the vocabulary of {service.vocab}")
    needs_scores = body.tries > body.choices
    return Params(
        max_tokens=16 if body.max_tokens is None else body.max_tokens,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=max(body.top_k or 0, 0),
        min_p=body.min_p or 0.0,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        repetition_penalty=1.0 if body.repetition_penalty is None else body.repetition_penalty,
        logit_bias=tuple(body.biases.items()),
        stop_ids=frozenset(body.stop_token_ids or ()) | (frozenset() if body.ignore_eos else service.eos),
        logprobs=0 if body.logprobs is None and needs_scores else body.logprobs,
        score_prompt=bool(body.echo) and body.logprobs is not None,
    )


def build_choices(prompt: Prompt, params: Params, body: CompletionRequest, service: Service, group: str) -> list[Sequence]:
    """All of one prompt; the first one's prompt serves the others."""
    first, *others = (build(prompt, params, body, service, group, index) for index in range(body.tries))
    for other in others:
        other.twin = first
    return [first, *others]


def build(prompt: Prompt, params: Params, body: CompletionRequest, service: Service, group: str, index: int) -> Sequence:
    """The decoder sees the prompt's last token first, because what a token shows as can depend on the one before."""
    decoder = IncrementalDecoder(service.tokenizer)
    decoder.push(prompt.ids[-1])
    return Sequence(prompt.ids, params, TextStream(decoder, body.stops), generator(body.seed, index), group=group)
