import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from vae_core.config import DataConfig
from vae_core.data import prepare
from vae_core.data.images import ImageError, read_image
from vae_core.errors import UserError

LIMITS = {"max_height": 4096, "max_pixels": 10**6}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_SWEEP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "images"
    path.mkdir()
    return path


def noise(seed, height=40, width=32, mode="RGB"):
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def fill(folder, count=12, height=40):
    for index in range(count):
        noise(index, height).save(folder / f"{index:02d}.png")


def config(folder, **changes):
    return DataConfig(**({"source": "folder", "path": str(folder), "width": 32} | changes))


def read(path, channels=1, width=4, **changes):
    return read_image(path, channels=channels, width=width, **(LIMITS | changes))


def average_area(pixels, height, width):
    fine = np.repeat(np.repeat(pixels.astype(float), height, axis=0), width, axis=1)
    return fine.reshape(height, pixels.shape[0], width, pixels.shape[1]).mean(axis=(1, 3))


@pytest.mark.parametrize("width", [5, 13, 30])
def test_shrinking_is_the_exact_area_average_with_the_aspect_kept(folder, width):
    image = noise(0, 47, 31, "L")
    image.save(folder / "a.png")
    height = int(47 * width / 31 + 0.5)
    expected = np.floor(average_area(np.asarray(image), height, width) + 0.5)
    assert np.abs(read(folder / "a.png", width=width)[0] - expected).max() <= 1  # halves may round either way
    assert (read(folder / "a.png", width=width)[0] == expected).mean() > 0.99


def test_an_image_of_the_right_width_keeps_its_pixels(folder):
    image = noise(1)
    image.save(folder / "a.png")
    np.testing.assert_array_equal(read(folder / "a.png", 3, 32), np.moveaxis(np.asarray(image), 2, 0))


def test_enlarging_is_smooth_and_keeps_the_aspect(folder):
    Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).save(folder / "a.png")
    pixels = read(folder / "a.png", width=8)
    assert pixels.shape == (1, 4, 8)
    assert (np.diff(pixels[0, 0].astype(int)) >= 0).all()


@pytest.mark.parametrize("width", [16, 32, 64])
def test_a_tall_image_keeps_its_middle(folder, width):
    noise(2, 100, 32).save(folder / "a.png")
    whole = read(folder / "a.png", 3, width)
    rows = whole.shape[1]
    middle = read(folder / "a.png", 3, width, max_height=20)
    first = (rows - 20) // 2
    assert np.abs(middle.astype(int) - whole[:, first : first + 20]).max() <= 1


