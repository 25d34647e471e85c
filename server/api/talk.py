"""What a chat request asks for: messages become one prompt through the model's chat template."""

import asyncio
from collections.abc import Iterable
from functools import partial

from models.chat import ChatRefused
from server.api.asked import Asked, Prompt, assemble, check_model, check_prompts, check_together, read_params
from server.api.chat_schemas import ChatRequest, Message
from server.api.errors import BadRequest, NoChatTemplate
from server.api.reading import in_a_thread
from server.service import Service


async def ask_chat(body: ChatRequest, service: Service) -> Asked:
    """BadRequest, UnknownModel, NoChatTemplate or ContextOverflow when the request cannot be served."""
    check_model(body.model, service)
    check_together(body)
    check_chat(body)
    prompt = await in_a_thread(partial(read_messages, body.messages, service), characters_of_messages(body.messages), service)
    if body.logprobs:
        await asyncio.to_thread(service.grammars.prepare)
    max_tokens = service.context if body.limit is None else body.limit
    check_prompts((prompt,), "messages", max_tokens, service)
    return await assemble(body, (prompt,), read_params(body, max_tokens, service), service, "chatcmpl")


def characters_of_messages(messages: Iterable[Message]) -> int:
    return sum(len(message.plain["content"]) for message in messages)


def check_chat(body: ChatRequest) -> None:
    if body.top_logprobs is not None and not body.logprobs:
        raise BadRequest("top_logprobs", "is only allowed with logprobs")
    if None not in (body.max_tokens, body.max_completion_tokens) and body.max_tokens != body.max_completion_tokens:
        raise BadRequest("max_tokens", f"is {body.max_tokens}, but max_completion_tokens is {body.max_completion_tokens}")


def read_messages(messages: list[Message], service: Service) -> Prompt:
    """The template writes its own special tokens; only a begin-of-text that the model wants and the template left out is added."""
    if service.chat is None:
        raise NoChatTemplate(service.model)
    try:
        text = service.chat.render([message.plain for message in messages])
    except ChatRefused as error:
        raise BadRequest("messages", f"the chat template refuses them: {error}") from None
    return Prompt(text, tuple(service.tokenizer.encode_rendered(text)))
