"""The configuration file: merged, expanded, and every mistake told at once."""

import subprocess
import sys
import tomllib
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import settings as run_with
from hypothesis import strategies as st

from trio_entrypoint.cli.checking import check
from trio_entrypoint.cli.inspecting import check_file
from trio_entrypoint.cli.loading import load
from trio_entrypoint.cli.mistakes import UsageError
from trio_entrypoint.cli.printing import to_toml
from trio_entrypoint.cli.schema import json_schema, key_descriptions, section_classes
from trio_entrypoint.cli.settings import ServiceSettings, Settings
from trio_entrypoint.cli.values import signal_number
from trio_entrypoint.environment import Environment

MINIMAL = '[service.web]\ncommand = ["web"]\n'


def read(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> Settings:
    file = tmp_path / "entrypoint.toml"
    file.write_text(text)
    tree, sources = load(str(file), environment or {})
    return check(Settings, tree, sources)


def mistakes(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(UsageError) as raised:
        read(tmp_path, text, environment)
    return [str(mistake).replace(f"{tmp_path}/", "") for mistake in raised.value.mistakes]


def test_every_mistake_is_told_at_once_with_its_line_in_order(tmp_path: Path) -> None:
    text = """\
[log]
level = "inof"

[service.web]
command = ["web"]
stop_signal = "SIGTRM"
restrt = 1
[service.web.restart]
policy = "allways"
backoff = { initial = -1, maxmum = 3 }

[service.db]
command = "db"
[service.db.readiness]
tcp = "host:port"
[service.db.on_change]
"*.crt" = "SIGHUPP"
"""
    told = mistakes(tmp_path, text)
    assert [line.split(": ")[:2] for line in told] == [
        ["entrypoint.toml:2", "log.level"],
        ["entrypoint.toml:6", "service.web.stop_signal"],
        ["entrypoint.toml:7", "service.web.restrt"],
        ["entrypoint.toml:9", "service.web.restart.policy"],
        ["entrypoint.toml:10", "service.web.restart.backoff.maxmum"],
        ["entrypoint.toml:10", "service.web.restart.backoff.initial"],
        ["entrypoint.toml:13", "service.db.command"],
        ["entrypoint.toml:15", "service.db.readiness.tcp"],
        ["entrypoint.toml:16", "service.db.on_change"],
    ]
    assert 'did you mean "info"?' in told[0]
    assert 'did you mean "SIGTERM"?' in told[1]
    assert 'did you mean "restart"?' in told[2]
    assert 'did you mean "maximum"?' in told[4]
    assert 'expected an array, not the string "db"' in told[6]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "service: is missing"),
        ("[service.web]\n", "entrypoint.toml:1: service.web.command: is missing"),
        ("[service]\nweb = 3\n", "entrypoint.toml:2: service.web: expected a table, not 3"),
        (
            "[service.web]\ncommand = []\n",
            "entrypoint.toml:2: service.web.command: expected a program",
        ),
        (
            "[service.web]\ncommand = ['a', 3]\n",
            "entrypoint.toml:2: service.web.command[1]: expected a string, not 3",
        ),
        (
            f"{MINIMAL}grace_period = -1\n",
            "entrypoint.toml:3: service.web.grace_period: 'grace_period' must be >= 0: -1",
        ),
        (
            f"{MINIMAL}readiness = {{ tcp = 1, http = 'http://x' }}\n",
            (
                "service.web.readiness: takes exactly one of http, tcp, command, file, notify, "
                "descriptor, not http and tcp"
            ),
        ),
        (
            f"{MINIMAL}configuration = {{ target = '/x' }}\n",
            "service.web.configuration: takes exactly one of file, tar, directory",
        ),
        (f"{MINIMAL}after = ['wbe']\n", 'service.web.after: no service "wbe"; did you mean "web"'),
        (
            f"{MINIMAL}activation = 'leadr'\n[activation.leader]\nfile = '/x/active'\n",
            'service.web.activation: no activation "leadr"; did you mean "leader"',
        ),
        (
            f"{MINIMAL}[activation.leader]\nfile = '/x/active'\n",
            'activation.leader: no service has activation = "leader"',
        ),
        (f"{MINIMAL}after = ['web']\n", "these services wait for each other: web"),
        ("[service.web\n", "entrypoint.toml:1: not TOML: Expected ']'"),
        (f"a = {'1' * 5000}\n", "entrypoint.toml: not TOML: Exceeds the limit"),
        (f"on_failure = 0x{'f' * 5000}\n", "entrypoint.toml:1: on_failure: expected a whole"),
        (f"{MINIMAL}user = {2**63}\n", "user: expected a whole number of at most 64 bits"),
        ("a = 1\na = 2\n", "entrypoint.toml:2: not TOML: Cannot overwrite a value"),
        (f"{MINIMAL}[http]\nlisten = 'nowhere'\n", 'entrypoint.toml:4: http.listen: "nowhere"'),
        (
            f"{MINIMAL}stdout = 'inherrit'\n",
            '"inherrit" is neither a path with a slash nor one of',
        ),
        (f"{MINIMAL}confirm_within = 3\n", "service.web: confirm_within is about new config"),
        (
            f"{MINIMAL}restart = {{ success_codes = [0, 256] }}\n",
            "entrypoint.toml:3: service.web.restart.success_codes: 'success_codes' must be <= 255",
        ),
        (f"{MINIMAL}umask = '99'\n", "service.web.umask: expected mode bits in octal"),
        (
            f"{MINIMAL}configuration = {{ merged = [{{ file = '/x' }}], target = '/y' }}\n",
            "service.web.configuration.merged[0]: file and name belong together",
        ),
        (
            f"{MINIMAL}activation = {{ all = [{{ fil = 'x' }}] }}\n",
            'service.web.activation.all[0].fil: unknown key; did you mean "file"?',
        ),
        (f"{MINIMAL}[signals]\nSIGFOO = 'ignore'\n", 'signals: "SIGFOO" is not a signal'),
        (f"{MINIMAL}[signals]\nTERM = 'HUP'\n", 'signals: "TERM" stops the entrypoint'),
        (f"{MINIMAL}[signals]\nSIGSEGV = 'HUP'\n", '"SIGSEGV" is not a signal that an entryp'),
        (f"{MINIMAL}umask = '1022'\n", "service.web.umask: expected mode bits in octal"),
        (f"{MINIMAL}limits = {{ nofil = 9 }}\n", "service.web: limits: there is no 'nofil'"),
        (f"{MINIMAL}limits = {{ nofile = [1, 2, 3] }}\n", "limits.nofile: expected the soft and"),
        (
            f"{MINIMAL}readiness = {{ http = 'localhost:80' }}\n",
            "entrypoint.toml:3: service.web.readiness: url: expected http(s)://",
        ),
        (f"{MINIMAL}health = {{ command = [] }}\n", "entrypoint.toml:3: service.web.health: "),
        (f"{MINIMAL}hooks = {{ initial = [[]] }}\n", "entrypoint.toml:3: service.web.hooks: "),
        (
            f"{MINIMAL}configuration = {{ tar = '/x', target = '/y', validate = [] }}\n",
            "entrypoint.toml:3: service.web.configuration: ",
        ),
        (
            f"{MINIMAL}configuration = {{ tar = '/x', target = '/y', settle = inf }}\n",
            "service.web.configuration.settle: 'settle' must be < inf",
        ),
        (
            (
                f"{MINIMAL}[service.web.configuration]\ntarget = '/y'\n"
                "etcd = { endpoints = ['http://e:2379'], prefix = '/' }\n"
            ),
            "entrypoint.toml:5: service.web.configuration.etcd: prefix: expected what",
        ),
        (
            f"{MINIMAL}[service.web.activation.etcd]\nendpoints = ['e:2379']\nname = '/x'\n",
            "service.web.activation.etcd: endpoints: expected http(s)://host:port",
        ),
        (
            (
                f"{MINIMAL}[service.web.activation.etcd]\nendpoints = ['http://e:2379']\n"
                "name = '/x'\nstop_within = 15\n"
            ),
            "stop_within: expected 0 to 12.8 seconds with a ttl of 15",
        ),
        (
            (
                f"{MINIMAL}[service.web.activation.kubernetes]\nnamespace = 'a'\nname = 'b'\n"
                "renew_deadline = 15\n"
            ),
            "service.web.activation.kubernetes: lease_duration, renew_deadline, retry_period",
        ),
    ],
)
def test_a_mistake_names_the_key_and_what_was_expected(
    tmp_path: Path, text: str, told: str
) -> None:
    assert any(told in line for line in mistakes(tmp_path, text)), mistakes(tmp_path, text)


