# Pascal Context with 59 classes, 10 of them unseen. The data lies where MMSegmentation's guide on
# preparing datasets puts it.
_base_ = "./photos_512.py"

data_root = "data/VOCdevkit/VOC2010"
crop_size = (480, 480)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]

dataset_train = dict(
    type="PascalContextDataset59",
    data_root=data_root,
    data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClassContext"),
    ann_file="ImageSets/SegmentationContext/train.txt",
)
dataset_val = dict(
    type="PascalContextDataset59",
    data_root=data_root,
    data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClassContext"),
    ann_file="ImageSets/SegmentationContext/val.txt",
    test_mode=True,
)

train_dataloader = dict(dataset=dict(dataset=dataset_train, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(dataset=dataset_val))
test_dataloader = val_dataloader
