# OTSeg on Pascal VOC: one prompt per class.
_base_ = "../otseg/voc_512.py"

model = dict(
    neck=dict(text=dict(templates="photo")),
)
