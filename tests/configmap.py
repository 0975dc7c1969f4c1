"""A mounted ConfigMap, replaced exactly as Kubernetes does it."""

from pathlib import Path


class ConfigMap:
    """A volume as the kubelet writes it, step by step (pkg/volume/util/atomic_writer.go)."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._number = 0
        self._current: Path | None = None

    def write(self, **files: str) -> None:
        self._number += 1
        payload = self.directory / f"..2026_11_24_{self._number}"
        payload.mkdir()
        for name, contents in files.items():
            (payload / name).write_text(contents)
        link = self.directory / "..data_tmp"
        link.symlink_to(payload.name)
        link.rename(self.directory / "..data")
        for name in files:
            if not (self.directory / name).is_symlink():
                (self.directory / name).symlink_to(f"..data/{name}")
        if self._current is not None:
            for path in self._current.iterdir():
                path.unlink()
            self._current.rmdir()
        self._current = payload
