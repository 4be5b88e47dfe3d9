"""Colours that everybody can tell apart, and pictures that show what the map says."""

from __future__ import annotations

import io
import itertools
import re
from importlib.resources import files
from xml.etree import ElementTree

import av
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageColor
from report_traces import QUESTION, moving, pipeline, small

from holitom.merge import Merge
from holitom.methods import HoliTom, Renewal
from holitom.report.colours import FILL, PALETTE, SCALE, colour_tokens
from holitom.report.overlay import BAR, contact_sheet, overlays, paint, write_gif, write_mp4, write_png
from holitom.report.reprs import outcomes_of

# Full dichromacy in linear RGB: Machado, Oliveira, Fernandes, IEEE TVCG 15(6), 2009, severity 1.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
    "greyscale": np.tile([0.2126, 0.7152, 0.0722], (3, 1)),
}


def lab(colours, sight: str) -> np.ndarray:
    """CIELAB (D65) of sRGB colours in 0..1 as somebody with this sight sees them."""
    colours = np.asarray(colours, dtype=np.float64)
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ SIGHT[sight].T, 0, 1)
    xyz = linear @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    xyz /= np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(np.maximum(xyz, 1e-9)), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


def closest(colours, sight: str) -> float:
    seen = lab(colours, sight)
    return min(float(np.linalg.norm(one - other)) for one, other in itertools.combinations(seen, 2))


