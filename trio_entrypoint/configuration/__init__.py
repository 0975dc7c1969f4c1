"""Configurations: watched, and applied atomically. One source kind a file.

| opened by | from | to |
| --- | --- | --- |
| `open_file_configuration` | a file | a file |
| `open_tar_configuration` | a tar archive | a directory |
| `open_directory_configuration` | a directory | a directory |
| `open_merged_configuration` | several of these | a directory |
| `open_custom_configuration` | a file | whatever a function makes of it |
"""

from trio_entrypoint.configuration.custom import open_custom_configuration
from trio_entrypoint.configuration.directory import DirectorySource, open_directory_configuration
from trio_entrypoint.configuration.file import FileSource, open_file_configuration
from trio_entrypoint.configuration.merged import open_merged_configuration
from trio_entrypoint.configuration.tar import TarSource, open_tar_configuration

__all__ = [
    "DirectorySource",
    "FileSource",
    "TarSource",
    "open_custom_configuration",
    "open_directory_configuration",
    "open_file_configuration",
    "open_merged_configuration",
    "open_tar_configuration",
]
