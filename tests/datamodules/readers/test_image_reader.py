"""read_image: every kind of file becomes uint8 of the promised shape, or a clear error."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from datamodules.readers.image import ImageReader, read_image

OPTIONS = ImageReader(channels=3, size=[3, 5])


def save(path, array, mode=None):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)
    return path


def grid(value=(200, 100, 50), height=3, width=5):
    return np.full((height, width, 3), value, dtype=np.uint8)


def test_pixels_come_as_channels_height_width(tmp_path):
    array = np.random.default_rng(0).integers(256, size=(3, 5, 3), dtype=np.uint8)
    pixels = read_image(save(tmp_path / "a.png", array), OPTIONS)
    assert pixels.dtype == torch.uint8
    assert np.array_equal(pixels.numpy(), array.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("mode", "suffix"), [("CMYK", "tif"), ("P", "png"), ("P", "gif"), ("RGBA", "png")]
)
def test_other_colour_modes_become_the_same_colour(tmp_path, mode, suffix):
    pixels = read_image(save(tmp_path / f"a.{suffix}", grid(), mode), OPTIONS)
    # A palette of 216 web colours is 51 apart: off by at most half a step.
    assert (pixels.float().mean((1, 2)) - torch.tensor([200.0, 100, 50])).abs().max() <= 26


def test_grey_is_repeated_over_the_channels_and_colour_becomes_grey(tmp_path):
    pixels = read_image(save(tmp_path / "a.png", grid()[..., 0]), OPTIONS)
    assert pixels.shape == (3, 3, 5)
    assert (pixels == 200).all()
    grey = ImageReader(channels=1, size=[3, 5])
    pixels = read_image(save(tmp_path / "b.png", grid((77, 77, 77))), grey)
    assert pixels.shape == (1, 3, 5)
    assert (pixels == 77).all()


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    array = np.full((3, 5), 257 * 100, dtype=np.uint16)
    assert (read_image(save(tmp_path / "a.png", array), OPTIONS) == 100).all()


def test_exif_rotation_is_applied(tmp_path):
    image = Image.fromarray(grid(height=5, width=3))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the top of the picture is at the right
    image.save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg", OPTIONS).shape == (3, 3, 5)


def test_the_first_frame_of_an_animation_is_read(tmp_path):
    frames = [Image.fromarray(grid((v, v, v))) for v in (0, 255)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (read_image(tmp_path / "a.gif", OPTIONS) == 0).all()


def test_another_size_is_refused_with_both_sizes_and_the_override(tmp_path):
    path = save(tmp_path / "a.png", grid(height=7, width=11))
    with pytest.raises(ValueError, match=r"a\.png is 7×11.*\[3,5\].*data\.image\.resize=true"):
        read_image(path, OPTIONS)


def test_another_size_is_scaled_if_asked(tmp_path):
    path = save(tmp_path / "a.png", grid(height=7, width=11))
    pixels = read_image(path, ImageReader(channels=3, size=[3, 5], resize=True))
    assert pixels.shape == (3, 3, 5)
    assert (pixels[0] == 200).all()


def test_a_file_of_zero_bytes_is_named(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match=r"a\.png: the file has zero bytes"):
        read_image(tmp_path / "a.png", OPTIONS)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_file_that_is_cut_short_is_named(tmp_path, suffix):
    array = np.random.default_rng(0).integers(256, size=(61, 67, 3), dtype=np.uint8)
    path = save(tmp_path / f"a.{suffix}", array)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"Cannot read the image .*a\.{suffix}"):
        read_image(path, OPTIONS)


def test_a_file_that_is_no_image_is_named(tmp_path):
    (tmp_path / "a.jpg").write_text("not an image")
    with pytest.raises(ValueError, match=r"Cannot read the image .*a\.jpg"):
        read_image(tmp_path / "a.jpg", OPTIONS)


def test_decompression_bombs_are_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", grid(height=50, width=50))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"a\.png.*decompression bomb"):
        read_image(path, OPTIONS)


@pytest.mark.parametrize(("channels", "size"), [(2, [3, 5]), (3, [3]), (3, [0, 5])])
def test_impossible_options_are_refused(channels, size):
    with pytest.raises(ValueError, match=r"data\.image\."):
        ImageReader(channels=channels, size=size)


def test_bombs_are_refused_below_twice_pillows_limit_too(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", grid(height=50, width=30))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"a\.png: 50 × 30 pixels could be a decompression bomb"):
        read_image(path, OPTIONS)


def test_the_content_of_a_file_reads_as_the_file(tmp_path):
    array = np.random.default_rng(0).integers(256, size=(3, 5, 3), dtype=np.uint8)
    path = save(tmp_path / "a.png", array)
    assert torch.equal(read_image(path.read_bytes(), OPTIONS), read_image(path, OPTIONS))
    with pytest.raises(ValueError, match="image of row 7: the file has zero bytes"):
        read_image(b"", OPTIONS, where="row 7")


@pytest.mark.parametrize("suffix", ["jpg", "gif", "tif", "webp"])
def test_a_wrong_extension_does_not_matter(tmp_path, suffix):
    path = save(tmp_path / "a.png", grid((77, 77, 77)))
    pixels = read_image(path.rename(tmp_path / f"a.{suffix}"), OPTIONS)
    assert (pixels == 77).all()


@pytest.mark.parametrize(
    ("sizes", "mode", "expected"),
    [
        ([(28, 28)] * 3, "L", {"channels": 1, "size": (28, 28)}),
        ([(37, 41)] * 3, "RGB", {"channels": 3, "size": (36, 40)}),
        ([(7, 11)], "P", {"channels": 3, "size": (7, 11)}),
        ([(32, 32), (32, 40)], "RGB", {"channels": 3, "size": (64, 64)}),
        ([(480, 640)], "RGB", {"channels": 3, "size": (64, 64)}),
        ([], "RGB", {"channels": 3, "size": (64, 64)}),
    ],
)
def test_size_and_channels_are_fitted_to_the_files(tmp_path, sizes, mode, expected):
    cells = []
    for number, (height, width) in enumerate(sizes):
        cells.append(tmp_path / f"{number}.png")
        Image.new(mode, (width, height)).save(cells[-1])
    (tmp_path / "broken.png").write_bytes(b"x")
    cells += [tmp_path / "broken.png", tmp_path / "none.png", None]
    assert ImageReader.fit({"channels": None, "size": None}, [cells]) == expected
    assert ImageReader.fit({"channels": 1, "size": [3, 3]}, [cells])["size"] == [3, 3]


def test_the_size_of_a_picture_on_its_side_is_that_of_the_picture_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(grid(height=5, width=3)).save(tmp_path / "a.jpg", exif=exif)
    assert ImageReader.fit({}, [[tmp_path / "a.jpg"]])["size"] == (3, 5)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_scaled_as_if_it_had_been_decoded_whole(tmp_path, orientation):
    rows, columns = np.mgrid[0:301, 0:403]
    waves = 127 + 100 * np.sin(rows / 31) * np.cos(columns / 47)
    image = Image.fromarray(np.stack([waves, 255 - waves, waves / 2], -1).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.jpg", quality=95, exif=exif)
    size = (31, 40) if orientation == 1 else (40, 31)
    ours = read_image(tmp_path / "a.jpg", ImageReader(channels=3, size=size, resize=True))
    with Image.open(tmp_path / "a.jpg") as file:
        whole = ImageOps.exif_transpose(file).resize(size[::-1], Image.Resampling.BILINEAR)
    difference = np.abs(ours.permute(1, 2, 0).numpy().astype(int) - np.asarray(whole))
    assert difference.mean() < 1
    assert difference.max() <= 4


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_crop_is_the_middle_at_the_size_that_is_asked_for(tmp_path, orientation, suffix):
    bands = np.zeros((40, 168, 3), np.uint8)  # red, green and blue, of 56, 56 and 56 columns
    for channel in range(3):
        bands[:, 56 * channel : 56 * (channel + 1), channel] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(bands).save(tmp_path / f"a.{suffix}", quality=95, exif=exif)
    size = (20, 28) if orientation == 1 else (28, 20)  # of 40 × 56, scaled to a half
    options = ImageReader(channels=3, size=size, resize="crop")
    pixels = read_image(tmp_path / f"a.{suffix}", options).permute(1, 2, 0).float()
    assert pixels.shape == (*size, 3)
    middle = pixels[4:-4, 4:-4] - torch.tensor([0.0, 255, 0])
    assert middle.abs().max() <= 30


def test_images_that_are_to_fit_keep_their_own_size_or_shape(tmp_path):
    options = ImageReader(channels=1, size=(20, 30), resize="fit")
    for number, (size, fitted) in enumerate(
        [((7, 5), (7, 5)), ((40, 30), (20, 15)), ((10, 60), (5, 30)), ((1, 300), (1, 30))]
    ):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.zeros(size, np.uint8)).save(path)
        assert tuple(read_image(path, options).shape) == (1, *fitted)
        assert options.length_of(path) == fitted[0] * fitted[1]
    assert options.field().has_own_size
    assert ImageReader(channels=1, size=(2, 3), resize=True).length_of(path) is None
    with pytest.raises(ValueError, match=r"resize='fill', expected true, false, crop, keep or fit"):
        ImageReader(channels=1, size=(2, 3), resize="fill")
