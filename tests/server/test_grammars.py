"""Guides: whatever they let through is what was asked for, and no schema or expression of a stranger holds the server up."""

import json
import re
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from models.paths import BUNDLED_MODEL
from models.tokenizer import Tokenizer
from server.grammars import BadGrammar, Form, Grammars
from server.guide import GuideFailed

GRAMMARS = Grammars(Tokenizer.open(BUNDLED_MODEL), 4096, frozenset({0}))
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"enum": ["a", "b"]},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
BASIC = st.sampled_from(
    [
        {"type": "boolean"},
        {"type": "null"},
        {"type": "integer", "minimum": -5, "maximum": 500},
        {"enum": ["x", 2, None]},
        {"type": "string", "maxLength": 6},
    ]
)
SCHEMAS = st.recursive(
    BASIC,
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items, "maxItems": 2}, inner),
        st.builds(
            lambda a, b: {"type": "object", "properties": {"a": a, "b": b}, "required": ["a", "b"], "additionalProperties": False},
            inner,
            inner,
        ),
        st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner),
    ),
    max_leaves=4,
)


def written(form: Form, seed: int, most: int = 400) -> str:
    """What a writer makes that knows nothing, and draws any allowed token; short ones a little more often, so that it comes to an end."""
    dice, (guide,) = np.random.default_rng(seed), GRAMMARS.guides(form, 1)
    tokens: list[int] = []
    while len(tokens) < most:
        ids = np.flatnonzero(guide.allowed())
        tokens.append(int(ids[0] if ids[0] == 0 else dice.choice(ids)))
        done = guide.push(tokens[-1])
        if done or tokens[-1] == 0:
            return GRAMMARS.tokenizer.decode(tokens)
    pytest.fail("the random writer did not come to an end")


@settings(max_examples=40, deadline=None)
@given(schema=SCHEMAS, seed=st.integers(0, 2**32))
def test_what_follows_a_schema_is_valid_by_another_library(schema: dict[str, Any], seed: int) -> None:
    jsonschema_rs.validate(
        schema,
        json.loads(
            written(
                Form("json_schema", {"type": "object", "properties": {"it": schema}, "required": ["it"]} | {"additionalProperties": False}),
                seed,
            )
        )["it"],
    )


@pytest.mark.parametrize("seed", range(8))
def test_a_named_record(seed: int) -> None:
    jsonschema_rs.validate(PERSON, json.loads(written(Form("json_schema", PERSON), seed)))


@pytest.mark.parametrize("expression", [r"[a-f]{3}-\d{2,4}", r"(yes|no)( indeed){0,2}", r"[äöü]+!", r"\d{4}-\d{2}-\d{2}"])
@pytest.mark.parametrize("seed", range(3))
def test_a_regular_expression(expression: str, seed: int) -> None:
    assert re.fullmatch(expression, written(Form("regex", expression), seed))


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (Form("regex", "("), "unclosed group"),
        (Form("regex", "(?=a)b"), "look-around"),
        (Form("regex", "(" * 5000 + ")" * 5000), "nested"),
        (Form("regex", "a" * 70_000), "larger than"),
        (Form("json_schema", {"type": "objekt"}), "objekt"),
        (Form("json_schema", {"$ref": "http://example.invalid/x"}), "not fetch"),
        (Form("json_schema", {"$ref": "file:///etc/passwd"}), "not fetch"),
        (Form("json_schema", {"not": {"type": "string"}}), "not"),
        (Form("json_schema", {"type": "object", "required": ["a"], "additionalProperties": False}), "unsatisfiable"),
        (Form("json_schema", {"enum": ["x" * 70_000]}), "larger than"),
        (Form("json_schema", {"type": "string", "pattern": "("}), "unclosed"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(form: Form, words: str) -> None:
    with pytest.raises(BadGrammar, match=words) as caught:
        GRAMMARS.guides(form, 1)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 300


def nested(depth: int) -> dict[str, Any]:
    """2^depth leaves if it were written out."""
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/x"}, "b": schema}}
    return schema


@pytest.mark.parametrize(
    "form",
    [
        Form("regex", "(a{1000}){1000}"),
        Form("regex", "(.*a){30}.{40}b"),
        Form("regex", "(a*)*(b*)*(c|d|e)*" * 200),
        Form("regex", "(x+x+)+y"),
        Form("regex", "[ab]*a[ab]{25}"),
        Form("json_schema", {"type": "string", "minLength": 10**9}),
        Form("json_schema", {"type": "array", "minItems": 10**9}),
        Form("json_schema", {"type": "string", "pattern": "(a{1000}){1000}"}),
        Form("json_schema", {"$ref": "#"}),
        Form("json_schema", {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        Form("json_schema", nested(50) | {"$defs": {"x": {"type": "string"}}}),
        Form("json_schema", {"anyOf": [{"type": "object", "properties": {f"p{i}": {}}} for i in range(800)]}),
        Form("json_schema", {"enum": [f"value {i}" for i in range(3000)]}),
        Form("json_schema", {"x-guidance": {"whitespace_pattern": "(a{1000}){1000}"}, "type": "object"}),
    ],
)
def test_a_hostile_grammar_is_refused_or_gives_up_and_never_hangs(form: Form) -> None:
    """Some are legal: then a few tokens can be written. What is over a bound is an error of the request."""
    try:
        (guide,) = GRAMMARS.guides(form, 1)
        for seed in range(20):
            ids = np.flatnonzero(guide.allowed())
            if guide.push(int(np.random.default_rng(seed).choice(ids))):
                break
    except (BadGrammar, GuideFailed):
        pass


def test_guides_of_one_request_do_not_share_their_place() -> None:
    first, second = GRAMMARS.guides(Form("regex", "abc"), 2)
    token = int(np.flatnonzero(first.allowed())[0])
    first.push(token)
    assert (second.allowed() != first.allowed()).any()
    assert second.allowed()[token]


def test_a_token_that_does_not_fit_is_a_failure_of_the_guide() -> None:
    (guide,) = GRAMMARS.guides(Form("regex", "abc"), 1)
    with pytest.raises(GuideFailed):
        guide.push(int(np.flatnonzero(~guide.allowed())[5]))


def test_a_token_is_its_bytes() -> None:
    ids = GRAMMARS.tokenizer.encode("🌊 wave", special=False)
    assert b"".join(GRAMMARS.bytes_of(token) for token in ids) == "🌊 wave".encode()


def test_a_tokenizer_that_the_library_cannot_read_is_said_and_its_tokens_still_have_bytes() -> None:
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel({"sea": 0, "wave": 1}, unk_token="sea"))
    grammars = Grammars(Tokenizer(core, None, None), 2, frozenset())
    with pytest.raises(BadGrammar, match="cannot be guided"):
        grammars.guides(Form("json_schema", {}), 1)
    assert grammars.bytes_of(1) == b"wave"


def test_an_end_of_text_above_the_vocabulary_is_no_obstacle() -> None:
    assert len(Grammars(GRAMMARS.tokenizer, 4096, frozenset({0, 5000})).guides(Form("regex", "a"), 2)) == 2
