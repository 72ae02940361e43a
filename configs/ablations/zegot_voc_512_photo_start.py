# ZegOT on Pascal VOC: contexts that start from "a photo of a".
_base_ = "../zegot/voc_512.py"

model = dict(
    neck=dict(text=dict(num_tokens=4, start="a photo of a")),
)
