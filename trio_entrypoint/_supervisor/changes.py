"""What a new configuration does to the process that runs, by what it changes."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from trio_entrypoint.policies import ChangeAction, Ignore, OnChange, Reload, Restart

__all__ = ["choose", "reloads"]


def choose(on_change: OnChange, changed: Mapping[str, object]) -> Restart | Ignore | list[Reload]:
    """Choose the strongest of the actions that the changed paths ask for.

    Several different reloads are all of them made, in the order of the mapping.
    """
    if not isinstance(on_change, Mapping):
        return [on_change] if isinstance(on_change, Reload) else on_change
    actions = {_action_for(on_change, path) for path in changed} or {Restart()}
    if Restart() in actions:
        return Restart()
    return [
        action
        for action in dict.fromkeys(on_change.values())
        if action in actions
        if isinstance(action, Reload)
    ] or Ignore()


def _action_for(on_change: Mapping[str, ChangeAction], path: str) -> ChangeAction:
    for glob, action in on_change.items():
        if fnmatchcase(path, glob):
            return action
    return Restart()


def reloads(on_change: OnChange) -> Sequence[Reload]:
    """Every reload that there is: what the operator's 'reload' does."""
    actions = on_change.values() if isinstance(on_change, Mapping) else [on_change]
    return [action for action in dict.fromkeys(actions) if isinstance(action, Reload)]
