"""Measures trio-entrypoint beside its peers: `nox -s bench`, or see README.md here."""
