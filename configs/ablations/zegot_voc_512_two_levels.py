# ZegOT on Pascal VOC: two levels.
_base_ = "../zegot/voc_512.py"

model = dict(
    backbone=dict(out_indices=(-3, -1)),
)
