"""What users import is complete, and loaded when it is first used."""

import subprocess
import sys

import pytest

import trio_entrypoint


@pytest.mark.parametrize("name", trio_entrypoint.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(trio_entrypoint, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="open_proces"):
        getattr(trio_entrypoint, "open_proces")  # noqa: B009 - that is what is tested


def test_importing_the_package_imports_nothing_heavy() -> None:
    """The command answers a SIGTERM before a tenth of a second went into `import trio`."""
    program = "import sys, trio_entrypoint; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "trio_entrypoint" in modules
    assert not {"trio", "attrs", "attr", "asyncio", "ssl"} & set(modules)
