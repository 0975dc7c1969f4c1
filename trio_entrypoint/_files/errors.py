"""The one error of sources that must not become a configuration."""


class SourceError(ValueError):
    """A source is broken, or holds something that must not become part of a target.

    The message names the entry, what was expected, and the reason. Nothing was applied.
    """
