"""All contenders, in the order of the report."""

from benchmarks.contenders import Contender, floor, inits, ours, python, scan_directories

FIELD: tuple[Contender, ...] = (
    *ours.CONTENDERS,
    *floor.CONTENDERS,
    *inits.CONTENDERS,
    *scan_directories.CONTENDERS,
    *python.CONTENDERS,
)
