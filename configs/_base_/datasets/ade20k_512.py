# ADE20K with 150 classes, to test models that were trained on another dataset: no class is held
# back. The data lies where MMSegmentation's guide on preparing datasets puts it.
_base_ = "./photos_512.py"

data_root = "data/ade/ADEChallengeData2016"
dataset_val = dict(
    type="ADE20KDataset",
    data_root=data_root,
    data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
    test_mode=True,
)

train_dataloader = None
val_dataloader = dict(dataset=dict(dataset=dataset_val))
test_dataloader = val_dataloader
