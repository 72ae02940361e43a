# ZegOT on Pascal VOC: no relationship descriptor: queries are the text alone.
_base_ = "../zegot/voc_512.py"

model = dict(
    neck=dict(relationship_descriptor=False),
)
