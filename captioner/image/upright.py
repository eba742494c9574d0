"""Which way up a picture is: its EXIF orientation."""

from PIL import ExifTags, Image

from captioner.image.damage import DAMAGED

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)


def orientation_of(picture: Image.Image) -> int | None:
    """Return the EXIF orientation of a picture that was loaded, 1 to 8; None without one."""
    if picture.format == "JXL" and not getattr(picture, "jpeg", False):
        return None  # its decoder turns it upright, whatever its EXIF data says
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation)
    except DAMAGED:
        return None  # the picture is readable without its EXIF data
    return orientation if orientation in range(1, 9) else None


def upright(picture: Image.Image, orientation: int) -> Image.Image:
    """Return a picture as it is displayed."""
    turn = _TURNS.get(orientation)
    return picture if turn is None else picture.transpose(turn)


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Return the size of a picture as it is displayed."""
    return (size[1], size[0]) if orientation in _SIDEWAYS else size
