"""Pages that need no other file: a template and its style, and nothing else can be loaded."""

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

ASSETS = Path(__file__).parent / "assets"
_TEMPLATES = Environment(  # which compiles each of them once
    loader=FileSystemLoader(ASSETS),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(name: str, **values: object) -> str:
    """Return the HTML of the page `name`, a template with a style; all values are escaped."""
    style = "".join((ASSETS / f"{part}.css").read_text("utf-8") for part in ("base", name))
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    template = _TEMPLATES.get_template(f"{name}.html")
    return template.render(**values, style=style, digest=digest)
