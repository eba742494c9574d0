"""Missing alt attributes of a site's pages; an independent parser says what changed."""

import codecs
import html
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import html5lib
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from captioner.jobs.publish.export import changes
from captioner.jobs.table.layout import OutFolder
from tests.support.exports import exported, outcomes, reasons, state
from tests.support.rows import decide, row, write_rows

DOG, CAT, NONE = 'A "dog" & a <stick>.', "Un chat — drôle.", ""
TEXTS = {"dog.jpg": DOG, "a b.jpg": CAT, "line.png": NONE}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> OutFolder:
    """Return a table of the images of out/../site."""
    folder = tmp_path_factory.mktemp("html")
    (folder / "site").mkdir()
    names = [*TEXTS, "review.jpg"]
    rows = [row(str(folder / "site" / n), needs_review=n == "review.jpg") for n in names]
    out = write_rows(folder / "out", rows)
    for name, text in TEXTS.items():
        decide(out, str(folder / "site" / name), "edited" if text else "decorative", text)
    return out


@pytest.fixture
def site(out: OutFolder) -> Iterator[Path]:
    """Return the empty folder of the site, which no export has written to."""
    site = Path(str(out.root)).parent / "site"
    site.mkdir(exist_ok=True)
    yield site
    shutil.rmtree(site)
    shutil.rmtree(str(out.exports), ignore_errors=True)


def filled(out: OutFolder, site: Path, page: str, **options: object) -> str:
    """Return a page after an export, its alt attributes still escaped."""
    (site / "index.html").write_text(page, newline="")
    exported(out, "html", to=site, **options)
    return (site / "index.html").read_bytes().decode()


def alt(text: str) -> str:
    return f' alt="{html.escape(text).replace("&#x27;", chr(39))}"'


IMAGE = f'<img{alt(DOG)} src="dog.jpg">'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('<img src="dog.jpg">', IMAGE),
        ("<img src=dog.jpg>", f"<img{alt(DOG)} src=dog.jpg>"),
        ("<img src='dog.jpg'/>", f"<img{alt(DOG)} src='dog.jpg'/>"),
        ("<img/src=dog.jpg>", f"<img{alt(DOG)}/src=dog.jpg>"),
        ("<IMG\r\n  SRC=dog.jpg\r\n>", f"<IMG{alt(DOG)}\r\n  SRC=dog.jpg\r\n>"),
        ('<img title="a > b" src="dog.jpg">', f'<img{alt(DOG)} title="a > b" src="dog.jpg">'),
        ("<img src=dog.jpg src=line.png>", f"<img{alt(DOG)} src=dog.jpg src=line.png>"),
        ("<img src = dog.jpg class>", f"<img{alt(DOG)} src = dog.jpg class>"),
        ("<img src=line.png>", f"<img{alt('')} src=line.png>"),
        ("<img src='a%20b.jpg?v=2#x'>", f"<img{alt(CAT)} src='a%20b.jpg?v=2#x'>"),
        ("<img src=' &#47;dog.jpg '>", f"<img{alt(DOG)} src=' &#47;dog.jpg '>"),
        ("<img src=./x/../dog.jpg>", f"<img{alt(DOG)} src=./x/../dog.jpg>"),
        (
            "<img src='data:image/gif;base64,x' data-src=dog.jpg>",
            f"<img{alt(DOG)} src='data:image/gif;base64,x' data-src=dog.jpg>",
        ),
        (
            "<picture><source srcset=x.avif><img srcset='x.jpg 1x, dog.jpg 2x'></picture>",
            f"<picture><source srcset=x.avif><img{alt(DOG)} "
            "srcset='x.jpg 1x, dog.jpg 2x'></picture>",
        ),
        (
            "<noscript><img src=dog.jpg></noscript>",
            f"<noscript><img{alt(DOG)} src=dog.jpg></noscript>",
        ),
        (
            "<template><img src=dog.jpg></template>",
            f"<template><img{alt(DOG)} src=dog.jpg></template>",
        ),
        ("<svg><style/></svg><img src=dog.jpg>", f"<svg><style/></svg><img{alt(DOG)} src=dog.jpg>"),
        ("<!--><img src=dog.jpg>", f"<!--><img{alt(DOG)} src=dog.jpg>"),
        ("a < b <img src=dog.jpg>", f"a < b <img{alt(DOG)} src=dog.jpg>"),
        ("<base href=/x/><img src=../dog.jpg>", f"<base href=/x/><img{alt(DOG)} src=../dog.jpg>"),
    ],
)
def test_a_missing_alt_attribute_is_filled(
    out: OutFolder, site: Path, before: str, after: str
) -> None:
    assert filled(out, site, before) == after


