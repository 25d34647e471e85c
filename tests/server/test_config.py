"""Settings from flags, variables and a file: which wins, where each comes from, and every mistake in one line."""

from pathlib import Path

import pytest

from models.errors import BadArtefact, BadValue, ThermoclineError
from server.cli import build_parser, main
from server.config import Chosen, Config, build, choose, read_keys
from server.settings import SETTINGS


def chosen(*flags: str, variables: dict[str, str] | None = None, file: str | None = None, tmp: Path | None = None) -> dict[str, Chosen]:
    if file is not None and tmp is not None:
        (tmp / "c.toml").write_text(file)
        flags = (*flags, "--config", str(tmp / "c.toml"))
    environment = {"XDG_CONFIG_HOME": "/nowhere"} | (variables or {})
    return {one.setting.name: one for one in choose(build_parser().parse_args(["run", *flags]), environment)}


def config(*flags: str, variables: dict[str, str] | None = None, file: str | None = None, tmp: Path | None = None) -> Config:
    return build(list(chosen(*flags, variables=variables, file=file, tmp=tmp).values()))


def test_every_setting_has_a_field_and_the_defaults_stand_together() -> None:
    assert {setting.field for setting in SETTINGS} == set(Config.__dataclass_fields__)
    made = config()
    assert (made.model, made.host, made.port, made.slots, made.stall_ms, made.api_keys) == ("bundled", "127.0.0.1", 8000, 4, 200, ())
    assert all(one.origin == "default" for one in chosen().values())


def test_a_flag_wins_over_a_variable_over_the_file_over_the_default(tmp_path: Path) -> None:
    file = 'port = 3\nqueue = 3\nslots = 3\nmodel = "file"'
    found = chosen("--port", "1", variables={"THERMOCLINE_PORT": "2", "THERMOCLINE_QUEUE": "2"}, file=file, tmp=tmp_path)
    assert [(found[name].value, found[name].origin) for name in ("port", "queue", "slots", "drain")] == [
        (1, "--port"),
        (2, "THERMOCLINE_QUEUE"),
        (3, f"{tmp_path / 'c.toml'}: slots"),
        (30, "default"),
    ]
    assert chosen("flag", file=file, tmp=tmp_path)["model"].value == "flag"


def test_values_are_read_alike_wherever_they_come_from(tmp_path: Path) -> None:
    file = 'vram = "8GiB"\napi-key = ["a", "b"]\nlog-prompts = true\nchat-template = "~/t.jinja"'
    by_file = config(file=file, tmp=tmp_path)
    variables = {
        "THERMOCLINE_VRAM": "8GiB",
        "THERMOCLINE_API_KEY": "a, b",
        "THERMOCLINE_LOG_PROMPTS": "true",
        "THERMOCLINE_CHAT_TEMPLATE": "~/t.jinja",
    }
    by_variable = config(variables=variables)
    by_flag = config("--vram", "8GiB", "--api-key", "a", "--api-key", "b", "--log-prompts", "--chat-template", "~/t.jinja")
    assert by_file == by_variable == by_flag
    assert (by_flag.vram_bytes, by_flag.api_keys, by_flag.log_prompts) == (8 << 30, ("a", "b"), True)
    assert by_flag.chat_template == Path.home() / "t.jinja"


def test_the_usual_file_is_read_when_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "thermocline").mkdir()
    assert chosen(variables={"XDG_CONFIG_HOME": str(tmp_path)})["port"].value == 8000
    (tmp_path / "thermocline" / "config.toml").write_text("port = 9")
    assert chosen(variables={"XDG_CONFIG_HOME": str(tmp_path)})["port"].value == 9
    (tmp_path / "other.toml").write_text("port = 10")
    assert chosen(variables={"THERMOCLINE_CONFIG": str(tmp_path / "other.toml")})["port"].value == 10


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("port =", "not TOML"),
        ("prot = 8000", "'prot'"),
        ("[server]\nport = 1", "'server'"),
        ("port = 1.5", "port: 1.5"),
        ("port = [1, 2]", "port"),
        ("port = true", "port"),
        ("vram = 8", "has no unit"),
        ('log-format = "xml"', "text, json"),
        ('log-prompts = "perhaps"', "log-prompts"),
        ('api-key = [["x"]]', "api-key"),
        ('api-key = ""', "empty"),
        ("x = " + "[" * 2000 + "]" * 2000, "not TOML"),
        ("a = 1\n" * 200_000, "larger than"),
    ],
)
def test_a_mistake_in_the_file_names_the_file(file: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ThermoclineError, match=words) as caught:
        config(file=file, tmp=tmp_path)
    assert "c.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"THERMOCLINE_PORT": "x"}, "THERMOCLINE_PORT"),
        ({"THERMOCLINE_PROT": "1"}, "THERMOCLINE_PROT.*no setting"),
        ({"THERMOCLINE_SLOTS": "0"}, "THERMOCLINE_SLOTS"),
        ({"THERMOCLINE_FORMAT": "int3"}, "int4"),
    ],
)
def test_a_mistake_in_a_variable_names_the_variable(variables: dict[str, str], words: str) -> None:
    with pytest.raises(ThermoclineError, match=words):
        config(variables=variables)


def test_a_key_under_a_wrong_name_is_not_told(tmp_path: Path) -> None:
    with pytest.raises(ThermoclineError) as by_variable:
        config(variables={"THERMOCLINE_API_KEYS": "sk-secret"})
    with pytest.raises(ThermoclineError) as by_file:
        config(file='api-key = [["sk-secret"]]', tmp=tmp_path)
    assert "THERMOCLINE_API_KEYS" in str(by_variable.value)
    assert "api-key" in str(by_file.value)
    assert not any("sk-secret" in str(caught.value) for caught in (by_variable, by_file))


@pytest.mark.parametrize("origin", ["*", "https://app.example", "http://localhost:3000", "http://[::1]:8080", "chrome-extension://abcdef"])
def test_an_origin_is_as_browsers_send_it(origin: str) -> None:
    assert config("--cors-origin", origin).cors_origins == (origin,)
    for wrong in (f"{origin}/", origin.upper() + "A", f"{origin} ", "app.example", "null", "https://*.example"):
        with pytest.raises(BadValue, match="no origin like"):
            config("--cors-origin", wrong)


def test_a_file_that_is_not_there_is_an_error() -> None:
    with pytest.raises(OSError, match="No such file"):
        config("--config", "/no/such.toml")


def test_settings_are_shown_with_their_origin_and_keys_are_not(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("THERMOCLINE_API_KEY", "sk-secret")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/nowhere")
    assert main(["config", "--port", "7"]) == 0
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == [setting.name for setting in SETTINGS]
    assert ["port", "7", "--port"] in lines
    assert ["vram", "–", "default"] in lines
    assert not any("sk-secret" in word for line in lines for word in line)
    assert main(["config", "--slots", "300"]) == 2


def test_the_help_names_every_setting_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    said = capsys.readouterr().out
    assert all(setting.flag in said for setting in SETTINGS if setting.name != "model")
    assert all(f"\n{group}:" in said for group in ("the model", "memory", "who may ask", "many at once", "logs"))
    assert "{default}" not in said


def test_keys_of_a_file_join_those_that_were_named(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# mine\nfirst\n\n  second  \n")
    assert read_keys(config("--api-key", "zero", "--api-key-file", str(tmp_path / "keys"))) == ("zero", "first", "second")
    (tmp_path / "keys").write_text("# none\n")
    with pytest.raises(BadArtefact, match="no key"):
        read_keys(config("--api-key-file", str(tmp_path / "keys")))
