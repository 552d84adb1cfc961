"""One plotting style: colours that colour-blind readers can tell apart, fonts that stay readable.

Figures are made without pyplot, so nothing is shown twice in a notebook and nothing leaks in a
long run. Sizes are final sizes: 7.5 inches is the width of a page of the book, and no text is
smaller than 9 points there.
"""

from __future__ import annotations

import functools
import io
import zlib
from collections.abc import Iterable
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from nblib.report.plots import texts

WIDTH_IN = 7.5
MOST_ENTRIES = 12  # of a legend beside the panels
DPI = 144  # of the picture in a notebook: sharp on dense screens, about 60 kB a figure

# Okabe & Ito (2008), "Color Universal Design"
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY, LIGHT, INK = "#8C8C8C", "#DDDDDD", "#222222"

SERIES = [BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK, YELLOW]  # lines, in this order
MARKERS = "osD^vP"  # of the first eight lines, of the next eight ...

# Families that hold Chinese, Japanese and Korean letters, for labels that DejaVu has no glyphs for.
CJK = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "WenQuanYi Zen Hei", "IPAexGothic",
    "Droid Sans Fallback", "Hiragino Sans", "PingFang SC", "Microsoft YaHei", "Malgun Gothic",
)  # fmt: skip
INSTALLED = {font.name for font in fontManager.ttflist}

STYLE: dict[str, Any] = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.facecolor": "white",
    "font.size": 10,
    "font.family": ["DejaVu Sans", *(name for name in CJK if name in INSTALLED)],
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "figure.titlesize": 11.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.6,
    "axes.prop_cycle": mpl.cycler(color=SERIES),
    "image.cmap": "cividis",
    "image.interpolation": "nearest",
    "text.parse_math": False,  # a label may hold a dollar: text of the data is never a formula
    "svg.fonttype": "none",  # text stays text: searchable, editable
    "svg.hashsalt": "nblib",  # the same figure gives the same file
    "figure.constrained_layout.w_pad": 0.09,
    "figure.constrained_layout.h_pad": 0.09,
    "figure.dpi": 100,
    "savefig.dpi": DPI,
}

# Areas of the mouse visual system, in the order in which light reaches them, then hippocampus:
# a colour, lighter (> 0) or darker (< 0).
_AREAS = {
    "LGd": (ORANGE, 0),
    "VISp": (BLUE, 0),
    "VISl": (SKY, 0),
    "VISrl": (SKY, 0.30),
    "VISal": (GREEN, 0),
    "VISpm": (GREEN, -0.35),
    "VISam": (GREEN, 0.45),
    "VISmma": (BLUE, -0.45),
    "VIS": (BLUE, 0.45),
    "LP": (VERMILLION, 0),
    "CA1": (PURPLE, 0),
    "CA3": (PURPLE, -0.40),
    "DG": (PURPLE, 0.45),
    "SUB": (VERMILLION, 0.45),
    "ProS": (VERMILLION, -0.40),
    "APN": (ORANGE, -0.45),
}


