"""Judge a rendered book: no broken link, no heavy page, no picture without words, no need of the network."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

MAX_PAGE_BYTES = 2_000_000
# What a browser fetches by itself, tag -> attribute. A plain link (<a href>) is not fetched.
FETCHED = {
    "script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src",
    "video": "src", "audio": "src", "embed": "src", "object": "data",
}  # fmt: skip
NOT_FETCHED_LINKS = set(
    ["canonical", "alternate", "author", "license", "search", "index", "next", "prev"]
)
# A script or a style sheet that fetches something from elsewhere.
REMOTE_IN_SCRIPT = re.compile(
    r"""(?:\bimport\s*\(?\s*|\bfrom\s*|\.src\s*=\s*|\.href\s*=\s*|importScripts\(\s*|fetch\(\s*)["'`](?:https?:)?//[^"'`\s]+"""
    r"""|https?://(?:cdn\.|cdnjs\.|unpkg\.|www\.unpkg\.|fonts\.g)[^"'`\s)]+"""
)
REMOTE_IN_STYLE = re.compile(r"""(?:url\(\s*["']?|@import\s+["'])(?:https?:)?//[^"')\s]+""")
FILE_NAME = re.compile(r"\.(?:png|jpe?g|gif|svg|webp)$", re.I)


@dataclass
class Page:
    """What one HTML file holds that matters here."""

    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)


Pages = dict[Path, Page]  # of a rendered book, by the path of their files


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.page, self.inside = Page(), ""

    def handle_starttag(self, tag, attrs):
        attributes = {name: value or "" for name, value in attrs}
        if "id" in attributes:
            self.page.ids.add(attributes["id"])
        if tag == "a":
            if "name" in attributes:
                self.page.ids.add(attributes["name"])
            if "href" in attributes:
                self.page.links.append(attributes["href"])
        drawn = tag == "svg" and attributes.get("role") == "img"
        words = attributes.get("aria-label" if drawn else "alt", "").strip()
        if (tag == "img" or drawn) and (not words or FILE_NAME.search(words)):
            self.page.unnamed.append(words or attributes.get("src", tag)[:60])
        kinds = set(attributes.get("rel", "").split())
        if FETCHED.get(tag) in attributes and not (tag == "link" and kinds & NOT_FETCHED_LINKS):
            self.page.fetched.append(attributes[FETCHED[tag]])
            if tag == "img":
                self.page.images.append(attributes["src"])
        if "style" in attributes:
            self.page.styles.append(attributes["style"])
        # Data in a script tag (JSON) is never run, so it fetches nothing.
        code = tag == "script" and "json" not in attributes.get("type", "")
        self.inside = "script" if code else tag if tag == "style" else ""

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.page.scripts.append(data)
        elif self.inside == "style":
            self.page.styles.append(data)


def read_pages(html: Path) -> Pages:
    """Every page of a rendered book; the theme's own templates in _static are none."""
    pages = {}
    for path in sorted(html.rglob("*.html")):
        if path.relative_to(html).parts[0] != "_static":
            reader = _Reader()
            reader.feed(path.read_text(encoding="utf-8"))
            reader.close()
            pages[path] = reader.page
    return pages


def _is_remote(link: str) -> bool:
    parts = urlsplit(link)
    return parts.scheme in ("http", "https") or (not parts.scheme and bool(parts.netloc))


def broken_links(html: Path, pages: Pages) -> list[str]:
    """Links, pictures, scripts and styles that lead nowhere inside the book, one line each."""
    by_path = {path.resolve(): page for path, page in pages.items()}
    faults = []
    for path, page in pages.items():
        for link in dict.fromkeys(page.links + page.fetched):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link in ("", "#"):
                continue
            target, anchor = urldefrag(link)
            target = unquote(target.split("?")[0])
            place = html / target.lstrip("/") if target.startswith("/") else path.parent / target
            place = (place if target else path).resolve()
            if place.is_dir():
                place = place / "index.html"
            where = f"{path.relative_to(html)}: {link!r}"
            if not place.is_file():
                faults.append(f"{where} leads to no file")
            elif not place.is_relative_to(html.resolve()):
                faults.append(f"{where} leads out of the book")
            elif anchor and place in by_path and unquote(anchor) not in by_path[place].ids:
                faults.append(f"{where}: the page has no such place")
    return faults


def page_bytes(path: Path, page: Page) -> int:
    """Size of a page with its pictures; one that is written into the page is part of it."""
    files = [src for src in page.images if not src.startswith("data:")]
    pictures = {(path.parent / unquote(urldefrag(src)[0])).resolve() for src in files}
    return path.stat().st_size + sum(p.stat().st_size for p in pictures if p.is_file())


def heavy_pages(html: Path, pages: Pages) -> list[str]:
    """Pages that, with their pictures, exceed MAX_PAGE_BYTES."""
    return [
        f"{path.relative_to(html)}: {size / 1e6:.1f} MB with its pictures, more than {MAX_PAGE_BYTES / 1e6:g} MB"
        for path, page in pages.items()
        if (size := page_bytes(path, page)) > MAX_PAGE_BYTES
    ]


def network_loads(html: Path, pages: Pages) -> list[str]:
    """Everything that a browser would fetch from elsewhere to show the book."""
    faults = []
    for path, page in pages.items():
        found = [src for src in page.fetched if _is_remote(src)]
        found += [m.group() for text in page.scripts for m in REMOTE_IN_SCRIPT.finditer(text)]
        found += [m.group() for text in page.styles for m in REMOTE_IN_STYLE.finditer(text)]
        faults += [f"{path.relative_to(html)}: loads {what[:100]}" for what in dict.fromkeys(found)]
    for sheet in sorted(html.rglob("*.css")):
        found = REMOTE_IN_STYLE.findall(sheet.read_text(encoding="utf-8"))
        faults += [f"{sheet.relative_to(html)}: loads {what[:100]}" for what in {*found}]
    return faults


def unnamed_pictures(html: Path, pages: Pages) -> list[str]:
    """Pictures that a reader who cannot see them learns nothing of: no text, or a file's name."""
    return [
        f"{path.relative_to(html)}: no words say what the picture {name!r} shows"
        for path, page in pages.items()
        for name in page.unnamed
    ]


def check(html: Path) -> tuple[list[str], dict[str, int]]:
    """All faults of a rendered book, and the size of each page in bytes with its pictures."""
    pages = read_pages(html)
    faults = broken_links(html, pages) + heavy_pages(html, pages) + network_loads(html, pages)
    faults += unnamed_pictures(html, pages)
    sizes = {str(p.relative_to(html)): page_bytes(p, page) for p, page in pages.items()}
    return faults, sizes
