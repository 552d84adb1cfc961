"""Sphinx extension: `{flow} NAME` draws how data flows, as inline SVG in the theme's colours.

A picture is a row of steps joined by arrows. Each step has a small drawing, a name, the shape of
what leaves it, and a line of explanation. The drawings are made of a few primitives below.
"""

from __future__ import annotations

import html
import itertools
import math
from dataclasses import dataclass

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

STEP_W, STEP_H, GAP = 118, 92, 34  # one step's box and the room for an arrow


def text(x: float, y: float, words: str, kind: str = "ink") -> str:
    """One centred line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{html.escape(words)}</text>'


def line(points: list[tuple[float, float]], kind: str = "") -> str:
    """An open line through points."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" class="wire {kind}"/>'


def arrow(x1: float, y1: float, x2: float, y2: float, kind: str = "") -> str:
    """A straight arrow with a small filled head."""
    angle, size = math.atan2(y2 - y1, x2 - x1), 7
    wings = [
        (x2 - size * math.cos(angle + turn), y2 - size * math.sin(angle + turn))
        for turn in (0.45, -0.45)
    ]
    head = " ".join(f"{x:.1f},{y:.1f}" for x, y in [(x2, y2), *wings])
    fill = kind or "soft"
    return line([(x1, y1), (x2, y2)], kind) + f'<polygon points="{head}" class="{fill}"/>'


def rect(
    x: float, y: float, w: float, h: float, kind: str, opacity: float = 1, r: float = 2
) -> str:
    """A filled rectangle."""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{r}" '
        f'class="{kind}" opacity="{opacity:.2f}"/>'
    )


def _level(i: int, j: int) -> float:
    """A number in [0, 1) that looks random and never changes."""
    return (math.sin(12.9898 * (i + 1) + 78.233 * (j + 1)) * 43758.5453) % 1


def grid(cx: float, cy: float, cols: int, rows: int, cell: float = 9, kind: str = "accent") -> str:
    """A matrix of counts: the darker, the more."""
    x, y = cx - cols * cell / 2, cy - rows * cell / 2
    return "".join(
        rect(
            x + i * cell,
            y + j * cell,
            cell - 1.4,
            cell - 1.4,
            kind,
            0.15 + 0.8 * _level(i, j) ** 2,
            1,
        )
        for i in range(cols)
        for j in range(rows)
    )


def bars(
    cx: float, cy: float, values: tuple[float, ...], high: float = 40, kind: str = "accent"
) -> str:
    """Upright bars; the tallest in the signal colour."""
    wide = 9
    x, base = cx - len(values) * wide / 2, cy + high / 2
    top = max(values)
    return "".join(
        rect(
            x + i * wide,
            base - v * high,
            wide - 2,
            v * high,
            "signal" if v == top else kind,
            0.9,
            1,
        )
        for i, v in enumerate(values)
    )


def raster(cx: float, cy: float) -> str:
    """Spikes of a few units."""
    ticks = [
        line(
            [
                (cx - 36 + 74 * _level(i, j), cy - 22 + 11 * j),
                (cx - 36 + 74 * _level(i, j), cy - 14 + 11 * j),
            ],
            "accent",
        )
        for j in range(5)
        for i in range(4 + j % 3 * 2)
    ]
    return "".join(ticks)


def swept(cx: float, cy: float) -> str:
    """A matrix with one unit taken out."""
    return grid(cx, cy, 7, 5) + line([(cx - 36, cy + 9), (cx + 36, cy + 9)], "signal")


def roles(cx: float, cy: float) -> str:
    """A time axis cut into roles."""
    out, x = [], cx - 42
    for wide, kind, shade in (
        (46, "accent", 0.85),
        (3, "soft", 0.3),
        (12, "accent", 0.4),
        (3, "soft", 0.3),
        (20, "signal", 0.9),
    ):
        out.append(rect(x, cy - 11, wide - 1, 22, kind, shade, 2))
        x += wide
    return "".join(out) + arrow(cx - 44, cy + 22, cx + 46, cy + 22)


