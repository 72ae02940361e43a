# ZegOT on Pascal VOC: contexts of its own for every class.
_base_ = "../zegot/voc_512.py"

model = dict(
    neck=dict(text=dict(num_prompts=2, per_class=True)),
)
