"""Fakes of every handler, for the tests of one's own entrypoints."""