def curve(cx: float, cy: float) -> str:
    """A loss that falls, and its validation."""
    xs = [i / 20 for i in range(21)]
    train = [(cx - 36 + 72 * x, cy - 22 + 44 * (1 - math.exp(-3.2 * x))) for x in xs]
    check = [
        (cx - 36 + 72 * x, cy - 22 + 36 * (1 - math.exp(-3.6 * x)) - 9 * max(0, x - 0.55))
        for x in xs
    ]
    axes = line([(cx - 40, cy - 26), (cx - 40, cy + 26), (cx + 40, cy + 26)])
    return axes + line(train, "accent") + line(check, "signal")


def confusion(cx: float, cy: float) -> str:
    """A confusion matrix, strong on its diagonal."""
    cell, n = 10, 5
    x, y = cx - n * cell / 2, cy - n * cell / 2
    return "".join(
        rect(
            x + i * cell,
            y + j * cell,
            cell - 1.4,
            cell - 1.4,
            "accent",
            0.95 if i == j else 0.12 + 0.25 * _level(i, j) ** 3,
            1,
        )
        for i in range(n)
        for j in range(n)
    )


def table(cx: float, cy: float) -> str:
    """A table with a header."""
    head = rect(cx - 36, cy - 25, 72, 9, "accent", 0.9)
    rows = [
        rect(cx - 36, cy - 12 + 10 * j, 72 * (0.95 - 0.16 * j), 6, "soft", 0.45) for j in range(4)
    ]
    return head + "".join(rows)


def strip(cx: float, cy: float, n: int = 9, kind: str = "accent") -> str:
    """A vector, drawn as a column of cells."""
    cell = 52 / n
    return "".join(
        rect(cx - 6, cy - 26 + j * cell, 12, cell - 1.2, kind, 0.15 + 0.8 * _level(3, j) ** 2, 1)
        for j in range(n)
    )


def layers(cx: float, cy: float, sizes: tuple[int, ...] = (5, 4, 5)) -> str:
    """Fully connected layers."""
    xs = [cx - 38 + 76 * k / (len(sizes) - 1) for k in range(len(sizes))]
    columns = [
        [(x, cy + (j - (n - 1) / 2) * 12) for j in range(n)] for x, n in zip(xs, sizes, strict=True)
    ]
    wires = [
        f'<line x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}" class="wire" opacity="0.35"/>'
        for left, right in itertools.pairwise(columns)
        for a, b in left
        for c, d in right
    ]
    dots = [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.2" class="accent"/>'
        for column in columns
        for x, y in column
    ]
    return "".join(wires + dots)


def chain(cx: float, cy: float, n: int = 4, last: bool = True) -> str:
    """A recurrent cell unrolled in time; the last state is the one that is read."""
    step = 88 / n
    out = []
    for i in range(n):
        x = cx - 44 + step * (i + 0.5)
        kind = "signal" if last and i == n - 1 else "accent"
        out.append(rect(x - 6.5, cy - 9, 13, 18, kind, 0.9, 4))
        out.append(arrow(x, cy + 27, x, cy + 11))
        if i:
            out.append(arrow(x - step + 7, cy, x - 7.5, cy, "accent"))
    return "".join(out)


def attention(cx: float, cy: float, n: int = 5) -> str:
    """Every bin looks at every other bin."""
    step = 80 / (n - 1)
    xs = [cx - 40 + step * i for i in range(n)]
    wires = [
        f'<line x1="{a:.1f}" y1="{cy + 22:.1f}" x2="{b:.1f}" y2="{cy - 22:.1f}" class="wire accent" '
        f'opacity="{0.12 + 0.75 * _level(i, j) ** 2:.2f}"/>'
        for i, a in enumerate(xs)
        for j, b in enumerate(xs)
    ]
    cells = [rect(x - 5, cy + s * 26 - 5, 10, 10, "accent", 0.9, 2) for x in xs for s in (-1, 1)]
    return "".join(wires + cells)


def network(cx: float, cy: float, n: int = 7) -> str:
    """Units on a ring; each listens to a few others."""
    turn = [2 * math.pi * i / n - math.pi / 2 for i in range(n)]
    at = [(cx + 34 * math.cos(a), cy + 30 * math.sin(a)) for a in turn]
    wires = [
        f'<line x1="{at[i][0]:.1f}" y1="{at[i][1]:.1f}" x2="{at[j][0]:.1f}" y2="{at[j][1]:.1f}" '
        f'class="wire accent" opacity="{0.25 + 0.7 * _level(i, j):.2f}"/>'
        for i in range(n)
        for j in range(n)
        if i != j and _level(i, j) > 0.62
    ]
    dots = [rect(x - 5, y - 5, 10, 10, "accent", 0.95, 5) for x, y in at]
    return "".join(wires + dots)


