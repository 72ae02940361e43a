# ZegOT on Pascal VOC: the last level alone.
_base_ = "../zegot/voc_512.py"

model = dict(
    backbone=dict(out_indices=(-1,)),
)
