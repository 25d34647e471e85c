"""Chat templates: the same text as transformers renders, and a sandbox around programs of strangers."""

import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.filters import do_indent
from transformers import PreTrainedTokenizerFast

from models.chat import ChatRefused, ChatTemplate
from models.errors import BadCheckpoint
from models.extent import FILTERS, METHODS, SMALL, extent
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

IDIOMS = """{%- set ns = namespace(last=-1, system='', found=[]) -%}
{%- macro turn(message, number=0) -%}
<|{{ message['role'] | upper }}|{{ '%02d' | format(number) }}|{{ '{:>4}'.format(number) }}|{{ message.content | trim }}
{%- endmacro -%}
{%- for m in messages[::-1] if m.role == 'user' and ns.last < 0 -%}{%- set ns.last = messages | length - 1 - loop.index0 -%}{%- endfor -%}
{%- for message in messages -%}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) and message.content is string and message.get('name') is none -%}
{%- set ns.found = ns.found + [message] -%}
{%- set content = message.content.split('</think>')[-1].lstrip('\n').replace('hä', 'he') -%}
{{ turn(message, loop.index) ~ content }}{{ '\n' if not loop.last else '' }}
{%- elif message.content.startswith('Be') or 'b' in message.content %}{%- set ns.system = message.content -%}{%- endif -%}
{%- endfor -%}
{{ ns.found | map(attribute='role') | join(', ') }}{{ ns.system }}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}
{{ messages[0] | tojson(indent=2) }}
{% for key, value in messages[0].items() | list %}{{ key }}={{ value | default('') | length }};{% endfor %}
{% set a, b = 3, [1, 2.5] %}{{ a // 2 + a * 2 - 1 }}{{ b }}{{ (1, 'x') }}{{ {'k': [b]} }}
{{ 'x' * 3 }}{{ 'a' ~ 1 }}{{ b | first }}{{ b[-1:] }}
{% macro twice() %}{{ caller(1) }}{{ caller(2) }}{% endmacro %}{% call(x) twice() %}<{{ x }}>{% endcall %}
{{ [3, 1, 2] | sort | reverse | list }}{{ 'a b c'.split() | last }}
{% set block %}{{ bos_token }} and {{ eos_token }}{% endset %}{{ block | replace('and', 'or') }}
{{ dict(a=1).a }}{{ b is iterable }}{{ ns.last }}"""


def render(source: str, messages: list[dict[str, str]] = TALK) -> str:
    return ChatTemplate.build(source, SPECIALS, NOWHERE).render(messages)