def test_the_example_is_right() -> None:
    tree, sources = load("examples/entrypoint.toml", {})
    assert list(check(Settings, tree, sources).service) == ["database", "web", "worker"]


def test_the_example_and_what_is_printed_of_it_fit_the_schema(tmp_path: Path) -> None:
    schema = json_schema()
    validator = import_module("jsonschema").Draft202012Validator
    validator.check_schema(schema)
    tree, sources = load("examples/entrypoint.toml", {})
    settings = check(Settings, tree, sources)
    printed = tomllib.loads(to_toml(settings))
    assert [error.message for error in validator(schema).iter_errors(printed)] == []
    assert read(tmp_path, to_toml(settings)) == settings
    printed["service"]["web"]["restrt"] = 1
    assert len(list(validator(schema).iter_errors(printed))) == 1


def test_every_key_is_explained() -> None:
    for cls in section_classes(Settings):
        missing = {field.name for field in attrs.fields(cls)} - set(key_descriptions(cls))
        assert not missing, cls


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing\\.toml: cannot be read: No such file"):
        load(str(tmp_path / "nothing.toml"))
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        load(str(tmp_path))
    (tmp_path / "latin.toml").write_bytes(b"# \xe4\n")
    with pytest.raises(UsageError, match="latin\\.toml: not UTF-8"):
        load(str(tmp_path / "latin.toml"))


