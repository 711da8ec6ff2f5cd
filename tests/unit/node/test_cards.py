"""One instance put into words and coordinates."""

from __future__ import annotations

from dicom_node.pages.cards import card_of
from dicom_node.report import CHANGE_LIMIT, InstancePictures, Place
from tests.found import a_frame, a_report, painted, picture


def test_an_image_is_called_by_its_number_and_the_name_of_its_file() -> None:
    assert card_of(3, a_report(source="a/b/one.dcm"), show_record=False).title == "Image 7, one.dcm"
    unnumbered = a_report(source="C:\\a\\one.dcm", place=Place())
    assert card_of(3, unnumbered, show_record=False).title == "No. 3, one.dcm"
    assert card_of(3, a_report(source="orthanc:1.2.3"), show_record=False).title == "Image 7, orthanc:1.2.3"


def test_neighbouring_tiles_are_drawn_together_and_end_with_the_image() -> None:
    tiles = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 2))
    pictures = painted("pixels-altered", altered_tiles=tiles, rows=100, cols=150)
    frame = a_frame(finding="pixels-altered", altered_tiles=tiles)
    (shown,) = card_of(1, a_report("pixels-altered", frame, pictures=pictures), show_record=False).frames
    assert [(run.x, run.y, run.width, run.height) for run in shown.altered] == [
        (0, 0, 150, 64),
        (0, 64, 64, 36),
        (128, 64, 22, 36),
    ]
    assert shown.altered[0].words.startswith("Tile row 1, column 1 to 3")
    assert (shown.tiles_width, shown.tiles_height) == (192, 128)
    assert shown.altered_words == "5 tiles differ (at most; see Where)."
    assert "row 1 column 1" in shown.received_alt


def test_tiles_of_another_image_are_told_apart() -> None:
    pictures = painted("pixels-altered", foreign_tiles=((1, 1),))
    frame = a_frame(finding="pixels-altered", localisation="exact")
    report = a_report("pixels-altered", frame, pictures=pictures)
    (shown,) = card_of(1, report, show_record=False).frames
    assert shown.altered_words == "1 tile differs, 1 with a packet of another image (exact)."
    assert "another protected image" in shown.altered[0].words


def test_what_was_restored_is_called_what_it_is() -> None:
    def words(frame: object) -> str:
        return card_of(1, a_report("authentic", frame), show_record=False).frames[0].restored_words  # type: ignore[arg-type]

    assert words(a_frame()) == "The original, bit for bit."
    assert "Nearly" in words(a_frame(restoration="approximate"))
    assert "not the original" in words(a_frame(restoration="none"))


def test_the_histogram_leaves_out_what_did_not_move() -> None:
    bars = card_of(1, a_report(), show_record=False).bars
    assert bars is not None
    assert [(bar.label, bar.way) for bar in bars.bars] == [("\N{MINUS SIGN}1", "lower"), ("+1", "higher")]
    assert bars.bars[1].height > bars.bars[0].height
    assert bars.words.startswith("136 pixels of 24,136 pixels moved, most of them by +1")


def test_the_ends_of_the_histogram_stand_for_what_lies_beyond() -> None:
    far = InstancePictures(picture(), (), ((0, 5), (CHANGE_LIMIT, 2)), "")
    bars = card_of(1, a_report(pictures=far), show_record=False).bars
    assert bars is not None
    assert "by 8 or more" in bars.words
    assert len(bars.bars) == 1


def test_nothing_moved_no_histogram() -> None:
    still = InstancePictures(picture(), (), ((0, 5),), "")
    assert card_of(1, a_report(pictures=still), show_record=False).bars is None
    assert card_of(1, a_report(pictures=None), show_record=False).bars is None


def test_values_of_the_record_are_shown_only_on_request() -> None:
    record = {"PatientName": "Phantom^Test", "PatientID": "P-1"}
    frame = a_frame(finding="header-altered", altered_fields=("PatientID",))
    report = a_report("header-altered", frame, record=record)
    hidden = card_of(1, report, show_record=False)
    assert [(field.name, field.value, field.agrees) for field in hidden.fields] == [
        ("PatientName", None, True),
        ("PatientID", None, False),
    ]
    assert "Phantom" not in repr(hidden)
    shown = card_of(1, report, show_record=True)
    assert [field.value for field in shown.fields] == ["Phantom^Test", "P-1"]


def test_frames_of_a_cine_that_are_not_authentic_are_listed() -> None:
    frames = [a_frame(n, "pixels-altered" if n > 2 else "authentic") for n in range(1, 400)]
    card = card_of(1, a_report("pixels-altered", *frames), show_record=False)
    assert len(card.listed_frames) == 200
    assert card.listed_frames[0] == (3, "pixels altered", 0)
    assert "397 frames" in card.listed_words
    assert card_of(1, a_report("damaged"), show_record=False).listed_frames == ()
