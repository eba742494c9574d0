"""Caption files in every format, image stores, and splits of both."""

import io
import json
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captioner.errors import DatasetError
from captioner.image import decode_image
from captioner.training.data.caption_files import CaptionedImage, read_captions
from captioner.training.data.dataset import ImageStore, decode_split, load_split

IMAGES = [
    CaptionedImage("zebra.jpg", ("A zebra grazes .", "Stripes \u00e0 la carte\u2028on grass")),
    CaptionedImage("ant.jpg", ("An ant.",)),
    CaptionedImage("moon.jpg", ("The moon, at night.", "A white disc.")),
]


def as_json_lines(images: list[CaptionedImage]) -> str:
    entries = [{"image": image.name, "captions": image.captions} for image in images]
    return "\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries) + "\n\n"


def as_coco(images: list[CaptionedImage]) -> str:
    ids = range(70, 70 + len(images))
    named = [{"id": id_, "file_name": image.name} for id_, image in zip(ids, images, strict=True)]
    annotations = [
        {"image_id": id_, "caption": f" {caption}\n"}
        for id_, image in zip(ids, images, strict=True)
        for caption in image.captions
    ]
    return json.dumps({"info": {}, "images": named, "annotations": annotations}, indent=1)


def as_karpathy(images: list[CaptionedImage], splits: list[str], **fields: str) -> str:
    entries = [
        {
            "filename": image.name,
            "split": split,
            "sentences": [{"raw": caption, "tokens": []} for caption in image.captions],
            **fields,
        }
        for image, split in zip(images, splits, strict=True)
    ]
    return json.dumps({"images": entries, "dataset": "test"})


def as_tokens(images: list[CaptionedImage]) -> str:
    return "".join(
        f"{image.name}#{number}\t{caption}\n"
        for image in images
        for number, caption in enumerate(image.captions)
    )


FORMATS = {
    "captions.jsonl": as_json_lines(IMAGES),
    "one_line.jsonl": as_json_lines(IMAGES[:1]),
    "captions_val2014.json": as_coco(IMAGES),
    "dataset_flickr8k.json": as_karpathy(IMAGES, ["train", "val", "test"]),
    "Flickr8k.token.txt": as_tokens(IMAGES),
    "byte_order_mark.jsonl": "\ufeff" + as_json_lines(IMAGES),
    "indented.json": "\n  " + as_coco(IMAGES),
    "windows.token": as_tokens(IMAGES).replace("\n", "\r\n"),
}


