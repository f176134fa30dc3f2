"""Draws reports as one SVG: a horizontal bar for each median, a line across its end for the extremes.

The picture brings its own background and follows the reader's colour scheme, so it can be read on light and on dark
pages. It needs no font of its own and no script.
"""

import html

WIDTH = 760
MARGIN = 24
LABEL = 190  # width of the names
VALUE = 130  # width of the numbers behind the bars
ROW = 26
BAR = 14
HEAD = 58  # height of a panel's title and unit
GAP = 20  # between panels
STYLE = """
  svg { --page: #ffffff; --edge: #d5dae1; --text: #1f2630; --faint: #5b6675; --bar: #9aa9bd; --ours: #1f6feb; }
  @media (prefers-color-scheme: dark) {
    svg { --page: #14191f; --edge: #38414d; --text: #e8edf3; --faint: #9aa6b5; --bar: #5a6a80; --ours: #58a6ff; }
  }
  text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--text); }
  .title { font-size: 16px; font-weight: 600; }
  .unit { fill: var(--faint); }
  .name { text-anchor: end; }
  .ours { font-weight: 600; }
  .page { fill: var(--page); stroke: var(--edge); }
  .bar { fill: var(--bar); }
  .bar.ours { fill: var(--ours); }
  .range { stroke: var(--text); stroke-width: 1.5; fill: none; }
"""


def draw(reports, path):
    top = MARGIN
    panels = []
    for report in reports:
        panels.append(panel(report, top))
        top += HEAD + ROW * len(report.bars) + GAP
    height = top - GAP + MARGIN
    title = "; ".join(f"{report.title}: {report.unit}" for report in reports)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" role="img">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n"
        f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>\n'
        + "".join(panels)
        + "</svg>\n"
    )


def panel(report, top):
    """One report, the smallest value first."""
    parts = [
        text("title", MARGIN, top + 14, report.title),
        text("unit", MARGIN, top + 36, f"{report.unit}; median, smallest and largest of the rounds; less is better"),
    ]
    scale = (WIDTH - 2 * MARGIN - LABEL - VALUE) / max(max(bar.values) for bar in report.bars)
    bars = sorted(report.bars, key=lambda bar: bar.middle)
    for number, bar in enumerate(bars):
        parts.append(row(bar, top + HEAD + number * ROW, scale))
    return "".join(parts)


def row(bar, top, scale):
    left = MARGIN + LABEL
    middle, low, high = (left + value * scale for value in (bar.middle, min(bar.values), max(bar.values)))
    centre = top + BAR / 2
    ours = " ours" if bar.name == "clockwise" else ""
    return (
        text("name" + ours, left - 10, top + 12, bar.title)
        + f'<rect class="bar{ours}" x="{left}" y="{top}" width="{middle - left:.1f}" height="{BAR}" rx="2"/>\n'
        + f'<path class="range" d="M{low:.1f} {centre}H{high:.1f}M{low:.1f} {top + 3}v{BAR - 6}M{high:.1f} {top + 3}v{BAR - 6}"/>\n'
        + text("value" + ours, max(middle, high) + 10, top + 12, number(bar.middle))
    )


def number(value):
    """Three digits, or all that are before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def text(kind, x, y, content):
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{html.escape(content)}</text>\n'
