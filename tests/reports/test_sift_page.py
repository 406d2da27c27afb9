"""The page about a sift: an answer first, small images, and nothing that a stranger could add."""

import base64
import hashlib
import io
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from guard.core.sift import Poisoning, SiftReport, SiftVerdict
from guard.reports.html import render_html
from guard.reports.sift_page import MOST_PAIRS, MOST_SUSPECTS, page
from tests.reports.samples import rejected
from tests.reports.sift_samples import (
    SET,
    TRIGGER,
    all_to_all,
    could_not_look,
    images,
    poisoned,
    rendered,
    suspect,
)
from tests.reports.test_html import HOSTILE, Page

#: What the page calls a clean image beside accused ones, and one of a trigger.
CLEAN, STAMPED = "a clean image", "with the estimated trigger"


def accused(shown: Page) -> list[dict[str, str | None]]:
    """The accused images on a page, in their order."""
    return [one for one in shown.named("img") if str(one["alt"]).startswith("image ")]


def test_the_first_screen_says_whether_how_sure_which_class_and_what_the_model_does() -> None:
    head = Page(rendered(poisoned()).split("</header>")[0]).text

    for part in (
        "poisoned Training set s3://teach/fashion/",
        "This training set holds poisoned images, and the model learnt them.",
        "156 images labelled 'Dress' look like other classes",
        "196 of 3,000; by estimate at most 8.0 % of the accused are clean",
        "Class that stands out 3 · Dress, 6 · Shirt 156 of its 300 images, dirty-label",
        "92.7 % 139 of 150; 87.3 % to 95.9 % (95 %)",
        "90.0 % 87.2 % to 92.3 % (95 %); other classes at most 11.0 %",
        "98.1 % on clean images: 96.2 %",
    ):
        assert part in head, part


def test_suspects_are_shown_by_class_and_the_most_conspicuous_first() -> None:
    shown = accused(Page(rendered(poisoned())))

    assert len(shown) == MOST_SUSPECTS
    numbers = [int(str(one["alt"]).split()[1].rstrip(",")) for one in shown]
    labels = ["labelled 3 · Dress" in str(one["alt"]) for one in shown]
    assert numbers[0] == 1000
    assert labels == sorted(labels, reverse=True)
    assert labels.count(True) == 30
    assert sum(first < second for first, second in pairwise(numbers)) == 0


def test_a_class_with_few_suspects_leaves_its_places_to_others() -> None:
    few = replace(poisoned(), suspects=poisoned().suspects[:160])

    labels = [str(one["alt"]).split("labelled ")[1][0] for one in accused(Page(rendered(few)))]

    assert (labels.count("3"), labels.count("6")) == (56, 4)


def test_suspects_stand_beside_clean_images_of_their_class() -> None:
    text = rendered(poisoned())
    group = Page(text[text.index("Accused images beside") : text.index("Labelled 6")])

    alts = [str(one["alt"]) for one in group.named("img")]
    assert alts[:6] == [CLEAN] * 6
    assert all(alt.startswith("image ") for alt in alts[6:])
    assert "136 more accused images are not shown" in group.text
    assert "156 of its 300 images are accused" in group.text


def test_the_part_kept_for_the_proof_is_marked_by_a_frame_and_a_sign() -> None:
    shown = Page(rendered(poisoned()))

    marked = [one for one in shown.named("figure") if one.get("class") == "proof"]
    proof = [one for one in accused(shown) if int(str(one["alt"]).split()[1].rstrip(",")) % 3 == 0]
    assert len(marked) == len(proof) > 10
    assert shown.text.count("◆") == len(proof) + 1  # and the explanation
    assert marked[0]["title"] == (
        "img/999.png (image 999): labelled 3 · Dress, looks like 9 · Ankle boot, estimated false "
        "discovery rate 8.0 %, p clean_distance 0.0014"
    )


def test_an_image_whose_class_is_unsure_says_so() -> None:
    report = replace(poisoned(), suspects=(suspect(5, estimated=None),))

    assert accused(Page(rendered(report)))[0]["alt"] == (
        "image 5, labelled 3 · Dress, looks like unsure"
    )


def test_every_class_has_its_bars_and_the_curve_its_floor() -> None:
    text = Page(rendered(poisoned())).text

    for part in (
        "3 · Dress 156 of 300",
        "3 · Dress 92.7 % (87.3 % to 95.9 %)",
        "6 · Shirt 95.0 %, 0 · T-shirt",
        "3 · Dress, patch 90.0 % (87.2 % to 92.3 %)",
        "at most 1.0 % 12 (floor 84)",
        "at most 10.0 % 156 (floor 8)",
    ):
        assert part in text, part
    unknown = Page(rendered(replace(poisoned(), least_p=None))).text
    assert "at most 10.0 % 156" in unknown
    assert "156 (floor" not in unknown


