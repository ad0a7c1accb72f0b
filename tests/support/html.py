"""What is in an HTML page, read by the standard library's parser: elements, texts, and whether every tag is closed."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"meta", "link", "img", "br", "hr", "input"}


@dataclass
class Element:
    """A tag, its attributes, its children (elements and texts)."""

    tag: str
    attributes: dict[str, str]
    children: list = field(default_factory=list)

    def all(self, tag=None, **attributes) -> list["Element"]:
        """Return the descendants with this tag and these attributes (`class_` must be one of the classes)."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        found = []
        for child in self.children:
            if isinstance(child, Element):
                if tag in (None, child.tag) and all(child._has(name, value) for name, value in wanted.items()):
                    found.append(child)
                found += child.all(tag, **attributes)
        return found

    def one(self, tag=None, **attributes) -> "Element":
        """Return the only such descendant."""
        found = self.all(tag, **attributes)
        assert len(found) == 1, f"{len(found)} of {tag} {attributes}"
        return found[0]

    @property
    def text(self) -> str:
        """Return all text, white space collapsed."""
        return " ".join(self._raw().split())

    def _raw(self) -> str:
        return "".join(child if isinstance(child, str) else child._raw() for child in self.children)

    def _has(self, name, value) -> bool:
        found = self.attributes.get(name)
        return found is not None and (value in found.split() if name == "class" else found == value)


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("", {})]

    def handle_starttag(self, tag, attrs):
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in _VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].children.append(data)


def parse(page: str) -> Element:
    """Return the page's root; fails where a tag is not closed or closes another."""
    parser = _Parser()
    parser.feed(page)
    parser.close()
    assert [element.tag for element in parser.open] == [""], [element.tag for element in parser.open]
    return parser.open[0]


def table_of(element: Element) -> list[list[str]]:
    """Return a table's texts, row by row, head included."""
    return [[cell.text for cell in row.children if isinstance(cell, Element)] for row in element.all("tr")]
