"""XMP sidecars with the alt text of IPTC's standard; what other tools wrote stays byte for byte.

The name is `photo.jpg.xmp`, as darktable and digiKam write and read it: unlike `photo.xmp` it is
never that of `photo.png` or of a raw file. `photo.xmp`, Adobe's name, is used where it exists and
photo.jpg is the only file of that name.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from captioner.jobs.errors import UsageError
from captioner.jobs.publish.export.locations import without_suffix
from captioner.jobs.publish.export.policy import Action, Unfit
from captioner.jobs.publish.export.sidecars import Sidecars

FOLDERS = 256  # whose names are in memory, at most
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_IPTC = "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/"
_LANGUAGE = "http://www.w3.org/XML/1998/namespace lang"
_PROPERTY = f"{_IPTC} AltTextAccessibility"
_DESCRIPTION, _ITEM, _ABOUT = f"{_RDF} Description", f"{_RDF} li", f"{_RDF} about"
_BLOCK = """ <rdf:Description rdf:about={about}
   xmlns:rdf="{rdf}"
   xmlns:Iptc4xmpCore="{iptc}">
  <Iptc4xmpCore:AltTextAccessibility>
   <rdf:Alt>
    <rdf:li xml:lang="x-default">{text}</rdf:li>
   </rdf:Alt>
  </Iptc4xmpCore:AltTextAccessibility>
 </rdf:Description>
"""
_BEGIN = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="{_RDF}">
"""
_END = """</rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""


def xmp_sidecars() -> Sidecars:
    """Return the format of XMP sidecars; each folder is listed once."""
    names = lru_cache(FOLDERS)(_sorted_names)
    return Sidecars(
        path=lambda image: _path(image, names(image.parent)),
        read=lambda content: _Sidecar.parse(content).text,
        edited=_edited,
    )


def _sorted_names(folder: Path) -> Sequence[str]:
    """Return the names of the files in a folder; none if it does not exist."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:
        raise UsageError(f"cannot read {folder}: {error.strerror}") from error


def _path(image: Path, names: Sequence[str]) -> Path:
    """Return the sidecar of an image, in whose folder are these names."""
    path = image.with_name(f"{image.name}.xmp")
    of_adobe = image.with_name(f"{without_suffix(image.name)}.xmp")
    start = of_adobe.stem + "."
    at = bisect_left(names, start)
    same = {name for name in names[at : at + 3] if name.startswith(start)}
    return of_adobe if of_adobe.name in same <= {of_adobe.name, image.name} else path


def _edited(content: bytes | None, text: str) -> bytes:
    """Return a sidecar with a text, which replaces the one that it has."""
    edited = _with_text(content, text)
    if _Sidecar.parse(edited).text != text:
        raise Unfit("its XMP file cannot hold the text", Action.REVIEW)
    return edited


def _with_text(content: bytes | None, text: str) -> bytes:
    if content is None:
        return (_BEGIN + _block("", text) + _END).encode()
    sidecar = _Sidecar.parse(content)
    if sidecar.item:
        start, end = sidecar.item
        return content[:start] + escape(text).encode() + content[end:]
    if sidecar.text is not None:
        raise Unfit("its XMP file has a text, but none in the default language", Action.REVIEW)
    end = sidecar.end
    return content[:end] + _block(sidecar.about, text).encode() + content[end:]


def _block(about: str, text: str) -> str:
    return _BLOCK.format(about=quoteattr(about), rdf=_RDF, iptc=_IPTC, text=escape(text))


@dataclass
class _Sidecar:
    """What matters in a sidecar; positions are in bytes.

    `item` is where the text in the default language is, `end` where a description can be added.
    """

    text: str | None = None
    item: tuple[int, int] | None = None
    about: str = ""
    end: int = -1

    @classmethod
    def parse(cls, content: bytes) -> "_Sidecar":
        """Parse a sidecar; raise Unfit for one that cannot be edited safely."""
        reader = _Reader(content)
        try:
            reader.parser.Parse(content, True)
            content.decode()
        except (expat.ExpatError, UnicodeDecodeError) as error:
            raise Unfit(f"its XMP file cannot be read: {error}", Action.REVIEW) from error
        if reader.sidecar.end < 0 or reader.encoding not in (None, "utf-8"):
            raise Unfit("its XMP file has no RDF in UTF-8 to add to", Action.REVIEW)
        return reader.sidecar


class _Reader:
    """The handlers of expat, which knows the position of each event."""

    def __init__(self, content: bytes) -> None:
        self.content, self.sidecar = content, _Sidecar()
        self.encoding: str | None = None
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.XmlDeclHandler = self._declaration
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.StartDoctypeDeclHandler = self._doctype
        self._open: list[str] = []
        self._item: int | None = None  # where the text of an item begins
        self._item_text = ""
        self._is_default = False

    def _declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        self.encoding = encoding and encoding.lower()

    def _doctype(self, *_declared: object) -> None:
        raise Unfit("its XMP file has entities of its own", Action.REVIEW)

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == _DESCRIPTION and self._open[-1:] == [f"{_RDF} RDF"]:
            self.sidecar.about = self.sidecar.about or attributes.get(_ABOUT, "")
            self.sidecar.text = attributes.get(_PROPERTY, self.sidecar.text)
        if name == _PROPERTY:
            self.sidecar.text = self.sidecar.text or ""
        if name == _ITEM and _PROPERTY in self._open:
            self._item = self._end_of_tag()
            self._item_text = ""
            self._is_default = attributes.get(_LANGUAGE) == "x-default"
        self._open.append(name)

    def _end_of_tag(self) -> int:
        """Return the position after the start tag that is read; a quoted value may contain ">"."""
        at, quote = self.parser.CurrentByteIndex, 0
        while quote or self.content[at] != ord(">"):
            sign = self.content[at]
            if sign in b"\"'":
                quote = 0 if quote == sign else quote or sign
            at += 1
        return at + 1

    def _text(self, text: str) -> None:
        if self._item is not None:
            self._item_text += text

    def _end(self, name: str) -> None:
        self._open.pop()
        at = self.parser.CurrentByteIndex
        if name == _ITEM and self._item is not None:
            if self._is_default or not self.sidecar.text:
                self.sidecar.text = self._item_text
            if self._is_default and at >= self._item:  # not <rdf:li/>
                self.sidecar.item = (self._item, at)
            self._item = None
        is_closed = self.content[at : at + 2] == b"</"
        if name == f"{_RDF} RDF" and not self._open[1:] and is_closed:
            self.sidecar.end = at
