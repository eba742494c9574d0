"""Memory: what decoding takes is known before, and bounded for all threads together."""

import io
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from captioner.errors import ImageTooLarge, UnreadableImage
from captioner.image import ImageLimits, decode, decode_image
from captioner.image.formats.av1 import coded_pixels
from captioner.image.memory import BUDGET, ByteBudget
from tests.support.hostile_files.parts import ico, png, tiff, vp8l

MIB = 1 << 20
ZEROS = zlib.compress(bytes(10_000_000), 9)
FLOATS = {256: 13_000, 257: 13_000, 258: 32, 259: 8, 262: 1, 277: 1, 278: 13_000, 339: 3}
# Decodes the file on standard input, and prints by how much the peak of memory grew.
PEAK = """
import io, sys
from PIL import Image
from captioner.errors import ImageError
from captioner.image import decode_image

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

decode_image(Image.new("RGB", (9, 9)), 224)
data = sys.stdin.buffer.read()
before = peak()
try:
    print("ok", decode_image(data, 224).width, end=" ")
except ImageError as error:
    print(type(error).__name__, 0, end=" ")
print((peak() - before) // 1024)
"""

# Threads decode the file on standard input, one after the other; prints by how much memory grew.
KEPT = """
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from captioner.allocator import keep_freed_memory
from captioner.image import decode_image

def resident():
    return int(open("/proc/self/statm").read().split()[1])

keep_freed_memory()
data = sys.stdin.buffer.read()
with ThreadPoolExecutor(4) as pool:
    together = Barrier(4)
    list(pool.map(lambda _: together.wait(), range(4)))  # so that there are four
    decode_image(data, 224)
    before = resident()
    for _ in range(12):
        pool.submit(decode_image, data, 224).result()
print((resident() - before) * 4096 >> 20)
"""


def peak(data: bytes) -> tuple[str, int, int]:
    """Return the outcome for a file, the width, and the MiB that a new process took for it."""
    run = subprocess.run([sys.executable, "-c", PEAK], input=data, capture_output=True, check=True)
    outcome, width, memory = run.stdout.decode().split()
    return outcome, int(width), int(memory)


def jpeg(width: int, height: int, **options: bool) -> bytes:
    file = io.BytesIO()
    Image.new("L", (width, height), 90).save(file, "JPEG", **options)
    return file.getvalue()


def far_frame() -> bytes:
    """Return a blank GIF of 60 x 40 pixels whose second frame lies far outside."""
    blank, dotted = Image.new("RGB", (60, 40)), Image.new("RGB", (60, 40))
    dotted.putpixel((7, 5), (255, 255, 255))
    file = io.BytesIO()
    blank.save(file, "GIF", save_all=True, append_images=[dotted])
    near, far = (struct.pack("<cHHHH", b",", x, y, 1, 1) for x, y in ((7, 5), (13_000, 13_000)))
    assert near in file.getvalue()
    return file.getvalue().replace(near, far)


def test_a_jpeg_of_200_megapixels_takes_little_memory() -> None:
    outcome, width, memory = peak(jpeg(16_384, 12_288))
    assert (outcome, width) == ("ok", 16_384)
    assert memory < 150


@pytest.mark.parametrize(
    "data",
    [
        vp8l(13_000, 13_000),
        tiff(FLOATS, ZEROS),
        ico(png((13_000, 13_000), 8, 6, ZEROS)),
        png((100, 100), 8, 0, zlib.compress(bytes(200_000_000), 9)),
        far_frame(),
    ],
    ids=["webp", "float tiff", "icon", "png with more data than pixels", "gif with a far frame"],
)
@pytest.mark.filterwarnings("ignore")
def test_a_small_file_takes_no_more_memory_than_the_budget(data: bytes) -> None:
    assert len(data) < 250_000
    assert peak(data)[2] < 100


def test_a_deep_picture_is_not_copied_as_a_whole() -> None:
    file = io.BytesIO()
    Image.fromarray(np.zeros((5_000, 5_000), dtype=np.float32)).save(file, "TIFF")
    outcome, _, memory = peak(file.getvalue())
    assert outcome == "ok"
    assert memory < 1.6 * 100_000_000 / MIB  # 100 MB are its values


def test_threads_keep_no_memory_of_pictures_that_another_could_use() -> None:
    file = io.BytesIO()
    Image.new("RGB", (5_000, 4_000)).save(file, "PNG")
    run = subprocess.run(
        [sys.executable, "-c", KEPT], input=file.getvalue(), capture_output=True, check=True
    )
    assert int(run.stdout) < 40  # of the 76 that one of them takes


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_only_jpegs_have_no_limit_of_pixels_unless_it_is_given(options: dict[str, bool]) -> None:
    data = jpeg(400, 300, **options)
    assert decode_image(data, 16).width == 400
    with pytest.raises(ImageTooLarge, match="400 x 300"):
        decode_image(data, 16, ImageLimits(max_pixels=119_999))
    with pytest.raises(ImageTooLarge, match="20000 x 20000"):
        decode_image(png((20_000, 20_000), 1, 0, ZEROS), 16)
    with pytest.raises(UnreadableImage):  # so the limit can be raised
        decode_image(png((20_000, 20_000), 1, 0, ZEROS), 16, ImageLimits(max_pixels=400_000_000))


