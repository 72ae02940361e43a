# Your own data: images/{train,val} and labels/{train,val} in one folder, which `data_root` names.
# `model.split` says which classes there are, `background` which label value is none of them.
_base_ = "./photos_512.py"

train_dataloader = dict(dataset=dict(dataset=dict(type="FolderDataset", subset="train")))
val_dataloader = dict(
    dataset=dict(dataset=dict(type="FolderDataset", subset="val", test_mode=True))
)
test_dataloader = val_dataloader
