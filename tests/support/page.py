"""Reads an HTML page strictly: every tag closed in order, every name used once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = frozenset({"meta", "link", "img", "br", "wbr", "source", "hr", "input"})


@dataclass
class Element:
    """One element: its tag, attributes, children and direct text, in order."""

    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    def walk(self) -> Iterator[Element]:
        """Give this element and all below it, in document order."""
        yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child.walk()

    def find(self, tag: str) -> list[Element]:
        """All elements of one tag at or below this one."""
        return [element for element in self.walk() if element.tag == tag]

    @property
    def text(self) -> str:
        """All text at or below this element, spaces collapsed."""
        parts = [child if isinstance(child, str) else child.raw_text for child in self.children]
        return " ".join("".join(parts).split())

    @property
    def raw_text(self) -> str:
        """All text at or below this element, as written."""
        return "".join(child if isinstance(child, str) else child.raw_text for child in self.children)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("#document", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> at {self.getpos()} repeats an attribute"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> at {self.getpos()} closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read_page(html: str) -> Element:
    """Parse a page; fails on a tag left open or closed out of order, and on a name given twice."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == [reader.root], f"<{reader.open[-1].tag}> is never closed"
    names = [element.attributes["id"] for element in reader.root.walk() if "id" in element.attributes]
    assert len(names) == len(set(names)), (
        f"ids used twice: {sorted({n for n in names if names.count(n) > 1})}"
    )
    return reader.root


def by_id(page: Element, name: str) -> Element:
    """The one element of that id."""
    [element] = [e for e in page.walk() if e.attributes.get("id") == name]
    return element


def table_rows(table: Element) -> list[list[str]]:
    """Texts of a table's cells, row by row, the heading included."""
    return [[cell.text for cell in row.children if isinstance(cell, Element)] for row in table.find("tr")]
