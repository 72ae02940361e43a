# OTSeg on Pascal VOC, inductive: 15 seen and 5 unseen classes, 20k iterations.
_base_ = [
    "../_base_/models/otseg.py",
    "../_base_/datasets/voc_512.py",
    "../_base_/schedules/schedule_20k.py",
    "../_base_/default_runtime.py",
]

model = dict(
    split=dict(classes="voc", unseen="voc"),
    neck=dict(text=dict(templates="otseg6")),
)