class TestColours:
    @pytest.mark.parametrize("sight", ["normal", "protanopia", "deuteranopia", "tritanopia"])
    def test_any_two_are_told_apart_with_every_kind_of_sight(self, sight):
        palette = np.array([ImageColor.getrgb(colour) for colour in PALETTE]) / 255
        assert closest(palette, sight) > 25
        over_grey = FILL * palette + (1 - FILL) * 0.5  # as they lie over a picture
        assert closest(over_grey, sight) > 10

    @pytest.mark.parametrize("sight", ["normal", "protanopia", "deuteranopia", "tritanopia"])
    def test_what_stays_is_merged_and_is_dropped_differ_on_the_page_in_light_dark_and_print(self, sight):
        css = (files("holitom.report") / "assets" / "page.css").read_text("utf-8")
        themes = re.findall(r"--stays: (#\w{6}); --merged: (#\w{6}); --dropped: (#\w{6})", css)
        assert len(themes) == 3
        for theme in themes:
            assert closest(np.array([ImageColor.getrgb(colour) for colour in theme]) / 255, sight) > 20, theme

    def test_the_simulation_sees_red_and_green_fall_together(self):
        assert closest([[0.85, 0.2, 0.1], [0.45, 0.45, 0.1]], "normal") > 25
        assert closest([[0.85, 0.2, 0.1], [0.45, 0.45, 0.1]], "protanopia") < 25

    @pytest.mark.parametrize("sight", list(SIGHT))
    def test_the_scale_rises_in_lightness_with_every_kind_of_sight_and_in_print(self, sight):
        lightness = lab(np.array([ImageColor.getrgb(colour) for colour in SCALE]) / 255, sight)[:, 0]
        assert (np.diff(lightness) > 5).all()

    def test_tokens_that_touch_differ(self):
        """Bands of two columns, each merged over all frames: neighbours in space, one colour over time."""
        target = (torch.arange(8) // 2).repeat(3, 4, 1).flatten()
        merge = Merge(target, torch.full((96,), 1 / 24), torch.arange(4) * 2)
        colour = colour_tokens(merge, 3, (4, 8))
        assert (colour >= 0).all()
        assert (np.diff(colour) != 0).all()

    def test_only_merged_tokens_have_a_colour(self):
        merge = Merge(torch.tensor([0, 0, 1, -1]), torch.tensor([0.5, 0.5, 1, 1]), torch.tensor([0, 2]))
        assert colour_tokens(merge, 1, (2, 2)).tolist() == [0, -1]


class TestPaint:
    grey = np.full((2, 40, 40, 3), 100, dtype=np.uint8)

    def painted(self, merge: Merge) -> np.ndarray:
        """One pixel from inside each patch of 2 frames of 2 x 2: (8, 3)."""
        out = paint(self.grey, merge, (2, 2), side=80)
        assert out.shape == (2, 80 + BAR, 80, 3)
        return out[:, BAR + 8 :: 40, 12::40].reshape(-1, 3)

    def test_what_stays_keeps_its_picture_and_what_is_dropped_fades(self):
        pixels = self.painted(Merge.keep(torch.tensor([0, 5]), 8))
        kept = [0, 5]
        assert (pixels[kept] == 100).all()
        assert (pixels[[n for n in range(8) if n not in kept]] > 200).all()

    def test_a_token_has_one_colour_in_all_its_frames(self):
        target = torch.tensor([0, 1, 1, 1, 0, 1, 1, 1])
        pixels = self.painted(
            Merge(target, torch.tensor([0.5] + [1 / 6] * 3 + [0.5] + [1 / 6] * 3), torch.tensor([0, 1]))
        )
        assert (pixels[0] == pixels[4]).all()
        assert (pixels[[1, 2, 3, 5, 6, 7]] == pixels[1]).all()
        assert (pixels[0] != pixels[1]).any()

    def test_tokens_are_outlined_where_they_stand(self):
        out = paint(self.grey, Merge.keep(torch.tensor([0]), 8), (2, 2), side=80)[0, BAR:]
        assert (out[1, 1:39] == 255).all()
        assert (out[0, :40] == 0).all()
        assert not (out[1, 41:] == 255).all()

    def test_the_bar_changes_with_the_segment(self):
        merge = Merge.keep(torch.arange(8), 8)
        cut = Merge(merge.target, merge.weight, merge.anchor, spans=((0, 0), (1, 1)))
        out = paint(self.grey, cut, (2, 2))
        assert (out[0, BAR // 2] != out[1, BAR // 2]).any(1).all()

    def test_a_map_of_another_video_is_refused(self):
        with pytest.raises(ValueError, match="9 sources, but 2 frames"):
            paint(self.grey, Merge.identity(9), (2, 2))

    def test_the_sheet_holds_every_frame(self):
        frames = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 6, 3), dtype=np.uint8)
        sheet = contact_sheet(frames, per_row=3, gap=2)
        assert sheet.shape == (10, 22, 3)
        assert sheet[7, 9, 0] == 4
        assert sheet[7, 17, 0] == 255


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return overlays(small(pipeline(tmp_path_factory.mktemp("pictures")), frames=6))


class TestFiles:
    def test_the_film_holds_every_frame_at_the_clips_pace(self, drawn, tmp_path):
        with av.open(str(write_mp4(drawn, tmp_path / "film.mp4"))) as film:
            frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
            assert float(film.streams.video[0].average_rate) == pytest.approx(2.0)
        assert len(frames) == 6
        for frame, original in zip(frames, drawn.frames, strict=True):
            assert np.abs(frame.astype(int) - original.astype(int)).mean() < 12

    def test_the_animation_holds_every_frame(self, drawn, tmp_path):
        with Image.open(write_gif(drawn, tmp_path / "film.gif")) as film:
            assert film.n_frames == 6
            assert film.info["duration"] == 500
            assert film.info["loop"] == 0

    def test_the_picture_holds_every_frame(self, drawn, tmp_path):
        with Image.open(write_png(drawn, tmp_path / "film.png")) as picture:
            assert (np.asarray(picture) == contact_sheet(drawn.frames)).all()


class TestNotebooks:
    @pytest.fixture
    def session(self, tmp_path):
        pipe = pipeline(tmp_path)
        clip = moving(6)
        inputs = pipe.preprocessor(QUESTION, clip)
        with HoliTom(retention=0.3)(pipe.model) as session:
            empty = session._repr_html_()
            pipe.model.generate(**inputs, max_new_tokens=1)
        assert "no video yet" in empty
        return session, clip

    def test_a_video_is_plotted_with_and_without_its_frames(self, session):
        record, clip = session[0].videos[0], session[1]
        for figure in (record.plot(), record.plot(clip.frames), record.plot(clip.frames, late=True, per_row=4)):
            assert isinstance(figure, Figure)
            assert sum(len(axes.images) for axes in figure.axes) == 6
            figure.savefig(io.BytesIO(), format="png")
        over, grey = record.plot(clip.frames), record.plot()
        assert (over.axes[0].images[0].get_array() != grey.axes[0].images[0].get_array()).any()
        assert f"{record.merge.outputs} tokens entering" in over.get_suptitle()
        assert "from layer" in record.plot(late=True).get_suptitle()
        with pytest.raises(ValueError, match="uint8"):
            record.plot(clip.frames / 255)

    def test_objects_show_their_numbers(self, session):
        session = session[0]
        record = session.videos[0]
        html = session._repr_html_()
        assert record._repr_html_() in html
        for number in (*record.tokens_by_stage, session.summary().cost.compressed.kv_cache_bytes):
            assert f"{number:,}" in html
        assert f"{record.merge.outputs}" in record.merge._repr_html_()
        for text in (html, record.merge._repr_html_()):
            assert "<script" not in text
            ElementTree.fromstring(re.sub(r"&(rarr|times);", "", text).replace("<br>", "<br/>"))

    def test_what_the_vision_tower_computed_is_painted_on_its_own_grid(self, tmp_path):
        pipe, clip = pipeline(tmp_path), moving(6)
        inside, chain = "renewal:layer=0,guard=0", "renewal:layer=0,guard=0|holitom:retention=0.3"
        found = small(pipe, inside, chain, "uncompressed", frames=6)
        alone, behind, plain = found.runs
        assert plain.tower is None
        grid = alone.record.tower.grid
        assert (overlays(found, 0).frames == paint(found.pictures, alone.tower, grid)).all()
        assert (overlays(found, 1).frames == paint(found.pictures, behind.record.merge, found.grid)).all()
        figure = behind.record.plot(clip.frames, tower=True)
        assert f"{behind.tower.outputs} computed in the vision tower" in figure.get_suptitle()
        assert len(figure.axes[0].images) == 1
        assert "of the patches computed in the vision tower" in behind.record._repr_html_()
        with Renewal(layer=0, guard=0)(pipe.model) as session:
            pipe.model.generate(**pipe.preprocessor(QUESTION, clip), max_new_tokens=1)
        assert f"{session.summary().cost.vision.total:,}" in session._repr_html_()
        behind.record.tower = None
        with pytest.raises(ValueError, match="nothing is known of what the vision tower did"):
            behind.record.plot(tower=True)

    def test_bars_add_up(self):
        merge = Merge(torch.tensor([0, 0, 1, -1]), torch.tensor([0.5, 0.5, 1, 1]), torch.tensor([0, 2]))
        assert outcomes_of(merge) == [[1, 2, 1]]
        assert outcomes_of(merge, 2) == [[0, 2, 0], [1, 0, 1]]

    def test_an_empty_map_has_a_picture_too(self):
        assert "0 &rarr; 0" in Merge.identity(0)._repr_html_()