@pytest.mark.parametrize(
    "page",
    [
        '<img src="dog.jpg" alt="Mine.">',
        '<img src="dog.jpg" alt="">',
        "<img src=dog.jpg ALT>",
        "<img src=dog.jpg alt=x alt=y>",
        "<img src=dog.jpg role=presentation>",
        "<img src=review.jpg>",
        "<img src=unknown.jpg>",
        "<img src='http://[broken/dog.jpg'>",
        "<img src='https://example.org/dog.jpg'>",
        "<img>",
        "<!-- <img src=dog.jpg> -->",
        "<!-- -- > <img src=dog.jpg>",
        "<script>x = '<img src=dog.jpg>'</script>",
        "<script><!-- <script> </script> <img src=dog.jpg> --></script>",
        "<STYLE><img src=dog.jpg></style>",
        "<textarea></textareas><img src=dog.jpg></textarea>",
        "<title><img src=dog.jpg></title>",
        "<plaintext></plaintext><img src=dog.jpg>",
        "<![CDATA[ > <img src=dog.jpg> ]]>",
        '<?php if ($a > 1) { echo "<img src=dog.jpg>"; } ?>',
        "<% if (a > 1) { %> <% out('<img src=dog.jpg>') %>",
        '<a title="<img src=dog.jpg>">',
        "<img src=dog.jpg",
        '<img src="dog.jpg>',
        "<imgx src=dog.jpg>",
    ],
)
def test_every_other_byte_stays(out: OutFolder, site: Path, page: str) -> None:
    (site / "index.html").write_text(page)
    before = state(site)
    exported(out, "html", to=site)
    assert state(site) == before


TEMPLATED = [
    """<img src="dog.jpg" <?php if ($x) echo 'alt="person"'; ?>>""",
    """<img src="dog.jpg" <?php if ($x->y) echo 'alt="person"'; ?>>""",
    '<img src="dog.jpg" <%= alt %>>',
    '<img src=dog.jpg {% if d %}alt="{{ d }}"{% endif %}>',
    "<img src=dog.jpg {{attrs}}>",
    "<img src=dog.jpg {{ attrs }}>",
    "<img src=dog.jpg ${attrs}>",
    "<img src=dog.jpg {...attrs}>",
    '<img src=dog.jpg :alt="desc">',
    '<img src=dog.jpg v-bind:alt="desc">',
    '<img src=dog.jpg v-bind="attrs">',
    '<img src=dog.jpg [alt]="desc">',
    '<img src=dog.jpg [attr.alt]="desc">',
    '<img src=dog.jpg bind:alt="desc">',
    '<img src=dog.jpg th:alt="desc">',
    "{# <img src=dog.jpg> #}",
    "{% raw %}{{ x }}<img src=dog.jpg>{% endraw %}",
    "{%- comment 'x' -%}\n<!-- --><img src=dog.jpg>{%- endcomment -%}",
    "{{!-- {{x}} <img src=dog.jpg> --}}",
    "{{ '<img src=dog.jpg>' }}",
    "<!-- {% comment %} --><img src=dog.jpg><!-- {% endcomment %} -->",
    "<p <?php if ($x > 1) echo '<img src=dog.jpg>'",
]


@pytest.mark.parametrize("page", TEMPLATED)
def test_a_tag_about_which_a_template_decides_stays(out: OutFolder, site: Path, page: str) -> None:
    (site / "index.html").write_text(page)
    assert reasons(out, "html", to=site) == {"dog": "keep the page's template decides"}
    assert (site / "index.html").read_text() == page