@pytest.mark.parametrize(
    "source", [CHATML.read_text(), LLAMA, IDIOMS, "{% for m in messages %}\n  {{ m.content }}\n{% endfor %}\n", "{{ messages[7] }}x"]
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
    monkeypatch.setattr("models.sandbox.LONGEST_SECONDS", 0.05)
    with pytest.raises(ChatRefused, match=r"longer than 0\.05 seconds"):
        render(source)


DOUBLED = "{% set ns = namespace(x='ab', y='ab') %}{% for i in range(19) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{% set x = ns.x %}"
HUGE = 10**9


@pytest.mark.parametrize(
    "source",
    [
        *(f"{{{{ 'x'.{name}({HUGE}) }}}}" for name in ("center", "ljust", "rjust", "zfill")),
        *(f"{{{{ ['x']|map('{name}', {HUGE})|list }}}}" for name in ("center", "indent")),
        f"{{{{ '%{HUGE}d' % 1 }}}}",
        f"{{{{ '%*d' % ({HUGE}, 1) }}}}",
        f"{{{{ '%.{HUGE}f' % 1 }}}}",
        f"{{{{ '%(a){HUGE}d' % {{'a': 1}} }}}}",
        f"{{{{ '%{HUGE}d'|format(1) }}}}",
        f"{{{{ '{{:{HUGE}}}'.format('x') }}}}",
        f"{{{{ '{{:{{}}}}'.format('x', {HUGE}) }}}}",
        f"{{{{ '{{:{{}}}}'.format('x', '{HUGE}') }}}}",
        "{{ '{x}'.format_map({'x': 1}) }}",
        f"{{{{ 'x'|center({HUGE}) }}}}",
        f"{{{{ 'x'|center(width={HUGE}) }}}}",
        f"{{{{ 'x'|indent({HUGE}, true) }}}}",
        f"{{{{ [1]|batch({HUGE}, 'x')|list }}}}",
        f"{{{{ [1]|slice({HUGE})|list }}}}",
        f"{{{{ 1|round({HUGE}, 'ceil') }}}}",
        f"{{{{ [1]|tojson(indent={HUGE}) }}}}",
        f"{{{{ (1).to_bytes({HUGE}, 'big') }}}}",
        f"{{{{ 'x'.encode().center({HUGE}) }}}}",
        f"{{{{ 'x\t'.expandtabs({HUGE}) }}}}",
        f"{{{{ strftime_now('%{HUGE}d' ~ '%d' ~ 'x' * 999) }}}}",
        f"{{{{ lipsum(n={HUGE}) }}}}",
        "{{ 'x' * 9999999 * 9999999 }}",
        DOUBLED + "{{ x.replace('a', x) }}",
        DOUBLED + "{{ x|replace('', x) }}",
        DOUBLED + "{{ x.join(x) }}",
        DOUBLED + "{{ x|join(x) }}",
        DOUBLED + "{{ range(9999)|join(x) }}",
        DOUBLED + "{{ '%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s' % (x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x) }}",
        DOUBLED + "{{ '{0}{0}{0}{0}{0}{0}{0}{0}{0}{0}{0}{0}{0}{0}{0}{0}{0}{0}{0}{0}'.format(x) }}",
        DOUBLED + "{{ x|list|length }}",
        DOUBLED + "{{ x.split('a')|length }}",
        DOUBLED + "{{ x.split()|length }}",
        DOUBLED + "{{ x.replace('a', '\n').splitlines()|length }}",
        DOUBLED + "{{ x.replace('a', '\n')|indent(9999) }}",
        DOUBLED + "{{ x|sort|length }}{{ x|wordwrap(1, wrapstring=x) }}",
        DOUBLED + "{{ [[x], [x]]|sum(start=[])|length }}",
        DOUBLED + "{% for i in range(9999) %}{{ x }}{% endfor %}",
        DOUBLED + "{% macro f() %}{% for i in range(9999) %}{{ x }}{% endfor %}{% endmacro %}{{ f()|length }}",
        DOUBLED + "{% set y %}{% for i in range(9999) %}{{ x }}{% endfor %}{% endset %}{{ y|length }}",
        "{% set y %}{% for i in range(99999) %}" + "x" * 9999 + "{% endfor %}{% endset %}{{ y|length }}",
        DOUBLED + "".join(f"{{% set x{number} = x[{number}:] %}}" for number in range(999)),
        DOUBLED + "".join(f"{{% set x{number} = x.upper() %}}" for number in range(999)),
        "{% set x = ['x'] %}" + "{% set x = [x, x] %}" * 60 + "{{ x }}",
        "{% set x, y = ['x'], ['x'] %}" + "{% set x, y = [x, x], [y, y] %}" * 60 + "{{ x == y }}",
        "{% set x = {'a': 1} %}" + "{% set x = {'a': x, 'b': x} %}" * 60 + "{{ x|tojson }}",
        "{% set x = 'x' %}" + "{% set x = dict(a=x, b=x) %}" * 60 + "{{ x|string }}",
        "{% set x = 7 %}" + "{% set x = x * x %}" * 60 + "{{ x is odd }}",
        "{{ ['a', 'b'].__class__ }}{{ 'x'.nothing() }}",
    ],
)
def test_what_would_fill_the_memory_is_refused_before_it_does(source: str) -> None:
    """With room for some copies of the longest text, and not for a gigabyte."""
    tracemalloc.start()
    try:
        with pytest.raises((ChatRefused, BadCheckpoint)):
            render(source)
        assert tracemalloc.get_traced_memory()[1] < 300_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "work",
    [
        "{% if x == y %}{% endif %}",
        "{% set z = x == y %}",
        "{% set z = x in y %}",
        "{% set z = x + y %}",
        "{% set z = x ~ y %}",
        "{% set z = x.upper() %}",
        "{% set z = x|upper %}",
        "{% set z = x is upper %}",
        "{% set z = x[1:] %}",
        "{% set z = [x, y] %}",
        "{{ x }}",
    ],
)
def test_work_without_any_loop_looks_at_the_clock_too(work: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by a millisecond whenever it is looked at: 2,100 looks are more than the two seconds."""
    looks = itertools.count()
    monkeypatch.setattr("models.sandbox.time.thread_time", lambda: next(looks) / 1000)
    with pytest.raises(ChatRefused, match="longer than 2 seconds"):
        render("{% set x, y = 'x', 'y' %}" + work * 2100)


def test_what_templates_do_with_large_chats_is_let_through() -> None:
    """A megabyte in each of four messages, and what the templates of known families do with them."""
    talk = [{"role": "user", "content": "word \n" * 180_000}, {"role": "assistant", "content": "<think>" + "x" * 10**6 + "</think>y"}] * 2
    text = render(
        "{% for m in messages %}{% set c = m['content'] %}"
        "{% if '</think>' in c %}{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}"
        "{{ '<|%s|>' % m.role + '\n' + c.strip() + '\n' }}{{ m.content|trim|replace('a', 'b')|length }}{{ '{} {:>5}'.format(m.role, 'x') }}"
        "{% endfor %}{{ messages[1:]|map(attribute='role')|join(', ') }}{{ (messages|tojson)|length }}{{ [1, 2]|sum }}{{ 1.25|round(1) }}",
        talk,
    )
    assert len(text) > 2_000_000
    assert "assistant, user, assistant" in text


@given(
    st.recursive(
        st.text(max_size=9) | st.integers() | st.booleans() | st.none(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    )
)
def test_the_extent_of_a_value_is_no_less_than_a_part_of_its_text(value: Any) -> None:
    assert 16 * extent(value) + 16 >= len(str(value))


@given(text=st.text("ab\n {}%", max_size=20), old=st.text("ab", max_size=2), new=st.text("xy", max_size=4), width=st.integers(-5, 30))
def test_what_a_call_makes_is_never_more_than_was_computed(text: str, old: str, new: str, width: int) -> None:
    done = {
        "replace": text.replace(old, new),
        "center": text.center(width),
        "join": text.join(["a", new, old]),
        "indent": do_indent(text, width, first=True, blank=True),
    }
    assert len(done["replace"]) <= METHODS["replace"](text, old, new)
    assert len(done["center"]) <= METHODS["center"](text, width)
    assert len(done["join"]) <= METHODS["join"](text, ["a", new, old])
    assert len(done["indent"]) <= FILTERS["indent"](text, width)
    assert SMALL * len(text.split(old or None)) <= METHODS["split"](text, old or None) + SMALL
    assert SMALL * len(text.splitlines()) <= METHODS["splitlines"](text)
    assert len(f"%{abs(width)}d" % 5) <= FILTERS["format"](f"%{abs(width)}d", 5)
    assert len("{:>{}}".format("x", abs(width))) <= FILTERS["format"]("{:>{}}", "x", abs(width))


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
