"""Building blocks for container entrypoints that manage their application.

What users import, and nothing else; read `trio_entrypoint.handlers` first. Each name is
loaded when it is first used: `import trio` alone takes a tenth of a second, and the command
has to answer a SIGTERM before that.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trio_entrypoint.activation.file import FileActivation, open_file_activation
    from trio_entrypoint.handlers import (
        FENCING_TOKEN_VARIABLE,
        GENERATION_VARIABLE,
        ActivationChanged,
        ActivationHandler,
        ConfigurationChanged,
        ConfigurationDeleted,
        ConfigurationEvent,
        ConfigurationFailed,
        ConfigurationHandler,
        ExitStatus,
        Generation,
        Modification,
        OpenProcess,
        ProcessEnded,
        ProcessEvent,
        ProcessHandler,
        ProcessStarted,
        Result,
        RevertibleConfigurationHandler,
        StagedUpdate,
        UpdateResult,
    )

__all__ = [
    "FENCING_TOKEN_VARIABLE",
    "GENERATION_VARIABLE",
    "ActivationChanged",
    "ActivationHandler",
    "ConfigurationChanged",
    "ConfigurationDeleted",
    "ConfigurationEvent",
    "ConfigurationFailed",
    "ConfigurationHandler",
    "ExitStatus",
    "FileActivation",
    "Generation",
    "Modification",
    "OpenProcess",
    "ProcessEnded",
    "ProcessEvent",
    "ProcessHandler",
    "ProcessStarted",
    "Result",
    "RevertibleConfigurationHandler",
    "StagedUpdate",
    "UpdateResult",
    "open_file_activation",
]

# The module of each name that is not in `handlers`.
_HOME = {
    "FileActivation": "activation.file",
    "open_file_activation": "activation.file",
}

if not TYPE_CHECKING:  # to a type checker every name would be an `object`

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(f"{__name__}.{_HOME.get(name, 'handlers')}")
        return globals().setdefault(name, getattr(module, name))

    def __dir__() -> list[str]:
        return __all__
