"""Users and groups by name or number."""

import os
from collections.abc import Sequence
from contextlib import suppress

import attrs

from trio_entrypoint._arguments import AS_IT_IS


@attrs.frozen
class Credentials:
    """Who a process is."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    """Supplementary groups."""

    environment: "dict[str, str]"
    """HOME, USER and LOGNAME, as far as they are known."""


def find_credentials(
    user: str | int | None,
    group: str | int | None,
    extra_groups: Sequence[str | int] | None,
) -> Credentials | None:
    """Look up who a process is to be; None if it is to be who we are.

    Args:
        user: A name or number; by default the present user.
        group: A name or number; by default the user's own group.
        extra_groups: Supplementary groups; by default those that the user is in.

    Raises:
        ValueError: There is no such user or group, or can be none; the message names the field.
        OSError: There is no descriptor left to look with.
    """
    if user is None and group is None and extra_groups is None:
        return None
    import pwd  # most processes need none of this

    # Without a descriptor to look with, there would be said to be no such user.
    os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    entry: pwd.struct_passwd | None = None
    uid = os.geteuid()
    environment: dict[str, str] = {}
    if isinstance(user, str) and not user.isdecimal():
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            raise ValueError(f"user: there is no user {user!r}") from None
        uid = entry.pw_uid
    elif user is not None:
        uid = _checked("user", int(user))
        with suppress(KeyError):
            entry = pwd.getpwuid(uid)
    if entry is not None:
        environment = {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}
    elif user is not None:
        environment = {"HOME": "/"}
    if group is not None:
        gid = _gid("group", group)
    elif entry is not None:
        gid = entry.pw_gid
    elif user is None:
        gid = os.getegid()
    else:
        raise ValueError(f"group: has to be given, because user {user} has no entry that says it")
    if extra_groups is not None:
        groups = tuple(_gid("extra_groups", each) for each in extra_groups)
    elif entry is not None:
        groups = tuple(os.getgrouplist(entry.pw_name, gid))
    else:
        groups = tuple(os.getgroups()) if user is None else ()
    return Credentials(uid, gid, groups, environment)


def _checked(field: str, number: int) -> int:
    if not 0 <= number < AS_IT_IS:  # the process would stay root
        raise ValueError(f"{field}: expected a number from 0 to {AS_IT_IS - 1}, not {number}")
    return number


def _gid(field: str, group: str | int) -> int:
    if isinstance(group, int):
        return _checked(field, group)
    import grp

    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        if group.isdecimal():
            return _checked(field, int(group))
        raise ValueError(f"{field}: there is no group {group!r}") from None
