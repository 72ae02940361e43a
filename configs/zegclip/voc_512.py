# ZegCLIP on Pascal VOC, inductive: 15 seen and 5 unseen classes, 20k iterations.
_base_ = [
    "../_base_/models/zegclip.py",
    "../_base_/datasets/voc_512.py",
    "../_base_/schedules/schedule_20k.py",
    "../_base_/default_runtime.py",
]

model = dict(
    neck=dict(text=dict(split={{_base_.split}}, templates=["a photo of a {}"])),
    decode_head=dict(num_classes=20),
)
