"""Completions for bash, zsh and fish, made of the tables in `flags.py`.

Services are asked of the entrypoint that listens; without one there is nothing to complete.
"""

from trio_entrypoint.cli.flags import COMMANDS, SHELLS, Flag

__all__ = ["completion"]

_SERVICES = "trio-entrypoint status --names 2>/dev/null"
_SIGNALS = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGWINCH")
_FILES = ("FILE", "PATH", "SOURCE:TARGET")


def completion(shell: str) -> str:
    """Give the script that makes a shell complete the command."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]()


def _spellings(flags: tuple[Flag, ...]) -> list[str]:
    return [spelling for flag in flags for spelling in flag.names.split()] + ["--help"]


def _bash() -> str:
    values: list[str] = []
    for name, command in COMMANDS.items():
        for flag in command.flags:
            pattern = "|".join(f"{name}:{spelling}" for spelling in flag.names.split())
            if flag.choices:
                values.append(f'    {pattern}) _words "{" ".join(flag.choices)}"; return ;;')
            elif flag.metavar in _FILES:
                values.append(f'    {pattern}) COMPREPLY=($(compgen -f -- "$word")); return ;;')
            elif flag.action == "store" or flag.action == "append":
                values.append(f"    {pattern}) return ;;")
    words: list[str] = []
    for name, command in COMMANDS.items():
        positional = {
            "SERVICE": f" $({_SERVICES})",
            "SIGNAL": f" {' '.join(_SIGNALS)} $({_SERVICES})",
            "SHELL": f" {' '.join(SHELLS)}",
        }.get(command.positional, "")
        words.append(f'    {name}) _words "{" ".join(_spellings(command.flags))}{positional}" ;;')
    return f"""\
# bash completion of trio-entrypoint
_trio_entrypoint() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" i
  _words() {{ COMPREPLY=($(compgen -W "$1" -- "$word")); }}
  if ((COMP_CWORD == 1)); then
    _words "{" ".join(COMMANDS)} --help --version"
    return
  fi
  for ((i = 2; i < COMP_CWORD; i++)); do
    if [[ ${{COMP_WORDS[i]}} == -- ]]; then  # what follows is another command
      COMPREPLY=($(compgen -c -f -- "$word"))
      return
    fi
  done
  case "${{COMP_WORDS[1]}}:$before" in
{chr(10).join(values)}
  esac
  case "${{COMP_WORDS[1]}}" in
{chr(10).join(words)}
  esac
}}
complete -F _trio_entrypoint trio-entrypoint
"""


def _zsh() -> str:
    commands = " ".join(_quote(f"{name}:{command.help}") for name, command in COMMANDS.items())
    cases: list[str] = []
    for name, command in COMMANDS.items():
        arguments = [spec for flag in command.flags for spec in _zsh_flag(flag)]
        arguments.append("'--help[show what it does]'")
        arguments += {
            "SERVICE": ["'*:service:_trio_entrypoint_services'"],
            "SIGNAL": [
                f"'1:signal:({' '.join(_SIGNALS)})'",
                "'*:service:_trio_entrypoint_services'",
            ],
            "SHELL": [f"'1:shell:({' '.join(SHELLS)})'"],
            "--": ["'(-)--[the command to run follows]:*:: : _normal'"],
        }.get(command.positional, [])
        joined = " \\\n        ".join(arguments)
        cases.append(f"    {name})\n      _arguments -s \\\n        {joined} ;;")
    return f"""\
#compdef trio-entrypoint
_trio_entrypoint_services() {{
  local -a services=(${{(f)"$({_SERVICES})"}})
  compadd -a services
}}
_trio_entrypoint() {{
  if ((CURRENT == 2)); then
    local -a commands=({commands})
    _describe command commands
    return
  fi
  local name=$words[2]
  shift words
  ((CURRENT--))
  case $name in
{chr(10).join(cases)}
  esac
}}
_trio_entrypoint "$@"
"""


def _zsh_flag(flag: Flag) -> list[str]:
    text = flag.help.replace("[", "(").replace("]", ")").replace(":", "\\:")
    value = ""
    if flag.action != "store_true":
        kind = "_files" if flag.metavar in _FILES else " "
        kind = f"({' '.join(flag.choices)})" if flag.choices else kind
        value = f":{(flag.metavar or 'value').lower().replace(':', ' ')}:{kind}"
    repeated = "*" if flag.action == "append" else ""
    return [_quote(f"{repeated}{spelling}[{text}]{value}") for spelling in flag.names.split()]


def _fish() -> str:
    lines = ["# fish completion of trio-entrypoint", "complete -c trio-entrypoint -f"]
    for name, command in COMMANDS.items():
        lines.append(
            "complete -c trio-entrypoint -n __fish_use_subcommand "
            f"-a {name} -d {_quote(command.help)}"
        )
        condition = f"-n '__fish_seen_subcommand_from {name}'"
        for flag in command.flags:
            options = " ".join(
                f"-l {spelling[2:]}" if spelling.startswith("--") else f"-s {spelling[1:]}"
                for spelling in flag.names.split()
            )
            if flag.action != "store_true":
                options += " -r -F" if flag.metavar in _FILES else " -x"
                options += f" -a {_quote(' '.join(flag.choices))}" if flag.choices else ""
            lines.append(
                f"complete -c trio-entrypoint {condition} {options} -d {_quote(flag.help)}"
            )
        if command.positional in ("SERVICE", "SIGNAL"):
            lines.append(f"complete -c trio-entrypoint {condition} -a '({_SERVICES})'")
        if command.positional == "SIGNAL":
            lines.append(f"complete -c trio-entrypoint {condition} -a '{' '.join(_SIGNALS)}'")
        if command.positional == "SHELL":
            lines.append(f"complete -c trio-entrypoint {condition} -a '{' '.join(SHELLS)}'")
    return "\n".join(lines) + "\n"


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"  # right in all three shells