def written(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_captions_in_the_files_order(name: str, tmp_path: Path) -> None:
    expected = IMAGES[:1] if name == "one_line.jsonl" else IMAGES
    assert read_captions(written(tmp_path / name, FORMATS[name])) == expected


def test_a_split_of_a_karpathy_file_is_selected(tmp_path: Path) -> None:
    path = written(tmp_path / "dataset.json", as_karpathy(IMAGES, ["restval", "val", "train"]))
    assert read_captions(path, "val") == IMAGES[1:2]
    assert read_captions(path, "train") == [IMAGES[0], IMAGES[2]]
    assert read_captions(path, "restval") == IMAGES[:1]
    with pytest.raises(DatasetError, match="no split 'test'; it has restval, train, val"):
        read_captions(path, "test")


def test_the_folder_of_a_karpathy_image_is_part_of_its_name(tmp_path: Path) -> None:
    text = as_karpathy(IMAGES, ["val"] * 3, filepath="val2014")
    names = [image.name for image in read_captions(written(tmp_path / "dataset.json", text))]
    assert names[0] == "val2014/zebra.jpg"


@pytest.mark.parametrize(
    "name", [name for name in FORMATS if not name.startswith("dataset_flickr8k")]
)
def test_a_split_of_a_format_without_splits_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no splits.*leave the split out"):
        read_captions(written(tmp_path / name, FORMATS[name]), "train")


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no captions"),
        ("  \n\n", "no captions"),
        ("{", "line 1: not valid JSON"),
        ('{"image": "a.jpg", "captions": ["x"]}\n{"image"', "line 2: not valid JSON"),
        ('{"image": "a.jpg", "captions": ["x"]}\n\n[1]', "line 3: expected"),
        ('{"image": "a.jpg"}', "line 1: expected"),
        ('{"image": "a.jpg", "captions": "x"}', r"line 1: the captions of a\.jpg are not a list"),
        ('{"image": "a.jpg", "captions": [3]}', "not a list of strings"),
        ('{"image": "a.jpg", "captions": [" "]}', r"line 1: a\.jpg has no caption; add one"),
        ('{"image": "a.jpg", "captions": [" ...", "!"]}', r"line 1: a\.jpg has no caption"),
        ('{"image": 3, "captions": ["x"]}', "line 1: the image's name"),
        ("a.jpg#0\tx\nb.jpg x", "line 2: neither JSON nor a line like"),
        ("a.jpg\tx", "line 1: neither JSON"),
        ('{"images": 3, "annotations": []}', "'images' is not a list"),
        ('{"images": [{"id": 1}], "annotations": []}', r"images\[0\]: expected .* file_name"),
        ('{"images": [], "annotations": [{"caption": "x"}]}', r"annotations\[0\]: .* image_id"),
        ('{"images": [], "annotations": [{"caption": "x", "image_id": 9}]}', "of image 9"),
        ('{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []}', "no caption"),
        ('{"images": [{"filename": "a.jpg"}]}', r"images\[0\]: expected .* sentences"),
        ('{"images": [{"filename": "a.jpg", "sentences": [{}]}]}', r"images\[0\]: .*'raw'"),
        ('{"images": [{"filename": "a.jpg", "sentences": 3}]}', r"images\[0\]: .*'raw'"),
        ('{"images": [{"filename": 3, "sentences": []}]}', r"images\[0\]: expected a filename"),
    ],
)
def test_the_error_for_malformed_captions_names_the_place(
    text: str, message: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "captions", text)
    with pytest.raises(DatasetError, match=message) as caught:
        read_captions(path)
    assert str(caught.value).startswith(str(path))


def test_the_error_for_unreadable_captions_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"absent\.jsonl: cannot read the captions"):
        read_captions(tmp_path / "absent.jsonl")
    (tmp_path / "latin1.jsonl").write_bytes(b'{"image": "\xe9"}')
    with pytest.raises(DatasetError, match="not UTF-8"):
        read_captions(tmp_path / "latin1.jsonl")


FILES = {"ant.jpg": b"ant", "dir/bee.jpg": b"bee" * 500, "dir/cow.jpg": b"cow", "cow.jpg": b"COW"}


