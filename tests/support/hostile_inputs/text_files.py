"""Text manifests: encodings, damage, and a few bytes of gzip that become a gigabyte of text."""

import gzip
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

MIB = 1024 * 1024
LONG = "x" * 500_000
CSV = "image_uri,label\na.jpg,Büro\nb.jpg,\n"
LINES = '{"image_uri": "a.jpg", "label": "Büro"}\n{"image_uri": "b.jpg"}\n'


def _bytes(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def _text(text: str, encoding: str = "utf-8") -> Callable[[Path], object]:
    return _bytes(text.encode(encoding))


def _made(text: Callable[[], str]) -> Callable[[Path], object]:
    """Return what writes a long text, which is made only then."""
    return lambda path: path.write_text(text())


def _repeated(path: Path, start: str, block: str) -> None:
    member = gzip.compress(block.encode() * (8 * MIB // len(block)))
    path.write_bytes(gzip.compress(start.encode()) + member * 128)


def _bomb(start: str, block: str) -> Callable[[Path], object]:
    """Return what writes a gigabyte of text as a .gz."""
    return partial(_repeated, start=start, block=block)


def _long(path: Path, start: str, block: str) -> None:
    with path.open("w") as file:
        file.write(start)
        for _ in range(100):
            file.write(block * (MIB // len(block)))


_ENCODINGS = {
    "utf16-le.csv": _text("\ufeff" + CSV, "utf-16-le"),
    "utf16-be.jsonl": _text("\ufeff" + LINES, "utf-16-be"),
    "utf16-le.tsv": _text("\ufeff" + CSV.replace(",", "\t"), "utf-16-le"),
    "utf16-be.txt": _text("\ufeffa.jpg\nü.jpg\n", "utf-16-be"),
    "utf16-cut.csv": _bytes(("\ufeff" + CSV).encode("utf-16-le")[:-1]),
    "utf16-surrogate.txt": _bytes(b"\xff\xfea\0\x3d\xd8b\0\n\0"),
    "utf16-le-without-mark.csv": _text(CSV, "utf-16-le"),
    "utf16-be-without-mark.jsonl": _text(LINES, "utf-16-be"),
    "utf16-le-without-mark.txt": _text("a.jpg\nb.jpg\n", "utf-16-le"),
    "utf8-mark.csv": _text("\ufeff" + CSV),
    "latin1.csv": _text(CSV, "latin-1"),
    "latin1.jsonl": _text(LINES, "latin-1"),
    "latin1.txt": _text("a.jpg\nü.jpg\n", "latin-1"),
    "mark-only.csv": _bytes(b"\xef\xbb\xbf"),
    "mark-only.jsonl": _bytes(b"\xef\xbb\xbf"),
    "utf16-mark-only.csv": _bytes(b"\xff\xfe"),
    "cr.csv": _text(CSV.replace("\n", "\r")),
    "cr.jsonl": _text(LINES.replace("\n", "\r")),
    "cr.txt": _text("a.jpg\rb.jpg\r"),
}
_CSV = {
    "blank-rows.csv": _text("image_uri,label\na.jpg,cat\n,\n  ,x\n"),
    "only-blank-rows.csv": _text("image_uri,label\n,\n,x\n"),
    "blanks-around.csv": _text("label,image_uri\ncat, a.jpg\ncat,b.jpg \nx, HTTPS://host/c.jpg \n"),
    "empty.csv": _bytes(b""),
    "newlines-only.csv": _bytes(b"\n\n\n"),
    "header-only.csv": _text("image_uri,label\n"),
    "nul.csv": _text("image_uri,label\na.jpg,x\0y\n\0,\0\n"),
    "nul-only.csv": _bytes(b"\0" * 1000),
    "unclosed.csv": _text('image_uri,label\na.jpg,"x\nb.jpg,y\n'),
    "unclosed-long.csv": partial(_long, start='image_uri,label\na.jpg,"', block="x,y\n"),
    "repeated-header.csv": _text("image_uri,image_uri\na.jpg,b.jpg\n"),
    "unnamed-columns.csv": _text("image_uri,,\na.jpg,1,2\n"),
    "ragged.csv": _text("image_uri,label\na.jpg,x\nb.jpg\n"),
    "random.csv": _bytes(bytes(n * 7 % 251 for n in range(10_000))),
    "long-line.csv": partial(_long, start="image_uri,label\na.jpg,", block="x"),
    "long-header.csv": partial(_long, start="image_uri,", block="x,"),
    "wide.csv": _made(lambda: ",".join(["image_uri", *map(str, range(200_000))]) + "\n"),
    "odd-names.csv": _text('image_uri,"a\nb",<b>,"; DROP",\u202ex,=1+1\na.jpg,1,2,3,4,5\n'),
    "cut.csv.gz": _bytes(gzip.compress(CSV.encode() * 1000)[:-20]),
    "garbage-behind.csv.gz": _bytes(gzip.compress(CSV.encode()) + b"garbage"),
    "zeros-behind.csv.gz": _bytes(gzip.compress(CSV.encode()) + b"\0" * 512),
    "no-gzip.csv.gz": _text(CSV),
    "empty.csv.gz": _bytes(b""),
    "bomb-commas.csv.gz": _bomb("image_uri,label\n", ","),
    "bomb-rows.csv.gz": _bomb("image_uri,label\n", ",\n"),
    "bomb-one-row.csv.gz": _bomb("image_uri,label\na.jpg,", "x"),
    "bomb-quotes.csv.gz": _bomb('image_uri,label\na.jpg,"', '""'),
    "bomb-quoted-row.csv.gz": _bomb("image_uri,label\na.jpg", ',"\n"'),
    "bomb-header.csv.gz": _bomb("image_uri", ",a"),
    "bomb-long-values.csv.gz": _bomb("image_uri,label\n", f"a.jpg,{'x' * 500_000}\n"),
    "bomb-newlines.tsv.gz": _bomb("image_uri\tlabel\n", "\n"),
}
_JSONL = {
    "surrogates.jsonl": _text('{"image_uri": "a.jpg", "t\\ud83d": "\\ud83d", "u": ["\\udfff"]}\n'),
    "surrogate-in-uri.jsonl": _text('{"image_uri": "a.jpg"}\n{"image_uri": "\\ud83d.jpg"}\n'),
    "huge-integer.jsonl": _text(f'{{"image_uri": "a.jpg", "n": {2**80}}}\n'),
    "endless-integer.jsonl": _text(f'{{"image_uri": "a.jpg", "n": {"9" * 5000}}}\n'),
    "integer-no-float.jsonl": _text(
        f'{{"image_uri": "a.jpg", "n": 0.5}}\n{{"image_uri": "b.jpg", "n": {2**60 + 1}}}\n'
    ),
    "infinity.jsonl": _text('{"image_uri": "a.jpg", "n": 1e999, "m": NaN}\n'),
    "deep.jsonl": _text('{"image_uri": "a.jpg", "n": ' + "[" * 100_000 + "]" * 100_000 + "}\n"),
    "deep-objects.jsonl": _text('{"image_uri": "a.jpg", "n": ' + '{"a":' * 900 + "1" + "}" * 901),
    "repeated-key.jsonl": _text('{"image_uri": "a.jpg", "image_uri": "b.jpg"}\n'),
    "many-keys.jsonl": _made(
        lambda: (
            json.dumps({"image_uri": "a"} | {str(n): n for n in range(200_000)})[:-1] + ',"1":2}'
        )
    ),
    "new-keys.jsonl": _made(
        lambda: "".join(f'{{"image_uri": "a.jpg", "k{n}": {n}}}\n' for n in range(20_000))
    ),
    "not-objects.jsonl": _text("[1]\n2\n"),
    "uri-not-text.jsonl": _text('{"image_uri": 1}\n{"image_uri": ["a.jpg"]}\n'),
    "null-uri.jsonl": _text('{"image_uri": null}\n{"image_uri": "a.jpg"}\n{"x": 1}\n'),
    "long-line.jsonl": partial(_long, start='{"image_uri": "', block="x"),
    "nested-line.jsonl": _made(
        lambda: '{"image_uri": "a.jpg", "n": [' + "{}," * 1_300_000 + "1]}\n"
    ),
    "many-nested-lines.jsonl": _made(
        lambda: ('{"image_uri": "a.jpg", "n": [' + "{}," * 300_000 + "1]}\n") * 50
    ),
    "bomb-line.jsonl.gz": _bomb('{"image_uri": "', "x"),
    "bomb-long-values.jsonl.gz": _bomb("", f'{{"image_uri": "a", "t": "{LONG}"}}\n'),
    "bomb-newlines.ndjson.gz": _bomb("", "\n"),
    "empty.jsonl": _bytes(b""),
}
_TXT = {
    "long-line.txt": partial(_long, start="", block="x"),
    "nul.txt": _text("a\0.jpg\n\0\n"),
    "blanks.txt": _text("  \n\t\n"),
    "bomb-zeros.txt.gz": _bomb("", "\0"),
    "bomb-long-lines.txt.gz": _bomb("", "x" * 500_000 + "\n"),
    "bomb-newlines.txt.gz": _bomb("", "\r\n"),
    "empty.txt": _bytes(b""),
}
TEXT_FILES: Mapping[str, Callable[[Path], object]] = {**_ENCODINGS, **_CSV, **_JSONL, **_TXT}