def test_of_many_classes_those_that_stand_out_are_kept() -> None:
    names = tuple(f"class {label}" for label in range(60))
    many = tuple(
        replace(poisoned().classes[0], label=label, name=names[label], accused=label % 7)
        for label in range(59)
    )
    last = replace(poisoned().classes[3], label=59, accused=5)
    report = replace(
        poisoned(), classes=(*many, last), training_set=replace(SET, class_names=names)
    )

    text = Page(rendered(report)).text

    assert "59 · class 59 5 of 300" in text
    assert "36 less informative classes are omitted here" in text


def test_the_estimated_trigger_is_shown_before_and_after_with_its_siblings() -> None:
    shown = Page(rendered(poisoned()))

    stamped = [one for one in shown.named("img") if one["alt"] == STAMPED]
    assert len(stamped) == MOST_PAIRS
    assert "Class 3 · Dress · patch" in shown.text
    assert "486 of 540 images of other classes" in shown.text
    assert "a class that nobody accuses: at most 11.0 %" in shown.text
    assert f"sha256:{TRIGGER}" in shown.text


def test_a_trigger_without_images_keeps_its_numbers() -> None:
    report = poisoned()
    shown = Page(page(report, {}, {}, {}))

    assert "486 of 540 images of other classes" in shown.text
    assert shown.named("img") == []
    assert "196 more accused images are not shown" in shown.text
    assert shown.text.count("None to show.") == 4


def test_a_map_of_classes_is_a_table_and_its_images_carry_both_names() -> None:
    shown = Page(rendered(all_to_all()))

    assert "Class that stands out a map of 9 classes" in shown.text
    assert "Looks like Is labelled 0 · T-shirt 1 · Trouser 1 · Trouser 2 · Pullover" in shown.text
    assert "7 · Sneaker 8 · Bag 9 · Ankle boot 0 · T-shirt" in shown.text
    assert "0.0 % of the classes are swapped in pairs" in shown.text
    assert "Under other labels 90 images are accused" in shown.text
    assert "1 · Trouser, labelled 2 · Pullover" in shown.text
    assert "Accused images by class" not in shown.text
    assert len([one for one in shown.named("img") if one["alt"] == CLEAN]) == 6


def test_a_map_of_many_classes_is_cut() -> None:
    found = all_to_all().label_map
    assert found is not None
    report = replace(all_to_all(), label_map=replace(found, mapping=tuple(range(1, 46))))

    assert "15 more classes are omitted here." in Page(rendered(report)).text


def test_remarks_about_the_data_have_a_section_of_their_own() -> None:
    text = Page(rendered(poisoned())).text

    assert "Remarks about the data" in text
    assert "40 images labelled 'Shirt' look like other classes: label errors." in text
    assert "Remarks about the data" not in Page(rendered(all_to_all())).text


def test_what_no_method_speaks_about_or_could_read_is_listed() -> None:
    text = Page(rendered(poisoned())).text
    looked, unseen = text.split("Not seen")

    assert "clean-label triggered images under their own label" in looked
    for part in (
        "who controlled the training",
        "Fewer than 15 poisoned images in a class",
        "1,998 images of the set: a sample was taken.",
        "2 images that could not be read.",
        "What fct looks for: it failed.",
    ):
        assert part in unseen, part
    only = replace(poisoned().methods[0], poisoning=("dirty-label",))
    unseen = Page(rendered(replace(poisoned(), methods=(only,)))).text.split("Not seen")[1]
    assert "all-to-all triggered images of each class" in unseen


def test_a_method_that_only_ranks_or_failed_speaks_about_nothing() -> None:
    ranks = replace(poisoned().methods[0], null=0)

    text = Page(rendered(replace(poisoned(), methods=(ranks,)))).text

    assert "Kinds of poisoning that a method speaks about None." in text
    assert "ranks only" in text


def test_methods_and_facts_of_the_set_are_complete() -> None:
    text = Page(rendered(poisoned())).text

    for part in (
        "clean_distance 1 accuses 700 1.5 7.25 31 1 min 15 s folds=3",
        "fct 2 failed It ran out of time.",
        "The whole sift took 1 min 21 s.",
        "SHA-256 of what was read " + "e" * 64,
        "SHA-256 of the whole list " + "f" * 64,
        "Images 3,000 of 5,000, a sample",
        "Skipped as broken 2",
        "Also in the clean set 3",
        "Copies of an earlier image 4",
        "Same image, another label 5",
        "Size 1×28×28",
        "Broken a.png is no image.",
        "max_fdr=0.1",
        "Seed 11",
    ):
        assert part in text, part


