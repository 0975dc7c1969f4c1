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

# Where the names live, in the order in which they are looked for.
_MODULES = ("handlers", "activation.file")

if not TYPE_CHECKING:  # to a type checker every name would be an `object`

    def __getattr__(name: str) -> object:
        if name in __all__:
            for module in _MODULES:
                namespace = vars(import_module(f"{__name__}.{module}"))
                if name in namespace:
                    globals()[name] = namespace[name]
                    return namespace[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return __all__
