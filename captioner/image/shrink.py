"""A decoded picture of any mode and size -> a small one in sRGB.

A large picture is converted in strips: it is never copied as a whole.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

from captioner.image.colour.transform import Transform
from captioner.image.damage import without_codecs
from captioner.image.depth import depth_of, is_deep
from captioner.image.upright import upright, upright_size

# The box filter and scaled JPEG decoding stop at this multiple of the target size: the filter
# that follows then hides their traces.
GAP = 2
_STRIP = 1 << 18  # pixels, about
_PLAIN = ("RGB", "L", "CMYK", "LAB")  # modes without alpha that need no conversion before colours
_PREMULTIPLIED = ("RGBa", "La")
Convert = Callable[[Image.Image], Image.Image]
Size = tuple[int, int]
Pixels = npt.NDArray[np.uint8]


def shrunk(
    picture: Image.Image,
    size: Size,
    resample: Image.Resampling,
    colours: Transform | None,
    orientation: int,
) -> Pixels:
    """Return a picture in sRGB, as uint8 [H, W, 3] of this size, turned upright."""
    factors = _factor(picture.width, size[0]), _factor(picture.height, size[1])
    blends = picture.has_transparency_data or picture.mode in _PREMULTIPLIED
    late = colours if colours and colours.keeps_tones and not blends else None
    small = _reduced(picture, factors, _conversion(picture, None if late else colours))
    rgb = late(small) if late else small if small.mode == "RGB" else small.convert("RGB")
    if picture.size == size:
        return np.array(upright(rgb, orientation))
    box = (0, 0, picture.width / factors[0], picture.height / factors[1])
    if resample == Image.Resampling.BICUBIC and box[2:] == rgb.size:
        return squeezed(np.array(upright(rgb, orientation)), upright_size(size, orientation))
    return np.array(upright(rgb.resize(size, resample, box), orientation))


def is_squeezed_only(size: Size, target: Size) -> bool:
    """Return whether nothing but `squeezed` is done to a picture in sRGB of this size."""
    return all(_factor(length, end) == 1 for length, end in zip(size, target, strict=True))


def squeezed(pixels: Pixels, size: Size) -> Pixels:
    """Resize pixels [H, W, 3] by the bicubic filter.

    PyTorch takes a third of Pillow's time for nearly the same pixels.
    """
    if pixels.shape[1::-1] == size:
        return pixels
    with without_codecs():
        import torch  # here, because the pages and reports, which show pictures, do not need it

        # In this order, the strides are those of channels_last, which the result has then, too.
        tensor = torch.from_numpy(pixels).unsqueeze(0).permute(0, 3, 1, 2)  # [1, 3, H, W]
        shape = size[1], size[0]
        small = torch.nn.functional.interpolate(tensor, shape, mode="bicubic", antialias=True)
        return small[0].permute(1, 2, 0).numpy()


def fitted_size(size: Size, side: int) -> Size:
    """Return the size of a picture that was made to fit into a square; it is never enlarged."""
    longer = max(*size, side)
    width, height = (max(1, round(each * side / longer)) for each in size)
    return width, height


def _factor(length: int, target: int) -> int:
    return int(length / target / GAP) or 1


def _reduced(picture: Image.Image, factors: Size, convert: Convert | None) -> Image.Image:
    """Return the means of boxes of `factors` pixels, after `convert`."""
    if convert is None:
        return picture.reduce(factors) if factors != (1, 1) else picture
    width, height = picture.size
    rows = max(1, _STRIP // (width * factors[1])) * factors[1]
    strips = (
        convert(picture.crop((0, top, width, min(top + rows, height))))
        for top in range(0, height, rows)
    )
    small: Image.Image | None = None
    for number, strip in enumerate(strips):
        part = strip.reduce(factors) if factors != (1, 1) else strip
        if small is None:
            small = Image.new(part.mode, (part.width, -(-height // factors[1])))
        small.paste(part, (0, number * rows // factors[1]))
    assert small is not None  # a picture has rows
    return small


def _conversion(picture: Image.Image, colours: Transform | None) -> Convert | None:
    """Return how parts of a picture become opaque, of a mode whose means are right; None if it is.

    `colours` are those that must be converted at full size.
    """
    if is_deep(picture.mode):
        to_grey = depth_of(picture)
        return (lambda part: colours(to_grey(part))) if colours else to_grey
    if picture.has_transparency_data or picture.mode in _PREMULTIPLIED:
        return lambda part: _on_white(part, colours)
    if colours:
        return lambda part: colours(_plain(part))
    return None if picture.mode in _PLAIN else _plain


def _plain(part: Image.Image) -> Image.Image:
    if part.mode in _PLAIN:
        return part
    return part.convert("L" if part.mode == "1" else "RGB")


def _on_white(part: Image.Image, colours: Transform | None) -> Image.Image:
    """Return a part with transparent pixels on white."""
    rgba = part.convert("RGBA" if part.mode != "La" else "LA").convert("RGBA")
    rgb = rgba.convert("RGB")
    alpha = rgba.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return colours(rgb) if colours else rgb
    canvas = Image.new("RGB", rgba.size, "white")
    canvas.paste(colours(rgb) if colours else rgb, (0, 0), alpha)
    return canvas