@pytest.mark.parametrize("verdict", list(SiftVerdict))
def test_every_verdict_has_a_page_even_with_nothing_known(verdict: SiftVerdict) -> None:
    report = replace(could_not_look(), verdict=verdict)
    shown = Page(page(report, {}, {}, {}))

    assert "The training set holds no images." in shown.text
    assert "Class that stands out none" in shown.text
    assert "No method ran." in shown.text
    assert not re.search(r"\b(is|was) (clean|safe)\b", shown.text)


def test_a_set_in_which_nothing_was_found_has_no_green() -> None:
    nothing = replace(could_not_look(), verdict=SiftVerdict.NOTHING)

    assert '<main class="dull">' in page(nothing, {}, {}, {})
    assert '<main class="bad">' in rendered(poisoned())


def test_obedience_to_clean_labels_is_called_no_proof() -> None:
    own = replace(
        poisoned().classes[3], poisoning=Poisoning.CLEAN_LABEL, sources=(), source_share=None
    )

    text = Page(rendered(replace(poisoned(), classes=(own,)))).text

    assert "proves nothing of clean-label images" in text
    assert "proves nothing of clean-label images" not in Page(rendered(poisoned())).text


def hostile() -> SiftReport:
    report, names = poisoned(), tuple(f"{HOSTILE} {index}" for index in range(10))
    return replace(
        report,
        reasons=(HOSTILE,),
        remarks=(HOSTILE,),
        training_set=replace(
            report.training_set, uri=HOSTILE, class_names=names, faults=(HOSTILE,)
        ),
        classes=tuple(replace(one, name=HOSTILE) for one in report.classes),
        suspects=tuple(replace(one, source=HOSTILE) for one in report.suspects),
        methods=tuple(replace(one, method=HOSTILE, failed=HOSTILE) for one in report.methods),
    )


def test_hostile_class_names_and_file_names_add_no_tag_and_no_attribute() -> None:
    shown = Page(rendered(hostile()))

    assert "svg onload=alert(1)" in shown.text
    assert {tag for tag, _ in shown.tags} == {tag for tag, _ in Page(rendered(poisoned())).tags}
    names = {name for _, attributes in shown.tags for name in attributes}
    assert names == {name for _, own in Page(rendered(poisoned())).tags for name in own}
    assert not shown.named("script")


def test_control_characters_of_a_name_do_not_reach_the_page() -> None:
    shown = rendered(replace(poisoned(), suspects=(suspect(1, source="a\x1b[31m\u202eb"),)))

    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "a\\x1b[31m\\u202eb" in shown


def test_the_page_fetches_nothing_and_runs_nothing() -> None:
    text = rendered(poisoned())
    shown = Page(text)
    style = text.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()

    policy = next(str(one["content"]) for one in shown.named("meta") if "http-equiv" in one)
    assert policy.startswith(f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'")
    assert not [own for _, own in shown.tags if "style" in own or "href" in own]
    assert all(str(one["src"]).startswith("data:image/png;base64,") for one in shown.named("img"))


def test_a_page_of_large_coloured_noise_stays_small() -> None:
    own = tuple(
        replace(poisoned().classes[3], label=label, accused=30, remark=None) for label in range(10)
    )
    report = replace(
        poisoned(),
        training_set=replace(SET, channels=3, height=224, width=224),
        classes=own,
        suspects=tuple(suspect(index, label=index % 10) for index in range(300)),
    )

    text = page(report, *images(report, (3, 224, 224)))

    assert len(accused(Page(text))) == MOST_SUSPECTS
    assert len(text) < 3_000_000


@pytest.mark.parametrize(("shape", "mode"), [((1, 28, 28), "L"), ((3, 32, 32), "RGB")])
def test_images_are_grey_or_coloured_as_the_set_is(shape: tuple[int, int, int], mode: str) -> None:
    report = replace(poisoned(), suspects=poisoned().suspects[:1])
    shown, clean, triggers = images(report, shape)

    uri = str(accused(Page(page(report, shown, clean, triggers)))[0]["src"])

    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert image.mode == mode
    pixels = np.moveaxis(next(iter(shown.values())), 0, -1)
    assert np.array_equal(np.asarray(image).reshape(pixels.shape), pixels)


def test_the_models_own_page_shows_the_sift_in_short() -> None:
    text = Page(render_html(replace(rejected(), sift=poisoned()))).text

    for part in (
        "The training set that it names poisoned",
        "196 of 3,000 images are accused; by estimate at most 8.0 % of those are clean.",
        "3 · Dress 156 of 300 dirty-label 92.7 % (87.3 % to 95.9 %) 13.5 %",
        "Remarks about the data",
        "s3://teach/fashion/",
        "adds no coverage",
    ):
        assert part in text, part
    assert "The training set that it names" not in Page(render_html(rejected())).text
    short = Page(render_html(replace(rejected(), sift=could_not_look()))).text
    assert "could not look" in short
    assert "0 of 0 images are accused." in short