def test_a_progressive_jpeg_counts_its_coefficients() -> None:
    data = jpeg(16, 16, progressive=True)
    place = data.index(b"\xff\xc2") + 5
    large = data[:place] + b"\xfa\x00\xfa\x00" + data[place + 4 :]  # 64,000 pixels a side
    with pytest.raises(ImageTooLarge, match=f"more than the limit of {BUDGET // MIB} MiB"):
        decode_image(large, 16)


def with_other_size(avif: bytes) -> bytes:
    """Return an AVIF or HEIF whose boxes say that the picture has 16 x 16 pixels."""
    place = avif.index(b"ispe") + 8
    return avif[:place] + struct.pack(">II", 16, 16) + avif[place + 8 :]


def gif_of_43_bytes(side: int) -> bytes:
    """Return a GIF without pixels whose only frame is followed by its background."""
    size = struct.pack("<HH", side, side)
    screen = b"GIF89a" + size + b"\x80\0\0" + bytes(6)
    return screen + b"!\xf9\4\x08\0\0\0\0," + bytes(4) + size + b"\0\x02\x02\x4c\x01\0;"


def test_the_memory_of_a_gif_is_taken_before_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "DECODING", ByteBudget(64 * MIB))
    monkeypatch.setattr(decode, "open_picture", lambda *_: pytest.fail("it was opened"))
    small, large = gif_of_43_bytes(6_000), gif_of_43_bytes(13_000)
    outside = small.replace(b"," + bytes(4), b",\x80\0\0\0")
    for data in (small, outside):
        with pytest.raises(ImageTooLarge, match="MiB of memory"):
            decode_image(data, 16)
    with pytest.raises(ImageTooLarge, match="13000 x 13000"):
        decode_image(large, 16, ImageLimits(max_pixels=13_000**2 - 1))


@pytest.mark.parametrize("frames", [1, 3])
def test_the_pixels_that_an_avif_codes_count_whatever_its_boxes_say(
    monkeypatch: pytest.MonkeyPatch, frames: int
) -> None:
    monkeypatch.setattr(decode, "DECODING", ByteBudget(24 * MIB))
    file = io.BytesIO()
    picture = Image.new("RGB", (1_200, 1_000), "red")
    others = [Image.new("RGB", picture.size) for _ in range(1, frames)]
    picture.save(file, "AVIF", speed=10, save_all=frames > 1, append_images=others)
    assert coded_pixels(file.getvalue()) == 1_200_000
    with pytest.raises(ImageTooLarge, match="26 MiB of memory"):
        decode_image(file.getvalue(), 16)
    with pytest.raises(ImageTooLarge, match="26 MiB of memory"):
        decode_image(with_other_size(file.getvalue()), 16)


@pytest.mark.parametrize(
    "data", [b"", b"\0\0\0\x08meta" * 3_000, b"\0\0\0\x14meta\0\0\0\0\0\0\0\x08iloc"]
)
def test_damaged_boxes_code_no_pixels(data: bytes) -> None:
    assert coded_pixels(data) == 0


def test_a_heif_whose_boxes_say_another_size_is_not_decoded() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (128, 64))).save(file)
    with pytest.raises(UnreadableImage):
        decode_image(with_other_size(file.getvalue()), 16)


def test_threads_share_a_budget() -> None:
    budget = ByteBudget(100)
    taken, most, lock = [0], [0], threading.Lock()

    def work(count: int) -> None:
        with budget.taken(count):
            with lock:
                taken[0] += count
                most[0] = max(most[0], taken[0])
            with lock:
                taken[0] -= count

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [100, 1, 60, 60, 30, 90, 5, 100] * 50))
    assert 60 <= most[0] <= 100
    with budget.taken(100):
        pass


def test_what_is_larger_than_the_budget_is_refused_and_an_error_gives_its_bytes_back() -> None:
    budget = ByteBudget(100)
    with pytest.raises(ImageTooLarge, match="memory"):
        enter(budget, 101, lambda: None)

    def fail() -> None:
        raise UnreadableImage("damaged")

    with pytest.raises(UnreadableImage):
        enter(budget, 100, fail)
    enter(budget, 100, lambda: None)


def enter(budget: ByteBudget, count: int, action: Callable[[], None]) -> None:
    with budget.taken(count):
        action()
