"""A table of times as a picture: a bar for each of its columns, divided by its rows."""

from collections.abc import Sequence
from xml.sax.saxutils import escape

from benchmarks.findings import three_digits

_COLOURS = (
    *("#4477aa", "#66ccee", "#228833", "#ccbb44"),
    *("#ee6677", "#aa3377", "#bbbbbb", "#999933"),
)
"""Paul Tol's, which colour-blind readers can tell apart; as many as there may be parts."""
_WIDTH, _LEFT, _RIGHT, _STEP, _BAR = 760, 190, 80, 34, 22


def divided_bars(
    parts: Sequence[str], bars: Sequence[tuple[str, Sequence[float]]], unit: str
) -> str:
    """An SVG picture of bars of one length, each told with its sum.

    Args:
        parts: what a bar is divided into, at most 8.
        bars: each one's name, and the size of each part.
        unit: of the sizes.
    """
    colours = dict(zip(parts, _COLOURS, strict=False))
    length, lines = _WIDTH - _LEFT - _RIGHT, []
    for row, (name, sizes) in enumerate(bars):
        top, left, total = 10 + row * _STEP, float(_LEFT), sum(sizes)
        middle = top + _BAR - 6
        lines.append(f'<text x="{_LEFT - 10}" y="{middle}" text-anchor="end">{escape(name)}</text>')
        for part, size in zip(parts, sizes, strict=True):
            width = length * size / total
            title = f"<title>{escape(part)}: {three_digits(size)} {unit}</title>"
            lines.append(
                f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{_BAR}" '
                f'fill="{colours[part]}">{title}</rect>'
            )
            left += width
        lines.append(f'<text x="{left + 8:.1f}" y="{middle}">{total:,.0f} {unit}</text>')
    top, left = 10 + len(bars) * _STEP, 20
    for part, colour in colours.items():
        width = 30 + 7 * len(part)
        if left + width > _WIDTH:
            top, left = top + 22, 20
        lines.append(f'<rect x="{left}" y="{top}" width="12" height="12" fill="{colour}"/>')
        lines.append(f'<text x="{left + 17}" y="{top + 11}">{escape(part)}</text>')
        left += width
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top + 24}" '
        'font-family="system-ui, sans-serif" font-size="13" role="img">\n'
        f'<rect width="{_WIDTH}" height="{top + 24}" fill="#fff"/>\n'
        + "\n".join(lines)
        + "\n</svg>\n"
    )
