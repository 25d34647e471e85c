"""Whether a tokenizer and a model agree on which token ids there are. Knows no files."""

import json
from pathlib import Path

import tokenizers

from models.errors import BadCheckpoint


def fitted(core: tokenizers.Tokenizer, vocab: int, path: Path) -> tokenizers.Tokenizer:
    """The pipeline for a model with `vocab` rows of embedding; BadCheckpoint, about `path`, when a text could become other ids.

    Published checkpoints have special tokens (a pad, mostly) above the last row. They are forgotten: their names in a text are
    then text like any other, where the model's own code would look past the end of a table.
    """
    own, added = core.get_vocab(with_added_tokens=False), core.get_added_tokens_decoder()
    beyond = {token for token in core.get_vocab(with_added_tokens=True).values() if token >= vocab}
    written = [token for token in beyond if token not in added or not added[token].special or added[token].content in own]
    written += [token for token in core.encode("").ids if token >= vocab]  # what is put around every text
    if written:
        raise BadCheckpoint(path, f"gives token ids up to {max(written)}, but the model knows only {vocab} tokens")
    return _without(core, beyond) if beyond else core


def _without(core: tokenizers.Tokenizer, special: set[int]) -> tokenizers.Tokenizer:
    content = json.loads(core.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] not in special]
    return tokenizers.Tokenizer.from_str(json.dumps(content))
