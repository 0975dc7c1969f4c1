"""What all configurations in generations can be told, whatever their source."""

import math
from typing import Literal, TypeAlias, final

import attrs

from trio_entrypoint._arguments import AS_IT_IS
from trio_entrypoint._files.tree import Limits
from trio_entrypoint.configuration.validation import Validator, as_validator

Durability: TypeAlias = Literal["process", "disk"]


@final
@attrs.frozen(kw_only=True)
class Options:
    """What all configurations in generations can be told."""

    validate: Validator | None = attrs.field(default=None, converter=as_validator)
    durability: Durability = "process"
    settle: float = 0.0
    limits: Limits = attrs.field(factory=Limits)

    def __attrs_post_init__(self) -> None:
        if self.durability not in ("process", "disk"):
            raise ValueError(f"durability is {self.durability!r}, expected 'process' or 'disk'")
        if not 0 <= self.settle < math.inf:
            raise ValueError(f"settle is {self.settle!r}, expected seconds, at least 0")


def check_mode(mode: int) -> None:
    """Refuse, by `ValueError`, what are no permission bits."""
    if not 0 <= mode <= 0o777:
        raise ValueError(f"mode is {mode:#o}, expected permission bits, 0 to 0o777")


def check_owner(owner: tuple[int, int]) -> None:
    """Refuse, by `ValueError`, what are no numbers of a user and a group."""
    if not all(0 <= number < AS_IT_IS for number in owner):
        raise ValueError(f"owner is {owner}, expected the numbers of a user and a group")
