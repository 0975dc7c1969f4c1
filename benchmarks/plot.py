"""Results as one SVG: a row for each contender, a point at the median, a line for the quartiles.

Logarithmic axes (the field spans three orders of magnitude), one panel for each figure and
case, colours from the reader's own light or dark scheme.
"""

import math
from collections.abc import Iterator, Sequence
from html import escape

from benchmarks.comparison import Summary, summarise
from benchmarks.contenders.ours import NAME as OURS
from benchmarks.report import number
from benchmarks.results import Figure, Results

WIDTH = 760
LABELS = 170
VALUES = 90
ROW = 22
HEADER = 42

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; } .quiet { fill: #59636e; } .value { text-anchor: end; }
.spread { stroke: #8c959f; stroke-width: 3; } .point { fill: #59636e; }
.ours .spread { stroke: #0969da; } .ours .point { fill: #0969da; }
.ours text { font-weight: 600; } .grid { stroke: #d1d9e0; stroke-width: 1; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; } .quiet { fill: #9198a1; } .grid { stroke: #3d444d; }
  .point { fill: #9198a1; } .spread { stroke: #656c76; }
  .ours .spread { stroke: #4493f8; } .ours .point { fill: #4493f8; }
}
"""


def decades(low: float, high: float) -> list[int]:
    """The powers of ten from just below `low` to just above `high`."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return list(range(first, max(last, first + 1) + 1))


def _panel(title: str, rows: Sequence[tuple[str, Summary]], top: int) -> Iterator[str]:
    drawn = [row for _, row in rows if row.median > 0]
    smallest = min(max(row.lower, row.median / 10, 1e-3) for row in drawn)
    powers = decades(smallest, max(row.upper for row in drawn))
    left, right = LABELS, WIDTH - VALUES
    bottom = top + HEADER + ROW * len(rows)

    def across(value: float) -> float:
        exponent = math.log10(max(value, 10 ** powers[0]))
        share = (exponent - powers[0]) / (powers[-1] - powers[0])
        return round(left + share * (right - left), 1)

    yield f'<text class="title" x="0" y="{top + 14}">{escape(title)}</text>'
    for power in powers:
        x = across(10.0**power)
        yield f'<line class="grid" x1="{x}" y1="{top + HEADER - 4}" x2="{x}" y2="{bottom}"/>'
        yield (
            f'<text class="quiet" x="{x}" y="{top + HEADER - 8}" text-anchor="middle">'
            f"{10.0**power:g}</text>"
        )
    for index, (name, row) in enumerate(rows):
        y = top + HEADER + ROW * index + ROW // 2
        yield f'<g class="{"ours" if name == OURS else "theirs"}">'
        yield f'<text x="0" y="{y + 4}">{escape(name)}</text>'
        if row.median > 0:  # a logarithmic axis has no place for 0
            yield (
                f'<line class="spread" x1="{across(row.lower)}" y1="{y}" '
                f'x2="{across(row.upper)}" y2="{y}"/>'
            )
            yield f'<circle class="point" cx="{across(row.median)}" cy="{y}" r="5"/>'
        yield f'<text class="value" x="{WIDTH}" y="{y + 4}">{number(row.median)}</text></g>'


def _panels(figure: Figure) -> Iterator[tuple[str, list[tuple[str, Summary]]]]:
    for case in figure.cases:
        rows = [
            (series.contender, summarise(series.samples))
            for series in figure.series
            if series.case == case and series.samples
        ]
        rows = [row for row in rows if row[1].median >= 0]
        if len(rows) > 1 and any(row.median > 0 for _, row in rows):
            title = figure.title if len(figure.cases) == 1 else f"{figure.title}: {case}"
            yield f"{title}, {figure.unit}" if figure.unit else title, rows


def svg(results: Results) -> str:
    """Draw every case that has more than one contender."""
    parts: list[str] = []
    top = 0
    for figure in results.figures:
        for title, rows in _panels(figure):
            parts += _panel(title, rows, top)
            top += HEADER + ROW * len(rows) + 16
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" '
        f'width="{WIDTH}" height="{top}" role="img" aria-label="Benchmark results">'
    )
    return "\n".join([head, f"<style>{STYLE}</style>", *parts, "</svg>"]) + "\n"