class Picture(Figure):
    """A matplotlib figure that shows itself in a notebook, once, as a PNG of moderate size.

    `mark` tells which run stands behind a point; the book makes links of these. `sentence` says what
    is drawn and `result` what came out; `alt` adds what stands in the figure, for readers who cannot see it.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.sentence, self.result = "", ""
        self._marks: list[tuple[Axes, float, float, str]] = []

    def alt(self) -> str:
        """What is drawn, what came out, and what stands in the figure, in plain words."""
        parts = (self.sentence, self.result, texts.alt_text(self))
        text = ". ".join(part.strip().rstrip(".") for part in parts if part.strip()) + "."
        return " ".join(text.split())

    def legend_outside(self, columns: int = 4, place: str = "lower center") -> None:
        """A legend beside the panels of all that they name, in as many columns as have room.

        Every name stands once; of more than 12 the first are named.
        """
        named: dict[str, Any] = {}
        for ax in self.axes:
            for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
                named.setdefault(label, handle)
        names = [texts.short(label) for label in named][:MOST_ENTRIES]
        if len(named) > MOST_ENTRIES:
            names[-1] = f"and {len(named) - MOST_ENTRIES + 1} more"
        room = self.get_figwidth() / (max(map(len, names)) * texts.LETTER_IN + 0.75)
        columns = max(1, min(columns, int(room)))
        rows = -(-len(names) // columns)
        self.set_figheight(self.get_figheight() + 0.19 * max(0, rows - 2))
        handles = list(named.values())[: len(names)]
        self.legend(handles, names, loc=f"outside {place}", ncols=columns)

    def mark(self, ax: Axes, x: float, y: float, runs: str | Iterable[str]) -> None:
        """Say that the point (x, y) of `ax` shows these runs, each as recording/key."""
        runs = [runs] if isinstance(runs, str) else runs
        self._marks += [(ax, float(x), float(y), run) for run in runs]

    def marks(self) -> list[list[Any]]:
        """[run, x, y] of every mark, x and y as shares of width and height from the top left.

        As laid out when the figure was drawn last.
        """
        rows = []
        for ax, x, y, run in self._marks:
            across, up = ax.transData.transform((x, y)) / self.bbox.size
            rows.append([run, round(float(across), 4), round(float(1 - up), 4)])
        return rows

    def savefig(self, fname: Any, **kwargs) -> None:
        """Save the figure in the project's style; the same figure gives the same file.

        In an SVG, text stays text and point clouds are pictures, so that files stay small.
        """
        date = {"metadata": {"Date": None}} if str(fname).endswith(".svg") else {}
        with mpl.rc_context(STYLE):
            super().savefig(fname, **date | kwargs)

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]]:
        png, shown = png_bytes(self), {"width": round(self.get_figwidth() * 96)}
        shown |= {"alt": self.alt()} | ({"runs": self.marks()} if self._marks else {})
        return png, shown


def styled(draw):
    """Decorate a drawing function: it draws in the project's style and changes no global setting.

    The first sentence of its docstring becomes the figure's, and its texts are made to fit.
    """
    sentence = " ".join(draw.__doc__.split("\n\n")[0].split()).replace("`", "")

    @functools.wraps(draw)
    def wrapper(*args, **kwargs):
        with mpl.rc_context(STYLE):
            fig = draw(*args, **kwargs)
            texts.fit(fig)
        fig.sentence = fig.sentence or sentence
        return fig

    return wrapper


def new_figure(height_in: float, width_in: float = WIDTH_IN) -> Picture:
    """An empty figure of final size in inches, laid out so that labels do not overlap."""
    return Picture(figsize=(width_in, height_in), layout="constrained")


def new_panel(height_in: float, width_in: float = WIDTH_IN) -> tuple[Picture, Axes]:
    """An empty figure of one panel."""
    fig = new_figure(height_in, width_in)
    return fig, fig.add_subplot()


def png_bytes(fig: Picture, dpi: int = DPI) -> bytes:
    """The figure as PNG bytes; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def note(ax: Axes, text: str) -> None:
    """Say in an otherwise empty axes why there is nothing to draw."""
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, color=INK, wrap=True)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def say(text: str) -> Picture:
    """A figure that holds a sentence, where there is nothing to draw."""
    with mpl.rc_context(STYLE):
        fig = new_figure(1.4)
        note(fig.add_subplot(), text)
        fig.sentence = "Nothing to draw"
    return fig


def shade(colour: str, amount: float) -> str:
    """A lighter (amount > 0) or darker (amount < 0) version of a colour; amount in [-1, 1]."""
    rgb = np.array(to_rgb(colour))
    return to_hex(rgb + (float(amount > 0) - rgb) * abs(amount)).upper()


def area_name(area: Any) -> str:
    """An area's name as text; a missing one (NaN, None) becomes ''."""
    return area if isinstance(area, str) else ""


def area_label(area: str) -> str:
    """How an area is written in a figure."""
    return area or "no area"


def area_colour(area: str) -> str:
    """The fixed colour of a brain area, the same in every figure; grey when there is no area."""
    if not area:
        return GREY
    if area in _AREAS:
        return shade(*_AREAS[area])
    code = zlib.crc32(area.encode())  # a colour that depends on the name alone
    return shade(SERIES[code % 6], (-0.45, -0.2, 0.15, 0.35)[code // 6 % 4])


def area_order(areas: Iterable) -> list[str]:
    """Each area once: the visual pathway in its order, then the others by name, then no area."""
    places = {name: place for place, name in enumerate(_AREAS)}
    return sorted(
        {area_name(a) for a in areas}, key=lambda a: (a == "", places.get(a, len(places)), a)
    )


def by_area(areas: Iterable) -> tuple[np.ndarray, np.ndarray]:
    """Units ordered by area: their positions (unit,), and the name of the area of each."""
    names = np.array([area_name(a) for a in areas], dtype=object)
    order = area_order(names)
    rows = np.argsort([order.index(name) for name in names], kind="stable")
    return rows, names[rows]


def label_text(value: Any) -> str:
    """A class label as written in a figure: 3.0 as 3."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    return str(value)


def label_ticks(labels: np.ndarray, most: int) -> tuple[np.ndarray, list[str]]:
    """Positions and texts that name about `most` of the labels; numbers are named when round."""
    labels = np.asarray(labels)
    n = len(labels)
    places = np.arange(n)
    if n > most:
        step = next(s for s in (2, 5, 10, 20, 25, 50, 100, 200, 500, 1000, 5000) if n / s <= most)
        number = np.issubdtype(labels.dtype, np.number)
        places = np.flatnonzero(labels % step == 0) if number else places[::step]
        if number and labels[0] == -1 and step > 5:
            places = np.r_[0, places[1:]]  # name -1, often a grey screen; 0 stands too close to it
    return places, [label_text(labels[i]) for i in places]