@pytest.mark.parametrize(
    "before",
    [
        "{% if x %}",
        "{{ x }}",
        "{{#if x}}",
        "<?php x(); ?>",
        "<?php x(); ?>{# x #}",
        "{# ",
        "{{ ",
        "<?",
    ],
)
def test_a_tag_beside_a_templates_code_is_filled(out: OutFolder, site: Path, before: str) -> None:
    page = f"{before}<p><img src=dog.jpg data-alt=x>"
    assert filled(out, site, page) == f"{before}<p><img{alt(DOG)} src=dog.jpg data-alt=x>"


@pytest.mark.parametrize(
    ("encoding", "mark", "head"),
    [
        ("utf-8", b"", ""),
        ("utf-8", codecs.BOM_UTF8, ""),
        ("utf-16-le", codecs.BOM_UTF16_LE, ""),
        ("utf-16-be", codecs.BOM_UTF16_BE, ""),
        ("cp1252", b"", ""),
        ("cp1252", b"", "<meta charset=iso-8859-1>"),
        ("cp1251", b"", '<meta http-equiv=content-type content="text/html; charset=windows-1251">'),
        ("shift_jis", b"", "<meta charset='Shift_JIS'>"),
        ("utf-8", b"", "<?xml version='1.0' encoding='utf-8'?>"),
    ],
)
def test_a_page_keeps_its_encoding(
    out: OutFolder, site: Path, encoding: str, mark: bytes, head: str
) -> None:
    content = {"cp1251": "Дом", "shift_jis": "ソース表", "cp1252": "drôle"}.get(encoding, "Дом 😀")
    page = f"{head}\r\n<p>{content}</p><img src='a%20b.jpg'>\r\n"
    (site / "index.html").write_bytes(mark + page.encode(encoding))
    assert exported(out, "html", to=site) == {"write": 1}
    written = (site / "index.html").read_bytes()
    assert written.startswith(mark)
    after = written.removeprefix(mark).decode(encoding)
    (image,) = html5lib.parse(after, namespaceHTMLElements=False).iter("img")
    assert image.attrib["alt"] == CAT
    start, end = after.index(" alt="), after.index(" src=")
    assert after[:start] + after[end:] == page
    assert exported(out, "html", to=site) == {"unchanged": 1}


@pytest.mark.parametrize(
    "page",
    [
        b"<meta charset=iso-2022-jp><img src=dog.jpg>",
        b"<meta charset=klingon><img src=dog.jpg>",
        codecs.BOM_UTF16_LE + b"<",
    ],
)
def test_a_page_whose_encoding_is_doubtful_is_left_alone(
    out: OutFolder, site: Path, page: bytes
) -> None:
    (site / "index.html").write_bytes(page)
    assert exported(out, "html", to=site) == {"review": 1}
    assert (site / "index.html").read_bytes() == page


def test_wrong_bytes_stay_as_they_are(out: OutFolder, site: Path) -> None:
    page = b"<meta charset=utf-8><p>caf\xe9 \x81</p><img src=dog.jpg>"
    (site / "index.html").write_bytes(page)
    assert exported(out, "html", to=site) == {"write": 1}
    new = (site / "index.html").read_bytes()
    assert new.replace(alt(DOG).encode(), b"") == page


def test_a_page_keeps_its_mode_and_others_are_not_touched(out: OutFolder, site: Path) -> None:
    (site / "index.html").write_text("<img src=dog.jpg>")
    (site / "index.html").chmod(0o640)
    (site / "other.html").write_text("<p>No image.")
    (site / "notes.txt").write_text("<img src=dog.jpg>")
    (site / "link.html").symlink_to(site / "index.html")
    before = state(site)
    assert exported(out, "html", to=site) == {"write": 1}
    assert (site / "index.html").stat().st_mode & 0o777 == 0o640
    assert (site / "link.html").is_symlink()
    after = state(site)
    assert {name for name in before if before[name] != after[name]} == {"index.html", "link.html"}
    assert exported(out, "html", to=site) == {"unchanged": 1}
    assert state(site) == after


