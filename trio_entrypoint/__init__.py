"""Building blocks for container entrypoints that manage their application.

What users import, and nothing else; read `trio_entrypoint.handlers` first. Each name is
loaded when it is first used: `import trio` alone takes a tenth of a second, and the command
has to answer a SIGTERM before that.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trio_entrypoint._files.errors import SourceError
    from trio_entrypoint._files.lock import InUseError
    from trio_entrypoint._linux.early import block_signals
    from trio_entrypoint._remote.etcd import EtcdAuth
    from trio_entrypoint._remote.http import Tls
    from trio_entrypoint.activation._leased import LeaseActivation
    from trio_entrypoint.activation.combined import (
        CombinedActivation,
        open_all_activation,
        open_any_activation,
    )
    from trio_entrypoint.activation.etcd import open_etcd_activation
    from trio_entrypoint.activation.file import FileActivation, open_file_activation
    from trio_entrypoint.activation.kubernetes import open_kubernetes_activation
    from trio_entrypoint.activation.shared import SharedActivation, open_shared_activation
    from trio_entrypoint.commands import Command, CommandFailedError
    from trio_entrypoint.configuration.custom import (
        CustomConfiguration,
        open_custom_configuration,
    )
    from trio_entrypoint.configuration.directory import (
        DirectorySource,
        open_directory_configuration,
    )
    from trio_entrypoint.configuration.engine import GenerationConfiguration
    from trio_entrypoint.configuration.etcd import open_etcd_configuration
    from trio_entrypoint.configuration.file import FileSource, open_file_configuration
    from trio_entrypoint.configuration.merged import open_merged_configuration
    from trio_entrypoint.configuration.tar import TarSource, open_tar_configuration
    from trio_entrypoint.configuration.validation import (
        ConfigurationRefusedError,
        ValidateCommand,
    )
    from trio_entrypoint.entrypoint import DEFAULT_SIGNALS, SignalTarget, forward_signals, run
    from trio_entrypoint.environment import Environment
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
    from trio_entrypoint.output import LogFile, LogLines
    from trio_entrypoint.policies import (
        Always,
        Backoff,
        ChangeAction,
        Health,
        Hook,
        Hooks,
        Ignore,
        Limit,
        Never,
        OnChange,
        OnFailure,
        Readiness,
        Reload,
        Restart,
        RestartPolicy,
    )
    from trio_entrypoint.probes import (
        AskedProbe,
        CommandProbe,
        DescriptorProbe,
        FileProbe,
        FunctionProbe,
        HttpProbe,
        NotifyProbe,
        Probe,
        ProbeError,
        TcpProbe,
    )
    from trio_entrypoint.process import (
        CommandError,
        CommandNotExecutableError,
        CommandNotFoundError,
        Process,
        ProcessSurvivedError,
        SettingError,
        open_process,
    )
    from trio_entrypoint.states import (
        Cause,
        ConfigurationState,
        GaveUp,
        ProcessState,
        State,
        Transition,
    )
    from trio_entrypoint.supervisor import Supervisor

__all__ = [
    "DEFAULT_SIGNALS",
    "FENCING_TOKEN_VARIABLE",
    "GENERATION_VARIABLE",
    "ActivationChanged",
    "ActivationHandler",
    "Always",
    "AskedProbe",
    "Backoff",
    "Cause",
    "ChangeAction",
    "CombinedActivation",
    "Command",
    "CommandError",
    "CommandFailedError",
    "CommandNotExecutableError",
    "CommandNotFoundError",
    "CommandProbe",
    "ConfigurationChanged",
    "ConfigurationDeleted",
    "ConfigurationEvent",
    "ConfigurationFailed",
    "ConfigurationHandler",
    "ConfigurationRefusedError",
    "ConfigurationState",
    "CustomConfiguration",
    "DescriptorProbe",
    "DirectorySource",
    "Environment",
    "EtcdAuth",
    "ExitStatus",
    "FileActivation",
    "FileProbe",
    "FileSource",
    "FunctionProbe",
    "GaveUp",
    "Generation",
    "GenerationConfiguration",
    "Health",
    "Hook",
    "Hooks",
    "HttpProbe",
    "Ignore",
    "InUseError",
    "LeaseActivation",
    "Limit",
    "LogFile",
    "LogLines",
    "Modification",
    "Never",
    "NotifyProbe",
    "OnChange",
    "OnFailure",
    "OpenProcess",
    "Probe",
    "ProbeError",
    "Process",
    "ProcessEnded",
    "ProcessEvent",
    "ProcessHandler",
    "ProcessStarted",
    "ProcessState",
    "ProcessSurvivedError",
    "Readiness",
    "Reload",
    "Restart",
    "RestartPolicy",
    "Result",
    "RevertibleConfigurationHandler",
    "SettingError",
    "SharedActivation",
    "SignalTarget",
    "SourceError",
    "StagedUpdate",
    "State",
    "Supervisor",
    "TarSource",
    "TcpProbe",
    "Tls",
    "Transition",
    "UpdateResult",
    "ValidateCommand",
    "block_signals",
    "forward_signals",
    "open_all_activation",
    "open_any_activation",
    "open_custom_configuration",
    "open_directory_configuration",
    "open_etcd_activation",
    "open_etcd_configuration",
    "open_file_activation",
    "open_file_configuration",
    "open_kubernetes_activation",
    "open_merged_configuration",
    "open_process",
    "open_shared_activation",
    "open_tar_configuration",
    "run",
]

# The module of each name that is not in `handlers`.
_HOME = {
    "Always": "policies",
    "AskedProbe": "probes",
    "Backoff": "policies",
    "Cause": "states",
    "ChangeAction": "policies",
    "CombinedActivation": "activation.combined",
    "Command": "commands",
    "CommandError": "process",
    "CommandFailedError": "commands",
    "CommandNotExecutableError": "process",
    "CommandNotFoundError": "process",
    "CommandProbe": "probes",
    "ConfigurationRefusedError": "configuration.validation",
    "ConfigurationState": "states",
    "CustomConfiguration": "configuration.custom",
    "DEFAULT_SIGNALS": "entrypoint",
    "DescriptorProbe": "probes",
    "DirectorySource": "configuration.directory",
    "Environment": "environment",
    "EtcdAuth": "_remote.etcd",
    "FileActivation": "activation.file",
    "FileProbe": "probes",
    "FileSource": "configuration.file",
    "FunctionProbe": "probes",
    "GaveUp": "states",
    "GenerationConfiguration": "configuration.engine",
    "Health": "policies",
    "Hook": "policies",
    "Hooks": "policies",
    "HttpProbe": "probes",
    "Ignore": "policies",
    "InUseError": "_files.lock",
    "LeaseActivation": "activation._leased",
    "Limit": "policies",
    "LogFile": "output",
    "LogLines": "output",
    "Never": "policies",
    "NotifyProbe": "probes",
    "OnChange": "policies",
    "OnFailure": "policies",
    "Probe": "probes",
    "ProbeError": "probes",
    "Process": "process",
    "ProcessState": "states",
    "ProcessSurvivedError": "process",
    "Readiness": "policies",
    "Reload": "policies",
    "Restart": "policies",
    "RestartPolicy": "policies",
    "SettingError": "process",
    "SharedActivation": "activation.shared",
    "SignalTarget": "entrypoint",
    "SourceError": "_files.errors",
    "State": "states",
    "Supervisor": "supervisor",
    "TarSource": "configuration.tar",
    "TcpProbe": "probes",
    "Tls": "_remote.http",
    "Transition": "states",
    "ValidateCommand": "configuration.validation",
    "block_signals": "_linux.early",
    "forward_signals": "entrypoint",
    "open_all_activation": "activation.combined",
    "open_any_activation": "activation.combined",
    "open_custom_configuration": "configuration.custom",
    "open_directory_configuration": "configuration.directory",
    "open_etcd_activation": "activation.etcd",
    "open_etcd_configuration": "configuration.etcd",
    "open_file_activation": "activation.file",
    "open_file_configuration": "configuration.file",
    "open_kubernetes_activation": "activation.kubernetes",
    "open_merged_configuration": "configuration.merged",
    "open_process": "process",
    "open_shared_activation": "activation.shared",
    "open_tar_configuration": "configuration.tar",
    "run": "entrypoint",
}

if not TYPE_CHECKING:  # to a type checker every name would be an `object`

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(f"{__name__}.{_HOME.get(name, 'handlers')}")
        return globals().setdefault(name, getattr(module, name))

    def __dir__() -> list[str]:
        return __all__
