# Pascal VOC 2012 with 20 classes, 5 of them unseen. The data lies where MMSegmentation's guide on
# preparing datasets puts it; the training list is train + aug, 10,582 images.
_base_ = "./photos_512.py"

data_root = "data/VOCdevkit/VOC2012"
dataset_train = dict(
    type="PascalVOC20Dataset",
    data_root=data_root,
    data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
    ann_file="ImageSets/Segmentation/train.txt",
)
dataset_aug = dict(
    type="PascalVOC20Dataset",
    data_root=data_root,
    data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClassAug"),
    ann_file="ImageSets/Segmentation/aug.txt",
)
dataset_val = dict(
    type="PascalVOC20Dataset",
    data_root=data_root,
    data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
    ann_file="ImageSets/Segmentation/val.txt",
    test_mode=True,
)

train_dataloader = dict(
    dataset=dict(dataset=dict(type="ConcatDataset", datasets=[dataset_train, dataset_aug]))
)
val_dataloader = dict(dataset=dict(dataset=dataset_val))
test_dataloader = val_dataloader
