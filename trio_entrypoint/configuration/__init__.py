"""Configurations: watched, and applied atomically. One source kind a file.

| opened by | from | to |
| --- | --- | --- |
| `open_file_configuration` | a file | a file |
| `open_tar_configuration` | a tar archive | a directory |
| `open_custom_configuration` | a file | whatever a function makes of it |
"""

from trio_entrypoint.configuration.custom import open_custom_configuration
from trio_entrypoint.configuration.file import open_file_configuration
from trio_entrypoint.configuration.tar import open_tar_configuration

__all__ = ["open_custom_configuration", "open_file_configuration", "open_tar_configuration"]