def kernel(cx: float, cy: float) -> str:
    """A filter that slides over time bins."""
    frame = (
        f'<rect x="{cx - 36:.1f}" y="{cy - 28:.1f}" width="29" height="56" rx="3" '
        'class="wire signal" stroke-width="2.4"/>'
    )
    return grid(cx, cy, 7, 5) + frame + arrow(cx - 4, cy + 34, cx + 30, cy + 34, "signal")


def cloud(cx: float, cy: float) -> str:
    """Points and the line that separates them."""
    left = [(cx - 30 + 26 * _level(1, j), cy - 22 + 40 * _level(2, j)) for j in range(7)]
    right = [(cx + 8 + 26 * _level(4, j), cy - 20 + 40 * _level(5, j)) for j in range(7)]
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.4" class="accent"/>' for x, y in left]
    dots += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.4" class="signal"/>' for x, y in right]
    return "".join(dots) + line([(cx - 6, cy + 28), (cx + 8, cy - 28)])


def spread(cx: float, cy: float) -> str:
    """A cloud and its main axes."""
    dots = []
    for j in range(22):
        along, across = 34 * (2 * _level(6, j) - 1), 9 * (2 * _level(7, j) - 1)
        dots.append(
            f'<circle cx="{cx + along:.1f}" cy="{cy - 0.5 * along + across:.1f}" r="2.6" class="accent" opacity="0.55"/>'
        )
    return (
        "".join(dots)
        + arrow(cx - 34, cy + 17, cx + 36, cy - 18, "signal")
        + arrow(cx, cy, cx - 8, cy - 16, "signal")
    )


def bottleneck(cx: float, cy: float) -> str:
    """Squeeze, then rebuild."""
    funnel = (
        f'<polygon points="{cx - 42:.1f},{cy - 28:.1f} {cx - 8:.1f},{cy - 11:.1f} {cx - 8:.1f},{cy + 11:.1f} {cx - 42:.1f},{cy + 28:.1f}" class="accent" opacity="0.35"/>'
        f'<polygon points="{cx + 42:.1f},{cy - 28:.1f} {cx + 8:.1f},{cy - 11:.1f} {cx + 8:.1f},{cy + 11:.1f} {cx + 42:.1f},{cy + 28:.1f}" class="accent" opacity="0.35"/>'
    )
    return funnel + rect(cx - 6, cy - 13, 12, 26, "signal", 0.95, 3)


def weights(cx: float, cy: float) -> str:
    """A matrix of weights, some positive, some negative."""
    cell, cols, rows = 8.6, 9, 6
    x, y = cx - cols * cell / 2, cy - rows * cell / 2
    return "".join(
        rect(
            x + i * cell,
            y + j * cell,
            cell - 1.4,
            cell - 1.4,
            "accent" if _level(j, i + 20) > 0.5 else "signal",
            abs(2 * _level(j, i + 20) - 1),
            1,
        )
        for i in range(cols)
        for j in range(rows)
    )


def tokens(cx: float, cy: float) -> str:
    """One column per bin, lifted into vectors."""
    return "".join(strip(cx - 36 + 18 * k, cy, 7, "accent") for k in range(5))


def output(cx: float, cy: float) -> str:
    """Class probabilities, one of them the highest."""
    return bars(cx, cy, (0.18, 0.3, 0.12, 0.95, 0.22, 0.4, 0.1, 0.26))


def counts(cx: float, cy: float) -> str:
    """Binned counts of one presentation."""
    return grid(cx, cy, 5, 6)


def flat(cx: float, cy: float) -> str:
    """The same counts in one row."""
    return grid(cx, cy, 11, 1, 8.4)


def summed(cx: float, cy: float) -> str:
    """Counts summed over the bins."""
    return strip(cx, cy)


@dataclass(frozen=True)
class Step:
    """One step of a picture: what is drawn in it, its name, what leaves it, a remark."""

    draw: object
    name: str
    shape: str = ""
    note: str = ""
    kind: str = ""


