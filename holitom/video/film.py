"""The frames of a film in their order and at their times, decoding only what the wanted ones need."""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from av.video.frame import PictureType
from numpy.typing import NDArray

from holitom.video.container import REPAIR, Damaged, Reader
from holitom.video.contents import Contents, scan
from holitom.video.errors import VideoError
from holitom.video.orientation import Converter, Fit

PREDICTED = (PictureType.P, PictureType.B)
# Codecs whose unreferenced pictures are safe to leave out. (In HEVC "unreferenced" holds within a temporal layer only.)
WITH_LEAVES = {"h264", "mpeg4", "mpeg1video", "mpeg2video"}
PROBED = 24  # packets at the start that are all decoded, to see whether frames come out as their times say
Frames = Generator[tuple[int, NDArray[np.uint8]], None, "str | None"]
"""(slot, (H, W, 3)) in ascending order of slots; returns what is wrong with the video, or None."""


class OutOfOrder(Exception):
    """Frames come out in another order than their times say, or decoding cannot begin in the middle of this film."""


@dataclass(eq=False)
class Film:
    """A film whose packets have been read. N frames in the order of display.

    What packets say about order and times is taken for true as long as the decoder's output agrees with it. Where it
    does not, all frames are decoded and counted in the order in which they come out.

    Attributes:
        path: the file.
        source: its name in messages.
        playlists: whether a playlist may be opened, and so what it names.
        contents: its packets.
        packets: (N,) the packet that each frame is made of.
        counted: whether the frames have been counted by decoding all of them.
        beheaded: whether frames at the start that do not come out have been taken away.
        damaged: whether something did not decode when they were counted.
        begins: (N,) float64, seconds from the first frame, ascending.
        duration: seconds from the first frame to the end of the last one.
        better: the film as :meth:`frames` found it to be, where that is not as it was taken to be.
    """

    path: Path
    source: str
    playlists: bool
    contents: Contents
    packets: NDArray[np.int64]
    counted: bool = False
    beheaded: bool = False
    damaged: bool = False
    begins: NDArray[np.float64] = field(init=False)
    duration: float = field(init=False)
    better: Film | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not len(self.packets):
            reason = "not one frame of it could be decoded" if self.counted else "the video stream holds no frames"
            advice = "The file is damaged" if self.counted else "The recording may be empty"
            raise VideoError(self.source, reason, f"{advice}. {REPAIR}")
        self.begins, self.duration = self.contents.clock(self.packets)

    @classmethod
    def scanned(cls, path: Path, source: str, playlists: bool = False) -> Film:
        """Reads a film's packets.

        Raises:
            VideoError: when it is no video, or none of its frames is displayed.
        """
        contents = scan(path, source, playlists)
        return cls(path, source, playlists, contents, contents.shown)

    @property
    def trusted(self) -> bool:
        """Whether frames may be found by what their packets say."""
        return self.contents.distinct and not self.counted

    def checked(self) -> Film:
        """The film after a look at its first frames, or at all of them where those disagree with their packets.

        Raises:
            VideoError: when not one frame of it can be decoded.
        """
        film = self
        while film.trusted:
            if film._as_promised():
                return film
            if film.better is None:
                break
            film = film.better
        nothing = np.array([], dtype=np.int64)
        for strict in (True, False):
            with suppress(Damaged), film._reader(strict) as reader:
                for _ in film._in_order(reader, nothing):
                    pass
                break
        assert film.better is not None  # a lenient reader comes to the end
        return film.better

    def frames(self, indexes: NDArray[np.int64], size: Fit, stand_in: bool) -> Frames:
        """The frames at ``indexes``, one after the other, and what is wrong with the film.

        Args:
            indexes: (T,) int64, ascending.
            size: bring the shorter side down to so many pixels; None keeps the film's.
            stand_in: for a frame that does not come out, take the next one that is displayed before the next wanted
                one. Without it slots may come again, from a better way of reading; where ``better`` is set afterwards,
                its frames are to be taken.

        Raises:
            VideoError: when not one frame of it can be decoded.
        """
        convert = Converter(size, self.source)
        last, whole, strict = -1, not self.trusted, not self.damaged
        while True:
            came = convert.corrupt = 0
            try:
                with self._reader(strict) as reader:
                    passage = self._in_order(reader, indexes) if whole else self._by_time(reader, indexes, stand_in)
                    for slot, frame in passage:
                        came += 1
                        if slot > last or not stand_in:
                            yield slot, convert(frame)
                            last = slot
                    if whole or stand_in or came == len(indexes):
                        return self._damage(reader.errors, convert.corrupt)
                whole = True
            except Damaged:
                strict = False
            except OutOfOrder:
                if self.better is not None and not stand_in:
                    return None
                whole = True

    def _reader(self, strict: bool) -> Reader:
        return Reader(self.path, self.source, playlists=self.playlists, strict=strict)

    def _as_promised(self) -> bool:
        """Whether the first frames come out as their packets say. Else ``better`` may say how they do."""
        indexes = np.arange(min(len(self.packets), PROBED))
        for strict in (True, False):
            with suppress(Damaged, OutOfOrder), self._reader(strict) as reader:
                return sum(1 for _ in self._by_time(reader, indexes, stand_in=False)) == len(indexes)
        return False

    def _in_order(self, reader: Reader, indexes: NDArray[np.int64]) -> Iterator[tuple[int, Any]]:
        """Decodes everything and counts: (slot, frame) at ``indexes``; afterwards ``better`` is the film as counted."""
        slots = {int(index): slot for slot, index in enumerate(indexes)}
        packets = array("q")
        for order, frame in enumerate(reader.frames()):
            if order in slots:
                yield slots[order], frame
            if self.counted and order == indexes[-1]:
                return
            packets.append(-1 if frame.pts is None else frame.pts)
        if reader.strict:
            self._check(range(len(self.contents.starts)), set(packets))
        if not self.counted:
            found = np.frombuffer(packets, dtype=np.int64) if packets else np.array([], dtype=np.int64)
            self.better = Film(
                self.path, self.source, self.playlists, self.contents, found, counted=True, damaged=not reader.strict
            )

    def _by_time(self, reader: Reader, indexes: NDArray[np.int64], stand_in: bool) -> Iterator[tuple[int, Any]]:
        """The frames at ``indexes`` by what their packets say: (slot, frame); decodes nothing that they do not need.

        Raises:
            Damaged: by a strict reader.
            OutOfOrder: where what comes out disagrees.
        """
        contents, count = self.contents, len(self.contents.starts)
        assert contents.times is not None
        place = np.empty(count, np.int64)  # of each packet in the order of display, hidden ones included
        place[np.argsort(contents.times, kind="stable")] = np.arange(count)
        rank = np.full(count, -1)  # of each packet among the frames
        rank[self.packets] = np.arange(len(self.packets))
        shown = place[self.packets]
        wanted = self.packets[indexes]
        chosen = set(wanted.tolist())
        starts = iter(_decoding_starts(np.flatnonzero(contents.starts), place, wanted))
        codec = reader.stream.codec_context
        leaves = contents.reordered and codec.name in WITH_LEAVES
        # Before this one, frames must come out without a gap; behind it some are left out.
        late = rank[PROBED:]
        sure = int(late[late >= 0].min(initial=count)) if leaves else count

        start = next(starts, None)
        first = 0  # packet that was decoded, of those since the last that were left out
        begun = settled = 0  # wanted frames whose decoding has begun; those of them that have come out, or will not
        skipped, whole = False, True  # whether packets were left out before this one; whether all pictures are decoded
        entry: int | None = None  # the packet at which decoding began again, until its frame comes out
        floor = last = -1  # place of that packet, before which nothing counts; rank of the last frame that came out
        tail = count - reader.delay  # from here on all pictures are decoded, to see whether all come out
        arrived = set()  # packets of the tail of which they have
        for position, packet in enumerate(chain(islice(reader.packets(), count), [None])):
            while start == position:
                begun += 1
                start = next(starts, None)
            if begun <= settled:
                if start is None:
                    return
                skipped = True
                continue
            if skipped:
                codec.flush_buffers()
                skipped, entry, first, floor = False, position, position, int(place[position])
                last = int(np.searchsorted(shown, floor)) - 1
            if leaves:
                # Pictures that no other one is made from are decoded only where they are wanted themselves.
                needed = position < PROBED or position >= tail or position in chosen
                if needed != whole:
                    codec.skip_frame, whole = ("DEFAULT" if needed else "NONREF"), needed
            for frame in reader.decode(position, packet):
                at = -1 if frame.pts is None else frame.pts
                if not 0 <= at < count:
                    raise OutOfOrder
                if place[at] < floor:
                    continue
                if at >= tail:
                    arrived.add(at)
                if reader.strict and frame.is_corrupt:
                    raise Damaged
                # With gradual refresh a "keyframe" is one of many predicted pictures that only together are whole.
                if entry is not None and (at != entry or frame.pict_type in PREDICTED):
                    raise OutOfOrder
                entry, before, last = None, last, int(rank[at])
                if last <= before:
                    raise OutOfOrder
                if before + 1 < last < sure and (reader.strict or not stand_in):
                    if before < 0 and not self.beheaded:
                        self.better = self._without(last)
                        raise OutOfOrder
                    raise Damaged if reader.strict else OutOfOrder
                passed = settled
                while passed < len(wanted) and indexes[passed] <= last:
                    passed += 1
                if passed > settled and (stand_in or indexes[passed - 1] == last):
                    yield passed - 1, frame
                settled = passed
        if reader.strict:
            self._check((packet for packet in range(max(first, tail), count) if place[packet] >= floor), arrived)

    def _check(self, packets: Iterable[int], arrived: set[int]) -> None:
        """Raises :class:`Damaged` where frames have not come out: of errors of other threads, PyAV tells only some."""
        if any(packet not in arrived and not self.contents.hidden[packet] for packet in packets):
            raise Damaged

    def _without(self, head: int) -> Film:
        """The film without its first frames, which do not come out: it begins in the middle of a group of pictures."""
        contents = self.contents.without(self.packets[:head])
        return Film(self.path, self.source, self.playlists, contents, contents.shown, beheaded=True)

    def _damage(self, errors: int, corrupt: int) -> str | None:
        """What is wrong with the film: ``errors`` packets failed, ``corrupt`` sampled frames came out broken."""
        contents = self.contents
        found = [contents.cut] if contents.cut else []
        if errors or contents.errors:
            number = max(errors, contents.errors)
            found.append(f"damaged: {number} of {len(contents.starts)} packets could not be read")
        elif corrupt:
            found.append(f"damaged: {corrupt} of the sampled frames are incomplete")
        return "; ".join(found) or None


def _decoding_starts(keys: NDArray[np.int64], place: NDArray[np.int64], positions: NDArray[np.int64]) -> list[int]:
    """For each packet in ``positions``, the packet from which the decoder must run; ascending.

    That is the last keyframe stored before it that is also displayed before it: pictures stored after a keyframe but
    displayed before it may lean on the group of pictures before.
    """
    if not len(keys):
        return [0] * len(positions)
    last = np.searchsorted(keys, positions, side="right") - 1
    while (late := (last >= 0) & (place[keys[last]] > place[positions])).any():
        last[late] -= 1
    return sorted(np.where(last >= 0, keys[last], 0).tolist())
