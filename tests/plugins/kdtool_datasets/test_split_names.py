"""Which names mean a split."""

import pytest

from kdtool_datasets.split_names import split_of, splits_of


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", "train Train TRAIN training Training_Set train-set trainset train_images TrainData trn train2017"),
        ("val", "val valid validation Validation VAL dev val_set valid-data validationset eval val2017 images_val"),
        ("test", "test Test TEST testing test_set test-images TestSet testdata tst Testing_Images test1"),
    ],
)
def test_names_in_any_case_and_usual_spelling(split, names):
    assert {split_of(name) for name in names.split()} == {split}
    assert split_of("Train Images") == "train"


@pytest.mark.parametrize(
    "name", ["cat", "steam_train", "bullet-train", "trains", "device", "tester", "contest", "testudo", "set", "images"]
)
def test_other_names_are_no_splits(name):
    assert split_of(name) is None


def test_a_common_beginning_is_left_out():
    assert splits_of(["seg_pred", "seg_test", "seg_train"]) == {"seg_test": "test", "seg_train": "train"}
    assert splits_of(["freight train", "passenger train"]) == {}
    assert splits_of(["toy_train", "toy_car"]) == {}
    assert splits_of(["train", "test", "other"]) == {"train": "train", "test": "test"}
