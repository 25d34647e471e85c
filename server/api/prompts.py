"""What a completions request asks for: prompts in any of their four forms."""

from collections.abc import Iterator

from server.api.asked import Asked, Prompt, assemble, check_model, check_prompts, check_together, read_params
from server.api.errors import BadRequest
from server.api.fields import MOST_CHOICES
from server.api.reading import in_a_thread
from server.api.schemas import CompletionRequest
from server.service import Service


async def ask_completion(body: CompletionRequest, service: Service) -> Asked:
    """BadRequest, UnknownModel or ContextOverflow when the request cannot be served."""
    check_model(body.model, service)
    check_together(body)
    check_best(body)
    prompts = tuple(await in_a_thread(lambda: list(read_prompts(body, service)), characters_of(body.prompt), service))
    max_tokens = 16 if body.max_tokens is None else body.max_tokens
    check_prompts(prompts, "prompt", max_tokens, service)
    return await assemble(body, prompts, read_params(body, max_tokens, service), service, "cmpl")


def check_best(body: CompletionRequest) -> None:
    if body.tries < body.choices:
        raise BadRequest("best_of", f"must be at least n, which is {body.choices}")
    if body.stream and body.tries > body.choices:
        raise BadRequest("best_of", "cannot be larger than n in a stream: the best are known only at the end")


def characters_of(prompt: object) -> int:
    """Of all texts in it."""
    if isinstance(prompt, str):
        return len(prompt)
    return sum(len(entry) for entry in prompt if isinstance(entry, str)) if isinstance(prompt, list) else 0


def read_prompts(body: CompletionRequest, service: Service) -> Iterator[Prompt]:
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
    check_ids("prompt", ids, service)
    return Prompt(service.tokenizer.decode(ids), tuple(ids))


def check_ids(param: str, ids: list[int], service: Service) -> None:
    largest = service.vocab - 1
    if any(token > largest for token in ids):
        raise BadRequest(param, f"has a token id above {largest}, the last of the vocabulary")