def test_our_alt_texts_follow_the_table_and_a_persons_do_not(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    out = write_rows(tmp_path / "out", [row(str(site / f"{name}.jpg")) for name in "ab"])
    page = site / "index.html"
    page.write_text("<img src=a.jpg>\n<img src=b.jpg>")
    exported(out, "html", to=site)
    page.write_text(page.read_text().replace("picture of b", "person's view of b") + "<p>More.")
    for name in "ab":
        decide(out, str(site / f"{name}.jpg"), "edited", f'"{name}"')
    assert reasons(out, "html", to=site) == {"a": "write", "b": "keep a person's text"}
    assert page.read_text() == (
        '<img alt="&quot;a&quot;" src=a.jpg>\n<img alt="A person\'s view of b." src=b.jpg><p>More.'
    )


def test_a_persons_tag_that_equals_ours_is_not_taken_for_ours(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    out = write_rows(tmp_path / "out", [row(str(site / "a.jpg"))])
    persons = '<img alt="A picture of a." src=a.jpg>'
    (site / "index.html").write_text(f"{persons}\n<img src=a.jpg>")
    assert exported(out, "html", to=site) == {"unchanged": 1, "write": 1}
    decide(out, str(site / "a.jpg"), "edited", "A dog.")
    assert exported(out, "html", to=site) == {"keep": 2}
    assert (site / "index.html").read_text().startswith(persons)


def test_our_alt_texts_stay_ours_after_any_number_of_interruptions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    out = write_rows(tmp_path / "out", [row(str(site / "a.jpg"))])
    page = site / "index.html"
    page.write_text("<img src=a.jpg>")
    exported(out, "html", to=site)
    for text in ("A dog.", "A cat.", "A boy."):
        decide(out, str(site / "a.jpg"), "edited", text)
        with monkeypatch.context() as patch:
            patch.setattr(changes, "replace_file", interrupt)
            with pytest.raises(KeyboardInterrupt):
                exported(out, "html", to=site)
    assert exported(out, "html", to=site) == {"write": 1}
    assert page.read_text() == '<img alt="A boy." src=a.jpg>'


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_images_are_found_by_the_urls_of_the_site(tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "blog").mkdir(parents=True)
    uris = [
        "s3://photos/2024/a.jpg",
        "https://other.org/b.jpg?id=1",
        "https://other.org/b.jpg?id=2",
    ]
    out = write_rows(tmp_path / "out", [row(uri) for uri in uris])
    for uri, text in zip(uris, "abc", strict=True):
        decide(out, uri, "edited", text)
    page = site / "blog" / "index.htm"
    page.write_text(
        "<img src=https://cdn.org/x/2024/a.jpg><img src='//other.org/b.jpg?id=2'>"
        "<img src='http://OTHER.org/b.jpg?id=1'><img src='http://other.org/b.jpg?id=3'>"
    )
    exported(out, "html", to=site, root="s3://photos", base_url="https://cdn.org/x/")
    images = html5lib.parse(page.read_text(), namespaceHTMLElements=False).iter("img")
    assert [image.get("alt") for image in images] == ["a", "c", "b", None]


def alts(tmp_path: Path, page: str, texts: dict[str, str]) -> tuple[list[str | None], list[str]]:
    """Return the alt attributes of a page of http://h after an export, and its actions."""
    site = tmp_path / "site"
    site.mkdir()
    out = write_rows(tmp_path / "out", [row(uri) for uri in texts])
    for uri, text in texts.items():
        decide(out, uri, "edited", text)
    (site / "index.html").write_text(page)
    done = outcomes(out, "html", to=site, root="http://h", base_url="http://h")
    images = html5lib.parse((site / "index.html").read_text(), namespaceHTMLElements=False)
    return [each.get("alt") for each in images.iter("img")], [each.verdict.action for each in done]


def test_a_query_in_the_table_tells_images_apart(tmp_path: Path) -> None:
    page = "".join(f"<img src='http://h/i.php{query}'>" for query in ("?id=99", "?id=2", ""))
    texts = {"http://h/i.php?id=1": "one", "http://h/i.php?id=2": "two"}
    assert alts(tmp_path, page, texts) == ([None, "two", None], ["skip", "write", "skip"])


def test_an_image_without_a_query_is_clear_only_by_its_own_address(tmp_path: Path) -> None:
    page = "".join(f"<img src='http://h/i.php{query}'>" for query in ("?id=99", "?id=2", ""))
    texts = {"http://h/i.php?id=2": "two", "http://h/i.php": "none"}
    assert alts(tmp_path, page, texts) == ([None, "two", "none"], ["review", "write", "write"])


def test_a_tag_that_may_show_several_images_is_reported(tmp_path: Path) -> None:
    texts = {"http://h/a.jpg": "a", "https://h/a.jpg": "b", "http://h/b.jpg": "same"}
    texts |= {"https://h/b.jpg": "same"}
    page = "<img src=//h/a.jpg><img src=//h/b.jpg?v=2>"
    assert alts(tmp_path, page, texts) == ([None, "same"], ["review", "write"])


def test_names_match_in_either_normal_form(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    out = write_rows(tmp_path / "out", [row(str(site / "cafe\u0301.jpg"))])
    (site / "index.html").write_text("<img src=caf%C3%A9.jpg>")
    assert exported(out, "html", to=site) == {"write": 1}


PIECES = st.sampled_from(
    [
        *("<img src=dog.jpg>", "<IMG SRC='a%20b.jpg'/>", '<img class=">" src="line.png" >'),
        *("<img src=dog.jpg alt=mine>", "<img alt src=dog.jpg>", "<img src=unknown.jpg>"),
        *("<img src=review.jpg>", "<img\nsrc = dog.jpg\n>", "<img src=dog.jpg src=x alt>"),
        *("<img", "<img src=", "<img src='", '<img src="dog.jpg', "src=dog.jpg", " alt="),
        *("/>", ">"),
        *("<p>", "</p>", "text", "é—😀", "&amp;", "<", "</", "<a href='", '"', "'"),
        *("=", "\r\n", "\t"),
        *("<!--", "-->", "--!>", "<!-->", "<!--->", "<!", "<!doctype html>", "<!DOCTYPE '>'>"),
        *("<script>", "</script>", "<script", "</script ", "<style>", "</style>", "<textarea>"),
        *("</textarea>", "<title>", "</title>", "<noscript>", "</noscript>", "<template>"),
        *("</template>", "<iframe>", "</iframe>", "<xmp>", "</xmp>", "<plaintext>", "<noembed>"),
        *("<svg>", "</svg>", "<math>", "</math>", "<mi>", "<style/>", "<svg/>", "<foreignObject>"),
        *("</foreignObject>", "<desc>", "<font color=x>", "<picture>", "</picture>", "<div/>"),
        *("<table>", "<td>", "</table>", "<select>", "</select>", "<head>", "<body>", "</html>"),
    ]
)  # fmt: skip
ISLANDS = st.sampled_from(["<![CDATA[", "]]>", "<?php ", "?>", "<%", "%>", "{{", "}}", "{%", "%}"])
SOURCES = {"dog.jpg": DOG, "a%20b.jpg": CAT, "line.png": NONE}


def without_alt(text: str) -> tuple[bytes, list[dict[str, str]]]:
    """Return a page as html5lib sees it, without alt attributes, and these of its images."""
    text = text.replace("{", "(")  # ElementTree takes "{name" for a namespace
    tree = html5lib.parse(text, namespaceHTMLElements=False)
    attributes = [dict(image.attrib) for image in tree.iter("img")]
    for image in tree.iter("img"):
        image.attrib.pop("alt", None)
    return ElementTree.tostring(tree), attributes


@given(st.lists(st.one_of(PIECES, PIECES, PIECES, ISLANDS), max_size=25))
@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_only_missing_alt_attributes_change_in_any_page(
    out: OutFolder, site: Path, pieces: list[str]
) -> None:
    page = "".join(pieces)
    (site / "index.html").write_bytes(page.encode())
    exported(out, "html", to=site)
    new = (site / "index.html").read_bytes().decode()
    rest = new
    for text in SOURCES.values():
        rest = rest.replace(alt(text), "")
    assert rest == page
    (before, old_images), (after, new_images) = without_alt(page), without_alt(new)
    assert after == before
    has_islands = any(sign in page for sign in ("<![CDATA[", "<?", "<%", "{{", "{%"))
    for old, image in zip(old_images, new_images, strict=True):
        source = re.sub("[\t\r\n]", "", old.get("src", "")).strip().partition("?")[0]
        may_change = "alt" not in old and source in SOURCES
        if may_change and not (has_islands and "alt" not in image):
            assert image.get("alt") == SOURCES[source]
        else:
            assert image == old
    written = state(site)
    exported(out, "html", to=site)
    assert state(site) == written
    os.unlink(site / "index.html")  # noqa: PTH108