COUNTS = Step(counts, "counts", "T × N", "bins × units, z-scored", "given")
SCENES = Step(output, "softmax", "C", "a probability for each scene")
FLAT = Step(flat, "in one row", "T·N", "each bin of each unit is a feature")
TOKENS = Step(tokens, "tokens", "T × D", "one vector per bin, plus its place")
ATTEND = Step(attention, "attention", "T × D", "each bin looks at all bins")
LISTEN = Step(network, "graph attention", "T × N", "units listen along the edges")
READ = Step(chain, "LSTM", "H", "reads bin by bin; the last state counts")

PICTURES: dict[str, tuple[str, tuple[Step, ...]]] = {
    "road": (
        "The road of every recording. Each step is a notebook; each arrow is a checked file.",
        (
            Step(raster, "ingest", "01", "look before you leap"),
            Step(counts, "bin", "02", "spikes to counts"),
            Step(swept, "clean", "03", "every removal counted"),
            Step(roles, "split", "04", "once, for all models"),
            Step(curve, "train", "05", "a choice of decoders"),
            Step(confusion, "evaluate", "05", "chance, interval, oracle"),
            Step(table, "report", "90", "one table of all runs"),
        ),
    ),
    "nearest_mean": (
        "Nearest class mean: the class whose mean training response is closest.",
        (COUNTS, FLAT, Step(cloud, "distance", "C", "to the mean of each class"), SCENES),
    ),
    "ridge": (
        "Ridge regression: one column a class, least squares, an L2 penalty.",
        (COUNTS, FLAT, Step(weights, "weights", "C", "closed form, every penalty at once"), SCENES),
    ),
    "poisson_naive_bayes": (
        "Poisson naive Bayes: how probable are these counts under each class's mean counts?",
        (COUNTS, FLAT, Step(weights, "log rates", "C", "each unit and bin for itself"), SCENES),
    ),
    "logistic": (
        "Multinomial logistic regression: one weight per bin, unit and scene.",
        (
            COUNTS,
            FLAT,
            Step(weights, "weights", "T·N × C", "L2 penalty chosen on validation"),
            SCENES,
        ),
    ),
    "pca_logistic": (
        "PCA + logistic regression: few directions first, then one weight per direction and scene.",
        (
            COUNTS,
            FLAT,
            Step(spread, "PCA", "P", "directions of most variance, from train rows"),
            Step(weights, "weights", "P × C", "L2 penalty chosen on validation"),
            SCENES,
        ),
    ),
    "linear_svm": (
        "Linear SVM: for each scene the line that parts it from all others by the widest margin.",
        (
            COUNTS,
            FLAT,
            Step(cloud, "margins", "C", "each scene against the rest"),
            Step(output, "softmax", "C", "margins scaled to probabilities"),
        ),
    ),
    "mlp": (
        "MLP on summed counts: it knows how much each unit fired, not when.",
        (
            COUNTS,
            Step(summed, "sum over bins", "N", "time is dropped on purpose"),
            Step(layers, "hidden layer", "H", "ReLU, then dropout"),
            SCENES,
        ),
    ),
    "cnn": (
        "1-D CNN: the same short filters slide over all bins; units are the channels.",
        (
            COUNTS,
            Step(kernel, "convolutions", "T × F", "filters of 3 bins, ReLU, twice"),
            Step(flat, "in one row", "T·F", "each filter at each bin"),
            SCENES,
        ),
    ),
    "lstm": (
        "LSTM: a state that is carried from bin to bin, with gates that keep or forget.",
        (COUNTS, READ, Step(strip, "last state", "H", "dropout before the read-out"), SCENES),
    ),
    "gru": (
        "GRU: as the LSTM, with two gates in place of three and no separate memory.",
        (
            COUNTS,
            Step(chain, "GRU", "H", "reads bin by bin; the last state counts"),
            Step(strip, "last state", "H", "dropout before the read-out"),
            SCENES,
        ),
    ),
    "transformer": (
        "Transformer: every bin is a token and attends to all others.",
        (
            COUNTS,
            TOKENS,
            ATTEND,
            Step(strip, "mean over bins", "D", "one vector for the presentation"),
            SCENES,
        ),
    ),
    "transformer_lstm": (
        "Transformer, then LSTM: attention mixes the bins, the LSTM reads them in order. Both learn together.",
        (COUNTS, TOKENS, ATTEND, READ, SCENES),
    ),
    "st_gat": (
        "ST-GAT: in each bin units listen to other units, weighted by attention; an LSTM reads the bins.",
        (
            COUNTS,
            LISTEN,
            READ,
            Step(strip, "last state", "H", "dropout before the read-out"),
            SCENES,
        ),
    ),
    "st_gat_dynamic": (
        "ST-GAT with a graph per bin: who listens to whom changes from bin to bin.",
        (
            COUNTS,
            Step(network, "T graphs", "T × N", "each bin has edges of its own", "hot"),
            READ,
            SCENES,
        ),
    ),
    "gat": (
        "GAT: counts are summed over the bins, then units listen to other units.",
        (
            COUNTS,
            Step(summed, "sum over bins", "N", "how much, not when"),
            LISTEN,
            Step(layers, "hidden layer", "H", "ReLU, then dropout"),
            SCENES,
        ),
    ),
    "gcn": (
        "GCN: each unit is averaged with its neighbours, twice; the read-out sees all three.",
        (
            COUNTS,
            Step(network, "convolution", "N × F", "mean over neighbours, weighted"),
            Step(network, "convolution", "N × F", "neighbours of neighbours"),
            Step(flat, "in one row", "N·(T+2F)", "counts and both convolutions"),
            SCENES,
        ),
    ),
    "autoencoder_lstm": (
        "Autoencoder, then LSTM: the encoder learns to rebuild counts without labels; then it is frozen and an LSTM reads its tokens.",
        (
            COUNTS,
            Step(bottleneck, "1. rebuild", "T × N", "learns without labels", "hot"),
            Step(attention, "frozen encoder", "T × D", "one token per bin"),
            Step(chain, "2. LSTM", "H", "learns with labels", "hot"),
            SCENES,
        ),
    ),
}


