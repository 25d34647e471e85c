"""Chat templates: the same text as transformers renders, and a sandbox around programs of strangers."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from models.chat import ChatRefused, ChatTemplate
from models.errors import BadCheckpoint
from models.paths import BUNDLED_MODEL
from models.tokenizer import Tokenizer

NOWHERE = Path("template")
CHATML = Path(__file__).parent.parent / "chatml.jinja"
SPECIALS = {"bos_token": "<s>", "eos_token": "</s>"}
TALK = [
    {"role": "system", "content": "Be brief.  "},
    {"role": "user", "content": "Say <b>\"hä?\"</b> 'twice'\n"},
    {"role": "assistant", "content": "hä? hä?"},
    {"role": "user", "content": "🌊"},
]
LLAMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}
    {% set system = messages[0]['content'] %}
    {% set rest = messages[1:] %}
{% else %}
    {% set rest = messages %}
{% endif %}
{% for message in rest %}
    {% if message['role'] == 'user' %}
[INST] {{ ('<<SYS>>' ~ system ~ '<</SYS>>' if loop.first and system is defined else '') ~ message.content }} [/INST]
    {% elif loop.last %}{% break %}{% else %}
{{ message.content }}{{ eos_token }}
    {% endif %}
{% endfor %}
{{ messages | tojson }}"""


def render(source: str, messages: list[dict[str, str]] = TALK) -> str:
    return ChatTemplate.build(source, SPECIALS, NOWHERE).render(messages)


@pytest.mark.parametrize(
    "source", [CHATML.read_text(), LLAMA, "{% for m in messages %}\n  {{ m.content }}\n{% endfor %}\n", "{{ messages[7] }}x"]
)
@pytest.mark.parametrize("messages", [TALK, TALK[1:], TALK[:2]])
def test_the_text_is_what_transformers_renders(source: str, messages: list[dict[str, str]]) -> None:
    core = Tokenizer.open(BUNDLED_MODEL).core
    theirs = PreTrainedTokenizerFast(tokenizer_object=core, chat_template=source, **SPECIALS)
    assert render(source, messages) == theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def test_the_bundled_models_own_template_is_what_transformers_renders() -> None:
    ours, theirs = Tokenizer.open(BUNDLED_MODEL), PreTrainedTokenizerFast.from_pretrained(BUNDLED_MODEL)
    text = render(ours.chat_template or "")
    assert text == theirs.apply_chat_template(TALK, tokenize=False, add_generation_prompt=True)
    assert ours.specials == {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}


def test_what_a_template_wrote_gets_a_begin_of_text_once() -> None:
    tokenizer = Tokenizer.open(BUNDLED_MODEL)
    plain = tokenizer.encode("hello")
    assert tokenizer.encode_rendered("hello") == plain
    assert tokenizer.encode_rendered("<|endoftext|>hello") == plain


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception('roles must alternate') }}",
        "{{ 'x' * 10 ** 9 }}",
        "{{ 'x' * 9999999 }}",
        "{{ [1] * 9999999 }}",
        "{{ nobody.knows }}",
        "{% include '/etc/passwd' %}",
        "{{ self.__init__.__globals__ }}",
        "{% for i in range(99999999) %}{% endfor %}",
        "{% for i in range(9999) %}{% for i in range(9999) %}{{ messages }}{% endfor %}{% endfor %}",
    ],
)
def test_a_template_that_does_what_it_must_not_is_refused(source: str) -> None:
    with pytest.raises(ChatRefused):
        render(source)


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for i in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{% for i in range(99999) if false %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(100) }}",
        "{% macro f(n) %}{{ caller() }}{% if n %}{% for i in '12' %}{% call f(n - 1) %}{% endcall %}{% endfor %}{% endif %}{% endmacro %}"
        "{% call f(100) %}{% endcall %}",
        "{% for n in [99] recursive %}{% if n %}{{ loop([n - 1, n - 1]) }}{% endif %}{% endfor %}",
    ],
)
def test_a_template_that_computes_for_ever_and_writes_nothing_is_refused_in_time(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.chat.LONGEST_SECONDS", 0.05)
    with pytest.raises(ChatRefused, match=r"longer than 0\.05 seconds"):
        render(source)


@pytest.mark.parametrize("grown", ["ns.x + ns.x", "ns.x ~ ns.x"])
@pytest.mark.parametrize("seed", ["'xy'", "['x', 'y']"])
def test_what_doubles_in_every_round_is_refused_before_it_fills_the_memory(grown: str, seed: str) -> None:
    with pytest.raises(ChatRefused, match="makes more than"):
        render(f"{{% set ns = namespace(x={seed}) %}}{{% for i in range(60) %}}{{% set ns.x = {grown} %}}{{% endfor %}}")


def test_texts_are_joined_as_jinja_does() -> None:
    assert render("{{ 1 ~ 'a' ~ none ~ ('b' + 'c') ~ [1 + 1] }}{% for i in range(9) if i is odd %}{{ i }}{% endfor %}") == "1aNonebc[2]1357"


def test_products_of_numbers_are_let_through() -> None:
    assert render("{{ 3 * 4 }}{{ 'ab' * 2 }}{{ 2 * 'c' }}") == "12ababcc"


def test_a_refusal_says_what_the_template_said() -> None:
    with pytest.raises(ChatRefused, match=r"^roles must alternate$"):
        render("{{ raise_exception('roles must alternate') }}")


@pytest.mark.parametrize("source", ["{% for %}", "{{", "{% if x %}", "{" * 9 + "%"])
def test_what_is_no_template_is_one_line_with_the_path(source: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jinja"
    path.write_text(source)
    with pytest.raises(BadCheckpoint, match=r"bad\.jinja.*no chat template"):
        ChatTemplate.read(path, {})


def test_a_file_that_is_no_text_or_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(BadCheckpoint, match="UTF-8"):
        ChatTemplate.read(tmp_path / "bytes", {})
    (tmp_path / "large").write_text("x" * (1 << 20) + "x")
    with pytest.raises(BadCheckpoint, match="too large"):
        ChatTemplate.read(tmp_path / "large", {})


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ('{"chat_template": "x"}', "x"),
        ('{"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]}', "d"),
        ('{"chat_template": [{"name": "tool_use", "template": "t"}, 5]}', None),
        ("{}", None),
        ('{"chat_template": 5}', None),
    ],
)
def test_where_a_model_keeps_its_template(settings: str, found: str | None, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((BUNDLED_MODEL / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(settings)
    assert Tokenizer.open(tmp_path).chat_template == found
    (tmp_path / "chat_template.jinja").write_text("file")
    assert Tokenizer.open(tmp_path).chat_template == "file"