def as_tar(path: Path, files: dict[str, bytes], prefix: str = "") -> Path:
    with tarfile.open(path, "w") as tar:
        folder = tarfile.TarInfo(f"{prefix}dir")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def as_directory(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


@pytest.fixture(params=["directory", "tar", "tar of ./"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ImageStore:
    if request.param == "directory":
        return ImageStore(as_directory(tmp_path / "images", FILES))
    return ImageStore(as_tar(tmp_path / "images.tar", FILES, "./" if "./" in request.param else ""))


def test_a_store_reads_its_files(store: ImageStore) -> None:
    assert {name: store.read(name) for name in FILES} == FILES
    assert all(name in store for name in FILES)


def test_a_store_finds_a_file_by_the_last_part_of_its_name(store: ImageStore) -> None:
    assert "val2014/ant.jpg" in store
    assert store.read("val2014/ant.jpg") == b"ant"


def test_a_missing_image_of_a_store_is_an_error(store: ImageStore) -> None:
    assert "absent.jpg" not in store
    assert "dir" not in store
    with pytest.raises(DatasetError, match=r"images.*: no image absent\.jpg"):
        store.read("absent.jpg")


def test_a_store_can_be_read_in_threads_and_sent_to_a_process(store: ImageStore) -> None:
    sent: ImageStore = pickle.loads(pickle.dumps(store))
    names = list(FILES) * 50
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(sent.read, names)) == [FILES[name] for name in names]


def test_an_ambiguous_last_part_of_a_name_finds_no_file_of_a_tar(tmp_path: Path) -> None:
    store = ImageStore(as_tar(tmp_path / "a.tar", {"x/a.jpg": b"1", "y/a.jpg": b"2"}))
    assert "a.jpg" not in store
    assert store.read("y/a.jpg") == b"2"


@pytest.mark.parametrize("name", ["absent", "compressed.tar", "text.txt"])
def test_neither_directory_nor_tar_is_an_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("no tar")
    with tarfile.open(tmp_path / "compressed.tar", "w:gz") as tar:
        tar.add(tmp_path / "text.txt", "a.jpg")
    with pytest.raises(DatasetError, match="neither a directory nor an uncompressed tar"):
        ImageStore(tmp_path / name)


def picture(colour: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, "JPEG")
    return buffer.getvalue()


PICTURES = {"zebra.jpg": picture("white"), "ant.jpg": picture("red"), "moon.jpg": picture("blue")}


def test_several_stores_make_one_split(tmp_path: Path) -> None:
    images = [
        as_directory(tmp_path / "one", PICTURES),
        as_tar(tmp_path / "two.tar", {"ant.jpg": picture("green")}),
    ]
    captions = [
        written(tmp_path / "one.jsonl", as_json_lines(IMAGES)),
        written(tmp_path / "two.token", as_tokens(IMAGES[1:2])),
    ]
    split = load_split(images, captions, None)
    assert len(split) == 4
    assert split.captions == [image.captions for image in [*IMAGES, IMAGES[1]]]
    assert [store for store, _ in split.items] == [0, 0, 0, 1]
    assert split.read(1) == PICTURES["ant.jpg"]
    assert split.read(3) == picture("green")


def test_a_split_is_read_from_a_karpathy_file(tmp_path: Path) -> None:
    images = as_directory(tmp_path / "images", PICTURES)
    text = as_karpathy(IMAGES, ["train", "val", "val"], filepath="val2014")
    split = load_split([images], [written(tmp_path / "dataset.json", text)], "val")
    assert [split.read(index) for index in range(len(split))] == [
        PICTURES["ant.jpg"],
        PICTURES["moon.jpg"],
    ]


def test_the_error_for_missing_images_counts_and_names_them(tmp_path: Path) -> None:
    images = as_directory(tmp_path / "images", {"ant.jpg": b""})
    captions = written(tmp_path / "captions.jsonl", as_json_lines(IMAGES))
    with pytest.raises(DatasetError, match=r"2 images .*zebra\.jpg, moon\.jpg.*add the files or"):
        load_split([images], [captions], None)


@pytest.mark.parametrize("stores, files", [(2, 1), (1, 2), (0, 0)])
def test_each_store_needs_its_caption_file(stores: int, files: int, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="one caption file for each"):
        load_split([tmp_path] * stores, [tmp_path] * files, None)


def test_a_split_is_decoded_in_its_order(tmp_path: Path) -> None:
    images = as_tar(tmp_path / "images.tar", PICTURES)
    captions = written(tmp_path / "captions.jsonl", as_json_lines(IMAGES))
    pixels = np.empty((len(IMAGES), 24, 24, 3), np.uint8)
    decode_split(load_split([images], [captions], None), pixels, threads=3)
    expected = [decode_image(PICTURES[image.name], 24).pixels for image in IMAGES]
    assert (pixels == np.stack(expected)).all()


def test_the_error_for_an_undecodable_image_names_it(tmp_path: Path) -> None:
    images = as_directory(tmp_path / "images", PICTURES | {"moon.jpg": b"no image"})
    captions = written(tmp_path / "captions.jsonl", as_json_lines(IMAGES))
    with pytest.raises(DatasetError, match=r"moon\.jpg: not an image, but text; replace"):
        decode_split(
            load_split([images], [captions], None), np.empty((3, 24, 24, 3), np.uint8), threads=2
        )
