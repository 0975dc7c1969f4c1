"""Configurations: watched, and applied atomically. One source kind a file.

| opened by | from | to |
| --- | --- | --- |
| `file.open_file_configuration` | a file | a file |
| `tar.open_tar_configuration` | a tar archive | a directory |
| `directory.open_directory_configuration` | a directory | a directory |
| `merged.open_merged_configuration` | several of these | a directory |
| `etcd.open_etcd_configuration` | keys in etcd | a directory |
| `custom.open_custom_configuration` | a file | whatever a function makes of it |

`engine` is what all but the last are made with: it stages (`preparing`), switches, goes back, and
cleans up (`collecting`). `source` is the seam for another kind. The names are imported from
`trio_entrypoint` itself, which loads only those that are used.
"""
