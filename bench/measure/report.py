"""Figures, ratios formed inside each round, goals, and the table that shows them."""

import statistics


def middle(values):
    values = list(values)
    return (statistics.median(values), min(values), max(values)) if values else None


class Figures:
    """One quantity, measured for several systems in the same rounds."""

    def __init__(self, title, unit):
        self.title, self.unit, self.rounds = title, unit, []

    def add(self, values):
        self.rounds.append(values)

    def of(self, system):
        return [one[system] for one in self.rounds if system in one]

    def spread(self, system):
        values = self.of(system)
        return min(values), statistics.median(values), max(values)

    def ratio(self, system, other):
        """Returns median, least and greatest of the ratios inside each round; none if no round has both."""
        return middle(one[system] / one[other] for one in self.rounds if system in one and other in one)

    def middle(self, system):
        """Returns a system's median, least and greatest as a goal wants them; none if it was never measured."""
        return middle(self.of(system))

    def systems(self):
        seen = {}
        for one in self.rounds:
            seen.update(dict.fromkeys(one))
        return list(seen)

    def json(self):
        return {"title": self.title, "unit": self.unit, "rounds": self.rounds}


class Goal:
    """A value held against what must be reached and what is aimed at; limits are `("<=", 0.6)` or `(">=", 3)`.
    A value of none was not measured; the note says why."""

    def __init__(self, number, what, value, unit="", must=None, aim=None, note=""):
        self.number, self.what, self.unit, self.must, self.aim, self.note = number, what, unit, must, aim, note
        self.value, self.least, self.greatest = value if isinstance(value, tuple) else (value, None, None)

    @staticmethod
    def verdict(value, limit):
        if limit is None or value is None:
            return "-"
        sign, bound = limit
        met = value <= bound if sign == "<=" else value >= bound
        if met:
            return "met"
        if not bound:
            return "missed"
        by = value / bound - 1 if sign == "<=" else 1 - value / bound
        return f"missed by {by:.0%}"

    def row(self):
        if self.value is None:
            return [self.number, self.what, "not measured", "-", "-"]
        shown = number(self.value) + (f" ({number(self.least)}-{number(self.greatest)})" if self.least is not None else "")
        limits = [
            f"{limit[0]} {number(limit[1])}: {self.verdict(self.value, limit)}" if limit else "-"
            for limit in (self.must, self.aim)
        ]
        return [self.number, self.what, f"{shown} {self.unit}".strip(), *limits]

    def json(self):
        return {
            "goal": self.number, "what": self.what, "value": self.value, "least": self.least, "greatest": self.greatest,
            "unit": self.unit, "must": self.must, "must_verdict": self.verdict(self.value, self.must), "aim": self.aim,
            "aim_verdict": self.verdict(self.value, self.aim), "note": self.note,
        }


def number(value):
    if value == 0 or abs(value) >= 1000:
        return f"{value:.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


def grid(rows):
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def table(about, figures, goals):
    """Returns the whole report as text."""
    parts = [f"{name}: {value}" for name, value in about.items()]
    rows = [["goal", "what", "value", "must", "aim"]] + [goal.row() for goal in goals]
    parts += ["", "Goals (ratios: median of the ratios inside each round, least and greatest in brackets)", "", grid(rows)]
    notes = [f"{goal.number} {goal.what}: {goal.note}" for goal in goals if goal.note]
    parts += ["", *notes] if notes else []
    rows = [["figure", "system", "min", "median", "max"]]
    for one in figures:
        for system in one.systems():
            rows.append([f"{one.title}, {one.unit}", system, *map(number, one.spread(system))])
    parts += ["", "Figures (over the rounds of this run)", "", grid(rows)]
    return "\n".join(parts) + "\n"
