"""From a request to sequences for the engine: what completions and chats have in common. Mistakes are found here, before anything runs."""

import asyncio
import uuid
from dataclasses import dataclass

from models.tokenizer import IncrementalDecoder
from server.api.errors import BadRequest, ContextOverflow, UnknownModel
from server.api.sampling_fields import SamplingFields
from server.detokenize import TextStream
from server.grammars import BadGrammar
from server.guide import Guide
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
    body: SamplingFields
    prompts: tuple[Prompt, ...]
    sequences: tuple[Sequence, ...]

    def prompt_of(self, number: int) -> Prompt:
        return self.prompts[number // self.body.tries]


def check_model(asked: str | None, service: Service) -> None:
    if asked not in (None, service.model):
        raise UnknownModel(str(asked), service.model)


def check_together(body: SamplingFields) -> None:
    """Fields that do not go together."""
    if body.stream_options is not None and not body.stream:
        raise BadRequest("stream_options", "is only allowed with stream")
    if body.ignore_eos and body.response_format is not None and body.response_format.form is not None:
        raise BadRequest("ignore_eos", "does not go with response_format: the end of the text is part of its form")


def check_prompts(prompts: tuple[Prompt, ...], param: str, wanted_tokens: int, service: Service) -> None:
    """Every prompt has a token, and leaves room for one more when something is to be written."""
    for prompt in prompts:
        if not prompt.ids:
            raise BadRequest(param, "has no tokens")
        if len(prompt.ids) + min(wanted_tokens, 1) > service.context:
            raise ContextOverflow(param, len(prompt.ids), service.context)


def read_params(body: SamplingFields, max_tokens: int, service: Service) -> Params:
    """Null means the same as leaving a field out."""
    for field, ids in (("logit_bias", list(body.biases)), ("stop_token_ids", body.stop_token_ids or [])):
        for token in ids:
            if token >= service.vocab:
                raise BadRequest(field, f"token id {token} is outside the vocabulary of {service.vocab}")
    needs_scores = body.tries > body.choices
    return Params(
        max_tokens=max_tokens,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=max(body.top_k or 0, 0),
        min_p=body.min_p or 0.0,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        repetition_penalty=1.0 if body.repetition_penalty is None else body.repetition_penalty,
        logit_bias=tuple(body.biases.items()),
        stop_ids=frozenset(body.stop_token_ids or ()) | (frozenset() if body.ignore_eos else service.eos),
        logprobs=0 if body.alternatives is None and needs_scores else body.alternatives,
        score_prompt=body.echoes and body.alternatives is not None,
    )


async def assemble(body: SamplingFields, prompts: tuple[Prompt, ...], params: Params, service: Service, kind: str) -> Asked:
    """`kind` begins the request's id: "cmpl", "chatcmpl"."""
    guides = await asyncio.to_thread(make_guides, body, len(prompts) * body.tries, service)
    group = f"{kind}-{uuid.uuid4().hex}"
    sequences = tuple(choice for prompt in prompts for choice in build_choices(prompt, params, body, service, group))
    for sequence, guide in zip(sequences, guides, strict=True):
        sequence.guide = guide
    return Asked(group, body, prompts, sequences)


def build_choices(prompt: Prompt, params: Params, body: SamplingFields, service: Service, group: str) -> list[Sequence]:
    """All of one prompt; the first one's prompt serves the others."""
    first, *others = (build(prompt, params, body, service, group, index) for index in range(body.tries))
    for other in others:
        other.twin = first
    return [first, *others]


def make_guides(body: SamplingFields, count: int, service: Service) -> list[Guide | None]:
    """One for each sequence, if the text must have a form."""
    form = None if body.response_format is None else body.response_format.form
    if form is None:
        return [None] * count
    try:
        return [*service.grammars.guides(form, count)]
    except BadGrammar as error:
        raise BadRequest("response_format", str(error)) from None


def build(prompt: Prompt, params: Params, body: SamplingFields, service: Service, group: str, index: int) -> Sequence:
    """The decoder sees the prompt's last token first, because what a token shows as can depend on the one before."""
    decoder = IncrementalDecoder(service.tokenizer)
    decoder.push(prompt.ids[-1])
    return Sequence(prompt.ids, params, TextStream(decoder, body.stops), generator(body.seed, index), group=group)
