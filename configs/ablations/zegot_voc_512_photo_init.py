# ZegOT on Pascal VOC: contexts initialized with "a photo of a".
_base_ = "../zegot/voc_512.py"

model = dict(
    neck=dict(text=dict(num_tokens=4, init_text="a photo of a")),
)
