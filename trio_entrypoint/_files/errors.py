"""What can be wrong with a source."""


class SourceError(ValueError):
    """A source is broken, or holds something that must not become part of a target.

    The message names the entry, what was expected, and the reason. Nothing was applied.
    """


class SourceChangedError(Exception):
    """A source was changed while it was being read; the event of that is on its way."""
