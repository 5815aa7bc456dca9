"""Videos: which frames are taken, how they are brought to size, their sound, and broken files."""

import sys

import numpy as np
import pytest
import torch

from datamodules.readers.audio import AudioReader, read_sound
from datamodules.readers.video import VideoReader, read_clip, sample_times
from tests.datamodules.clips import numbers, write_clip

av = pytest.importorskip("av")


def read_video(file, options, rng=None):
    return options.decode(file, where="example 5", **({"rng": rng} if rng else {}))


SMALL = {"size": (16, 24), "channels": 1}


def options(frames=4, **other):
    return VideoReader(**(SMALL | {"num_frames": frames} | other))


def sound_options(**other):
    return AudioReader(**({"sample_rate": 16000, "max_seconds": 9.0} | other))


CONTAINERS = [
    ("clip.mp4", "libx264"),
    ("clip.mkv", "libx264"),
    ("clip.webm", "libvpx-vp9"),
    ("clip.avi", "mpeg4"),
    ("clip.ts", "libx264"),
]


@pytest.mark.parametrize(("name", "codec"), CONTAINERS)
def test_uniform_sampling_takes_the_middle_of_equal_parts(tmp_path, name, codec):
    path = write_clip(tmp_path / name, frames=31, codec=codec)
    # 3.1 s in four parts of 0.775 s: 0.3875, 1.1625, 1.9375, 2.7125 s at ten frames a second.
    assert numbers(read_video(path, options(4))) == [3, 11, 19, 27]
    assert numbers(read_video(path, options(31))) == list(range(31))


@pytest.mark.parametrize(("name", "codec"), CONTAINERS)
def test_the_contents_of_a_file_read_as_the_file(tmp_path, name, codec):
    path = write_clip(tmp_path / name, codec=codec)
    frames = read_video(path.read_bytes(), options(3))
    torch.testing.assert_close(frames, read_video(path, options(3)), rtol=0, atol=0)


def test_seeking_gives_the_frames_of_decoding_everything(tmp_path):
    for key_every in (1, 4, 13, 100):
        path = write_clip(tmp_path / "clip.mp4", frames=31, key_every=key_every)
        with av.open(str(path)) as file:
            everything = [frame.to_ndarray(format="gray") for frame in file.decode(video=0)]
        for count in (1, 2, 5, 11):
            taken = read_video(path, VideoReader(num_frames=count, size=(32, 48), channels=1))
            moments = (np.arange(count) + 0.5) * 3.1 / count
            wanted = np.stack([everything[int(moment * 10)] for moment in moments])
            assert np.abs(taken[:, 0].numpy().astype(int) - wanted).max() <= 1


