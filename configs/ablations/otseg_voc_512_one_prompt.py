# OTSeg on Pascal VOC: one prompt per class, six times, so that the logits keep the range that six
# prompts give them.
_base_ = "../otseg/voc_512.py"

model = dict(
    neck=dict(text=dict(templates=["a photo of a {}."] * 6)),
)