def test_drop_ins_are_merged_in_the_order_of_their_names(tmp_path: Path) -> None:
    directory = tmp_path / "entrypoint.toml.d"
    directory.mkdir()
    (directory / "20-last.toml").write_text("[service.web]\ngrace_period = 3\nafter = []\n")
    (directory / "10-first.toml").write_text(
        "[service.web]\ngrace_period = 2\nstop_scope = 'group'\n[service.db]\ncommand = ['db']\n"
    )
    (directory / "ignored.bak").write_text("not TOML")
    (directory / ".hidden.toml").write_text("not TOML")
    settings = read(tmp_path, f"{MINIMAL}after = ['db']\n")
    assert list(settings.service) == ["web", "db"]
    web = settings.service["web"]
    assert (web.command, web.grace_period, web.stop_scope, web.after) == (
        ("web",), 3, "group", (),
    )  # fmt: skip


def test_a_mistake_in_a_drop_in_names_the_drop_in(tmp_path: Path) -> None:
    directory = tmp_path / "entrypoint.toml.d"
    directory.mkdir()
    (directory / "a.toml").write_text("\n[service.web]\ngrace_period = 'x'\n")
    told = mistakes(tmp_path, f"{MINIMAL}grace_period = 3\n")
    assert told == [
        (
            "entrypoint.toml.d/a.toml:3: service.web.grace_period: "
            'expected a number, not the string "x"'
        )
    ]


def test_variables_are_put_in_and_may_be_numbers(tmp_path: Path) -> None:
    text = """\
[service.web]
command = ["web", "--name=${NAME}", "$HOME", "$$", "$${HOME}", "${EMPTY:-none}"]
grace_period = "${GRACE:-7.5}"
terminal = "${TERMINAL:-true}"
env = { set = { LEVEL = "${LEVEL:-}" } }
"""
    settings = read(tmp_path, text, {"NAME": "a b", "EMPTY": ""})
    web = settings.service["web"]
    assert web.command == ("web", "--name=a b", "$HOME", "$$", "${HOME}", "none")
    assert web.grace_period == 7.5
    assert web.terminal
    assert web.env.set == {"LEVEL": ""}


def test_a_variable_that_is_not_set_is_told_with_the_other_mistakes(tmp_path: Path) -> None:
    text = f"{MINIMAL}grace_period = '${{GRACE}}'\nstop_scope = '${{'\nfoo = 1\n"
    told = mistakes(tmp_path, text)
    assert told[0].startswith(
        "entrypoint.toml:3: service.web.grace_period: the variable GRACE is not set"
    )
    assert "is not a variable" in told[1]
    assert "unknown key" in told[2]
    assert len(told) == 3


def test_a_string_that_no_variable_made_is_no_number(tmp_path: Path) -> None:
    assert "expected a number" in mistakes(tmp_path, f"{MINIMAL}grace_period = '7'\n")[0]


