# ZegOT on Pascal VOC: two levels.
_base_ = "../zegot/voc_512.py"

model = dict(
    backbone=dict(out_indices=(-3, -1)),
    neck=dict(adapters=2),
    decode_head=dict(num_levels=2),
)
