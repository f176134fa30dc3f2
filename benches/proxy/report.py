"""What a workload reports: a table, bars for the picture, and what went wrong."""

import dataclasses
import statistics


@dataclasses.dataclass
class Bar:
    """The values of one contestant."""

    name: str
    title: str
    values: list

    @property
    def middle(self):
        return statistics.median(self.values)


@dataclasses.dataclass
class Report:
    title: str
    unit: str  # of the bars
    notes: list  # sentences that belong above the table
    table: str
    bars: list
    complaints: list  # sentences; the benchmark has failed if there is one

    def __str__(self):
        return "\n\n".join([f"### {self.title}", *self.notes, self.table]) + "\n"


def table(header, rows):
    """A table of Markdown, with the numbers to the right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def spread(values, digits):
    """The median, and the extremes in brackets."""
    middle, low, high = (f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low} … {high})"


def ratios(rounds, name, base, value):
    """What one contestant has over what another has in the same round; a round is `{name: sample}`."""
    return [value(samples[name]) / value(samples[base]) for samples in rounds]


def in_turn(names, number):
    """The contestants in another order in every round, so that a slow moment does not always hit the same one."""
    turn = number % len(names)
    return names[turn:] + names[:turn]
