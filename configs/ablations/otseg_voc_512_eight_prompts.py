# OTSeg on Pascal VOC: eight prompts per class.
_base_ = "../otseg/voc_512.py"

model = dict(
    neck=dict(text=dict(templates="otseg8")),
)
