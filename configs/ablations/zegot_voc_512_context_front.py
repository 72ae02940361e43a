# ZegOT on Pascal VOC: the class name before the context.
_base_ = "../zegot/voc_512.py"

model = dict(
    neck=dict(text=dict(position="front")),
)