@pytest.mark.parametrize(
    ("name", "number"),
    [("SIGHUP", 1), ("hup", 1), ("1", 1), (15, 15), ("SIGRTMIN+1", 35), ("rtmin", 34)],
)
def test_signals_have_names_and_numbers(name: str | int, number: int) -> None:
    assert signal_number(name) == number


@pytest.mark.parametrize("name", ["", "SIG", "0", "65", "SIGRTMIN+40", "SIGHUP+1", "-1", "\uff11"])
def test_what_is_no_signal_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not a signal"):
        signal_number(name)


texts = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"))


@run_with(max_examples=50)
@given(
    name=texts.filter(bool),
    words=st.lists(texts, min_size=1, max_size=4).filter(lambda words: words[0]),
    env=st.dictionaries(texts.filter(lambda name: "=" not in name), texts, max_size=3),
    globs=st.dictionaries(
        texts, st.one_of(st.just("restart"), st.lists(texts, min_size=1).map(tuple)), max_size=3
    ),
)
def test_what_is_printed_is_read_as_the_same_again(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    words: list[str],
    env: dict[str, str],
    globs: dict[str, str | tuple[str, ...]],
) -> None:
    service = ServiceSettings(command=tuple(words), env=Environment(set=env), on_change=globs)
    settings = Settings(service={name: service})
    assert read(tmp_path_factory.getbasetemp(), to_toml(settings)) == settings


@run_with(max_examples=50)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        field.name
                        for cls in (Settings, ServiceSettings)
                        for field in attrs.fields(cls)
                    ]
                    + ["web", "x"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
def test_no_tree_whatsoever_breaks_the_check(tree: object) -> None:
    with suppress(UsageError):
        check(Settings, {"service": tree})


@pytest.mark.parametrize(
    ("settings", "mistake"),
    [
        ('file = "/a"\nkeep_owner = true', "keep_owner is for a tar"),
        ('tar = "/a"\nowner = [0, 0]', "owner is for a file"),
        ('tar = "/a"\nmode = "0600"', "mode is for a file, or for etcd"),
        ('file = "/a"\nowner = [-1, 0]', "configuration: owner is (-1, 0), expected the numbers"),
        ('tar = "/a"\nmax_size = -1', "configuration.max_size: 'max_size' must be >= 0"),
        ('tar = "/a"\nmax_members = 0', "configuration.max_members: 'max_members' must be >= 1"),
        ('merged = [{ file = "/a", name = "../b" }]', "configuration: name is '../b', expected"),
        (
            'etcd = { endpoints = ["http://e:1"], prefix = "/a", tls = { ca = "/c" } }',
            "configuration.etcd: tls: given, but no endpoint is an https:// address",
        ),
        (
            'etcd = { endpoints = ["https://e:1"], prefix = "/a", tls = { key = "/k" } }',
            "configuration.etcd.tls: tls: a key needs its certificate",
        ),
        ('etcd = { endpoints = ["http://e:2379"], prefix = "/a", user = "u" }', "belong together"),
    ],
)
def test_what_a_source_cannot_have_is_a_mistake(
    tmp_path: Path, settings: str, mistake: str
) -> None:
    file = tmp_path / "entrypoint.toml"
    file.write_text(
        '[service.app]\ncommand = ["true"]\n[service.app.configuration]\n'
        f'target = "/t"\n{settings}\n'
    )
    answer = subprocess.run(
        [Path(sys.executable).with_name("trio-entrypoint"), "check", "-f", file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 64
    assert mistake in answer.stderr


def test_every_program_that_a_file_names_has_to_exist(tmp_path: Path) -> None:
    file = tmp_path / "entrypoint.toml"
    file.write_text("""\
[service.app]
command = ["no-command"]
on_change = { "*.crt" = ["no-reload"], "*" = "SIGHUP" }
health = { file = "/x", on_failure = ["no-rescue"] }
readiness = { command = ["no-probe"] }
hooks = { after_stop = [["no-hook"]] }
configuration = { tar = "/x", target = "/t", validate = ["no-validator"] }
""")
    with pytest.raises(UsageError) as refused:
        check_file(str(file))
    told = str(refused.value)
    assert all(f"no-{what}" in told for what in ("command", "reload", "rescue", "probe", "hook"))
    assert 'service.app.on_change."*.crt": command not found in PATH: no-reload' in told
    assert len(refused.value.mistakes) == 6
