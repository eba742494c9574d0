"""An ICC profile -> sRGB, by LittleCMS. Transforms are kept, because cameras share profiles."""

import io
import threading
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from PIL import Image, ImageCms

from captioner.image.damage import DAMAGED
from captioner.image.depth import is_deep

_LARGEST = 16 << 20  # bytes of a profile
_SMALL = 64 << 10  # bytes of a profile that is its own key: faster than its hash
_KEPT = 64  # transforms
_SPACES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}
_ALIKE, _ALIKE_ON_AVERAGE = 3, 0.5  # levels of 256 from sRGB
_SAME_TONES = 32  # levels of 256 between a grey and itself in sRGB
LAB = b"Lab"  # stands for the profile of a picture in CIE Lab

_cache: "OrderedDict[tuple[bytes, str], Transform | None]" = OrderedDict()
_lock = threading.Lock()


@dataclass(frozen=True)
class Transform:
    """A transform from pictures of a `mode` to sRGB; it may be used by many threads.

    If it `keeps_tones`, a picture can be made smaller before it: its tones are spaced nearly like
    those of sRGB, so the mean of pixels is the same colour. Otherwise it could be much darker.
    """

    mode: str
    keeps_tones: bool
    cms: ImageCms.ImageCmsTransform

    def __call__(self, picture: Image.Image) -> Image.Image:
        """Return the picture in sRGB, as mode RGB."""
        if picture.mode != self.mode:
            picture = picture.convert(self.mode)
        converted = ImageCms.applyTransform(picture, self.cms)
        assert converted is not None  # it is None only in place
        return converted


def transform_to_srgb(profile: bytes | None, mode: str) -> Transform | None:
    """Return the transform of a picture with this profile, and of this mode of Pillow.

    None if the profile is that of sRGB in substance, is broken, or does not fit the mode.
    """
    if mode == "LAB":
        profile = LAB
    if not isinstance(profile, bytes) or not 0 < len(profile) <= _LARGEST:
        return None
    mode = "L" if is_grey(mode) else mode if mode in ("CMYK", "LAB") else "RGB"
    key = profile if len(profile) <= _SMALL else sha256(profile).digest(), mode
    with _lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
    transform = _build(profile, mode)
    with _lock:
        _cache[key] = transform
        while len(_cache) > _KEPT:
            _cache.popitem(last=False)
    return transform


def is_grey(mode: str) -> bool:
    """Return whether a mode of Pillow has no colours."""
    return mode in ("1", "L", "LA", "La") or is_deep(mode)


def _build(profile: bytes, mode: str) -> Transform | None:
    space = "LAB" if mode == "LAB" else _SPACES.get(profile[16:20])
    if space is None or (space != mode and (space, mode) != ("RGB", "L")):
        return None
    try:
        source = ImageCms.createProfile("LAB") if mode == "LAB" else _opened(profile)
        target = ImageCms.createProfile("sRGB")
        cms = ImageCms.buildTransform(source, target, space, "RGB")
        return _useful(Transform(space, True, cms))
    except (ImageCms.PyCMSError, *DAMAGED):
        return None


def _opened(profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.getOpenProfile(io.BytesIO(profile))


def _useful(transform: Transform) -> Transform | None:
    """Return the transform with what is known of its tones; None if it changes nothing to see."""
    if transform.mode not in ("RGB", "L"):
        return transform
    samples = _samples(transform.mode)
    seen = np.asarray(transform(samples)).astype(int)
    change = np.abs(seen - np.asarray(samples.convert("RGB")))
    if change.max() <= _ALIKE and change.mean() <= _ALIKE_ON_AVERAGE:
        return None
    greys = change[0]  # the first row of the samples
    return Transform(transform.mode, bool(greys.max() < _SAME_TONES), transform.cms)


def _samples(mode: str) -> Image.Image:
    """Return all greys and, below them, colours from all over the cube."""
    greys = np.arange(256, dtype=np.uint8)[None]
    if mode == "L":
        return Image.fromarray(greys)
    levels = np.linspace(0, 255, 8).astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(2, 256, 3)
    return Image.fromarray(np.concatenate([np.repeat(greys[..., None], 3, axis=-1), cube]))