def test_seeking_saves_decoding(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", frames=31, key_every=4)
    assert numbers(read_video(path, options(1, max_decode=8))) == [15]
    whole = write_clip(tmp_path / "whole.mp4", frames=31, key_every=100)
    with pytest.raises(ValueError, match=r"whole\.mp4.*max_decode=8 frames"):
        read_video(whole, options(1, max_decode=8))


@pytest.mark.parametrize(("name", "codec"), CONTAINERS)
def test_long_clips_are_sought_in_wherever_the_container_lands(tmp_path, name, codec):
    grey = np.arange(201) % 34 * 7  # the number of a frame, once each 3.4 s
    pictures = np.broadcast_to(grey[:, None, None, None], (201, 32, 48, 3)).astype(np.uint8)
    path = write_clip(
        tmp_path / name, frames=201, codec=codec, key_every=23, pictures=pictures.copy()
    )
    for count in (1, 2, 3, 7):
        moments = ((np.arange(count) + 0.5) * 20.1 / count * 10).astype(int)
        assert numbers(read_video(path, options(count))) == (moments % 34).tolist()


def test_frames_are_found_by_their_time_where_the_rate_varies(tmp_path):
    # On the screen from 0, 0.1, 0.7 and 1.0 s on, in parts of 0.1 s: 0.05, 0.15, …, 0.95 s.
    path = write_clip(tmp_path / "clip.mkv", frames=4, times=[0, 100, 700, 1000])
    taken = read_video(path, options(10, max_seconds=1.0))
    assert numbers(taken) == [0, 1, 1, 1, 1, 1, 1, 2, 2, 2]


def test_a_clip_with_too_few_frames_repeats_them(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", frames=3)
    assert numbers(read_video(path, options(6))) == [0, 0, 1, 1, 2, 2]


def test_random_sampling_draws_one_moment_of_each_part():
    opts = options(5, sampling="random")
    rng = np.random.default_rng(0)
    drawn = np.stack([sample_times(opts, seconds=10, rate=30, rng=rng)[0] for _ in range(2003)])
    shares = drawn / 2 - np.arange(5)
    assert (shares >= 0).all()
    assert (shares < 1).all()
    # Uniform on [0, 1): mean 1/2, standard deviation 1/√12.
    assert np.abs(shares.mean(axis=0) - 0.5).max() < 4 / np.sqrt(12 * 2003)
    assert np.abs(shares.std(axis=0) - 1 / np.sqrt(12)).max() < 0.02
    middle = sample_times(opts, seconds=10, rate=30, rng=None)[0]
    np.testing.assert_allclose(middle, [1, 3, 5, 7, 9])


def test_dense_sampling_takes_successive_frames_from_any_place(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", frames=11)
    opts = options(4, sampling="dense")
    assert numbers(read_video(path, opts)) == [3, 4, 5, 6]
    rng = np.random.default_rng(0)
    starts = set()
    for _ in range(60):
        taken = numbers(read_video(path, opts, rng=rng))
        assert taken == list(range(taken[0], taken[0] + 4))
        starts.add(taken[0])
    assert starts == set(range(8))


def test_dense_sampling_at_a_lower_rate_leaves_frames_out(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", frames=31)
    opts = options(3, sampling="dense", frames_per_second=2.5)
    # Steps of 0.4 s, seven of which fit: steps 2, 3 and 4 are in the middle.
    assert numbers(read_video(path, opts)) == [10, 14, 18]


def test_dense_sampling_of_a_short_clip_gives_what_there_is(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", frames=3)
    assert numbers(read_video(path, options(7, sampling="dense"))) == [0, 1, 2]


def test_long_clips_are_cut_to_their_beginning(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", frames=31)
    assert numbers(read_video(path, options(2, max_seconds=1.0))) == [2, 7]


def quarters():
    """One picture: black, dark, light and white quarters, left to right and top to bottom."""
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:16, 16:], picture[16:, :16], picture[16:, 16:] = 80, 160, 240
    return np.repeat(picture[None], 3, axis=0)


@pytest.mark.parametrize(
    ("rotation", "corners"),  # by hand: counter-clockwise, top left, top right, bottom left, right
    [
        (0, [0, 80, 160, 240]),
        (90, [80, 240, 0, 160]),
        (180, [240, 160, 80, 0]),
        (-90, [160, 0, 240, 80]),
    ],
)
def test_rotation_in_the_metadata_is_applied(tmp_path, rotation, corners):
    path = write_clip(
        tmp_path / "clip.mp4", frames=3, size=(32, 32), pictures=quarters(), rotation=rotation
    )
    frame = read_video(path, options(1, size=(32, 32)))[0, 0].float()
    found = [frame[y, x].item() for y in (8, 24) for x in (8, 24)]
    assert found == pytest.approx(corners, abs=6)


def test_a_rotated_clip_is_fitted_as_it_is_seen(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", frames=2, size=(32, 64), rotation=90)
    assert read_video(path, options(1, size=(64, 32))).shape == (1, 1, 64, 32)


def bars():
    """A picture of 32 × 96: its middle third white, the rest black."""
    picture = np.zeros((32, 96, 3), np.uint8)
    picture[:, 32:64] = 255
    return np.repeat(picture[None], 3, axis=0)


def test_cropping_keeps_the_centre_and_stretching_all_of_it(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", frames=3, size=(32, 96), pictures=bars())
    cropped = read_video(path, options(1, size=(16, 16)))[0, 0].float()
    assert cropped[:, 1:-1].min() > 240
    stretched = read_video(path, options(1, size=(32, 48), resize="stretch"))[0, 0].float()
    assert stretched[:, :14].max() < 16
    assert stretched[:, 18:30].min() > 240
    assert stretched[:, 34:].max() < 16


def test_colours_are_red_green_and_blue(tmp_path):
    red = np.zeros((2, 32, 32, 3), np.uint8)
    red[..., 0] = 255
    path = write_clip(tmp_path / "clip.mp4", frames=2, size=(32, 32), pictures=red)
    frame = read_video(path, options(1, channels=3)).float().mean((0, 2, 3))
    assert frame.tolist() == pytest.approx([255, 0, 0], abs=6)


def tones(rate=16000):
    """One second each of 400, 800 and 1600 Hz."""
    time = np.arange(3 * rate) / rate
    return 0.5 * np.sin(2 * np.pi * np.array([400, 800, 1600]).repeat(rate) * time)


def pitch(waveform, rate=16000):
    return torch.fft.rfft(waveform).abs().argmax().item() * rate / len(waveform)


@pytest.mark.parametrize(
    ("name", "codec", "sound_codec"),
    [("clip.mp4", "libx264", "aac"), ("clip.mkv", "libx264", "pcm_s16le")],
)
def test_the_sound_is_that_of_the_span_the_frames_are_from(tmp_path, name, codec, sound_codec):
    path = write_clip(
        tmp_path / name, frames=30, codec=codec, sound=tones(), sound_codec=sound_codec
    )
    video, sound = read_clip(path, options(5), audio=sound_options())
    assert numbers(video) == [3, 9, 15, 21, 27]
    assert len(sound) == 3 * 16000
    for second, frequency in enumerate([400, 800, 1600]):
        part = sound[second * 16000 + 200 : (second + 1) * 16000 - 200]
        assert pitch(part) == pytest.approx(frequency, rel=0.02)
    # Ten successive frames from the middle of thirty: the middle second.
    video, sound = read_clip(path, options(10, sampling="dense"), audio=sound_options())
    assert numbers(video) == list(range(10, 20))
    assert len(sound) == 16000
    assert pitch(sound[200:-200]) == pytest.approx(800, rel=0.02)


def test_the_sound_is_aligned_to_the_sample_where_the_codec_is_lossless(tmp_path):
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, 48000)
    path = write_clip(tmp_path / "clip.mkv", frames=30, sound=waveform, sound_codec="pcm_s16le")
    _, sound = read_clip(path, options(10, sampling="dense"), audio=sound_options())
    wanted = torch.from_numpy(waveform[16000:32000]).float()
    torch.testing.assert_close(sound, wanted, rtol=0, atol=1e-4)


def test_the_sound_is_mixed_to_one_channel_and_resampled(tmp_path):
    both = np.stack([tones(), np.zeros(48000)])
    path = write_clip(tmp_path / "clip.mkv", frames=30, sound=both, sound_codec="pcm_s16le")
    sound = read_sound(path, sound_options(sample_rate=8000, max_seconds=2.5))
    assert len(sound) == 20000
    assert sound[2000:6000].abs().max().item() == pytest.approx(0.25, abs=0.01)
    assert pitch(sound[8200:15800], 8000) == pytest.approx(800, rel=0.02)


def test_a_silent_film_has_no_sound(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", frames=5)
    assert read_clip(path, options(2), audio=sound_options())[1] is None
    assert read_sound(path, sound_options()) is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "zero bytes"),
        (b"not a video at all", "no video that FFmpeg knows"),
    ],
)
def test_files_that_are_no_video_are_named(tmp_path, content, words):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"Cannot read the video .*clip\.mp4: .*{words}"):
        read_video(path, options())
    with pytest.raises(ValueError, match="Cannot read the video of example 5: "):
        read_video(content, options())


@pytest.mark.parametrize(("name", "codec"), CONTAINERS[:3])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_video_that_is_cut_short_is_named(tmp_path, name, codec, share):
    noise = np.random.default_rng(0).integers(0, 256, (31, 32, 48, 3), dtype=np.uint8)
    path = write_clip(tmp_path / name, codec=codec, pictures=noise)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=rf"Cannot read the video .*{name}: "):
        read_video(path, options(31))


def test_a_playlist_cannot_name_other_files(tmp_path):
    write_clip(tmp_path / "other.ts")
    playlist = tmp_path / "clip.m3u8"
    playlist.write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:3.1,\nother.ts\n#EXT-X-ENDLIST\n"
    )
    with pytest.raises(ValueError, match=r"clip\.m3u8: it is no video that FFmpeg knows"):
        read_video(playlist, options())


def test_sound_alone_is_no_video(tmp_path):
    import soundfile

    path = tmp_path / "tone.wav"
    soundfile.write(path, tones(), 16000)
    with pytest.raises(ValueError, match="it has no video stream"):
        read_video(path, options())


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.mp4: there is no such file"):
        read_video(tmp_path / "absent.mp4", options())


def test_without_the_package_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"perceiver-multimodal\[video\]"):
        read_video(tmp_path / "clip.mp4", options())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"sampling": "sparse"}, "sampling='sparse', expected one of uniform, random, dense"),
        ({"resize": "pad"}, "resize='pad', expected one of crop, stretch"),
        ({"channels": 4}, "channels=4, expected one of 1, 3"),
        ({"num_frames": 0}, "num_frames=0"),
        ({"size": (5,)}, r"size=\[5\], expected \[height, width\]"),
        ({"frames_per_second": 0}, "frames_per_second=0, expected more than 0"),
        ({"max_seconds": -1.0}, "max_seconds=-1.0, expected more than 0"),
    ],
)
def test_wrong_options_are_refused(wrong, words):
    with pytest.raises(ValueError, match=f"data.video.{words}"):
        options(**{"frames" if k == "num_frames" else k: v for k, v in wrong.items()})
