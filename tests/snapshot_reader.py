"""A reader: opens the target once, reads all of it, and again, so often and until it is told.

A program of its own, so that it runs beside the entrypoint and not in turns with it. All files
of a generation contain the same text; a snapshot with two of them, or not all files, is torn, and
so is a target that is gone again.
`python snapshot_reader.py TARGET FILES SNAPSHOTS` prints how many it took and how many were torn.
"""

import os
import select
import sys


def snapshot(target: str) -> set[bytes] | None:
    """The texts in a target that was opened once; None for none."""
    try:
        root = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    texts = []
    try:
        for name in os.listdir(root):
            descriptor = os.open(name, os.O_RDONLY, dir_fd=root)
            texts.append(os.read(descriptor, 100))
            os.close(descriptor)
    except FileNotFoundError:
        texts.append(b"a file that is missing")
    finally:
        os.close(root)
    return {b"%d files" % len(texts), *texts}


def main(target: str, files: int, wanted: int) -> None:
    taken = torn = 0
    while taken < wanted or not select.select([sys.stdin], [], [], 0)[0]:
        for _ in range(100):
            found = snapshot(target)
            if found is not None:
                taken += 1
                torn += len(found) != 2 or b"%d files" % files not in found
            elif taken:
                torn += 1
    sys.stdout.write(f"{taken} {torn}\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