def test_exif_orientation_is_applied(folder):
    pixels = np.zeros((20, 40), dtype=np.uint8)
    pixels[:, :20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    Image.fromarray(pixels).save(folder / "a.jpg", exif=exif, quality=95)
    upright = read(folder / "a.jpg", width=20)
    assert upright.shape == (1, 40, 20)
    assert upright[0, :18].min() > 240
    assert upright[0, 22:].max() < 15


def test_sixteen_bit_gray_is_divided_by_257(folder):
    Image.fromarray(np.array([[0, 257, 32896, 65535]], dtype=np.uint16)).save(folder / "a.png")
    assert read(folder / "a.png")[0, 0].tolist() == [0, 1, 128, 255]
    assert read(folder / "a.png", channels=3)[:, 0, 2].tolist() == [128, 128, 128]


def test_transparency_is_laid_over_white(folder):
    pixels = np.zeros((1, 4, 4), dtype=np.uint8)
    pixels[0, :, 3] = [0, 128, 255, 255]
    pixels[0, 3, :3] = 200
    Image.fromarray(pixels).save(folder / "rgba.png")
    assert read(folder / "rgba.png")[0, 0].tolist() == [255, 127, 0, 200]
    palette = Image.new("P", (4, 1), 0)
    palette.putpalette([10, 20, 30, 255, 0, 0])
    palette.putpixel((1, 0), 1)
    palette.save(folder / "p.png", transparency=0)
    assert read(folder / "p.png", channels=3)[:, 0].T.tolist() == [
        [255] * 3,
        [255, 0, 0],
        [255] * 3,
        [255] * 3,
    ]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_is_read_as_gray_and_as_rgb(folder, mode):
    name = "a.jpg" if mode == "CMYK" else "a.png"
    noise(3).convert(mode).save(folder / name)
    assert read(folder / name, 1).shape == (1, 5, 4)
    assert read(folder / name, 3).shape == (3, 5, 4)


def png_bytes(image):
    content = io.BytesIO()
    image.save(content, format="PNG")
    return content.getvalue()


def bomb(width, height):
    """Return a PNG whose header promises a huge image."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")):
        content += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return content


BROKEN = {
    "empty.png": (b"", "the file is empty"),
    "text.png": (b"hello", "neither a PNG nor a JPEG"),
    "gif.png": (b"GIF89a" + b"\x00" * 20, "neither a PNG nor a JPEG"),
    "cut.png": (png_bytes(noise(0))[:900], "cannot be decoded"),
    "large.png": (
        png_bytes(noise(0, 1100, 1000, "L")),
        "1000 x 1100 = 1100000 px, more than data.max_pixels",
    ),
    "warned.png": (bomb(10_000, 10_000), "px, more than data.max_pixels"),
    "bomb.png": (bomb(60_000, 60_000), "is too large"),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_an_unusable_image_says_why(folder, name):
    content, reason = BROKEN[name]
    (folder / name).write_bytes(content)
    with pytest.raises(ImageError, match=reason):
        read(folder / name)


def test_a_result_too_large_is_refused_before_it_is_made(folder):
    Image.new("L", (1, 60_000)).save(folder / "a.png")
    with pytest.raises(ImageError, match="would have 100 x 60000 px"):
        read(folder / "a.png", width=100, max_height=60_000)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_damaged_bytes_give_pixels_or_a_reason_and_nothing_else(folder, form):
    content = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 3
    noise(5).save(content, format=form, exif=exif)
    rng = np.random.default_rng(6)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content.getvalue())
        for place in rng.integers(0, len(damaged), 3):
            damaged[place] = rng.integers(0, 256)
        path = folder / f"a.{form.lower()}"
        path.write_bytes(bytes(damaged[: rng.integers(1, len(damaged) + 1)] if rng.random() < 0.3 else damaged))
        try:
            assert read(path).shape[2] == 4
        except ImageError:
            refused += 1
    assert refused > 0
    assert refused < 300 or form == "PNG"  # whose every chunk has a checksum


def test_unusable_images_are_skipped_by_name_and_counted(folder):
    fill(folder)
    for name, (content, _) in BROKEN.items():
        (folder / name).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = prepare(config(folder, max_pixels=10**6))
    assert len(dataset) == 12
    assert {item.name for item in dataset.skipped} == set(BROKEN)
    assert len(dataset.describe()["skipped"]) == len(BROKEN)


def test_more_unusable_images_than_allowed_are_refused_naming_the_first(folder):
    fill(folder)
    for index in range(3):
        (folder / f"bad{index}.png").write_bytes(b"x")
    assert len(prepare(config(folder, max_skipped=3)).skipped) == 3
    with pytest.raises(UserError, match=r"data.max_skipped: at most 2 .* bad0.png: is neither .* bad1.png"):
        prepare(config(folder, max_skipped=2))


def test_a_folder_without_a_usable_image_is_refused(folder):
    (folder / "bad.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"holds no usable image; bad\.png: is neither"):
        prepare(config(folder))


def test_labels_are_the_first_folders_and_nested_folders_are_read(folder):
    for name in ("b/x/1.png", "a/2.PNG", "a/y/3.jpg", "4.jpeg", ".hidden/5.png", "a/.6.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise(len(name) + ord(name[-5])).save(folder / name)
    dataset = prepare(config(folder))
    assert dataset.names == ["4.jpeg", "a/2.PNG", "a/y/3.jpg", "b/x/1.png"]
    assert dataset.label_names == ["a", "b"]
    assert dataset.labels.tolist() == [-1, 0, 0, 1]


def test_labels_from_a_csv_name_files_with_or_without_suffix(folder, tmp_path):
    fill(folder)
    table = tmp_path / "labels.csv"
    table.write_text("\ufefflabel,name,more\ncat,00.png,1\ndog,01,2\n,02,\nowl,unknown.png,\n", encoding="utf-8")
    dataset = prepare(config(folder, labels=str(table)))
    assert dataset.label_names == ["cat", "dog"]
    assert dataset.labels.tolist() == [0, 1, *[-1] * 10]


def test_a_folder_without_labels_has_none(folder):
    fill(folder)
    dataset = prepare(config(folder))
    assert dataset.labels is None
    assert dataset.label_names == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("a,b\n1,2\n", "must have the columns name and label; found a, b"),
        ("", "found none"),
        ("name,label\nzzz,1\n", "names none of the files, such as 00.png"),
        ("name,label\n00,a\n00,b\n", "line 3: 00 has two labels, a and b"),
        (b"name,label\n\xff\xfe,b\n", "cannot be read"),
    ],
)
def test_a_bad_csv_of_labels_is_refused(folder, tmp_path, content, message):
    fill(folder)
    table = tmp_path / "labels.csv"
    if content is not None:
        table.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=f"data.labels: .*{message}"):
        prepare(config(folder, labels=str(table)))


@pytest.mark.parametrize("source", ["folder", "trees", "fashion-mnist"])
def test_a_missing_empty_or_wrong_path_is_refused_with_its_dotted_path(tmp_path, source):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for path, message in (("none", "does not exist"), ("file", "is a file"), ("empty", "no ")):
        with pytest.raises(UserError, match=f"^data.path: .*{message}") as caught:
            prepare(DataConfig(source=source, path=str(tmp_path / path), width=28))
        assert len(caught.value.messages) == 1
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("source", ["folder", "trees"])
def test_a_path_is_required(source):
    with pytest.raises(UserError, match=r"data\.path: is required"):
        prepare(DataConfig(source=source))