def picture(name: str) -> str:
    """The SVG figure called `name`; raises KeyError for a name that is not in PICTURES."""
    caption, steps = PICTURES[name]
    many = len(steps) > 5
    wide, gap, letters = (104, 18, 18) if many else (STEP_W, GAP, 20)
    used = len(steps) * wide + (len(steps) - 1) * gap
    width = used + 8
    notes = [wrapped(step.note, letters) for step in steps]
    height = STEP_H + 52 + 14 * max(len(rows) for rows in notes)
    out = []
    for i, (step, rows) in enumerate(zip(steps, notes, strict=True)):
        x = 4 + i * (wide + gap)
        cx, cy = x + wide / 2, 4 + STEP_H / 2
        out.append(
            f'<rect x="{x}" y="4" width="{wide}" height="{STEP_H}" rx="10" class="box {step.kind}"/>'
        )
        out.append(step.draw(cx, cy))
        out.append(text(cx, STEP_H + 24, step.name, "ink name"))
        out.append(text(cx, STEP_H + 41, step.shape, "accent shape"))
        out += [text(cx, STEP_H + 58 + 14 * k, row, "soft small") for k, row in enumerate(rows)]
        if i:
            out.append(arrow(x - gap + 3, cy, x - 3, cy))
    told = [f"{step.name} ({', '.join(filter(None, (step.shape, step.note)))})" for step in steps]
    label = html.escape(f"{caption} Steps: {', then '.join(told)}.", quote=True)
    return (
        f'<figure class="flow"><svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{label}" style="max-width:{1.08 * width:.0f}px;min-width:{0.82 * width:.0f}px">'
        f"{''.join(out)}</svg>"
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def wrapped(words: str, letters: int) -> list[str]:
    """Words in rows of at most so many letters."""
    rows = [""]
    for word in words.split():
        if rows[-1] and len(rows[-1]) + len(word) >= letters:
            rows.append("")
        rows[-1] = f"{rows[-1]} {word}".strip()
    return rows


class Flow(SphinxDirective):
    """`{flow} NAME`."""

    required_arguments = 1

    def run(self):
        name = self.arguments[0]
        if name not in PICTURES:
            raise self.error(f"no picture {name!r}; there are {', '.join(PICTURES)}")
        return [nodes.raw("", picture(name), format="html")]


def setup(app):
    """Register the directive."""
    app.add_directive("flow", Flow)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
