"""The ready-made entrypoint: `trio-entrypoint`."""
