# COCO-Stuff 164k with 171 classes, 15 of them unseen. The data lies where MMSegmentation's guide on
# preparing datasets puts it.
_base_ = "./photos_512.py"

data_root = "data/coco_stuff164k"
dataset_train = dict(
    type="COCOStuffDataset",
    data_root=data_root,
    data_prefix=dict(img_path="images/train2017", seg_map_path="annotations/train2017"),
)
dataset_val = dict(
    type="COCOStuffDataset",
    data_root=data_root,
    data_prefix=dict(img_path="images/val2017", seg_map_path="annotations/val2017"),
    test_mode=True,
)

train_dataloader = dict(dataset=dict(dataset=dataset_train))
val_dataloader = dict(dataset=dict(dataset=dataset_val))
test_dataloader = val_dataloader
