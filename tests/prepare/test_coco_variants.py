"""COCO's form as others publish it or leave it on their disk, and JSON that is not it."""

import pytest

from source_files import PNG, write
from t2i.errors import DataError
from test_published import listed, reasons

BOXES = {
    "images": [{"id": 1, "file_name": "1.jpg"}],
    "annotations": [{"image_id": 1, "category_id": 3, "bbox": [0, 0, 9, 9]}],
}


def captions(number, name, *texts):
    annotations = [{"id": 10 * number + n, "image_id": number, "caption": text} for n, text in enumerate(texts)]
    return {"images": [{"id": number, "file_name": name}], "annotations": annotations}


@pytest.mark.parametrize(
    ("annotations", "train", "val"),
    [
        ("annotations/captions_{}2017.json", "train2017/1.jpg", "val2017/2.jpg"),  # as COCO unpacks
        ("coco/annotations/captions_{}2017.json", "coco/train2017/1.jpg", "coco/val2017/2.jpg"),
        # each zip unpacked into a folder of its name, as Windows does
        (
            "annotations_trainval2017/annotations/captions_{}2017.json",
            "train2017/train2017/1.jpg",
            "val2017/val2017/2.jpg",
        ),
        ("annotations_trainval2017/captions_{}2017.json", "train2017/1.jpg", "val2017/2.jpg"),
        ("stair_captions_v1.2_{}.json", "train2014/1.jpg", "val2014/2.jpg"),  # STAIR, in Japanese
        ("my_annotations/captions_{}.json", "train/1.jpg", "val/2.jpg"),
        ("{}_captions.json", "images/1.jpg", "images/2.jpg"),
    ],
)
def test_captions_of_coco_are_found_with_their_images_wherever_they_were_unpacked(tmp_path, annotations, train, val):
    write(tmp_path / "x", {train: PNG, val: PNG})
    write(tmp_path / "x", {annotations.format("train"): captions(1, "1.jpg", "赤い凧", "凧")})
    write(tmp_path / "x", {annotations.format("val"): captions(2, "2.jpg", "青い凧")})
    found, report = listed("coco", tmp_path / "x")
    assert found == {train: (["赤い凧", "凧"], False), val: (["青い凧"], True)}, report.skipped
    assert (report.account.images, report.account.read, report.account.files) == (2, 2, 4)


def test_an_image_of_the_other_split_is_not_taken_for_one_that_is_missing(tmp_path):
    write(
        tmp_path, {"annotations/captions_train2017.json": captions(1, "1.jpg", "a kite"), "val2017/val2017/1.jpg": PNG}
    )
    found, report = listed("coco", tmp_path)
    assert found == {}
    assert reasons(report)[0].startswith("no such image: 1.jpg (there is val2017/val2017/1.jpg")


def test_boxes_of_objects_are_told_from_captions(tmp_path):
    write(tmp_path / "annotations", {"instances.json": BOXES, "train.json": captions(1, "1.jpg", "a kite")})
    write(tmp_path, {"train/1.jpg": PNG})
    found, report = listed("coco", tmp_path)
    assert found == {"train/1.jpg": (["a kite"], False)}
    assert reasons(report) == ["not read: it has boxes or classes of objects, and no captions"]
    with pytest.raises(DataError, match="boxes or classes of objects, and no captions"):
        listed("coco", tmp_path / "annotations" / "instances.json")


TASKS = [
    {"id": 1, "annotations": [{"id": 1, "completed_by": 1, "result": []}], "data": {"image": "/data/upload/1/1.jpg"}}
]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "project-1.json",
            TASKS,
            "not read: Label Studio's JSON; export it as JSON-MIN or CSV, which t2i-prepare csv reads",
        ),
        ("train/_annotations.coco.json", BOXES, None),  # Roboflow's boxes
        (
            "swift.jsonl",
            {"query": "what?", "response": "a kite", "images": ["1.jpg"]},
            "broken line: no column of images",
        ),
    ],
)
def test_other_json_is_not_said_to_be_cocos_captions(tmp_path, name, content, reason):
    write(tmp_path, {name: content, "images/1.jpg": PNG})
    _, report = listed("csv", tmp_path)
    found = [said for place, said in report.skipped if name in place]
    assert len(found) == (reason is not None)
    assert all(said.startswith(reason) for said in found)
    assert not any("COCO" in hint for hint in report.hints)
